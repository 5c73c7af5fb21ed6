"""That what was trained comes off the model without a trace and goes on again as it was."""

from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


class ReversibilityCheck:
    """The bare and the trained model's answer to one text, compared after every change.

    PEFT has techniques that change the model's own weights, from which everyone after the first person would start. The
    logits must be the same, as far as the bare model repeats its own: a GPU's kernels may add up in another order.
    """

    def __init__(self, model: Any, probe: torch.Tensor):
        self.model, self.probe = model, probe
        self._bare = self._logits()
        self._noise = 4 * _farthest(self._bare, self._logits())  # a maximum of one try; another may be larger
        self._trained = self._bare

    def trained(self) -> None:
        """Call while the trained weights are on."""
        self.model.eval()
        self._trained = self._logits()

    def applied(self) -> None:
        """Call while the alignment is applied. Raises RuntimeError where it answers otherwise than what was trained."""
        off = _farthest(self._logits(), self._trained)
        if off > max(1e-3 * max(1.0, float(self._trained.abs().max())), self._noise):
            raise RuntimeError(f"the trained adapter cannot be put on the model again: logits differ by {off:.3g}")

    def bare(self) -> None:
        """Call when everything is off. Raises RuntimeError where the bare model has changed."""
        if not _farthest(self._logits(), self._bare) <= self._noise:  # also where it is no number
            raise RuntimeError("this training changed the model's own weights; start the program again without it")

    @torch.no_grad()
    def _logits(self) -> torch.Tensor:
        with sdpa_kernel(SDPBackend.MATH):  # during training another kernel computes attention, and rounds otherwise
            return self._last_logits()

    def _last_logits(self) -> torch.Tensor:
        return self.model(input_ids=self.probe, use_cache=False).logits[0, -1].float().clone()


def _farthest(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max())
