"""The readout as a method: a closed-form prediction, and its weight against the model's own answers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from baselines.readout.predictors import Prediction, predict_alone, predict_with_others
from palign_bench.aligner import Aligner, Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.base import Backbone
from palign_bench.backbone.parts.options import OptionScores
from palign_bench.backbone.parts.ordinal import option_log_scores
from palign_bench.backbone.parts.readout import as_options
from palign_bench.backbone.parts.statements import FeatureRecipe, ItemKernel, item_kernel
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
    thresholds), in closed form, and the ``weight`` whose answers to known items score best: under the neutral prompt on
    all of them, predicted leave-one-out; with the answers in the prompt on those that were kept out of it and of the
    fit. Nothing is ever chosen on held-out answers, whatever the protocol.

    ``prior``: ``none`` uses the person's own known answers; ``people`` also everyone else's of the source.
    """

    version = 1

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
        self._kernel: ItemKernel = item_kernel(self.backbone, self.inventory, self.recipe)
        self._neutral: dict[int, Tensor] = {}
        if self.system_prompt == "none" and len(self.weights) > 1:
            rows = self.backbone.bare_option_log_probs(None, self.inventory.select(known))
            self._neutral = dict(zip(known, rows, strict=True))

    def align(self, case: Case) -> Alignment:
        return self.align_many([case])[0]

    def align_many(self, cases: Sequence[Case]) -> list[Alignment]:
        """Align several respondents; without other people, all in one batched solve."""
        weights: list[tuple[float, dict[str, Any]]]
        final = self.predict(cases, [case.known for case in cases])
        if len(self.weights) == 1:
            weights = [(self.weights[0], {})] * len(cases)
        else:
            with part("search"):
                weights = self._choose_weights(cases, final)
        return [self._alignment(*each) for each in zip(cases, final, weights, strict=True)]

    def _choose_weights(self, cases: Sequence[Case], final: Sequence[Prediction]) -> list[tuple[float, dict[str, Any]]]:
        """Each person's weight and the composites of all that were tried."""
        if self.system_prompt == "none":
            bare = [torch.stack([self._neutral[number] for number in made.numbers]) for made in final]
            return [
                self._best_weight(made.numbers, made.own_cuts, made.loss, own, case.known)
                for case, made, own in zip(cases, final, bare, strict=True)
            ]
        kept = [self.kept_out(case) for case in cases]
        shown = [{n: v for n, v in case.known.items() if n not in out} for case, out in zip(cases, kept, strict=True)]
        partial = self.predict(cases, shown)
        return [self._weight_prompted(*each) for each in zip(cases, kept, shown, partial, strict=True)]

    def kept_out(self, case: Case) -> Answers:
        """Known answers to choose on: the protocol's selection where that is a part of them, else one in four."""
        if case.selection and case.selection.keys() <= case.known.keys():
            return case.selection
        told = [number for number in self.inventory.known if number in case.known or number in case.missing]
        return {number: case.known[number] for number in told[::EVERY] if number in case.known}

    def predict(self, cases: Sequence[Case], answers: Sequence[Answers]) -> list[Prediction]:
        """Every case's prediction from these of its answers."""
        if self.prior == "none":
            return list(predict_alone(self.inventory, self._kernel, self.recipe, answers, self.noises))
        return [
            predict_with_others(self.inventory, self._kernel, own, self._table(case))
            for case, own in zip(cases, answers, strict=True)
        ]

    def _weight_prompted(
        self, case: Case, kept: Answers, shown: Answers, made: Prediction
    ) -> tuple[float, dict[str, Any]]:
        prompt = self.protocol.few_shot_prompt(shown, case.missing)
        bare = self.backbone.bare_option_log_probs(prompt, self.inventory.select(kept))
        return self._best_weight(list(kept), made.cuts(list(kept)), made.loss, bare, kept)

    def _best_weight(
        self, numbers: Sequence[int], cuts: Tensor, loss: float, bare: Tensor, own: Answers
    ) -> tuple[float, dict[str, Any]]:
        """The weight with the best composite (ties to the smallest), and all weights' composites."""
        items = self.inventory.select(numbers)
        scores = as_options(option_log_scores(cuts, torch.tensor(loss, dtype=torch.float64)), self.protocol, items)
        truth = self.protocol.truth(own)
        tried: dict[str, Any] = {}
        best, best_score = self.weights[0], float("inf")
        for weight in self.weights:
            chosen = OptionScores(scores, weight).combine(bare.double()).argmax(-1)
            answers = {n: self.inventory.options[int(option)].value for n, option in zip(numbers, chosen, strict=True)}
            score = aligned_scores(self.inventory, answers, truth)[COMPOSITE]
            tried[f"{weight:.6g}"] = score
            if score is not None and score < best_score - 1e-9:
                best, best_score = weight, score
        return best, tried

    def _alignment(self, case: Case, made: Prediction, choice: tuple[float, dict[str, Any]]) -> Alignment:
        weight, tried = choice
        readout = made.readout(weight) if weight > 0 else None
        stored = 0 if readout is None else sum(t.numel() for name, t in readout.tensors().items() if name != "numbers")
        summary = {
            "weight": weight,
            "weights": tried,
            "loss_on_known": made.loss,
            "prior": self.prior,
            "system_prompt": self.system_prompt,
        }
        if self.prior == "none":
            summary["noise"] = float(made.uncertainty[0])  # type: ignore[attr-defined]
        few_shot = self.system_prompt == "few_shot"
        prompt = self.protocol.few_shot_prompt(case.known, case.missing) if few_shot else None
        return Alignment(system_prompt=prompt, readout=readout, trained_parameters=stored, summary=summary)

    def _table(self, case: Case) -> Tensor:
        """Answers of the others, float64 ``(people, items)``; NaN where missing. Raises ValueError for nobody."""
        if case.others is None or not len(case.others):
            raise ValueError(
                "prior=people learns from other people, and the source of respondents holds only one person"
            )
        return torch.from_numpy(case.others)
