"""Weights in 4 bits: rounded here, or stored so, and then neither trained nor rounded again."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from palign_bench.backbone import loading
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.loading.settings import ModelError
from palign_bench.backbone.loading.weights import load
from palign_bench.backbone.local import LocalBackbone
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.run.assembly import stored_notes
from palign_bench.run.checks import check_anatomy
from palign_bench.settings import UserError
from tests.backbone.loading.folders import of_folder, rewritten, settings_of
from tests.protocols import CORRECTED
from tests.rows import shipped
from tests.tiny import tiny_tokenizer


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
    rewritten("adapter_config.json", str(tiny_folder), str(stored_in_4_bits))(adapter)
    asked = {
        "model.quantization=nf4 is for": settings | {"quantization": "nf4"},
        "an adapter cannot": of_folder(adapter),
    }
    for message, each in asked.items():
        for work in (loading.anatomy_of, load):
            with pytest.raises(ModelError, match=rf"stored quantized \(bitsandbytes\), and {message}"):
                work(each)
