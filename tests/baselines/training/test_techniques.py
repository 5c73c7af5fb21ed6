"""Any technique of PEFT by its own dictionary: trained, saved as a folder of PEFT, read by PEFT and by us, answered."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from baselines.training.reversibility import ReversibilityCheck
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.loading.weights import LoadedModel
from palign_bench.backbone.local import LocalBackbone
from tests.baselines.training.conftest import LORA, PROMPT, Bench
from tests.protocols import CORRECTED
from tests.tiny import tiny_model, tiny_tokenizer

TECHNIQUES: dict[str, dict[str, Any]] = {
    "lora": LORA,
    "dora": LORA | {"use_dora": True},
    "rslora": LORA | {"use_rslora": True},
    "ia3": {
        "peft_type": "IA3",
        "target_modules": ["k_proj", "v_proj", "down_proj"],
        "feedforward_modules": ["down_proj"],
    },
    "vera": {"peft_type": "VERA", "r": 16, "target_modules": ["q_proj", "o_proj"]},
    "layer norms": {"peft_type": "LN_TUNING", "target_modules": ["input_layernorm", "norm"]},
    "soft prompt": PROMPT,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_technique_trains_and_leaves_as_a_folder_of_peft(
    bench: Bench, name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    bench.backbone.model.to(dtype)
    alignment = bench.aligner("lora", peft=TECHNIQUES[name], learning_rate=1e-2).align(bench.case())
    assert alignment.summary["moved_share"] > 0.3 and alignment.trained_parameters > 0
    if name == "vera":  # the frozen projections are saved and not trained
        assert alignment.adapter is not None
        assert alignment.trained_parameters < sum(each.numel() for each in alignment.adapter.values())
    alignment.save(tmp_path)
    items = bench.inventory.select(bench.inventory.held_out[:6])
    loaded = Alignment.load(tmp_path)
    ours = bench.backbone.answer(loaded, items).log_probs
    assert ours == bench.backbone.answer(alignment, items).log_probs
    assert ours != bench.backbone.answer(Alignment(), items).log_probs

    tokenizer = tiny_tokenizer()
    peft = PeftModel.from_pretrained(tiny_model(tokenizer).to(dtype), str(tmp_path)).eval()
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        theirs = peft(input_ids=ids).logits[0, -1]
        if name == "soft prompt":
            embedded = bench.backbone.model.get_input_embeddings()(ids)
            virtual = loaded.adapter["prompt_embeddings"].to(dtype)[None]  # type: ignore[index]
            found = bench.backbone.model(inputs_embeds=torch.cat([virtual, embedded], dim=1)).logits[0, -1]
        else:
            with bench.backbone.applied(loaded):
                found = bench.backbone.model(input_ids=ids).logits[0, -1]
    torch.testing.assert_close(found, theirs, atol=1e-4 if dtype == torch.float32 else 0.1, rtol=1e-2)


def test_an_earlier_adapter_s_files_do_not_stay(tmp_path: Path, bench: Bench) -> None:
    bench.aligner("lora", steps=1).align(bench.case()).save(tmp_path)
    Alignment(system_prompt="x").save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["alignment.json"]


def test_weights_that_a_training_leaves_changed_are_told(tiny: LoadedModel) -> None:
    backbone = LocalBackbone(tiny, CORRECTED)
    check = ReversibilityCheck(backbone.model, torch.arange(5, 25)[None])
    check.bare()
    with torch.no_grad():
        backbone.model.model.layers[0].mlp.down_proj.weight.mul_(1.5)
    check.trained()
    check.applied()
    with pytest.raises(RuntimeError, match="the model's own weights"):
        check.bare()
    with torch.no_grad():
        backbone.model.model.layers[0].mlp.down_proj.weight.mul_(3)
    with pytest.raises(RuntimeError, match="cannot be put on the model again"):
        check.applied()


def test_a_model_that_repeats_its_logits_only_nearly_is_compared_as_nearly(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's kernels may add up in another order each time."""
    backbone, plain, turns = LocalBackbone(tiny, CORRECTED), ReversibilityCheck._last_logits, itertools.count()
    monkeypatch.setattr(ReversibilityCheck, "_last_logits", lambda check: plain(check) + 1e-3 * (next(turns) % 3))
    check = ReversibilityCheck(backbone.model, torch.arange(5, 25)[None])
    for _ in range(3):
        check.bare()
    with torch.no_grad():
        backbone.model.model.layers[0].mlp.down_proj.weight.mul_(1.5)
    with pytest.raises(RuntimeError, match="the model's own weights"):
        check.bare()
