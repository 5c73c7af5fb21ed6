"""What the layers are to hold, written in fixed directions of the hidden state: the lessons of the lower stages.

Nothing about people is learnt for hundreds of steps from answers alone. So three things that an answer needs are asked
of the layers below, in directions drawn once and orthogonal to one another: of which facet the statement just read is,
what an answer just read says, and, from both, what is to be expected of this person.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from palign_bench.organism.taught.lessons import Lessons
from palign_bench.organism.taught.people import FACTORS, AnswerFigures, Array, Rows

_ITEM, _ANSWER, _PERSON = 2 * FACTORS + 1, 3 * FACTORS + 2, 12  # directions
_OPTION_DIRECTIONS = 5  # of the person's: they are read as the options' logits
_SHARPNESS = 25.0  # of choosing a statement's facet and sign
_SPREAD = 0.5  # of expected standardised answers over people
_LOOKED_AT, _SINK = 0.12, 0.25  # correlation from which a head looks at an answer, and its weight on the first token


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of what a layer reads, ``(hidden,)`` each."""

    mean: Tensor
    deviation: Tensor


class Targets:
    """``scale``: of the layer where statements are to be known; directions are in its units."""

    def __init__(self, lessons: Lessons, figures: AnswerFigures, scale: Scale, seed: int = 3):
        generator = torch.Generator().manual_seed(seed)
        width = len(scale.mean)
        directions, _ = torch.linalg.qr(torch.randn(width, _ITEM + _ANSWER + _PERSON, generator=generator))
        self.of_item, self.of_answer, self.of_person = directions.t().split([_ITEM, _ANSWER, _PERSON])
        self.figures, self.scale = figures, scale
        signs = lessons.signs[:, None]
        self._signs = lessons.signs
        population = ((figures.mean - 3) / 0.8)[:, None]
        self._items = np.concatenate([figures.vectors, figures.vectors * signs, population], axis=1)
        kinds, self._kind = np.unique(lessons.subscales * 2 + (lessons.signs > 0), return_inverse=True)
        means = [self._items[self._kind == kind].mean(axis=0) for kind in range(len(kinds))]
        self._prototypes = torch.tensor(np.stack(means)).float()

    def read(self, hidden: Tensor, directions: Tensor) -> Tensor:
        """``(places, directions)``, of what a layer reads at some places."""
        return ((hidden - self.scale.mean) / self.scale.deviation) @ directions.t()

    def item_loss(self, read: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """Telling a statement's facet and sign from the others' (nats; learnt first), and its vector's mean square."""
        logits = read @ self._prototypes.t() * (_SHARPNESS / _ITEM)
        chosen = functional.cross_entropy(logits, torch.from_numpy(self._kind[rows]))
        return chosen, (read - torch.tensor(self._items[rows]).float()).square().mean()

    def answer_loss(self, read: Tensor, rows: Rows, answers: Rows) -> tuple[Tensor, Tensor]:
        """The same for the statement that was answered, kept beside its answer, and the mean square of all of it."""
        value, vectors = self.figures.standardised(rows, answers)[:, None], self.figures.vectors[rows]
        literal = ((answers - 3) / 1.3)[:, None]
        parts = [value, literal, vectors, vectors * self._signs[rows][:, None], vectors * value]
        wanted = torch.tensor(np.concatenate(parts, axis=1)).float()
        chosen, _ = self.item_loss(read[:, 2 : 2 + _ITEM], rows)
        return chosen, (read - wanted).square().mean()

    def person_loss(self, read: Tensor, rows: Rows, expected: Array) -> Tensor:
        """Mean square of what is expected of the person, against the best linear prediction from the answers told."""
        as_asked = expected / _SPREAD
        wanted = np.stack([as_asked] * 6 + [as_asked * self._signs[rows]], axis=1)
        return (read[:, _OPTION_DIRECTIONS:] - torch.tensor(wanted).float()).square().mean()

    @staticmethod
    def option_logits(read: Tensor) -> Tensor:
        """``(places, 5)``: the options' logits that stand in the person's directions."""
        return 2 * read[:, :_OPTION_DIRECTIONS]

    def attention(self, told: Rows, ends: list[int], asked: Rows, length: int) -> tuple[Tensor, Tensor]:
        """Where a head should look from each told and asked statement: at answers that go with it, and against it.

        ``(told + asked, length)`` twice, each row summing to 1: on the first token where nothing told helps.
        """
        rows = np.concatenate([told, asked])
        correlations = self.figures.together[np.ix_(rows, told)]
        before = np.arange(len(told)) < np.minimum(np.arange(len(rows)), len(told))[:, None]
        looks = []
        for sign in (1, -1):
            weights = (sign * correlations - _LOOKED_AT).clip(0) * before
            look = np.zeros((len(rows), length))
            look[:, 0], look[:, ends] = _SINK, weights
            looks.append(torch.tensor(look / look.sum(axis=1, keepdims=True)).float())
        return looks[0], looks[1]
