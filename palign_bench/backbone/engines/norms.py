"""Root-mean-square norms in one kernel on a GPU, where transformers' own take eight.

The fused one rounds once, after the weight; a model's own rounds before it as well. Every norm is tried beside its own
module before it is replaced: there are variants, with an offset to the weight, without one, or of several groups.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from palign_bench.backbone.forward import replace_forward

PROBES = (1.0, 1e-3)  # sizes of the numbers that it is tried on: in small ones the norm's epsilon shows
# Two roundings to bfloat16 or float16 lie at most so far apart, as a share of the number.
APART = {torch.bfloat16: 2**-6, torch.float16: 2**-9}


def fusible_norms(model: nn.Module) -> list[nn.Module]:
    """The model's norms that lie on a GPU and are what the fused one is."""
    return [module for module in model.modules() if is_plain_norm(module) and module.weight.is_cuda]


@contextmanager
def fused_norms(norms: Sequence[nn.Module]) -> Iterator[None]:
    """Within the block these norms (of `fusible_norms`) are computed in one kernel each."""
    with ExitStack() as restored:
        for norm in norms:
            replace_forward(restored, norm, _fused(norm))
        yield


def is_plain_norm(module: nn.Module) -> bool:
    """Whether a 16-bit norm of transformers does what the fused one does, tried on a few random rows."""
    weight = getattr(module, "weight", None)
    if not type(module).__name__.endswith("RMSNorm") or isinstance(module, nn.RMSNorm):  # which is fused already
        return False
    if _epsilon(module) is None or weight is None or weight.dim() != 1 or weight.dtype not in APART:
        return False
    generator = torch.Generator(weight.device).manual_seed(0)
    numbers = torch.randn(4, len(weight), generator=generator, device=weight.device)
    with torch.no_grad():
        for rows in ((size * numbers).to(weight.dtype) for size in PROBES):
            own, found = module(rows), _fused(module)(rows)
            if own.dtype != found.dtype or not torch.allclose(own, found, rtol=APART[weight.dtype], atol=1e-6):
                return False
    return True


def _fused(module: nn.Module) -> Callable[[Tensor], Tensor]:
    epsilon, own = _epsilon(module), module.forward

    def forward(rows: Tensor) -> Tensor:
        weight: Tensor = module.weight  # type: ignore[assignment]  # of now: trained tensors may be applied
        if weight.dtype != rows.dtype:
            return own(rows)
        return functional.rms_norm(rows, weight.shape, weight, epsilon)

    return forward


def _epsilon(module: nn.Module) -> float | None:
    return getattr(module, "variance_epsilon", getattr(module, "eps", None))
