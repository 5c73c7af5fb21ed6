"""What `bench.sglang` uses of SGLang 0.5.23, computed by transformers: one by one, or packed as its multi-item scoring.

The layout is that of ``managers/tokenizer_manager_score_mixin.py`` (``_build_multi_item_token_sequence``), positions
and what a token sees those of ``layers/attention/flashinfer_backend.py`` and FlashInfer's kernel.
"""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

DELIMITER = 3  # any token: nothing sees it


class Engine:
    """Keeps how long its prompts were, for tests."""

    def __init__(
        self,
        *,
        model_path: str,
        dtype: str,
        context_length: int,
        enable_fp32_lm_head: bool = False,
        random_seed: int | None = None,
        skip_server_warmup: bool = False,
        log_level: str = "info",
        device: str | None = None,
        attention_backend: str | None = None,
        disable_overlap_schedule: bool = False,
        mem_fraction_static: float | None = None,
        enable_mis: bool = False,
    ):
        assert not enable_mis or attention_backend == "flashinfer", "Multi-item scoring requires flashinfer"
        self.model = AutoModelForCausalLM.from_pretrained(model_path, dtype=getattr(torch, dtype)).eval()
        self.enable_mis, self.context_length = enable_mis, context_length
        self.lengths: list[int] = []

    def score(
        self, query: list[int], items: list[list[int]], label_token_ids: list[int], apply_softmax: bool = False
    ) -> SimpleNamespace:
        last = self._packed(query, items) if self.enable_mis else self._one_by_one(query, items)
        of_labels = last.float().softmax(-1)[:, label_token_ids]
        scores = of_labels / of_labels.sum(-1, keepdim=True) if apply_softmax else of_labels
        return SimpleNamespace(scores=scores.tolist())

    def shutdown(self) -> None:
        self.model = None

    def _one_by_one(self, query: list[int], items: list[list[int]]) -> Tensor:
        return torch.stack([self._logits(query + item)[-1] for item in items])

    def _packed(self, query: list[int], items: list[list[int]]) -> Tensor:
        ids, positions, owner, ends = list(query), list(range(len(query))), [0] * len(query), []
        for number, item in enumerate(items, 1):
            ids += [DELIMITER, *item]
            positions += range(len(query) - 1, len(query) + len(item))
            owner += [-1] + [number] * len(item)
            ends.append(len(ids) - 1)
        of, place = torch.tensor(owner), torch.arange(len(ids))
        seen = ((of[None] == 0) | (of[None] == of[:, None])) & (of[None] != -1) & (place[None] <= place[:, None])
        seen |= torch.eye(len(ids), dtype=torch.bool)  # a delimiter must see something
        return self._logits([*ids, DELIMITER], [*positions, len(query) - 1], seen)[ends]

    def _logits(self, ids: list[int], positions: list[int] | None = None, seen: Tensor | None = None) -> Tensor:
        assert len(ids) < self.context_length, "the input is longer than the model's context length"
        self.lengths.append(len(ids))
        more: dict[str, Any] = {}
        if seen is not None:
            mask = torch.full((len(ids), len(ids)), torch.finfo(self.model.dtype).min, dtype=self.model.dtype)
            mask[:-1, :-1][seen] = 0
            more = {"attention_mask": mask[None, None], "position_ids": torch.tensor([positions])}
        with torch.no_grad():
            logits: Tensor = self.model(torch.tensor([ids]), **more).logits[0]
        return logits


def install(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """Put it where SGLang would be; the engines that are started, as they come."""
    started: list[Engine] = []

    def start(**settings: Any) -> Engine:
        started.append(Engine(**settings))
        return started[-1]

    module = ModuleType("sglang")
    module.__spec__ = ModuleSpec("sglang", None)
    module.Engine = start  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sglang", module)
    return started
