"""Floors: predictors that read no statement and load no language model; the rows that a method must beat.

Own-answers floors use the person's known answers alone, other-people floors everyone else of the source; ``truth`` is a
check, no floor. Means, medians and regressions are formed in the keyed direction, rounded half up there, and only then
turned into the protocol's orientation.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from palign_bench.aligner import Aligner, Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.base import Backbone
from palign_bench.questionnaire.inventory import LETTERS, Inventory
from palign_bench.questionnaire.protocol import EvaluationProtocol
from palign_bench.questionnaire.scoring import as_matrix, mean_present

Array = NDArray[np.float64]

# 9.4 … 9600, ridge's candidates for some hundreds of people; `respondents/population.py` has a wider grid of its own.
PENALTIES = tuple(300.0 * 2.0 ** (step / 2) for step in range(-10, 11))


class Floor(Aligner):
    """What all floors share: no backbone, and predictions made in the keyed direction."""

    needs_backbone = False
    block = "own_answers_floors"

    def answers(self, keyed: Mapping[int, float]) -> dict[int, float]:
        """Keyed predictions, rounded half up, as the protocol takes an answer."""
        return {n: self.protocol.keyed(n, int(self.inventory.nearest(value))) for n, value in keyed.items()}


class Constant(Floor):
    """The option with this letter for every item."""

    def __init__(self, letter: str):
        self.letter = letter

    def exists_for(self, inventory: Inventory) -> bool:
        return self.letter in inventory.letters

    def align(self, case: Case) -> Alignment:
        value = self.inventory.highest - self.inventory.letters.index(self.letter)
        return Alignment(answers=dict.fromkeys(self.inventory.held_out, value))


class UniformlyRandom(Floor):
    """Each of the options with equal probability, drawn from the case's seed."""

    def align(self, case: Case) -> Alignment:
        generator = random.Random(f"uniformly-random-{case.seed}")
        return Alignment(answers={n: generator.randint(1, self.inventory.highest) for n in self.inventory.held_out})


class OwnMean(Floor):
    """The mean of the person's own known answers of the item's scale or subscale (IPIP-NEO: domain or facet).

    A subscale without a known answer falls back to its scale, a scale to the mean of all known answers.
    """

    def __init__(self, by_subscale: bool):
        self.by_subscale = by_subscale

    def exists_for(self, inventory: Inventory) -> bool:
        return bool(inventory.subscales) or not self.by_subscale

    def align(self, case: Case) -> Alignment:
        groups: dict[object, list[float]] = {}
        for number, literal in case.known.items():
            for group in self._groups(number):
                groups.setdefault(group, []).append(self.inventory.keyed(number, literal))
        means = {group: sum(values) / len(values) for group, values in groups.items()}
        predicted = {
            number: next((means[group] for group in self._groups(number) if group in means), self.inventory.midpoint)
            for number in self.inventory.held_out
        }
        return Alignment(answers=self.answers(predicted))

    def _groups(self, number: int) -> list[object]:
        """The groups of items that an item belongs to, the narrowest first."""
        item = self.inventory[number]
        return [("subscale", item.subscale)] * self.by_subscale + [("scale", item.scale), "all"]


class OtherPeopleFloor(Floor):
    """A floor that learns from everyone else of the source."""

    needs = frozenset({"people"})
    block = "other_people_floors"

    def prepare(self, backbone: Backbone | None, protocol: EvaluationProtocol) -> None:
        super().prepare(backbone, protocol)
        self.held_out_columns = [self.inventory.column[n] for n in self.inventory.held_out]

    def others(self, case: Case) -> Array:
        """Keyed answers of the others, ``(people, items)``, NaN where missing. Raises ValueError for nobody."""
        if case.others is None or not len(case.others):
            raise ValueError("this floor learns from other people, and the source of respondents holds only one person")
        return self.inventory.keyed_matrix(case.others)


class ItemMedian(OtherPeopleFloor):
    """Every held-out item's median over the other people: the typical answer, whoever is asked."""

    def align(self, case: Case) -> Alignment:
        others = self.others(case)[:, self.held_out_columns]
        answered = ~np.isnan(others).all(axis=0)
        medians = np.full(others.shape[1], self.inventory.midpoint)
        medians[answered] = np.nanmedian(others[:, answered], axis=0)
        return Alignment(answers=self.answers(dict(zip(self.inventory.held_out, medians.tolist(), strict=True))))


class Ridge(OtherPeopleFloor):
    """Ridge regression (Hoerl & Kennard 1970) from the known to the held-out answers, fitted on the other people.

    Where methods are told fewer known answers, so is the regression. Missing answers are replaced by the others' item
    mean. The penalty is the candidate with the smallest generalised cross-validation error (Golub, Heath & Wahba 1979)
    among the other people; the intercept is not penalised.
    """

    version = 2  # 1 was fitted on all known items, however few were told

    def align(self, case: Case) -> Alignment:
        told = {*case.known, *case.missing}
        columns = [self.inventory.column[number] for number in self.inventory.known if number in told]
        table = self.others(case)
        means = np.nan_to_num(mean_present(table.T), nan=self.inventory.midpoint)
        table = np.where(np.isnan(table), means, table) - means
        literal = as_matrix([item.number for item in self.inventory.items], [case.known])
        own = (self.inventory.keyed_matrix(literal)[0] - means)[columns]
        predicted, penalty = ridge(table[:, columns], table[:, self.held_out_columns], np.nan_to_num(own))
        keyed = predicted + means[self.held_out_columns]
        return Alignment(
            answers=self.answers(dict(zip(self.inventory.held_out, keyed.tolist(), strict=True))),
            trained_parameters=(len(columns) + 1) * len(self.held_out_columns),
            summary={"penalty": penalty},
        )


def ridge(inputs: Array, outputs: Array, new: Array) -> tuple[Array, float]:
    """Predictions for the input ``new`` ``(p,)`` and the penalty chosen by generalised cross-validation.

    ``inputs`` ``(people, p)``, ``outputs`` ``(people, q)`` and ``new`` are centred. One decomposition serves every
    penalty.
    """
    left, singular, right = np.linalg.svd(inputs, full_matrices=False)
    projected = left.T @ outputs
    energy = (projected**2).sum(axis=1)
    outside = max(float((outputs**2).sum() - energy.sum()), 0.0)  # what no penalty can fit
    people = len(inputs)

    def error(penalty: float) -> float:
        shrinkage = singular**2 / (singular**2 + penalty)
        residual = outside + float(((1 - shrinkage) ** 2 * energy).sum())
        freedom = people - 1 - float(shrinkage.sum())  # 1: the intercept
        return residual / max(freedom, 1e-9) ** 2

    penalty = min(PENALTIES, key=error)
    return (right @ new) * (singular / (singular**2 + penalty)) @ projected, penalty


class Truth(Floor):
    """The person's own held-out answers, literally, whatever the protocol: 0 under `corrected`, telling elsewhere."""

    needs = frozenset({"held_out"})
    block = "checks"

    def align(self, case: Case) -> Alignment:
        if case.held_out is None:
            raise ValueError("the row truth needs the person's held-out answers, and the case carries none")
        return Alignment(answers=dict(case.held_out))


ROWS: dict[str, Callable[[], Floor]] = {
    **{f"constant_{letter.lower()}": partial(Constant, letter=letter) for letter in LETTERS},
    "random": UniformlyRandom,
    "domain_mean": partial(OwnMean, by_subscale=False),
    "facet_mean": partial(OwnMean, by_subscale=True),
    "item_median": ItemMedian,
    "ridge": Ridge,
    "truth": Truth,
}


def floors(rows: Sequence[str]) -> dict[str, Aligner]:
    """The floors named in ``rows``, in that order. Raises ValueError when a name is unknown."""
    if isinstance(rows, str):
        raise ValueError(f"method.rows={rows}: give a list, as in method.rows=[{rows}]")
    unknown = [row for row in rows if row not in ROWS]
    if unknown or not rows:
        named = f"unknown {', '.join(map(str, unknown))}" if unknown else "the list is empty"
        raise ValueError(f"method.rows: {named}; choose among {', '.join(ROWS)}")
    return {row: ROWS[row]() for row in rows}
