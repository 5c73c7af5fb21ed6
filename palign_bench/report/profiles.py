"""What a table's methods answer as persons, for those who would rather look: pictures from the ledger alone.

They stay on this machine: a profile is one person's, and no tracker is told of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from palign_bench.ledger.columns import Array
from palign_bench.questionnaire.inventory import Item
from palign_bench.report.document import Written
from palign_bench.report.names import METHODS, OWN_FLOORS, PEOPLE_METHODS, is_constant
from palign_bench.report.pictures import traits
from palign_bench.report.rows import RowNumbers
from palign_bench.report.specificity import Truths
from palign_bench.report.table import Report
from palign_bench.report.validity import literal_matrices
from palign_bench.settings import UserError

_MOST_METHODS = 5  # drawn, best first, beside the best own-answers floor
_OWN = "held-out answers"
_CHOSEN = (("answered best", 0.0), ("median", 0.5), ("answered worst", 1.0))  # of the people, by the first row


def draw_people(report: Report, folder: Path, ids: Sequence[str] = (), twice_reversed: bool = False) -> str:
    """Draw ``<name>_traits`` and ``<name>_profiles`` into the table's folder; return a line on what was written.

    ``ids``: whose profiles; without any those for whom the best method answers best, at the median and worst.
    ``twice_reversed``: trait densities of the quantity that the paper's figures 21 to 25 show. Raises UserError for
    an unknown id and where no method or floor is finished.
    """
    compared, written = _Compared(report), Written()
    base = folder / str(report.about["experiment"])
    title = f"{report.headline}, held-out items\n{report.setting}"
    quantity = traits.TWICE_REVERSED if twice_reversed else traits.TRAIT_SCORE
    densities, profiles = compared.densities(twice_reversed), compared.profiles(ids)
    figures = {
        "traits": traits.trait_figure(densities, report.inventory, title, quantity),
        "profiles": traits.profile_figure(profiles, report.inventory, title),
    }
    for name, figure in figures.items():
        written.draw(figure, base.with_name(f"{base.name}_{name}"))
    return written.told(folder)


@dataclass(frozen=True)
class _Compared:
    """Some rows of a table and the people whom they answer for."""

    report: Report

    @cached_property
    def rows(self) -> dict[str, RowNumbers]:
        """The best methods and the best own-answers floor but for constants, by label. Raises UserError for none."""
        scored = [row for row in self.report.read if row.composite is not None and not is_constant(row.name)]
        scored.sort(key=lambda row: row.composite or 0.0)
        methods = [row for row in scored if row.block in (METHODS, PEOPLE_METHODS)][:_MOST_METHODS]
        floors = [row for row in scored if row.block == OWN_FLOORS][:1]
        if not methods and not floors:
            raise UserError("--pictures: no method or own-answers floor is finished yet; run the experiment again.")
        return {row.label: row for row in (*methods, *floors)}

    @cached_property
    def pool(self) -> Truths:
        return Truths.of(self.report.read)

    @cached_property
    def items(self) -> list[Item]:
        return self.report.inventory.select(self.pool.items.tolist())

    @cached_property
    def answers(self) -> Mapping[str, tuple[Array, Array]]:
        """Literal answers and the people's own, each (people, items), by row."""
        return {label: literal_matrices(self.report.inventory, row, self.pool)[:2] for label, row in self.rows.items()}

    def densities(self, twice_reversed: bool) -> dict[str, Array]:
        """Scores (people, scales) of the people themselves and of every row."""

        def scores(literal: Array) -> Array:
            answers = literal if twice_reversed else self._keyed(literal)
            return traits.scores_of(self.items, answers, list(self.report.inventory.scales), "scale")

        most = max(self.answers.values(), key=lambda pair: len(pair[1]))[1]
        return {f"the people (n={len(most)})": scores(most)} | {
            label: scores(given) for label, (given, _) in self.answers.items()
        }

    def profiles(self, ids: Sequence[str]) -> dict[str, dict[str, Array]]:
        """By heading, each chosen person's profile: their own answers, then those of the rows that have them."""
        of, names = traits.subscales_in_order(self.report.inventory)
        first = next(iter(self.rows))
        found: dict[str, dict[str, Array]] = {}
        for respondent, heading in self._chosen(ids).items():
            lines: dict[str, Array] = {}
            for label, row in self.rows.items():
                if respondent in row.respondents:
                    at = row.respondents.index(respondent)
                    given, own = (self._keyed(each[at : at + 1]) for each in self.answers[label])
                    lines.setdefault(_OWN, traits.scores_of(self.items, own, names, of)[0])
                    lines[label] = traits.scores_of(self.items, given, names, of)[0]
            score = self.rows[first].composites.get(respondent)
            found[heading + (f", composite of {first} {score:.2f}" if score is not None else "")] = lines
        return found

    def _chosen(self, ids: Sequence[str]) -> dict[str, str]:
        """Headings by respondent."""
        unknown = [each for each in ids if each not in self.pool.position]
        if unknown:
            raise UserError(f"--ids: {unknown[0]} has no finished cell in this table")
        if ids:
            return {each: each for each in ids}
        composites = next(iter(self.rows.values())).composites
        ordered = sorted(composites, key=lambda each: (composites[each], each))
        chosen: dict[str, str] = {}
        for why, share in _CHOSEN:
            chosen.setdefault(ordered[round(share * (len(ordered) - 1))], why)
        return {each: f"{each}: {why}" for each, why in chosen.items()}

    def _keyed(self, literal: Array) -> Array:
        negative = np.array([item.sign < 0 for item in self.items])
        return np.where(negative, self.report.inventory.reverse(literal), literal)
