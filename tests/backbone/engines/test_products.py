"""Which arithmetic multiplies: chosen by a measurement, for large batches alone, and the same numbers either way."""

import pytest
import torch
from torch import nn

from palign_bench.backbone.engines import products
from palign_bench.backbone.engines.products import fastest_products, fewest_rows, float32_speedup, product_dtype

CPU = torch.device("cpu")


def prefer(monkeypatch: pytest.MonkeyPatch, float32_is_faster: bool) -> None:
    """As if this processor had been measured so."""
    monkeypatch.setattr(products, "float32_speedup", lambda dtype: 2.0 if float32_is_faster else 0.4)


def test_float32_is_chosen_where_it_is_clearly_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    for speedup, expected in ((0.4, torch.bfloat16), (1.2, torch.bfloat16), (2.0, torch.float32)):
        monkeypatch.setattr(products, "float32_speedup", lambda dtype, speedup=speedup: speedup)
        assert product_dtype(torch.bfloat16, CPU) == expected
        assert product_dtype(torch.float32, CPU) == torch.float32
        assert product_dtype(torch.bfloat16, torch.device("cuda", 0)) == torch.bfloat16


def test_the_processor_is_measured_once() -> None:
    first = float32_speedup(torch.bfloat16)
    assert first > 0 and float32_speedup(torch.bfloat16) == first and float32_speedup.cache_info().hits > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("speedup", "fewest"), [(1.6, 128), (7.0, 8)])
def test_large_batches_multiply_in_float32_and_round_once(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, speedup: float, fewest: int
) -> None:
    """What is large depends on how slowly the processor multiplies in 16 bits: converting weights takes its time."""
    monkeypatch.setattr(products, "float32_speedup", lambda dtype: speedup)
    assert fewest_rows(dtype) == fewest
    torch.manual_seed(0)
    layer = nn.Linear(96, 40, dtype=dtype).requires_grad_(False)
    many, few = torch.randn(3, fewest, 96).to(dtype), torch.randn(fewest - 1, 96).to(dtype)
    before = layer(few)
    with fastest_products(nn.Sequential(layer)):
        found = layer(many)
        assert torch.equal(layer(few), before)
    exact = many.double() @ layer.weight.double().T + layer.bias.double()
    assert found.dtype == dtype and found.shape == (3, fewest, 40)
    # Half a unit in the last place, and what sums in float32 lose.
    torch.testing.assert_close(found.double(), exact, rtol=0.51 * torch.finfo(dtype).eps, atol=1e-6)


def test_layers_are_as_before_on_leaving_also_after_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    prefer(monkeypatch, float32_is_faster=True)
    layer, half = nn.Linear(4, 4), nn.Linear(4, 4, dtype=torch.bfloat16)
    model = nn.Sequential(layer, half)
    with pytest.raises(KeyError), fastest_products(model):
        assert "forward" in vars(half) and "forward" not in vars(layer)
        raise KeyError
    assert "forward" not in vars(half)
    prefer(monkeypatch, float32_is_faster=False)
    with fastest_products(model):
        assert "forward" not in vars(half)
