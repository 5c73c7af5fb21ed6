"""A second opinion on the options, combined with the model's own at the answer position."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from palign_bench.backbone.tokenizing import encode

# What may stand between "Option" and the letter; in each case the letter is one token in most tokenizers.
_CONTEXTS = (("Option (", ""), ("Option", " "), ("Option", ""), ("Option", "("), ("Option", " ("))


@dataclass(frozen=True)
class OptionScores:
    """Float32 log-probabilities of the options ``(prompts, options)``, and their weight against the model's own.

    The two are averaged in the logarithm (a logarithmic opinion pool, Genest & Zidek 1986): weight 1 leaves the choice
    among the options to ``scores``; whether an option is named at all stays the model's own doing.
    """

    scores: Tensor
    weight: float

    @property
    def options(self) -> int:
        """Number of options."""
        return self.scores.shape[1]

    def combine(self, log_probs: Tensor) -> Tensor:
        """The pool with the model's own log-probabilities ``(prompts, options)``, normalised."""
        return self._pool(log_probs, self.scores.to(log_probs))

    def on_logits(self, logits: Tensor, families: Sequence[Sequence[int]], prompts: Sequence[int]) -> Tensor:
        """Next-token ``logits`` ``(rows, vocabulary)`` with probability moved among the option tokens alone.

        ``families``: the options' tokens for each way of writing a letter. ``prompts``: each row's index in ``scores``.
        """
        logits = logits.float().clone()
        scores = self.scores[list(prompts)].to(logits)
        for family in families:
            own = logits[:, list(family)]
            logits[:, list(family)] = own.logsumexp(-1, keepdim=True) + self._pool(own.log_softmax(-1), scores)
        return logits

    def _pool(self, own: Tensor, scores: Tensor) -> Tensor:
        return ((1 - self.weight) * own + self.weight * scores).log_softmax(-1)


def option_families(tokenizer: PreTrainedTokenizerBase, letters: str) -> list[list[int]]:
    """The letters' tokens for each way in which this tokenizer writes one after ``Option``."""
    families: list[list[int]] = []
    for context, before in _CONTEXTS:
        base = encode(tokenizer, context)
        rows = [encode(tokenizer, context + before + letter) for letter in letters]
        if all(row[:-1] == base for row in rows):
            family = [row[-1] for row in rows]
            if len(set(family)) == len(family) and family not in families:
                families.append(family)
    return families
