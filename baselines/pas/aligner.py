"""PAS: the known answers in the system prompt, and a shift of the heads that tell the person's yes from their no."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from baselines.pas.probes import (
    DIRECTIONS,
    PROBE_PROMPTS,
    HeadDirections,
    collect_activations,
    fit_directions,
    label_samples,
)
from baselines.pas.search import ALPHAS, Standing, best, golden_section_search, grid_search
from palign_bench.aligner import Aligner, Case
from palign_bench.backbone.alignment import Alignment, AnswerSheet
from palign_bench.backbone.base import Backbone
from palign_bench.costs.clock import part
from palign_bench.questionnaire.inventory import Answers
from palign_bench.questionnaire.protocol import EvaluationProtocol
from palign_bench.questionnaire.scoring import COMPOSITE, aligned_scores
from palign_bench.settings import UserError, is_number, one_of, positive, whole

SYSTEM_PROMPTS = ("few_shot", "none")
SEARCHES = ("grid", "golden")


class PersonalityActivationSearch(Aligner):
    """Personality Activation Search (paper, section 4; defaults as in the released code).

    Once: the outputs of all heads for every known item, agreed and disagreed with. Per person: a logistic probe per
    head, the ``k`` best heads, a direction for each, and the alpha whose answers to `Case.selection` score best, 0
    (the bare system prompt) among them. What is fitted while choosing does not see the selection.
    """

    version = 2  # 2: among equal composites the likelier answers choose alpha
    needs = frozenset({"prompt", "activations"})

    def __init__(
        self,
        k: int = 24,
        direction: str = "mass_mean",
        probe_prompt: str = "options",
        system_prompt: str = "few_shot",
        search: str = "grid",
        alphas: Sequence[float] = ALPHAS,
        penalty: float = 1.0,
    ) -> None:
        one_of("method.direction", direction, DIRECTIONS)
        one_of("method.probe_prompt", probe_prompt, PROBE_PROMPTS)
        one_of("method.system_prompt", system_prompt, SYSTEM_PROMPTS)
        one_of("method.search", search, SEARCHES)
        whole("method.k", k)
        positive("method.penalty", penalty)
        listed = isinstance(alphas, Sequence) and not isinstance(alphas, str) and len(alphas) > 0
        if not listed or not all(is_number(alpha) and alpha >= 0 for alpha in alphas):
            raise ValueError(f"method.alphas={alphas}: choose a list of one or more numbers, 0 or more, e.g. [0,1,2,4]")
        self.k = int(k)
        self.direction = direction
        self.probe_prompt = probe_prompt
        self.system_prompt = system_prompt
        self.search = search
        self.alphas = tuple(float(alpha) for alpha in alphas)
        self.penalty = float(penalty)

    def check_shape(self, layers: int, heads: int) -> None:
        """Raise UserError for ``k`` above the model's number of heads."""
        if self.k > layers * heads:
            raise UserError(
                f"method.k={self.k}: the model has only {layers * heads} heads ({layers} layers × {heads}); "
                f"choose method.k={layers * heads} or less"
            )

    def prepare(self, backbone: Backbone | None, protocol: EvaluationProtocol) -> None:
        """Read the activations that all people share. Raises UserError for ``k`` above the model's number of heads."""
        super().prepare(backbone, protocol)
        self._activations = collect_activations(self.backbone, self.inventory, self.probe_prompt)
        self.check_shape(self._activations.layers, self._activations.heads)

    def align(self, case: Case) -> Alignment:
        fit = self.fit(case.fitting, case.seed)
        with part("search"):
            scores = self._search(case, fit)
        alpha = best(scores) if scores else 0.0
        refitted = len(case.fitting) < len(case.known)
        if refitted and alpha > 0:
            fit = self.fit(case.known, case.seed)
        summary: dict[str, Any] = {
            "alpha": alpha,
            "heads": [list(head) for head in fit.heads] if alpha > 0 else [],
            "mean_validation_accuracy": fit.validation_accuracy,
            "search": {f"{tried:.6g}": score for tried, (score, _) in scores.items()},
            "search_nats": {f"{tried:.6g}": nats for tried, (_, nats) in scores.items()},
            "k": self.k,
            "system_prompt": self.system_prompt,
            # False: nothing was kept out while choosing, so the search's answers for this alpha are the final ones.
            "refitted": refitted,
        }
        if not scores:
            summary["reason"] = fit.unfit or "none of the answers that alpha is chosen on is there"
        return replace(self._alignment(case, case.known, fit, alpha), summary=summary)

    def fit(self, answers: Answers, seed: int) -> HeadDirections:
        """A person's heads and directions, from these of their literal answers alone."""
        protocol = self.protocol
        samples = label_samples(
            self._activations.numbers,
            protocol.orient(answers),
            seed=seed,
            by_item=protocol.probes_split_by_item,
            neutral=self.inventory.midpoint,
        )
        return fit_directions(
            self._activations,
            samples,
            k=self.k,
            direction=self.direction,
            rank_on_training_too=protocol.heads_ranked_on_training,
            penalty=self.penalty,
            seed=seed,
        )

    def _search(self, case: Case, fit: HeadDirections) -> dict[float, Standing]:
        """How answers to the selection items stand by alpha; none where there is nothing to shift or to choose on."""
        truth = self.protocol.truth(case.selection)
        is_fixed = self.search == "grid" and len(set(self.alphas)) == 1
        if fit.unfit is not None or not (truth or is_fixed):
            return {}
        items = self.inventory.select(truth)

        def score(alphas: Sequence[float]) -> list[tuple[float | None, float]]:
            if not items:
                return [(None, 0.0)] * len(alphas)
            alignments = [self._alignment(case, case.fitting, fit, alpha) for alpha in alphas]
            sheets = self.backbone.answer_many(alignments, items)
            composites = [aligned_scores(self.inventory, sheet.answers, truth)[COMPOSITE] for sheet in sheets]
            return [(composite, nats(sheet, truth)) for composite, sheet in zip(composites, sheets, strict=True)]

        return grid_search(score, self.alphas) if self.search == "grid" else golden_section_search(score)

    def _alignment(self, case: Case, answers: Answers, fit: HeadDirections, alpha: float) -> Alignment:
        """The system prompt that lists ``answers``, and the shift by ``alpha``; none at all for alpha 0."""
        prompt = None
        if self.system_prompt == "few_shot":
            # The released Few-Shot has no separator before its first pair; the released PAS has one.
            prompt = self.protocol.few_shot_prompt(answers, case.missing, separator=";")
        if alpha == 0:
            return Alignment(system_prompt=prompt)
        shifts = fit.shifts(alpha, self._activations)
        return Alignment(system_prompt=prompt, head_shifts=shifts, trained_parameters=fit.vectors.numel())


def nats(sheet: AnswerSheet, truth: Answers) -> float:
    """What a true answer costs on average, to three decimals, in which batches agree; 0 where answers are written."""
    rows = sheet.log_probs
    if rows is None:
        return 0.0
    # Options are listed from the highest value to 1.
    return round(
        -sum(rows[number][len(rows[number]) - round(value)] for number, value in truth.items()) / len(truth), 3
    )
