"""Picking people from a population: what the paper does, and what it would take to be representative.

The paper's test set is the person nearest to the centre of each of 300 K-means clusters of the population (section 3,
Eq. 1; the released code standardises the answers). Such people answer near the middle and very consistently, so that
their held-out answers are easier to predict than those of the people they stand for. One *random* member of each
cluster is not; but a cluster of a few unusual people then counts as much as one of a thousand: see the report.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palign_bench.respondents.matrix import MISSING, AnswerMatrix
from palign_bench.respondents.source import RespondentsError
from palign_bench.settings import is_whole

RULES = ("nearest", "random_member", "random")


@dataclass(frozen=True)
class Selection:
    """``rows`` of the people picked; ``sizes``: how many people each one's cluster has, None without clusters."""

    rows: NDArray[np.int64]
    sizes: NDArray[np.int64] | None


def eligible(people: AnswerMatrix) -> NDArray[np.int64]:
    """Rows of the people who answer at least one known and one held-out item."""
    given, parts = people.answers != MISSING, people.inventory.parts.values()
    return np.flatnonzero(np.all([given[:, people.columns(numbers)].any(axis=1) for numbers in parts], axis=0))


def select_people(people: AnswerMatrix, count: int = 300, rule: str = "nearest", seed: int = 0) -> Selection:
    """``count`` people: of as many clusters the one nearest to the centre or a random member, or random people.

    Clusters are those of K-means (Lloyd) on standardised literal answers, missing ones at the item's mean. A person is
    picked once: a centre whose nearest is taken gets the next. Raises `RespondentsError` for a count, rule or seed that
    cannot be.
    """
    rows = eligible(people)
    for key, value, lowest in (("clusters", count, 1), ("seed", seed, 0)):
        if not is_whole(value, lowest):
            raise RespondentsError(f"{key}={value}: give a whole number of at least {lowest}")
    if rule not in RULES:
        raise RespondentsError(f"rule={rule}: choose one of {', '.join(RULES)}")
    if count > len(rows):
        raise RespondentsError(
            f"clusters={count}: only {len(rows)} people answer known and held-out items; ask for fewer"
        )
    stream = np.random.RandomState(seed)  # its stream is frozen by NumPy's policy; Generator's is not
    if rule == "random":
        return Selection(rows[np.sort(stream.choice(len(rows), count, replace=False))], None)

    from sklearn.cluster import KMeans  # takes a second to import

    features = _standardised(people.answers[rows])
    model = KMeans(n_clusters=count, n_init=1, random_state=seed).fit(features)
    sizes = np.bincount(model.labels_, minlength=count)
    if rule == "nearest":
        chosen = _nearest(features, model.cluster_centers_)
    else:
        chosen = np.array([stream.choice(np.flatnonzero(model.labels_ == cluster)) for cluster in range(count)])
    return Selection(rows[chosen], sizes)


def _standardised(answers: NDArray[np.int8]) -> NDArray[np.float32]:
    values = answers.astype(np.float32)
    values[answers == MISSING] = np.nan
    values -= np.nan_to_num(np.nanmean(values, axis=0))
    deviation = np.nanstd(values, axis=0)
    values /= np.where(deviation > 0, deviation, 1)
    return np.nan_to_num(values)


def _nearest(features: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int64]:
    """The person nearest to each centre in turn, each once."""
    length = (features**2).sum(axis=1)
    taken = np.zeros(len(features), dtype=bool)
    chosen = []
    for centre in centres:
        distance = np.where(taken, np.inf, length - 2 * (features @ centre))  # less the centre's own length
        chosen.append(int(distance.argmin()))
        taken[chosen[-1]] = True
    return np.array(chosen)
