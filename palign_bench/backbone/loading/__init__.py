"""Loading a language model: its settings, its weights, or random ones of its shape."""

from palign_bench.backbone.loading.identity import identify
from palign_bench.backbone.loading.settings import (
    DTYPES,
    ENGINES,
    QUANTIZATIONS,
    VLLM,
    WEIGHTS,
    ModelError,
    check_settings,
    choose_device,
    choose_dtype,
    package_path,
    why_no_nf4,
)
from palign_bench.backbone.loading.sources import converted_package, read_embedded, source_of, tokenizer_of
from palign_bench.backbone.loading.weights import LoadedModel, anatomy_of, load, parameters_of

__all__ = [
    "DTYPES",
    "ENGINES",
    "QUANTIZATIONS",
    "VLLM",
    "WEIGHTS",
    "LoadedModel",
    "ModelError",
    "anatomy_of",
    "check_settings",
    "choose_device",
    "choose_dtype",
    "converted_package",
    "identify",
    "load",
    "package_path",
    "parameters_of",
    "read_embedded",
    "source_of",
    "tokenizer_of",
    "why_no_nf4",
]
