"""The readout as a method: a closed-form prediction, and its weight against the model's own answers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from baselines.readout.predictors import Prediction, predict_alone, predict_with_others
from palign_bench.aligner import Aligner, Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.base import Backbone
from palign_bench.backbone.parts.options import OptionScores
from palign_bench.backbone.parts.ordinal import option_log_scores
from palign_bench.backbone.parts.readout import StatementReadout, as_options
from palign_bench.backbone.parts.statements import FeatureRecipe, ItemKernel, prepared_kernel
from palign_bench.costs.clock import part
from palign_bench.questionnaire.inventory import Answers
from palign_bench.questionnaire.protocol import EvaluationProtocol
from palign_bench.questionnaire.scoring import COMPOSITE, aligned_scores
from palign_bench.settings import one_of

PRIORS = ("none", "people")
SYSTEM_PROMPTS = ("none", "few_shot")
EVERY = 4  # of the known answers, one in four is kept out where the protocol keeps none out


class ClosedFormReadout(Aligner):
    """A readout of the frozen model's hidden states, combined with the model's own answers.

    Once: hidden states of all statements. Per person: a Gaussian-process regression on the known answers (ordinal, by
    thresholds), in closed form, and the ``weight`` whose answers to known items score best. Nothing is ever chosen on
    held-out answers, whatever the protocol.

    ``prior``: ``none`` uses the person's own known answers; ``people`` also everyone else's of the source.
    """

    # 2: whoever lacks an answer of some scale has a weight chosen on the others; 3: costs do not depend on other rows
    version = 3

    def __init__(
        self,
        contrasts: Sequence[str],
        depths: Sequence[float],
        noises: Sequence[float],
        weights: Sequence[float],
        prior: str = "none",
        system_prompt: str = "none",
    ) -> None:
        one_of("method.prior", prior, PRIORS)
        one_of("method.system_prompt", system_prompt, SYSTEM_PROMPTS)
        if not noises or any(noise <= 0 for noise in noises):
            raise ValueError(f"method.noises={noises}: give positive numbers")
        if not weights or any(not 0 <= weight <= 1 for weight in weights):
            raise ValueError(f"method.weights={weights}: give numbers from 0 (the bare model) to 1 (the readout alone)")
        self.recipe = FeatureRecipe(tuple(contrasts), tuple(depths))
        self.noises = sorted(float(noise) for noise in noises)
        self.weights = sorted(float(weight) for weight in weights)
        self.prior = prior
        self.system_prompt = system_prompt
        self.needs = frozenset({"prompt", "hidden states", "log_probs"} | ({"people"} if prior == "people" else set()))

    def prepare(self, backbone: Backbone | None, protocol: EvaluationProtocol) -> None:
        """Read the hidden states and, under the neutral prompt, the bare model's answers to the known items."""
        super().prepare(backbone, protocol)
        known = self.inventory.known
        self._kernel: ItemKernel = prepared_kernel(self.backbone, self.inventory, self.recipe, anew=self.measured)
        self._neutral: dict[int, Tensor] = {}
        if self.system_prompt == "none" and len(self.weights) > 1:
            rows = self.backbone.bare_option_log_probs(None, self.inventory.select(known))
            self._neutral = dict(zip(known, rows, strict=True))

    def align(self, case: Case) -> Alignment:
        made = self.predict(case, case.known)
        tried: dict[str, float | None] = {}
        weight = self.weights[0]
        if len(self.weights) > 1:
            with part("search"):
                weight, tried = self._choose_weight(case, made)
        readout = made.readout.stored(weight, self.inventory.held_out) if weight > 0 else None
        stored = 0 if readout is None else sum(t.numel() for name, t in readout.tensors().items() if name != "numbers")
        summary = {
            "weight": weight,
            "weights": tried,
            "loss_on_known": made.loss,
            "prior": self.prior,
            "system_prompt": self.system_prompt,
        }
        if isinstance(made.readout, StatementReadout):
            summary["noise"] = float(made.readout.uncertainty[0])
        few_shot = self.system_prompt == "few_shot"
        prompt = self.protocol.few_shot_prompt(case.known, case.missing) if few_shot else None
        return Alignment(system_prompt=prompt, readout=readout, trained_parameters=stored, summary=summary)

    def predict(self, case: Case, answers: Answers) -> Prediction:
        """The person's prediction from these answers. Raises ValueError where nobody else is there to learn from."""
        if self.prior == "none":
            return predict_alone(self.inventory, self._kernel, self.recipe, answers, self.noises)
        if case.others is None or not len(case.others):
            raise ValueError(
                "prior=people learns from other people, and the source of respondents holds only one person"
            )
        return predict_with_others(self.inventory, self._kernel, answers, torch.from_numpy(case.others))

    def kept_out(self, case: Case) -> Answers:
        """Known answers to choose on: the protocol's selection where that is a part of them, else one in four."""
        if case.selection and case.selection.keys() <= case.known.keys():
            return case.selection
        told = [number for number in self.inventory.known if number in case.known or number in case.missing]
        return {number: case.known[number] for number in told[::EVERY] if number in case.known}

    def _choose_weight(self, case: Case, made: Prediction) -> tuple[float, dict[str, float | None]]:
        """The weight with the best composite (ties to the smallest), and the composites of all.

        A composite here is over the scales of which an answer is known: the same ones for every weight. Under the
        neutral prompt on all known answers, predicted leave-one-out; else on answers that are kept out of the prompt
        and of the fit.
        """
        if self.system_prompt == "none":
            own, numbers, cuts = case.known, made.numbers, made.own_cuts
            bare = torch.stack([self._neutral[number] for number in numbers])
        else:
            own = self.kept_out(case)
            shown = {number: value for number, value in case.known.items() if number not in own}
            if self.prior == "none" and len(shown) < 2:
                raise ValueError(
                    f"of {len(case.known)} known answers {len(own)} are kept out to choose the weight on, and a "
                    "readout needs two more; method.weights=[1] chooses none"
                )
            made, numbers = self.predict(case, shown), list(own)
            cuts = made.readout.cuts(self.backbone, numbers)
            prompt = self.protocol.few_shot_prompt(shown, case.missing)
            bare = self.backbone.bare_option_log_probs(prompt, self.inventory.select(own))
        items, truth = self.inventory.select(numbers), self.protocol.truth(own)
        scores = as_options(option_log_scores(cuts, torch.tensor(made.loss, dtype=torch.float64)), self.protocol, items)
        tried: dict[str, float | None] = {}
        best, best_score = self.weights[0], float("inf")
        for weight in self.weights:
            chosen = OptionScores(scores, weight).combine(bare.double()).argmax(-1)
            answers = {n: self.inventory.options[int(option)].value for n, option in zip(numbers, chosen, strict=True)}
            scored = aligned_scores(self.inventory, answers, truth)
            present = [each for name, each in scored.items() if name != COMPOSITE and each is not None]
            score = tried[f"{weight:.6g}"] = sum(present) if present else None
            if score is not None and score < best_score - 1e-9:
                best, best_score = weight, score
        return best, tried
