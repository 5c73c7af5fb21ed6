"""Backward passes of our own against numerical ones, and float32 products against those of the whole layer."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.autograd import gradcheck

from baselines.training import layers
from baselines.training.layers import LowRankUpdate, WideProduct, dropped_numbers, lean_layers, updated_product


def doubles(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("dropped", [None, torch.tensor([0, 7, 21]), torch.arange(24) % 5 == 0])
def test_the_gradient_of_an_update_is_the_numerical_one(dropped: Tensor | None) -> None:
    torch.manual_seed(0)
    output, x, a, b = doubles(2, 3, 5), doubles(2, 3, 4), doubles(2, 2, 4), doubles(2, 5, 2)
    assert gradcheck(lambda *each: LowRankUpdate.apply(*each, 1.7, dropped), (output, x, a, b))
    kept = torch.ones(24, dtype=torch.float64)
    kept[slice(0, 0) if dropped is None else dropped] = 0
    expected = output + 1.7 * (x * kept.view(2, 3, 4)) @ a.mT @ b.mT
    torch.testing.assert_close(LowRankUpdate.apply(output, x, a, b, 1.7, dropped), expected)


def test_dropout_takes_its_share_of_any_count() -> None:
    torch.manual_seed(0)
    cpu = torch.device("cpu")
    counts = [len(dropped_numbers(10, 0.3, cpu)) for _ in range(2000)]
    assert sum(counts) / 2000 == pytest.approx(3, abs=0.15) and min(counts) == 0 and max(counts) <= 10
    firsts = [int(found[0]) for found in (dropped_numbers(4, 0.5, cpu) for _ in range(2000)) if len(found)]
    assert firsts.count(0) / 2000 == pytest.approx(0.5, abs=0.04)
    found = dropped_numbers(200_000, 0.05, cpu)
    assert len(found) == pytest.approx(10_000, rel=0.05) and bool((found.diff() > 0).all()) and found[-1] < 200_000


@pytest.mark.parametrize("trained", [False, True])
def test_products_in_float32_are_those_of_the_layer_rounded_once(
    monkeypatch: pytest.MonkeyPatch, trained: bool
) -> None:
    monkeypatch.setattr(layers, "product_dtype", lambda dtype, _: torch.float32 if dtype == torch.bfloat16 else dtype)
    torch.manual_seed(0)
    layer = nn.Linear(48, 32).bfloat16().requires_grad_(trained)
    whole = nn.Linear(48, 32)
    whole.load_state_dict({name: each.float() for name, each in layer.state_dict().items()})
    x = torch.randn(2, 100, 48).bfloat16().requires_grad_()
    exact = x.detach().float().requires_grad_()
    gradient = torch.randn(2, 100, 32).bfloat16()
    with lean_layers(nn.ModuleList([layer])):
        found = layer(x)
        found.backward(gradient)
        few = layer(x[:, :2])
    whole(exact).backward(gradient.float())
    assert torch.equal(found, whole(exact).bfloat16()) and few.dtype == torch.bfloat16
    assert exact.grad is not None and torch.equal(x.grad, exact.grad.bfloat16())  # type: ignore[arg-type]
    pairs = [(layer.weight.grad, whole.weight.grad), (layer.bias.grad, whole.bias.grad)]
    for ours, theirs in pairs if trained else []:
        torch.testing.assert_close(ours, theirs.bfloat16())  # type: ignore[union-attr]
    assert trained or layer.weight.grad is None
    assert "forward" not in vars(layer), "the layer is its own again"
    kept: list[torch.dtype] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.dtype) or t, lambda t: t):
        WideProduct.apply(x, layer.weight, layer.bias)
    assert kept == [torch.bfloat16] * 2, "no float32 copy of a weight is kept"


@pytest.mark.parametrize("dropped", [None, torch.arange(0, 2 * 100 * 48, 7)])
def test_an_update_in_float32_is_rounded_once_forward_and_backward(
    monkeypatch: pytest.MonkeyPatch, dropped: Tensor | None
) -> None:
    monkeypatch.setattr(layers, "product_dtype", lambda dtype, _: torch.float32 if dtype == torch.bfloat16 else dtype)
    torch.manual_seed(0)
    layer = nn.Linear(48, 32).bfloat16().requires_grad_(False)
    x, gradient = torch.randn(2, 100, 48).bfloat16().requires_grad_(), torch.randn(2, 100, 32).bfloat16()
    a, b = torch.randn(2, 4, 48, requires_grad=True), torch.randn(2, 32, 4, requires_grad=True)
    kept: list[tuple[torch.dtype, int]] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append((t.dtype, t.numel())) or t, lambda t: t):
        found = updated_product(layer, x, layer, a, b, 1.7, dropped)
    narrow = 2 * 100 * 4
    assert max(size for dtype, size in kept if dtype == torch.float32) == narrow, "nothing wide is kept in float32"
    found.backward(gradient)

    exact = [each.detach().double().requires_grad_() for each in (x, a, b)]
    wide, of_a, of_b = exact
    mask = torch.ones(wide.numel(), dtype=torch.float64)
    mask[slice(0, 0) if dropped is None else dropped] = 0
    update = 1.7 * (wide * mask.view(wide.shape)) @ of_a.mT @ of_b.mT
    expected = wide @ layer.weight.double().t() + layer.bias.double() + update
    expected.backward(gradient.double())
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=1e-5)  # half a step of bfloat16
    assert x.grad is not None and wide.grad is not None
    torch.testing.assert_close(x.grad.double(), wide.grad, rtol=2**-8, atol=1e-5)
    torch.testing.assert_close((a.grad, b.grad), (of_a.grad.float(), of_b.grad.float()), rtol=1e-4, atol=1e-3)  # type: ignore[union-attr]


def test_a_bias_that_is_trained_with_the_adapter_has_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "product_dtype", lambda dtype, _: torch.float32 if dtype == torch.bfloat16 else dtype)
    layer = nn.Linear(48, 32).bfloat16().requires_grad_(False)
    layer.bias.requires_grad_()
    a, b = torch.randn(1, 4, 48, requires_grad=True), torch.randn(1, 32, 4, requires_grad=True)
    updated_product(layer, torch.randn(1, 200, 48).bfloat16(), layer, a, b, 1.0, None).sum().backward()
    assert torch.equal(layer.bias.grad, torch.full((32,), 200.0).bfloat16())  # type: ignore[arg-type]


def test_four_bit_layers_multiply_in_float32_what_bitsandbytes_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    monkeypatch.setattr(layers, "product_dtype", lambda dtype, _: torch.float32 if dtype == torch.bfloat16 else dtype)
    torch.manual_seed(0)
    layer = bitsandbytes.nn.Linear4bit(64, 32, compute_dtype=torch.bfloat16, quant_type="nf4")
    layer.weight = bitsandbytes.nn.Params4bit(torch.randn(32, 64).bfloat16(), requires_grad=False, quant_type="nf4")
    layer = layer.to("cpu").bfloat16()
    read = bitsandbytes.functional.dequantize_4bit(layer.weight, layer.weight.quant_state).float()
    x = torch.randn(2, 100, 64).bfloat16().requires_grad_()
    exact = x.detach().float().requires_grad_()
    gradient = torch.randn(2, 100, 32).bfloat16()
    kept: list[tuple[torch.dtype, int]] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append((t.dtype, t.numel())) or t, lambda t: t):
        found = layers.product(layer, x, layer)
    found.backward(gradient.float())
    expected = nn.functional.linear(exact, read, layer.bias.float())
    expected.backward(gradient.float())
    assert torch.equal(found, expected)
    assert exact.grad is not None and torch.equal(x.grad, exact.grad.bfloat16())  # type: ignore[arg-type]
    assert kept == [(torch.bfloat16, x.numel()), (torch.uint8, 32 * 64 // 2)], "no copy of a weight is kept"
    few = layers.product(layer, x[:, :2], layer)
    assert torch.equal(few, layer(x[:, :2])), "few rows are bitsandbytes' own"


@pytest.mark.parametrize("four_bits", [False, True])
def test_with_its_adapter_switched_off_a_layer_multiplies_alike(
    monkeypatch: pytest.MonkeyPatch, four_bits: bool
) -> None:
    """So the reference policy is read: the bare layer's product in float32, rounded once."""
    monkeypatch.setattr(layers, "product_dtype", lambda dtype, _: torch.float32 if dtype == torch.bfloat16 else dtype)
    torch.manual_seed(0)
    bare: Any = nn.Linear(64, 32, bias=False).bfloat16().requires_grad_(False)
    weight = bare.weight.float()
    if four_bits:
        bitsandbytes = pytest.importorskip("bitsandbytes")
        bare = bitsandbytes.nn.Linear4bit(64, 32, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
        bare.weight = bitsandbytes.nn.Params4bit(weight.bfloat16(), requires_grad=False, quant_type="nf4")
        bare = bare.to("cpu")
        weight = bitsandbytes.functional.dequantize_4bit(bare.weight, bare.weight.quant_state).float()
    model: Any = get_peft_model(nn.Sequential(bare), LoraConfig(target_modules=["0"], r=4))
    model.base_model.model[0].lora_B["default"].weight.data.normal_()
    x = torch.randn(2, 100, 64).bfloat16()
    calls: list[str] = []
    product = layers.product
    monkeypatch.setattr(layers, "product", lambda *given: [calls.append(type(given[0]).__name__), product(*given)][1])
    with lean_layers(model), torch.no_grad():
        adapted = model(x)
        calls.clear()
        with model.disable_adapter():
            off = model(x)
        assert calls == [type(bare).__name__]
        assert torch.equal(model(x), adapted) and not torch.equal(adapted, off)
    assert torch.equal(off, nn.functional.linear(x.float(), weight).bfloat16())
