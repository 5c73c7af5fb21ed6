"""What the bare model holds at the last token of texts: hidden states, and whatever else is recorded on the way."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from palign_bench.backbone.engines.base import TorchEngine
from palign_bench.backbone.engines.products import fastest_products
from palign_bench.costs.clock import charge

Recorded = TypeVar("Recorded")


def hidden_states(engine: TorchEngine, texts: Sequence[str], layers: Sequence[int]) -> Tensor:
    """Hidden states at each text's last token after these layers: float32 ``(texts, layers, width)``, on CPU.

    Layers count from 1; the last one is read after the final normalisation, as the output matrix does. Texts stand
    outside any chat format, with whatever special tokens the tokenizer adds. Raises ValueError for a layer that the
    model lacks.
    """
    anatomy = engine.anatomy
    if "hidden states" in anatomy.lacking:
        raise ValueError(f"no hidden states are read: {anatomy.lacking['hidden states']}")
    depth = len(anatomy.layers)
    if any(not 1 <= layer <= depth for layer in layers):
        raise ValueError(f"layers {list(layers)}: the model has layers 1…{depth}")
    rows = [list(engine.tokenizer(text)["input_ids"]) for text in texts]
    result = torch.empty(len(rows), len(layers), anatomy.width)
    for batch, last, kept in passes(engine, rows, partial(_recorded, anatomy.layers, set(layers) - {depth})):
        found = kept | {depth: last}
        result[batch] = torch.stack([found[layer] for layer in layers], dim=1).float().cpu()
    return result


def passes(
    engine: TorchEngine, rows: Sequence[Sequence[int]], recording: Callable[[Tensor], AbstractContextManager[Recorded]]
) -> Iterator[tuple[list[int], Tensor, Recorded]]:
    """Read rows batch by batch: their indices, the last hidden states at their last tokens, and what was recorded.

    ``recording``: from each row's last position, a context that records while the decoder reads.
    """
    engine.check_length(max(map(len, rows)))
    for batch in engine.batches(rows):
        ids, lengths = engine.pad([rows[i] for i in batch])
        charge(tokens_read=int(lengths.sum()))
        # Right-padded and causal: what follows a row's last token cannot reach it, so no mask is needed.
        with torch.no_grad(), fastest_products(engine.model), recording(lengths - 1) as recorded:
            engine.anatomy.forget_lengths()
            states = engine.anatomy.decoder(input_ids=ids, use_cache=False).last_hidden_state
        yield batch, states[torch.arange(len(batch), device=ids.device), lengths - 1], recorded


@contextmanager
def _recorded(modules: Sequence[nn.Module], layers: set[int], positions: Tensor) -> Iterator[dict[int, Tensor]]:
    """Outputs of these layers at one position per row; all positions of all layers would not fit for a large model."""
    kept: dict[int, Tensor] = {}
    rows = torch.arange(len(positions), device=positions.device)

    def keeper(layer: int) -> Callable[..., None]:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            states = output[0] if isinstance(output, tuple | list) else output
            kept[layer] = states[rows, positions]

        return keep

    with ExitStack() as hooks:
        for layer in sorted(layers):
            hooks.callback(modules[layer - 1].register_forward_hook(keeper(layer)).remove)
        yield kept
