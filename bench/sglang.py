"""The same prompts through SGLang's scoring: each after the beginning that its cache keeps, or many in one prompt.

Optional: ``pip install sglang``, in an environment of its own, for it pins PyTorch. The second way is its multi-item
scoring, which needs a GPU: each item sees the beginning and itself, at the positions of a separate prompt. Run with
SGLang 0.5.23 on a processor, whose attention there (``torch_native``) computes every position of a prompt again; packed
and on a GPU not run yet.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


class SGLang:
    """The model in a folder, served by processes of their own, which `close` ends.

    ``packed``: multi-item scoring, in prompts of fewer than ``positions`` tokens. ``share``: share of the GPU's memory
    that it may take; None: it computes on the processor.
    """

    def __init__(self, folder: str, dtype: str, positions: int, packed: bool, share: float | None):
        import sglang

        self.positions, self.packed = positions, packed
        place = {"device": "cpu", "attention_backend": "torch_native", "disable_overlap_schedule": True}
        if share is not None:
            place = {"mem_fraction_static": share}
        if packed:
            place |= {"attention_backend": "flashinfer", "enable_mis": True}
        self.engine: Any = sglang.Engine(
            model_path=folder,
            dtype=dtype,
            context_length=positions,
            enable_fp32_lm_head=True,  # logits in the model's type tie
            random_seed=0,
            skip_server_warmup=True,
            log_level="error",
            **place,
        )

    def log_probs(self, beginning: list[int], endings: Sequence[list[int]], options: list[int]) -> Tensor:
        """Log-probabilities of these tokens among themselves after each ending; shape (endings, options)."""
        parts = packs(endings, self.positions - len(beginning) - 1) if self.packed else [list(endings)]
        rows: list[list[float]] = []
        for part in parts:
            answer = self.engine.score(query=beginning, items=part, label_token_ids=options, apply_softmax=False)
            rows += answer.scores  # each the probability in the whole vocabulary
        return torch.tensor(rows, dtype=torch.float64).log().log_softmax(-1).float()

    def close(self) -> None:
        self.engine.shutdown()


def packs(endings: Sequence[list[int]], room: int) -> Iterator[list[list[int]]]:
    """The endings in their order, as many at a time as fit into ``room`` positions, each with a delimiter."""
    pack: list[list[int]] = []
    for ending in endings:
        if pack and sum(map(len, pack)) + len(pack) + len(ending) + 1 > room:
            yield pack
            pack = []
        pack.append(ending)
    yield pack
