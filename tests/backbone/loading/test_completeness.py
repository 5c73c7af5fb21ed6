"""A folder is whole, or told in one line before anything is loaded: nothing is drawn at random or left out."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from palign_bench.backbone import loading
from palign_bench.backbone.loading.identity import identify
from palign_bench.backbone.loading.settings import ModelError
from palign_bench.backbone.loading.weights import load
from tests.backbone.loading.folders import UP, of_folder, rewritten, with_tensor
from tests.tiny import tiny_model, tiny_tokenizer


def _delete(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


def _write(name: str, content: bytes) -> Any:
    return lambda folder: (folder / name).write_bytes(content)


def _cut(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def _pickle_only(folder: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, r"model\.name_or_path="),
        (_delete("config.json"), "config.json"),
        (_delete("tokenizer.json"), r"no tokenizer there \(tokenizer\.json\); copy that of the model"),
        (_pickle_only, "no \\*.safetensors there; pickled weights are not loaded"),
        (_write("config.json", b"{"), "config.json"),
        (_write("config.json", b'{"model_type": "nonsense"}'), "nonsense"),
        (_write("tokenizer.json", b"{"), "tokenizer"),
        (
            _write("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {}, "merges": ["a b"]}}'),
            "model.name_or_path=",
        ),
        (_write("model.safetensors", b"\x00" * 100), "model.safetensors|safetensor"),
        (_cut, "model.safetensors|safetensor"),
        (with_tensor(UP, None), f"{UP} cannot be read from its files, and would be drawn at random"),
        (with_tensor("lm_head.weight", None), r"lm_head\.weight cannot be read from its files"),
        (with_tensor(UP, torch.ones(2, 2)), "a tensor has another shape than the model's"),
        (
            with_tensor(UP.replace("weight", "bias"), torch.ones(48)),
            r"model_type llama .* no place for .*proj\.bias",
        ),
        (with_tensor(UP.replace(".1.", ".2."), torch.ones(48, 32)), r"has no place for model\.layers\.2\."),
    ],
)
def test_a_spoiled_folder_is_told_in_one_line_before_it_is_loaded(copied: Path, spoil: Any, message: str) -> None:
    spoil(copied)
    settings = of_folder(copied)
    with pytest.raises(ModelError, match=message) as caught:
        identify(settings)
        loading.anatomy_of(settings)
    assert str(copied) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ModelError):
        load(settings)


@pytest.mark.parametrize("extra", ["v_head.summary.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"])
def test_a_tensor_that_changes_no_answer_may_lie_beside_the_models(tiny_folder: Path, copied: Path, extra: str) -> None:
    with_tensor(extra, torch.ones(4))(copied)
    ids = torch.arange(40)[None]
    assert torch.equal(load(of_folder(copied)).model(ids).logits, load(of_folder(tiny_folder)).model(ids).logits)


def test_an_adapter_whose_base_is_not_there_says_which(adapter: Path, tiny_folder: Path, tmp_path: Path) -> None:
    rewritten("adapter_config.json", str(tiny_folder), str(tmp_path / "base"))(adapter)
    with pytest.raises(ModelError, match=r"adapter: its base model .*base is not there; set base_model_name_or_path"):
        loading.anatomy_of(of_folder(adapter))


def test_what_transformers_does_not_read_of_an_adapter_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    """DoRA's magnitudes: it would draw others in their place."""
    config = LoraConfig(r=2, target_modules=["q_proj"], use_dora=True)
    wrapped = get_peft_model(tiny_model(tiny_tokenizer()), config)
    wrapped.peft_config["default"].base_model_name_or_path = str(tiny_folder)
    wrapped.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"lora_magnitude_vector.* merge the adapter with PEFT \(merge_and_unload\)"):
        loading.anatomy_of(of_folder(tmp_path))


@pytest.mark.parametrize(("spoil", "message"), [(None, "lora_B"), (UP, "up_proj")])
def test_an_adapter_and_its_base_are_whole_or_refused(
    adapter: Path, copied: Path, spoil: str | None, message: str
) -> None:
    """transformers' report of an adapter says nothing of a base that lacks a tensor."""
    said = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    rewritten("adapter_config.json", said, str(copied))(adapter)
    if spoil is None:
        (name,) = [
            key for key in load_file(adapter / "adapter_model.safetensors") if "0.self_attn.q_proj.lora_B" in key
        ]
        with_tensor(name, None, "adapter_model.safetensors")(adapter)
    else:
        with_tensor(spoil, None)(copied)
    for work in (loading.anatomy_of, load):
        with pytest.raises(
            ModelError, match=f"{message}.* cannot be read from its files, and would be drawn at random"
        ):
            work(of_folder(adapter))
