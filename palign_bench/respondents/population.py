"""What people are like as a group: how reliable their scales are, how far they spread, how predictable they are.

Everything is in the keyed direction. A held-out error is a mean absolute difference on the held-out items of a scale;
the composite is the sum over scales of its mean over people, as in the table (`questionnaire/scoring.py`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from palign_bench.questionnaire.inventory import Inventory
from palign_bench.questionnaire.scoring import mean_present
from palign_bench.respondents.matrix import MISSING, AnswerMatrix
from palign_bench.respondents.norms import FACET_NORMS

Array = NDArray[np.floating[Any]]
_Predictor = Callable[[Array], Array]  # keyed answers (people, items) to keyed predictions of the same shape

PENALTIES = tuple(2.0**power for power in range(-2, 16))  # ridge's candidates
_CHUNK = 20_000  # people whose answers are held as float64 at once


def scale_columns(inventory: Inventory, finest: bool = False) -> dict[str, list[int]]:
    """The columns of each scale of the composite, by name; ``finest``: of each subscale where there are any."""
    groups = inventory.grouped(inventory.by_number, finest)
    return {name: [inventory.column[number] for number in groups[name]] for name in sorted(groups)}


def cronbach_alpha(keyed: Array) -> float:
    """Cronbach's alpha (1951) of the items in the columns, over people who answered all; else NaN."""
    complete = keyed[~np.isnan(keyed).any(axis=1)]
    people, items = complete.shape
    total = complete.sum(axis=1).var(ddof=1) if people > 1 else 0.0
    if items < 2 or not total > 0:
        return float("nan")
    return float(items / (items - 1) * (1 - complete.var(axis=0, ddof=1).sum() / total))


@dataclass(frozen=True)
class Population:
    """Measures of all people of a matrix, or of some of them (`describe`)."""

    matrix: AnswerMatrix

    @property
    def inventory(self) -> Inventory:
        return self.matrix.inventory

    @cached_property
    def errors(self) -> Mapping[str, NDArray[np.float32]]:
        """Held-out errors of each floor: (people, scales), NaN where a person answered no held-out item of a scale.

        A floor that uses other people uses everybody of the matrix but the person judged.
        """
        inventory = self.inventory
        signs = np.array([item.sign for item in inventory.items])
        predictors: dict[str, _Predictor] = {}
        for option in inventory.options:
            fixed = np.where(signs > 0, option.value, inventory.reverse(option.value)).astype(float)
            predictors[f"always {option.letter}"] = partial(np.full_like, fill_value=fixed)
        groups = [scale_columns(inventory)]
        predictors["own scale mean"] = partial(_own_mean, self._known, inventory.midpoint, groups)
        if inventory.subscales:
            finest = [*groups, scale_columns(inventory, finest=True)]
            predictors["own subscale mean"] = partial(_own_mean, self._known, inventory.midpoint, finest)
        if len(self.matrix) > 2:
            predictors["item median of others"] = self._item_median()
            predictors["ridge on others"] = self._ridge()
        held_out = self._held_out.values()
        errors = {name: np.empty((len(self.matrix), len(held_out)), dtype=np.float32) for name in predictors}
        for part, keyed in self._chunks():
            for name, predict in predictors.items():
                # Halves are rounded up, as the table's floors do; a regression's dust must not decide.
                rounded = inventory.nearest(np.round(predict(keyed), 9))
                distances = np.abs(keyed - rounded)
                errors[name][part] = np.stack([mean_present(distances[:, columns]) for columns in held_out], axis=1)
        return errors

    def composite(self, floor: str, rows: NDArray[np.bool_] | None = None) -> float:
        """A floor's composite over these people (all when None)."""
        errors = self.errors[floor] if rows is None else self.errors[floor][rows]
        return float(sum(mean_present(errors[:, scale].astype(float)) for scale in range(errors.shape[1])))

    def describe(self, rows: NDArray[np.bool_] | None = None) -> dict[str, float]:
        """Measures by name of these people (all when None), floors last; NaN where something cannot be computed."""
        people = self.matrix if rows is None else self.matrix.take(np.flatnonzero(rows))
        part = people.take(np.linspace(0, len(people) - 1, min(len(people), _CHUNK)).astype(int))
        keyed = part.keyed()
        scales = scale_columns(self.inventory)
        found: dict[str, Any] = {f"alpha {name}": cronbach_alpha(keyed[:, columns]) for name, columns in scales.items()}
        if self.inventory.subscales:
            alphas = [cronbach_alpha(keyed[:, each]) for each in scale_columns(self.inventory, finest=True).values()]
            found[f"alpha, mean of {len(alphas)} subscales"] = float(mean_present(np.array(alphas)))
        answers = pd.DataFrame(keyed)
        found["item SD"] = _spread(answers).mean()
        scores = pd.DataFrame({name: answers[columns].mean(axis=1) for name, columns in scales.items()})
        for name in scales:
            found[f"mean {name}"], found[f"SD {name}"] = scores[name].mean(), _spread(scores)[name]
        correlations = scores.corr(min_periods=3)
        for first, second in combinations(scales, 2):
            found[f"r {first}-{second}"] = correlations.loc[first, second]
        for name, columns in scales.items():
            known = answers[[column for column in columns if column in set(self._known)]].mean(axis=1)
            held_out = answers[self._held_out[name]].mean(axis=1)
            pair = pd.DataFrame({"known": known, "held_out": held_out}).corr(min_periods=3)
            found[f"r known-held-out {name}"] = pair.loc["known", "held_out"]
        found |= norm_spread(keyed, self.inventory)
        return found | {f"composite: {floor}": self.composite(floor, rows) for floor in self.errors}

    @cached_property
    def _held_out(self) -> dict[str, list[int]]:
        held_out = set(self.matrix.columns(self.inventory.held_out))
        return {name: [c for c in columns if c in held_out] for name, columns in scale_columns(self.inventory).items()}

    @cached_property
    def _known(self) -> list[int]:
        return self.matrix.columns(self.inventory.known)

    def _chunks(self) -> Iterator[tuple[slice, Array]]:
        for start in range(0, len(self.matrix), _CHUNK):
            part = slice(start, min(start + _CHUNK, len(self.matrix)))
            yield part, self.matrix.take(np.arange(part.start, part.stop)).keyed()

    def _item_median(self) -> _Predictor:
        """Each item's median over everybody else, which depends on a person only through their own answer."""
        values = range(self.inventory.highest + 1)
        counts = np.zeros((len(values), len(self.inventory.items)), dtype=int)
        for _, keyed in self._chunks():
            counts += np.stack([(np.nan_to_num(keyed) == value).sum(axis=0) for value in values])
        counts[MISSING] = 0
        medians = np.empty((len(values), counts.shape[1]))
        for own in values:
            others = counts.copy()
            if own != MISSING:
                others[own] = np.maximum(others[own] - 1, 0)
            reached, total = others.cumsum(axis=0), others.sum(axis=0)
            low, high = ((reached > position).argmax(axis=0) for position in ((total - 1) // 2, total // 2))
            medians[own] = np.where(total > 0, (low + high) / 2, self.inventory.midpoint)
        return lambda keyed: np.take_along_axis(medians, np.nan_to_num(keyed).astype(int), axis=0)

    def _ridge(self) -> _Predictor:
        """Ridge regression from the known to the held-out answers, each person's predictions left out of the fit.

        Missing answers are replaced by the item's mean, the penalty is that of the least generalised cross-validation
        error, the intercept is free. Leaving one out has a closed form: (ŷ - h y) / (1 - h), h the person's leverage.
        """
        people, known = len(self.matrix), self._known
        judged = [column for columns in self._held_out.values() for column in columns]
        sums = [(np.nansum(keyed, axis=0), (~np.isnan(keyed)).sum(axis=0)) for _, keyed in self._chunks()]
        total, count = sum(each[0] for each in sums), sum(each[1] for each in sums)
        means = np.where(count > 0, total / np.maximum(count, 1), self.inventory.midpoint)
        gram, cross, square = np.zeros((len(known),) * 2), np.zeros((len(known), len(judged))), 0.0
        for _, keyed in self._chunks():
            centred = np.nan_to_num(keyed - means)
            gram += centred[:, known].T @ centred[:, known]
            cross += centred[:, known].T @ centred[:, judged]
            square += float((centred[:, judged] ** 2).sum())
        variance, axes = np.linalg.eigh(gram)
        variance = np.maximum(variance, 0)
        energy = ((axes.T @ cross) ** 2).sum(axis=1)

        def error(penalty: float) -> float:
            freedom = people - 1 - float((variance / (variance + penalty)).sum())
            residual = square - float((energy * (variance + 2 * penalty) / (variance + penalty) ** 2).sum())
            return residual / freedom**2 if freedom > 0 else float("inf")

        inverse = axes / (variance + min(PENALTIES, key=error)) @ axes.T

        def predict(keyed: Array) -> Array:
            centred = np.nan_to_num(keyed - means)
            leverage = 1 / people + ((centred[:, known] @ inverse) * centred[:, known]).sum(axis=1, keepdims=True)
            fitted = centred[:, known] @ (inverse @ cross)
            predicted = np.full(keyed.shape, self.inventory.midpoint)
            predicted[:, judged] = means[judged] + (fitted - leverage * centred[:, judged]) / (1 - leverage)
            return predicted

        return predict


def norm_spread(keyed: Array, inventory: Inventory) -> dict[str, float]:
    """Facet scores against Johnson's norms for IPIP-NEO-300: mean and SD of their z-scores, mean over facets.

    The norms are those of his four groups (women and men, of college age and older) pooled, so that nobody's age and
    sex is needed; an SD below 1 says that people differ less than the public did. Nothing for another inventory.
    """
    if inventory.name != "ipip_neo_300":
        return {}
    columns = scale_columns(inventory, finest=True)
    scores = pd.DataFrame({facet: mean_present(keyed[:, of_facet]) for facet, of_facet in columns.items()})
    z = (scores - FACET_NORMS["mean"]) / FACET_NORMS["deviation"]
    return {"norm z of facets, mean": z.mean().mean(), "norm z of facets, SD": z.std(ddof=0).mean()}


def _spread(values: pd.DataFrame) -> "pd.Series[float]":
    """Each column's SD; NaN for a single person, of whom there is none."""
    return values.std(ddof=0) if len(values) > 1 else values.std()


def _own_mean(known: list[int], midpoint: float, groupings: Sequence[Mapping[str, list[int]]], keyed: Array) -> Array:
    """Means of a person's own known answers: of the item's last grouping, else of the one before, else of them all.

    ``midpoint``: for a person of whom nothing is known.
    """
    told = np.full(keyed.shape, np.nan)
    told[:, known] = keyed[:, known]
    predicted = np.tile(np.nan_to_num(mean_present(told), nan=midpoint)[:, None], keyed.shape[1])
    for grouping in groupings:
        for columns in grouping.values():
            own = mean_present(told[:, columns])
            predicted[:, columns] = np.where(np.isnan(own), predicted[:, columns[0]], own)[:, None]
    return predicted
