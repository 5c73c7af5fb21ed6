"""Loading a language model: its settings, its weights, or random ones of its shape."""

from palign_bench.backbone.loading.identity import identify
from palign_bench.backbone.loading.settings import QUANTIZATIONS, check_settings, choose_device, why_no_nf4
from palign_bench.backbone.loading.sources import rounded_from, source_of, stored_quantization, tokenizer_of
from palign_bench.backbone.loading.weights import anatomy_of, load, parameters_of

__all__ = [
    "QUANTIZATIONS",
    "anatomy_of",
    "check_settings",
    "choose_device",
    "identify",
    "load",
    "parameters_of",
    "rounded_from",
    "source_of",
    "stored_quantization",
    "tokenizer_of",
    "why_no_nf4",
]
