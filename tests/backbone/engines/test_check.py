"""The check at load: it passes what is exact, catches what is not, falls back or refuses, and costs little."""

import time
from typing import Any

import pytest
import torch

from palign_bench.backbone import loading
from palign_bench.backbone.engines import attention
from palign_bench.backbone.engines.check import deviations, why_not_exact
from palign_bench.backbone.engines.choice import choose_engine
from palign_bench.backbone.engines.full_prompts import FullPromptEngine
from palign_bench.backbone.engines.shared_prefix import SharedPrefixEngine
from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.backbone.loading.weights import LoadedModel
from palign_bench.settings import UserError, read_option
from tests.architectures import tiny_of
from tests.tiny import tiny_tokenizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounding_passes(tiny: LoadedModel, dtype: torch.dtype) -> None:
    model = tiny.model.to(dtype)
    for kind in (SharedPrefixEngine, FullPromptEngine):
        assert why_not_exact(kind(model, tiny.tokenizer)) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fault", ["positions", "prefix", "scale"])
def test_faults_are_caught(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch, fault: str, dtype: torch.dtype) -> None:
    engine = SharedPrefixEngine(tiny.model.to(dtype), tiny.tokenizer)
    if fault == "positions":  # the rows begin where the prefix begins
        monkeypatch.setattr(engine, "_start", lambda prefix, rows: 0)
    elif fault == "prefix":  # the rows do not see it
        monkeypatch.setattr(attention.SharedPrefix, "seen_by", _blind)
    else:  # what is done after the output matrix is skipped
        monkeypatch.setattr(engine.anatomy, "logits", lambda hidden: 0.5 * engine.model.lm_head(hidden))
    reason = why_not_exact(engine)
    assert reason is not None and reason.startswith("SharedPrefixEngine differs from a plain forward pass")


def _blind(self: Any, queries: torch.Tensor, layer: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros_like(queries), torch.full(queries.shape[:-1], -1e4)


def test_auto_falls_back_with_a_line_and_a_forced_engine_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """StableLM's layers do not pass the prefix on: were it listed by mistake, nobody would answer without it."""
    monkeypatch.setattr(attention, "SUPPORTED_MODEL_TYPES", attention.SUPPORTED_MODEL_TYPES | {"stablelm"})
    model, tokenizer = tiny_of("stablelm"), tiny_tokenizer()
    assert isinstance(choose_engine(model, tokenizer), FullPromptEngine)
    assert capsys.readouterr().err.startswith("model.engine=auto: full prompts, since SharedPrefixEngine differs")
    with pytest.raises(UserError, match="use full_prompts or auto"):
        choose_engine(model, tokenizer, "shared_prefix")


def test_a_model_that_no_engine_reads_exactly_is_refused() -> None:
    with pytest.raises(UserError, match="model_type rwkv is not read exactly: transformers continues"):
        choose_engine(tiny_of("rwkv"), tiny_tokenizer())


def test_the_check_takes_a_fraction_of_loading() -> None:
    settings = resolve_model(read_option("model", "organism"))
    started = time.process_time()
    loaded = loading.load(settings)
    seconds = time.process_time() - started
    engine = SharedPrefixEngine(loaded.model, loaded.tokenizer)
    deviations(engine, 12)  # kernels are set up
    started = time.process_time()
    assert why_not_exact(engine) is None
    assert time.process_time() - started < max(seconds, 0.5)


@pytest.mark.parametrize("name", ["auto", "full_prompts"])
def test_weights_that_are_no_numbers_are_told(tiny: LoadedModel, name: str) -> None:
    model = tiny.model
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[3, 5] = float("nan")
    with pytest.raises(UserError, match="the model's own logits are not finite numbers: its weights are damaged"):
        choose_engine(model, tiny.tokenizer, name)
