"""Loading: the weights that were asked for, to the last bit."""

import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig

from palign_bench.backbone.alignment import Alignment, AnswerSheet
from palign_bench.backbone.loading.identity import identify
from palign_bench.backbone.loading.settings import ModelError
from palign_bench.backbone.loading.weights import load
from palign_bench.backbone.local import LocalBackbone
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.run.assembly import stored_notes
from tests.backbone.loading.folders import of_folder, rewritten, settings_of
from tests.protocols import CORRECTED
from tests.tiny import tiny_model, tiny_tokenizer


def test_a_folder_is_loaded_as_it_is(tiny_folder: Path) -> None:
    loaded = load(of_folder(tiny_folder))
    original = tiny_model(tiny_tokenizer()).state_dict()
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, original[name]), name
    assert loaded.model.dtype == torch.float32 and not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.tokenizer.chat_template == tiny_tokenizer().chat_template
    assert loaded.weights_hash == identify(of_folder(tiny_folder))["weights_hash"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "auto"])
def test_dtype(tiny_folder: Path, dtype: str) -> None:
    expected = {"auto": torch.bfloat16}.get(dtype) or getattr(torch, dtype)
    settings = of_folder(tiny_folder, dtype=dtype)
    assert load(settings).model.dtype == expected
    assert identify(settings)["dtype"] == str(expected).removeprefix("torch.")
    assert identify(settings)["device_kind"] == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_model_that_would_return_tuples_answers_as_before(copied: Path, inventory: Inventory) -> None:
    items = inventory.select(inventory.held_out[:3])

    def answered() -> AnswerSheet:
        return LocalBackbone(load(of_folder(copied)), CORRECTED).answer(Alignment(), items)

    before = answered()
    rewritten("config.json", '"model_type"', '"return_dict": false, "model_type"')(copied)
    assert not AutoConfig.from_pretrained(copied).return_dict and answered() == before
    shape = {**tiny_model(tiny_tokenizer()).config.to_dict(), "return_dict": False}
    random = load(settings_of("local", weights="random", name_or_path="", shape=shape)).model
    assert random.base_model(torch.arange(9)[None]).last_hidden_state.shape == (1, 9, 64)


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


@pytest.mark.parametrize(
    ("stored", "asked", "rounds"),
    [
        ("float16", "auto", True),
        ("float32", "auto", True),
        ("bfloat16", "auto", False),
        ("bfloat16", "float16", True),
        ("float16", "float32", False),
        ("float32", "float32", False),
    ],
)
def test_weights_that_are_rounded_are_said_to_be(copied: Path, stored: str, asked: str, rounds: bool) -> None:
    """Said where some of the loaded values are others than those in the files, and only there."""
    theirs = tiny_model(tiny_tokenizer()).to(getattr(torch, stored))
    theirs.save_pretrained(copied)
    settings = of_folder(copied, dtype=asked)
    told = f"model: its weights, {stored} in its files, are rounded; model.dtype={stored} keeps them."
    assert stored_notes(settings) == [told] * rounds and stored_notes(settings | {"quantization": "nf4"}) == []
    loaded, original = load(settings).model.state_dict(), theirs.state_dict()
    kept = all(torch.equal(tensor.double(), original[name].double()) for name, tensor in loaded.items())
    assert kept is not rounds
