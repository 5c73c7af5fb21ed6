"""Small updates are kept where weights are bfloat16, and the summary tells which share of the weights moved."""

from typing import Any

import pytest
import torch

from baselines.training import aligner as aligner_module
from baselines.training.precision import moved_share, on_float32_masters
from baselines.training.supervised import SupervisedFineTuning
from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.backbone.loading.weights import load
from palign_bench.backbone.local import LocalBackbone
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.respondents import RespondentSource
from palign_bench.run.assembly import resolve_budget
from palign_bench.settings import read_option
from tests.baselines.training.conftest import METHODS, Bench
from tests.protocols import CORRECTED


def test_float32_copies_are_moved_as_float32_weights_would_be() -> None:
    """Against torch's own AdamW in float32 with the same gradients: what bfloat16 alone loses is kept."""
    generator = torch.Generator().manual_seed(0)
    start = torch.ones(400).bfloat16()
    half, whole, plain = (
        torch.nn.Parameter(start.clone().to(t)) for t in (torch.bfloat16, torch.float32, torch.bfloat16)
    )
    settings = {"lr": 1e-4, "weight_decay": 0.1}
    optimizers = [
        torch.optim.AdamW([half], **settings),
        torch.optim.AdamW([whole], **settings),
        torch.optim.AdamW([plain], **settings),
    ]
    masters = on_float32_masters(optimizers[0])
    for _ in range(60):
        gradient = torch.randn(400, generator=generator).bfloat16() + 1
        for weight, optimizer in zip((half, whole, plain), optimizers, strict=True):
            weight.grad = gradient.to(weight.dtype)
            optimizer.step()
            optimizer.zero_grad()
    assert torch.equal(masters[half], whole)
    assert torch.equal(half, whole.bfloat16()) and not torch.equal(half, start)
    assert torch.equal(plain, start), "an update of 1e-4 of a weight of 1 is rounded away"


def test_moments_in_eight_bits_move_float32_copies_too() -> None:
    """bitsandbytes' optimizer as transformers makes it."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    weight = torch.nn.Parameter(torch.ones(8192).bfloat16())
    settings = {"lr": 1e-4, "weight_decay": 0.0, "optim_bits": 8}
    optimizer = bitsandbytes.optim.AdamW([weight], **settings)
    master = on_float32_masters(optimizer)[weight]
    for _ in range(60):
        weight.grad = torch.ones(8192).bfloat16()
        optimizer.step()
        optimizer.zero_grad()
    assert float(master.mean()) == pytest.approx(1 - 60e-4, abs=3e-4)
    assert torch.equal(weight, master.bfloat16())
    assert optimizer.state[master]["state1"].dtype == torch.uint8


def test_the_moved_share_counts_numbers() -> None:
    before = [torch.zeros(4), torch.ones(2, 2).bfloat16()]
    after = [torch.tensor([0.0, 1, 0, 0]), torch.tensor([[1, 1.001], [1, 1]])]
    assert moved_share(before, after) == 2 / 8
    assert moved_share(before, before) == 0


@pytest.mark.parametrize("name", METHODS)
def test_every_trained_row_tells_the_moved_share(bench: Bench, name: str) -> None:
    share = bench.aligner(name, steps=2).align(bench.case()).summary["moved_share"]
    if name == "rloo":  # a random model never names an option: its answers are rewarded alike, and nothing is learned
        assert share == 0
    else:
        assert 0.3 < share <= 1


@pytest.fixture(scope="module")
def organisms() -> dict[str, Any]:
    return {
        dtype: load(resolve_model(read_option("model", "organism")) | {"dtype": dtype})
        for dtype in ("bfloat16", "float32")
    }


@pytest.mark.slow
def test_full_fine_tuning_of_the_organism_moves_what_float32_moves(
    organisms: dict[str, Any], inventory: Inventory, simulated: RespondentSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The paper's budget: pure bfloat16 moves a third of the weights and no layer norm; float32 moves 85 % and all."""
    settings = resolve_budget(read_option("method", "full_finetuning"), read_option("training", "paper"))
    settings = {k: v for k, v in settings.items() if k not in ("_target_", "name", "title", "block", "quantization")}
    found: dict[str, tuple[float, float, float]] = {}
    for which, dtype in (("copies", "bfloat16"), ("float32", "float32"), ("plain", "bfloat16")):
        if which == "plain":
            monkeypatch.setattr(aligner_module, "keep_small_updates", lambda t: list(t.model.parameters()))
        bench = Bench(LocalBackbone(organisms[dtype], CORRECTED), inventory, simulated)
        aligner = SupervisedFineTuning(**settings)
        aligner.prepare(bench.backbone, CORRECTED)
        alignment = aligner.align(bench.case())
        norms = [n for n in alignment.adapter if "norm" in n]
        bare = dict(bench.backbone.model.named_parameters())
        norm_share = moved_share([bare[n] for n in norms], [alignment.adapter[n] for n in norms])
        found[which] = alignment.summary["moved_share"], norm_share, alignment.summary["last_loss"]
    assert found["copies"][0] == pytest.approx(found["float32"][0], abs=0.02)
    assert found["copies"][0] > 0.8 and found["plain"][0] < 0.5
    # Of the norms as stored, in bfloat16 again: those that moved by more than half a unit in the last place.
    assert found["plain"][1] == 0 and found["float32"][1] == 1 and found["copies"][1] > 0.1
    assert found["copies"][2] == pytest.approx(found["float32"][2], abs=0.05) and found["plain"][2] > 1
