"""The paper's checkable claims, what was run here, and what came out: `palign-bench claims`.

Every line that needs no GPU is computed when it is asked for, from the released people, the Dark Triad population, the
figures that the paper prints, or the ledger's efficiency page. A line whose data are not at hand says so.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from tabulate import tabulate

from palign_bench.questionnaire.inventory import HIGHEST, LOWEST, ipip_neo_300
from palign_bench.questionnaire.protocol import AsReleased
from palign_bench.questionnaire.scoring import aligned_scores
from palign_bench.report.paper import LLAMA3_8B
from palign_bench.respondents import load_papi
from palign_bench.respondents.dark_triad import dark_triad_layout, load_dark_triad, load_population
from palign_bench.respondents.matrix import AnswerMatrix
from palign_bench.respondents.population import Population, scale_columns
from palign_bench.respondents.released import ReleaseUnavailableError

REPRODUCED, CONTRADICTED, UNDECIDED = "reproduced", "contradicted", "not decidable here"


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
    """One claim: where the paper makes it, what it says, and how it is checked. ``needs``: names of `Evidence`."""

    place: str
    says: str
    check: Callable[[Evidence], Finding]
    needs: tuple[str, ...] = ()

    def finding(self, evidence: Evidence) -> Finding:
        """The outcome; undecided where the evidence is not at hand."""
        absent = [name for name in self.needs if getattr(evidence, name) is None]
        if absent:
            return Finding(f"not computed: {', '.join(absent).replace('_', ' ')} not at hand", UNDECIDED)
        return self.check(evidence)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p of the exact sign test; ties are left out by the caller."""
    return float(binomtest(wins, wins + losses).pvalue)


def is_a_share_of(percent: float, n: int) -> int | None:
    """The count k for which 100 k / n is printed as ``percent`` with two decimals; None where there is none."""
    near = round(percent * n / 100)
    return next((k for k in (near - 1, near, near + 1) if f"{100 * k / n:.2f}" == f"{percent:.2f}"), None)


def _constant_floor(evidence: Evidence) -> Finding:
    composites = {row: figures[-1] for row, figures in LLAMA3_8B.figures.items()}
    assert evidence.papi is not None
    best, floors = min(composites.values()), Population(evidence.papi)
    constant, facet = floors.composite("always C"), floors.composite("own subscale mean")
    return Finding(
        f"the printed order holds, and always answering C, which knows nobody, scores {constant:.2f}, below every "
        f"printed composite (lowest {best}); a person's own facet means score {facet:.2f}",
        UNDECIDED if constant < best else REPRODUCED,
    )


def _gpt4o(_: Evidence) -> Finding:
    gpt4o = {"A": 1.02, "C": 0.83, "E": 0.81, "N": 0.80, "O": 0.96}  # table 1, GPT-4o Few-Shot
    pas = dict(zip("ACENO", LLAMA3_8B.figures["pas"], strict=False))
    lower = [f"{scale} {gpt4o[scale]:.2f} against {pas[scale]:.2f}" for scale in gpt4o if gpt4o[scale] < pas[scale]]
    return Finding(
        f"the table's own GPT-4o Few-Shot row is lower on {', '.join(lower)}", CONTRADICTED if lower else REPRODUCED
    )


def _representative(evidence: Evidence) -> Finding:
    assert evidence.dark_triad is not None and evidence.dark_triad_released is not None
    everybody = Population(evidence.dark_triad).describe()
    released = Population(evidence.dark_triad_released).describe()
    floor = "composite: own scale mean"
    constant = "composite: always C"
    easier = 1 - released[floor] / everybody[floor]
    return Finding(
        f"Dark Triad, whose whole population ({len(evidence.dark_triad):,} people) is public: own scale mean scores "
        f"{released[floor]:.2f} on the released 300 and {everybody[floor]:.2f} on everybody, always C "
        f"{released[constant]:.2f} and {everybody[constant]:.2f}: the people nearest to the centroids are "
        f"{100 * easier:.0f} % easier to predict than those they stand for",
        CONTRADICTED if easier > 0.1 else REPRODUCED,
    )


def _trait_means(evidence: Evidence) -> Finding:
    assert evidence.papi is not None
    printed = {"A": 2.95, "C": 3.14, "E": 3.19, "N": 3.04, "O": 3.11}
    twice = evidence.papi.twice_reversed()
    keyed = evidence.papi.keyed()
    columns = scale_columns(evidence.papi.inventory)
    found = {scale: float(twice[:, columns[scale]].mean()) for scale in printed}
    scores = {scale: float(np.nanmean(keyed[:, columns[scale]])) for scale in printed}
    same = all(abs(found[scale] - printed[scale]) < 0.01 for scale in printed)
    return Finding(
        f"keyed trait means of the 300 are {_listed(scores)}; reversing the negatively keyed items a second time gives "
        f"{_listed(found)}, the printed figures" + ("" if same else " not"),
        CONTRADICTED if same else UNDECIDED,
    )


def _truth_as_released(evidence: Evidence) -> Finding:
    assert evidence.papi is not None
    protocol = AsReleased(evidence.papi.inventory)
    people = evidence.papi.respondents()
    composite = _composite([(protocol.held_out(person), protocol.truth(person.answers)) for person in people], protocol)
    return Finding(
        f"under the released code's scoring a person's own true answers score {composite:.2f}, since answers to "
        "negatively keyed items are stored reversed and compared as they are",
        CONTRADICTED if composite > 0.01 else REPRODUCED,
    )


def _public_rerun(evidence: Evidence) -> Finding:
    assert evidence.papi is not None
    protocol = AsReleased(evidence.papi.inventory)
    always_a = dict.fromkeys(evidence.papi.inventory.held_out, float(HIGHEST))
    pairs = [(always_a, protocol.truth(person.answers)) for person in evidence.papi.respondents()]
    composite = _composite(pairs, protocol)
    return Finding(
        f"always answering A scores {composite:.4f} under the released scoring; the public rerun of the released PAS "
        "code (issue 8 of its repository) printed 8.3288",
        UNDECIDED,
    )


def _dose(evidence: Evidence) -> Finding:
    assert evidence.papi is not None
    inventory = evidence.papi.inventory
    keyed = evidence.papi.keyed()
    known = set(evidence.papi.columns(inventory.known))
    raised = np.clip(keyed + 1, LOWEST, HIGHEST) - keyed
    dose = 0.0
    for columns in scale_columns(inventory).values():
        dose += float(np.nanmean(np.nanmean(raised[:, [c for c in columns if c in known]], axis=1)))
    return Finding(
        "Vanilla never sees the person, so under greedy decoding its effect is exactly 0, not 0.75; raising every "
        f"known answer by one raises the five trait scores by {dose:.2f} in sum after clipping, of which 2.70 is said",
        CONTRADICTED,
    )


def _gsm8k(_: Evidence) -> Finding:
    printed = (73.47, 74.15, 72.75)
    impossible = [f"{each}" for each in printed if is_a_share_of(each, 1319) is None]
    return Finding(
        f"with GSM8K's 1,319 problems {' and '.join(impossible)} are no possible percentages; the differences of 0.7 "
        "points are 0.4 standard errors",
        CONTRADICTED if impossible else UNDECIDED,
    )


def _assistants(_: Evidence) -> Finding:
    p = sign_test(round(0.38 * 300), round(0.31 * 300))
    return Finding(
        f"38 % wins, 31 % ties, so 31 % losses, and these are against the original model; sign test p = {p:.2f} for "
        "300 prompts (the number of ratings, if more, is not given)",
        UNDECIDED,
    )


def _table7(_: Evidence) -> Finding:
    shares = {"full": (41, 29), "LoRA": (43, 24), "QLoRA": (42, 23), "prompt-tuning": (45, 24)}
    tests = {row: sign_test(*(round(share * 1.8) for share in pair)) for row, pair in shares.items()}
    listed = ", ".join(f"{row} {p:.3g}" for row, p in tests.items())
    return Finding(f"the number of texts is not given; with 180, sign-test p: {listed}", UNDECIDED)


def _stored(_: Evidence) -> Finding:
    stored, parameters = 24 * 128, 8.03e9
    return Finding(
        f"the released code's 24 heads of width 128 are {stored:,} numbers, 1/{parameters / stored:,.0f} of Llama-3-8B",
        CONTRADICTED if stored > 2 * 1_000 else REPRODUCED,
    )


def _efficiency(evidence: Evidence) -> Finding:
    path = max((evidence.runs / "efficiency").glob("*/costs.csv"), key=lambda each: each.stat().st_mtime, default=None)
    if path is None:
        return Finding("run `palign-bench efficiency` first (on a GPU for the paper's setting)", UNDECIDED)
    frame = pd.read_csv(path)
    ratios = frame.set_index("method")["relative_align"].dropna() if "relative_align" in frame else None
    if ratios is None or "dpo" not in ratios:
        return Finding(f"{path} has no DPO row", UNDECIDED)
    listed = ", ".join(f"{row} {ratios[row]:.1f}" for row in ("dpo", "ppo") if row in ratios)
    return Finding(f"time to align one person, in units of PAS, measured here: {listed}", UNDECIDED)


def _needs_a_gpu(what: str) -> Callable[[Evidence], Finding]:
    return lambda _: Finding(what, UNDECIDED)


CLAIMS: tuple[Claim, ...] = (
    Claim("§3, Eq. 1", "the 300 of the test set are representative", _representative,
          ("dark_triad", "dark_triad_released")),
    Claim("§3, Eq. 2", "an aligned score of 0 is a perfect match with the person", _truth_as_released, ("papi",)),
    Claim("Table 1", "PAS has the lowest composite with Llama-3-8B (4.41)", _constant_floor, ("papi",)),
    Claim("Table 1", "PAS scores 4.41 with the released code", _public_rerun, ("papi",)),
    Claim("§5.2", "PAS is lowest on every dimension, also against GPT-4o", _gpt4o),
    Claim("§4.2", "about 1,000 stored numbers a person, 1/10,000,000 of the model", _stored),
    Claim("Figures 5, 17", "PAS takes 1/5 of DPO's time and 1/6 of PPO's", _efficiency),
    Claim("Table 5", "24 heads are best",
          _needs_a_gpu("`palign-bench experiment=table5 model=llama3_8b protocol=as_released` on a GPU")),
    Claim("Table 6", "PAS beats full fine-tuning, LoRA, QLoRA and prompt-tuning", _needs_a_gpu(
          "`palign-bench experiment=table6 model=llama3_8b protocol=as_released training=paper` on a GPU")),
    Claim("Table 4, figure 6", "PAS wins open-ended generation, at moderate length",
          _needs_a_gpu("no generation code, prompts or texts are released; the judge's model is retired")),
    Claim("Table 7", "PAS wins against tuned models in open-ended generation", _table7),
    Claim("Figure 7", "conscientiousness raises GSM8K from 73.47 to 74.15, its lack lowers it to 72.75", _gsm8k),
    Claim("Figure 8", "the aligned assistant significantly outperforms the misaligned one", _assistants),
    Claim("Figure 14", "average treatment effect: PAS 2.70, Few-Shot 2.47, Vanilla 0.75", _dose, ("papi",)),
    Claim("Figures 21–25", "mean traits of the test set: A 2.95, C 3.14, E 3.19, N 3.04, O 3.11", _trait_means,
          ("papi",)),
)  # fmt: skip


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
    found = [(claim, claim.finding(evidence)) for claim in CLAIMS]
    rows = [(claim.place, claim.says, finding.found, finding.verdict) for claim, finding in found]
    return tabulate(rows, ("place", "the paper says", "what came out here", "verdict"), tablefmt="pipe")


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items())


def _composite(pairs: Sequence[tuple[Mapping[int, float], Mapping[int, float]]], protocol: AsReleased) -> float:
    scores = [aligned_scores(protocol.inventory, answers, truth) for answers, truth in pairs]
    scales = protocol.inventory.scales.values()
    return sum(float(np.mean([s[name] for s in scores if s[name] is not None])) for name in scales)
