"""Random weights: the model's own distributions, the same in 4 bits, and never much more memory than what is kept."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from palign_bench.backbone import loading
from palign_bench.backbone.loading import weights
from palign_bench.backbone.loading.identity import identify
from palign_bench.backbone.loading.random_weights import is_4bit, make_random
from palign_bench.backbone.loading.settings import model_title, resolve_model
from palign_bench.backbone.loading.weights import load
from palign_bench.settings import read_option
from tests.backbone.loading.folders import settings_of

SHAPE = {
    "model_type": "llama",
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CPU = torch.device("cpu")


def config_of(**changes: Any) -> PretrainedConfig:
    return AutoConfig.for_model(**SHAPE | changes)


def tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters, what quantization keeps beside them, and the buffers that no file holds."""
    return dict(model.state_dict()) | dict(model.named_buffers())


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("model_type", ["llama", "qwen3", "mistral"])
def test_distributions_and_buffers_are_those_of_the_models_own_initialisation(model_type: str, tied: bool) -> None:
    config = config_of(model_type=model_type, tie_word_embeddings=tied)
    torch.manual_seed(5)
    theirs = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    ours = make_random(config, CPU, torch.float32, None)
    assert [(n, p.shape, p.dtype) for n, p in ours.named_parameters()] == [
        (n, p.shape, p.dtype) for n, p in theirs.named_parameters()
    ]
    for name, tensor in tensors(theirs).items():
        own = tensors(ours)[name]
        if "norm" in name or "freq" in name:
            assert torch.equal(own, tensor), name
        else:
            assert not torch.equal(own, tensor) and abs(float(own.mean())) < 0.005, name
            assert float(own.std()) == pytest.approx(float(tensor.std()), rel=0.05), name
    shared = ours.get_output_embeddings().weight is ours.get_input_embeddings().weight
    assert shared == tied


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
def test_in_four_bits_they_are_what_transformers_makes_of_the_same_values(
    tmp_path: Path, tied: bool, dtype: torch.dtype
) -> None:
    config = config_of(tie_word_embeddings=tied)
    make_random(config, CPU, dtype, None).save_pretrained(tmp_path)
    quantization: Any = weights._nf4(dtype)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=dtype, quantization_config=quantization, device_map={"": CPU}
    )
    ours = make_random(config, CPU, dtype, quantization)
    assert tensors(ours).keys() == tensors(theirs).keys()
    for name, tensor in tensors(theirs).items():
        assert torch.equal(tensors(ours)[name], tensor) and tensors(ours)[name].dtype == tensor.dtype, name
    for name in ("is_quantized", "is_loaded_in_4bit", "quantization_method"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.config.quantization_config == theirs.config.quantization_config
    assert ours.hf_quantizer.is_trainable
    ids = torch.arange(12)[None]
    with torch.no_grad():
        for module in (*ours.modules(), *theirs.modules()):
            if is_4bit(module):
                module.support_avx512bf16_for_cpu = False
        rows = [model.eval()(ids).logits for model in (ours, theirs)]
    assert torch.equal(*rows)


def test_the_recipe_leaves_nothing_empty() -> None:
    settings = resolve_model(read_option("model", "llama3_8b") | {"weights": "random", "shape": SHAPE})
    loaded = load(settings | {"quantization": "nf4"})
    assert loaded.quantization == "nf4" and loaded.model.is_quantized
    assert {tensor.device.type for tensor in tensors(loaded.model).values()} == {loaded.model.device.type}


def test_memory_holds_the_quantized_model_and_one_matrix_more() -> None:
    """37 million parameters: 73 MB as drawn, 20 MB quantized, half a MB a matrix (and 5 MB to quantize it on a CPU)."""
    shape = SHAPE | {"hidden_size": 512, "intermediate_size": 512, "num_key_value_heads": 4}
    code = f"""
        import torch
        from transformers import AutoConfig
        from palign_bench.backbone.loading.weights import _nf4
        from palign_bench.backbone.loading.random_weights import make_random
        from palign_bench.costs.clock import measure
        from palign_bench.costs.memory import bare_memory

        def made(layers):
            config = AutoConfig.for_model(**{shape!r} | {{"num_hidden_layers": layers}})
            return make_random(config, torch.device("cpu"), torch.bfloat16, _nf4(torch.bfloat16))

        made(1)  # libraries and their buffers
        before = bare_memory()
        with measure() as cost:
            model = made(20)
        kept = bare_memory().mib - before.mib
        peak = cost.above(before).peak_memory_mib
        assert 15 < kept < 30, kept
        assert peak < kept + 15, peak
    """
    # Freed blocks go back to the system at once, so that the resident set is what is held.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    program = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


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
