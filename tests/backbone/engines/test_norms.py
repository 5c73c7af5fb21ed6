"""Norms in one kernel: only those that are plain, and what they give is what the model's own give."""

from typing import Any

import pytest
import torch
from torch import nn

from palign_bench.backbone.engines.norms import fused_norms, fusible_norms, is_plain_norm
from tests.architectures import tiny_of

ON_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def norms_of(name: str, dtype: torch.dtype) -> list[nn.Module]:
    """The model's norms, with weights that are not all one."""
    found = [module for module in tiny_of(name).to(dtype).modules() if "Norm" in type(module).__name__]
    generator = torch.Generator().manual_seed(0)
    for each in found:
        each.weight.data = (1 + 0.3 * torch.randn(each.weight.shape, generator=generator)).to(dtype)  # type: ignore
    return found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "plain"), [("llama", True), ("qwen3", True), ("gemma", False), ("gpt2", False)])
def test_only_plain_norms_are_replaced(name: str, plain: bool, dtype: torch.dtype) -> None:
    """Gemma's weight counts from one; GPT-2's norms subtract a mean, and are one kernel already."""
    assert {is_plain_norm(module) for module in norms_of(name, dtype)} == {plain}


def test_a_norm_with_another_epsilon_or_dtype_is_left_alone() -> None:
    (norm, *_) = norms_of("llama", torch.bfloat16)
    own = norm.forward
    norm.forward = lambda rows: nn.functional.rms_norm(rows, rows.shape[-1:], norm.weight, 1e-7)  # type: ignore
    assert not is_plain_norm(norm)
    norm.forward = own
    assert is_plain_norm(norm) and not is_plain_norm(norm.float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_replaced_norm_reads_the_weight_that_is_there(dtype: torch.dtype) -> None:
    """Also one that is applied after the model was loaded; in another dtype the norm's own way is taken."""
    norm: Any = norms_of("llama", dtype)[0]
    rows = torch.randn(3, 5, len(norm.weight), generator=torch.Generator().manual_seed(1)).to(dtype)
    with fused_norms([norm]):
        for weight in (norm.weight.data, -2 * norm.weight.data, norm.weight.data.float()):
            norm.weight = nn.Parameter(weight, requires_grad=False)
            found, own = norm(rows), type(norm).forward(norm, rows)
            assert found.dtype == own.dtype
            torch.testing.assert_close(found, own, rtol=2**-6, atol=1e-6)
    assert "forward" not in vars(norm)


def test_nothing_is_replaced_on_a_processor() -> None:
    assert fusible_norms(tiny_of("llama").to(torch.bfloat16)) == []


@ON_CUDA
def test_norms_on_a_gpu_are_replaced() -> None:
    assert len(fusible_norms(tiny_of("llama").to("cuda", torch.bfloat16))) == 5
