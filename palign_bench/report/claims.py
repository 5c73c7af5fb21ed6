"""The paper's checkable claims, what was run here, and what came out: `palign-bench claims`.

Every line that needs no GPU is computed when it is asked for, from the released people, the Dark Triad population, the
figures that the paper prints, or the ledger's efficiency page. A line whose data are not at hand says so.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from tabulate import tabulate

from palign_bench.questionnaire.inventory import HIGHEST, LOWEST, ipip_neo_300
from palign_bench.questionnaire.protocol import AsReleased
from palign_bench.questionnaire.scoring import aligned_scores
from palign_bench.report.data import read_data
from palign_bench.report.paper import LLAMA3_8B, OF_CLAIMS
from palign_bench.respondents import load_papi
from palign_bench.respondents.dark_triad import dark_triad_layout, load_dark_triad, load_population
from palign_bench.respondents.matrix import AnswerMatrix
from palign_bench.respondents.population import Population, scale_columns
from palign_bench.respondents.released import ReleaseUnavailableError

Outcome = tuple[str, dict[str, Any]]  # a verdict, and figures by their names in data/claims.yaml
REPRODUCED, CONTRADICTED, UNDECIDED = "reproduced", "contradicted", "not decidable here"
_BY_CHANCE = 0.1  # of a score, well above the 2 % (standard deviation) by which 300 random people differ
_LAST_PLACE = 0.01  # of figures printed with two decimals


@dataclass(frozen=True)
class Finding:
    """What came out for one claim, and what that makes of it."""

    found: str
    verdict: str


@dataclass(frozen=True)
class Evidence:
    """What claims are checked against; None where it is not at hand. ``runs``: the ledger's folder."""

    papi: AnswerMatrix | None
    dark_triad: AnswerMatrix | None  # the whole population
    dark_triad_released: AnswerMatrix | None  # the 300 picked from it
    runs: Path


@dataclass(frozen=True)
class Claim:
    """An entry of ``data/claims.yaml``, which says what its fields are."""

    place: str
    says: str
    found: str
    check: str | None = None
    needs: Sequence[str] = ()

    def finding(self, evidence: Evidence) -> Finding:
        """The outcome; undecided where the evidence is not at hand."""
        absent = [name for name in self.needs if getattr(evidence, name) is None]
        if absent:
            return Finding(f"not computed: {', '.join(absent).replace('_', ' ')} not at hand", UNDECIDED)
        if self.check is None:
            return Finding(self.found, UNDECIDED)
        verdict, figures = CHECKS[self.check](*(getattr(evidence, name) for name in self.needs))
        return Finding(self.found.format(**figures), verdict)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p of the exact sign test; ties are left out by the caller."""
    return float(binomtest(wins, wins + losses).pvalue)


def is_a_share_of(percent: float, n: int) -> int | None:
    """The count k for which 100 k / n is printed as ``percent`` with two decimals; None where there is none."""
    near = round(percent * n / 100)
    return next((k for k in (near - 1, near, near + 1) if f"{100 * k / n:.2f}" == f"{percent:.2f}"), None)


def constant_floor(papi: AnswerMatrix) -> Outcome:
    """Table 1, PAS is lowest: contradicted where a printed composite is lower, undecided where "always C" is."""
    printed, people = {row: figures[-1] for row, figures in LLAMA3_8B.figures.items()}, Population(papi)
    constant, facet, lowest = people.composite("always C"), people.composite("own subscale mean"), min(printed.values())
    is_lowest = printed["pas"] == lowest
    verdict = CONTRADICTED if not is_lowest else UNDECIDED if constant < lowest else REPRODUCED
    return verdict, {
        "order": "holds" if is_lowest else "does not hold",
        "constant": constant,
        "place": "below" if constant < lowest else "not below",
        "lowest": lowest,
        "facet": facet,
    }


def gpt4o() -> Outcome:
    """§5.2, PAS is lowest on every dimension: contradicted where GPT-4o's Few-Shot row is lower on one."""
    few_shot = OF_CLAIMS["gpt4o"]
    pas = dict(zip(few_shot, LLAMA3_8B.figures["pas"], strict=False))
    lower = [f"{each} {few_shot[each]:.2f} against {pas[each]:.2f}" for each in pas if few_shot[each] < pas[each]]
    return CONTRADICTED if lower else REPRODUCED, {"lower": ", ".join(lower)}


def representative(population: AnswerMatrix, released: AnswerMatrix) -> Outcome:
    """§3, the people picked are representative: contradicted where they are easier to predict by more than chance."""
    everybody, some = Population(population).describe(), Population(released).describe()
    floor, constant = "composite: own scale mean", "composite: always C"
    easier = 1 - some[floor] / everybody[floor]
    return CONTRADICTED if easier > _BY_CHANCE else REPRODUCED, {
        "people": len(population),
        "floor_of_300": some[floor],
        "floor_of_all": everybody[floor],
        "constant_of_300": some[constant],
        "constant_of_all": everybody[constant],
        "easier": 100 * easier,
    }


def trait_means(papi: AnswerMatrix) -> Outcome:
    """Figures 21–25, mean traits: contradicted where reversing negative items twice gives what is printed."""
    printed, columns = OF_CLAIMS["trait_means"], scale_columns(papi.inventory)
    scores, twice = (
        {scale: float(np.nanmean(answers[:, columns[scale]])) for scale in printed}
        for answers in (papi.keyed(), papi.twice_reversed())
    )
    same = all(abs(twice[scale] - printed[scale]) < _LAST_PLACE for scale in printed)
    found = f"{_listed(twice)}, the printed figures" + ("" if same else " not")
    return CONTRADICTED if same else UNDECIDED, {"scores": _listed(scores), "twice_reversed": found}


def truth_as_released(papi: AnswerMatrix) -> Outcome:
    """§3, a score of 0 is a perfect match: contradicted where a person's own answers do not score 0."""
    protocol = AsReleased(papi.inventory)
    pairs = [(protocol.held_out(person), protocol.truth(person.answers)) for person in papi.respondents()]
    composite = _composite(pairs, protocol)
    return CONTRADICTED if composite > _LAST_PLACE else REPRODUCED, {"composite": composite}


def public_rerun(papi: AnswerMatrix) -> Outcome:
    """Table 1, PAS scores 4.41: undecided without a GPU; what "always A" scores stands beside a public rerun."""
    protocol = AsReleased(papi.inventory)
    always_a = dict.fromkeys(papi.inventory.held_out, float(HIGHEST))
    pairs = [(always_a, protocol.truth(person.answers)) for person in papi.respondents()]
    return UNDECIDED, {"composite": _composite(pairs, protocol)}


def dose(papi: AnswerMatrix) -> Outcome:
    """Figure 14, treatment effects: contradicted where Vanilla has one, or a row one larger than the treatment."""
    keyed, known = papi.keyed(), set(papi.columns(papi.inventory.known))
    raised = np.clip(keyed + 1, LOWEST, HIGHEST) - keyed
    of_scales = [[each for each in columns if each in known] for columns in scale_columns(papi.inventory).values()]
    printed = OF_CLAIMS["dose"]
    found = sum(float(np.nanmean(np.nanmean(raised[:, each], axis=1))) for each in of_scales)
    is_possible = printed["vanilla"] == 0 and max(printed.values()) <= found  # Vanilla is told nothing: 0 it must be
    return UNDECIDED if is_possible else CONTRADICTED, {"dose": found, **printed}


def gsm8k() -> Outcome:
    """Figure 7, GSM8K: contradicted where no number of problems solved gives a printed percentage."""
    printed = OF_CLAIMS["gsm8k"]
    impossible = [f"{each}" for each in printed["percentages"] if is_a_share_of(each, printed["problems"]) is None]
    return CONTRADICTED if impossible else UNDECIDED, {"impossible": " and ".join(impossible)}


def assistants() -> Outcome:
    """Figure 8, wins significantly: undecided, since the number of ratings is not printed; p for one a prompt."""
    prompts, wins, losses = (OF_CLAIMS["assistants"][each] for each in ("prompts", "wins", "losses"))
    return UNDECIDED, {"p": sign_test(round(wins * prompts / 100), round(losses * prompts / 100))}


def table7() -> Outcome:
    """Table 7, PAS wins: undecided, since the number of texts is not printed; p for 180."""
    tests = {row: sign_test(*(round(share * 1.8) for share in pair)) for row, pair in OF_CLAIMS["table7"].items()}
    return UNDECIDED, {"tests": ", ".join(f"{row} {p:.3g}" for row, p in tests.items())}


def stored() -> Outcome:
    """§4.2, about 1,000 numbers a person: contradicted where the released code stores more than twice as many."""
    numbers, parameters = 24 * 128, 8.03e9
    verdict = CONTRADICTED if numbers > 2 * 1_000 else REPRODUCED
    return verdict, {"stored": numbers, "share": parameters / numbers}


def efficiency(runs: Path) -> Outcome:
    """Figures 5 and 17, PAS takes 1/5 of DPO's time: undecided; what the ledger's last costs page measured."""
    path = max((runs / "efficiency").glob("*/costs.csv"), key=lambda each: each.stat().st_mtime, default=None)
    if path is None:
        return UNDECIDED, {"measured": "run `palign-bench efficiency` first (on a GPU for the paper's setting)"}
    frame = pd.read_csv(path)
    ratios = frame.set_index("method")["relative_align"].dropna() if "relative_align" in frame else None
    if ratios is None or "dpo" not in ratios:
        return UNDECIDED, {"measured": f"{path} has no DPO row"}
    listed = ", ".join(f"{row} {ratios[row]:.1f}" for row in ("dpo", "ppo") if row in ratios)
    return UNDECIDED, {"measured": f"time to align one person, in units of PAS, measured here: {listed}"}


CHECKS: Mapping[str, Callable[..., Outcome]] = {
    check.__name__: check
    for check in (
        *(representative, truth_as_released, constant_floor, public_rerun, gpt4o, stored, efficiency),
        *(table7, gsm8k, assistants, dose, trait_means),
    )
}


def all_claims() -> list[Claim]:
    """The claims, in the order of the paper."""
    return [Claim(**entry) for entry in read_data("claims")]


def evidence_at_hand(runs: Path) -> Evidence:
    """What can be had here: the released people, the Dark Triad population, and the ledger ``runs``."""
    return Evidence(
        papi=_at_hand(lambda: AnswerMatrix.of(load_papi().people, ipip_neo_300())),
        dark_triad=_at_hand(load_population),
        dark_triad_released=_at_hand(lambda: AnswerMatrix.of(load_dark_triad().people, dark_triad_layout())),
        runs=runs,
    )


def _at_hand(load: Callable[[], AnswerMatrix]) -> AnswerMatrix | None:
    try:
        return load()
    except ReleaseUnavailableError as unavailable:
        print(f"{unavailable}; claims about them are left undecided", file=sys.stderr)
        return None


def page(evidence: Evidence) -> str:
    """The claims ledger as a Markdown page."""
    return (
        "# The paper's claims, checked\n\n"
        "What *Personality Alignment of Large Language Models* (ICLR 2025) says, what was computed here, the verdict."
        "\n`palign-bench claims` recomputes every line that needs no GPU; `--write FILE` writes this page.\n\n"
        f"{claims_table(evidence)}\n"
    )


def claims_table(evidence: Evidence) -> str:
    """Every claim with its outcome, as a Markdown table."""
    found = [(claim, claim.finding(evidence)) for claim in all_claims()]
    rows = [(claim.place, claim.says, finding.found, finding.verdict) for claim, finding in found]
    return tabulate(rows, ("place", "the paper says", "what came out here", "verdict"), tablefmt="pipe")


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items())


def _composite(pairs: Sequence[tuple[Mapping[int, float], Mapping[int, float]]], protocol: AsReleased) -> float:
    scores = [aligned_scores(protocol.inventory, answers, truth) for answers, truth in pairs]
    scales = protocol.inventory.scales.values()
    return sum(float(np.mean([s[name] for s in scores if s[name] is not None])) for name in scales)
