"""The arithmetic in which this processor multiplies 16-bit matrices fastest.

Products of two bfloat16 or float16 numbers are exact in float32, and are summed in float32 either way: multiplying in
float32 and rounding the result changes no more than the order of the sums. Which is faster depends on the processor.
Where 16-bit products have units of their own, they are several times as fast as float32. Elsewhere, also where they are
emulated or run on a slow instruction, float32 is (measured: up to twice as fast on a Xeon whose AMX is switched off).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from palign_bench.backbone.forward import replace_forward

# Float32 must be so many times as fast, by the smallest of several processor times taken in turn. It is slower where
# 16-bit products are fast; on a busy Xeon without AMX it was 1.55 to 1.74 times as fast in thirteen tries. So the
# choice does not change from one run to the next.
CLEARLY_FASTER = 1.2
PROBE = (256, 576, 768)  # rows, inputs and outputs of the timed product
REPEATS = 5
MUCH_FASTER = 4.0  # measured: 6 to 8 times on a processor without AVX-512, such as many a laptop's


def product_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype in which matrices of ``dtype`` are multiplied on this device: ``dtype`` itself, or float32."""
    if device.type != "cpu" or dtype not in (torch.bfloat16, torch.float16):
        return dtype
    return torch.float32 if float32_speedup(dtype) > CLEARLY_FASTER else dtype


@lru_cache
def float32_speedup(dtype: torch.dtype) -> float:
    """Processor time of a layer's product in ``dtype`` over that in float32, measured once in a process."""
    rows, inputs, outputs = PROBE
    operands = [
        (torch.ones(rows, inputs, dtype=d), torch.ones(outputs, inputs, dtype=d)) for d in (dtype, torch.float32)
    ]
    times: list[list[float]] = [[], []]
    with torch.no_grad():
        for _ in range(REPEATS):
            for taken, pair in zip(times, operands, strict=True):
                started = time.process_time()
                functional.linear(*pair)
                taken.append(time.process_time() - started)
    return min(times[0]) / min(times[1])


def fewest_rows(dtype: torch.dtype) -> int:
    """Below so many rows, converting a layer's weights to float32 takes longer than what it saves on the processor."""
    return 8 if float32_speedup(dtype) > MUCH_FASTER else 128


@contextmanager
def fastest_products(model: nn.Module) -> Iterator[None]:
    """Within the block the model's linear layers multiply in `product_dtype`; the weights stay as they are."""
    layers = [
        m
        for m in model.modules()
        if type(m) is nn.Linear and product_dtype(m.weight.dtype, m.weight.device) != m.weight.dtype
    ]
    with ExitStack() as restored:
        for layer in layers:
            replace_forward(restored, layer, _in_float32(layer))
        yield


def _in_float32(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    def forward(inputs: Tensor) -> Tensor:
        if inputs.numel() < fewest_rows(inputs.dtype) * layer.in_features:
            return functional.linear(inputs, layer.weight, layer.bias)
        bias = None if layer.bias is None else layer.bias.float()
        return functional.linear(inputs.float(), layer.weight.float(), bias).to(inputs.dtype)

    return forward
