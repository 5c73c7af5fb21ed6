"""The memory of training, by hand and against what PyTorch keeps."""

import pytest
import torch
from peft import LoraConfig

from baselines.training.memory import (
    GIB,
    NotMeasurableError,
    TrainingShape,
    bytes_kept_per_token,
    forecast,
    refusal,
    refused_by_gpu,
    shape_of_training,
)
from baselines.training.settings import ADAMW_8BIT, PAGED_ADAMW_8BIT
from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.backbone.loading.sources import config_of
from palign_bench.backbone.loading.weights import parameters_of
from palign_bench.backbone.local import LocalBackbone
from palign_bench.run.assembly import resolve_budget
from palign_bench.run.methods import make_aligners
from palign_bench.settings import UserError, read_option
from tests.tiny import tiny_model, tiny_tokenizer

EIGHT = resolve_model(read_option("model", "llama3_8b") | {"weights": "random"})
LORA = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")


def eight_billion(adapter: LoraConfig | None, tokens: int = 100) -> TrainingShape:
    return shape_of_training(config_of(EIGHT), torch.bfloat16, 2.0 * parameters_of(EIGHT), adapter, tokens)


def test_what_is_trained_has_the_published_size() -> None:
    assert eight_billion(None).trained == parameters_of(EIGHT) == 8_030_261_248
    assert eight_billion(LORA).trained == 41_943_040  # rank 16 on the seven linear layers of each of 32


def test_the_peak_of_a_small_case_is_that_computed_by_hand() -> None:
    shape = TrainingShape(1000.0, 100, 2, tokens=10, bytes_per_token=40, layers=4, layer_bytes_per_token=2)
    kept = forecast(shape)  # bfloat16: 100 copies, gradients of 2 bytes and 12 of float32 copy and moments
    assert (kept.weights, kept.gradients, kept.optimizer, kept.activations) == (1200, 200, 1200, 400)
    spared = forecast(shape, checkpointing=True)  # 4 × 2 + 40 / 4 bytes per token: the step's float32 gradients decide
    assert (spared.weights, spared.gradients, spared.optimizer, spared.activations) == (1200, 400, 1200, 0)
    assert forecast(shape, optimizer=ADAMW_8BIT, float32_copies=False).total == 1000 + 200 + 200 + 200 + 400
    assert forecast(shape, optimizer=PAGED_ADAMW_8BIT, float32_copies=False).optimizer == 0
    adapter = TrainingShape(1000.0, 100, 4, tokens=10, bytes_per_token=40, layers=4, layer_bytes_per_token=2)
    assert forecast(adapter).total == 1000 + 400 + 400 + 800 + 400


def test_full_fine_tuning_of_8b_is_refused_on_80_gb_and_lora_is_not() -> None:
    whole, lora = eight_billion(None), eight_billion(LORA)
    needed = forecast(whole).total
    assert needed == pytest.approx(20 * 8_030_261_248, rel=0.02)  # 2 bare + 2 copy + 4 float32 + 8 moments + 4 gradient
    line = refusal(whole, 80e9, False, {"method=lora": lora})
    assert line is not None and "\n" not in line
    assert f"takes about {needed / GIB:.1f} GiB (weights 29.9, gradients 29.9, optimizer 89.7, activations 0.0)" in line
    assert "the GPU has 74.5 GiB. What would fit: method=lora: 1" in line
    assert "adamw_8bit without float32 copies 59.9" in line  # 2 + 2 + 2 + 2 bytes a weight, and activations
    assert refusal(lora, 80e9, False, {}) is None and refusal(whole, 200e9, False, {}) is None
    long = eight_billion(LORA, tokens=12_000)
    told = refusal(long, 80e9, False, {})
    assert told is not None and "What would fit: method.gradient_checkpointing=true: " in told


def test_activations_are_measured_and_not_guessed() -> None:
    """On ``meta`` the same bytes are kept as by the same model with numbers, and twice as many tokens keep twice."""
    real = tiny_model(tiny_tokenizer())
    with torch.device("meta"):
        shadow = type(real)(real.config)
    # The attention's kernels differ between the devices, and so does what they keep.
    for model in (real, shadow):
        model.set_attn_implementation("eager")
    assert bytes_kept_per_token(shadow) == bytes_kept_per_token(real) > 0
    assert not real.training
    per_token = eight_billion(None).bytes_per_token
    assert 4 * 2**20 < per_token < 16 * 2**20  # 32 layers of about sixty numbers of 4096 each, two bytes a number


def test_a_gpu_without_room_refuses_before_training(
    monkeypatch: pytest.MonkeyPatch, tiny_backbone: LocalBackbone
) -> None:
    """The model says that it is on a GPU with 100 KiB to spare: full fine-tuning is refused."""
    real = tiny_backbone.model

    class OnGPU:
        device, dtype, config, parameters = torch.device("cuda", 0), real.dtype, real.config, real.parameters

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (100 * 2**10, 0))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 0)
    told = refused_by_gpu(OnGPU(), None, 90, False)
    assert told is not None and "training one example at a time takes about 0.0 GiB" in told
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (80 * GIB, 0))
    assert refused_by_gpu(OnGPU(), None, 90, False) is None
    assert refused_by_gpu(real, None, 90, False) is None  # a CPU asks the computer for memory
    (aligner,) = make_aligners(resolve_budget(read_option("method", "full_finetuning"), {"name": "quick"})).values()
    monkeypatch.setattr("baselines.training.aligner.refused_by_gpu", lambda *_: "no room")
    with pytest.raises(UserError, match="SupervisedFineTuning: no room"):
        aligner.prepare(tiny_backbone, tiny_backbone.protocol)


def test_moments_in_eight_bits_are_counted_and_offered() -> None:
    shape = TrainingShape(2e9, int(1e9), 2, tokens=10, bytes_per_token=40, layers=4, layer_bytes_per_token=2)
    plain, paged = forecast(shape), forecast(shape, optimizer=PAGED_ADAMW_8BIT)
    assert plain.optimizer - paged.optimizer == 8e9
    told = refusal(shape, paged.total + 1, False, {})
    assert told is not None and f"What would fit: method.optim=paged_adamw_8bit: {paged.total / GIB:.1f} GiB. " in told
    assert refusal(shape, paged.total + 1, False, {}, PAGED_ADAMW_8BIT) is None


def test_an_architecture_that_looks_at_its_numbers_is_told_and_not_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = tiny_model(tiny_tokenizer())

    class OnGPU:
        device, dtype, config, parameters = torch.device("cuda", 0), real.dtype, real.config, real.parameters

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, 0))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 0)
    decoder = type(real.model)
    monkeypatch.setattr(decoder, "forward", lambda self, input_ids, **_: bool(input_ids.any()))
    assert refused_by_gpu(OnGPU(), None, 90, False) is None
    assert (
        "no forecast of this training's memory: model_type llama cannot run without numbers" in capsys.readouterr().err
    )
    with torch.device("meta"):
        shadow = type(real)(real.config)
    with pytest.raises(NotMeasurableError, match="model_type llama"):
        bytes_kept_per_token(shadow)
    monkeypatch.setattr(decoder, "forward", lambda self, **_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):  # a fault is no peculiarity of the architecture
        bytes_kept_per_token(shadow)


def test_moments_in_eight_bits_are_refused_on_a_cpu(tiny_backbone: LocalBackbone) -> None:
    settings = resolve_budget(read_option("method", "lora") | {"optim": PAGED_ADAMW_8BIT}, {"name": "quick"})
    (aligner,) = make_aligners(settings).values()
    with pytest.raises(UserError, match=r"method.optim=paged_adamw_8bit: it needs a CUDA GPU and bitsandbytes; use"):
        aligner.prepare(tiny_backbone, tiny_backbone.protocol)
