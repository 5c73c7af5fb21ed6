"""The reference policy of DPO, PPO and RLOO: the model without an adapter, by which no text is read twice."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from baselines.training.attention import attention_for_trees
from baselines.training.layers import lean_layers
from baselines.training.tree import Passage, read
from palign_bench.backbone.anatomy import Anatomy


class Reference:
    """Log-probabilities of answers' tokens under the bare model, float32; ``at_once``: texts in one pass."""

    def __init__(self, model: PreTrainedModel, at_once: int, temperature: float = 1.0):
        self.anatomy, self.at_once, self.temperature = Anatomy(model), at_once, temperature
        self._known: dict[tuple[int, ...], Tensor] = {}

    @torch.no_grad()
    def log_probs(self, passages: Sequence[Passage]) -> list[Tensor]:
        """Of each passage's answer ``(tokens,)``; the model is bare when this is called."""
        keys = [(*passage.ids, passage.start) for passage in passages]
        new = list({key: each for key, each in zip(keys, passages, strict=True) if key not in self._known}.items())
        model = self.anatomy.model
        with attention_for_trees(model), lean_layers(model):
            for start in range(0, len(new), self.at_once):
                part = new[start : start + self.at_once]
                found = read(self.anatomy, [[each for _, each in part]]).log_probs(self.temperature)
                lengths = [len(each.ids) - each.start for _, each in part]
                self._known |= zip([key for key, _ in part], found.split(lengths), strict=True)
        return [self._known[key] for key in keys]
