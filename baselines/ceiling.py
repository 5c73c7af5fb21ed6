"""The row ``ceiling``: the posterior of the factor model that draws simulated people, given a person's known answers.

On people simulated from the same figures no method can expect a lower score; on others it is that model's own guess.
No statement is read, and no other person of the source is used. Every held-out item is answered with the median option
of the posterior predictive distribution (`respondents/posterior.py`): what minimises the expected absolute error.
"""

from collections.abc import Sequence

import numpy as np

from palign_bench.aligner import Aligner, Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.base import Backbone
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.questionnaire.protocol import EvaluationProtocol
from palign_bench.respondents.norms import NORMS
from palign_bench.respondents.posterior import FactorPosterior, expected_error, median_option
from palign_bench.respondents.simulated import factor_model
from palign_bench.settings import UserError, one_of, whole


class Ceiling(Aligner):
    """Answers as the factor model expects of a person with these known answers.

    ``figures``: the model's, a key of `NORMS`. ``sweeps``, ``burn_in``: of the Gibbs sampler.
    """

    needs_backbone = False
    block = "known_truth"
    cohort = 50  # people at once; more are no faster

    def __init__(self, figures: str, sweeps: int, burn_in: int):
        one_of("method.figures", figures, NORMS)
        whole("method.sweeps", sweeps)
        whole("method.burn_in", burn_in, lowest=0)
        self.model = factor_model(figures)
        self.sweeps, self.burn_in = int(sweeps), int(burn_in)

    def check_inventory(self, inventory: Inventory) -> None:
        """Raise UserError for an inventory that the factor model is not of."""
        if inventory.items != self.model.inventory.items:
            raise UserError(
                f"method=ceiling: the factor model is of {self.model.inventory.name}, not of {inventory.name}; "
                "leave it out"
            )

    def prepare(self, backbone: Backbone | None, protocol: EvaluationProtocol) -> None:
        super().prepare(backbone, protocol)
        inventory = self.inventory
        self.check_inventory(inventory)
        self.posterior = FactorPosterior(self.model, inventory.known, inventory.held_out, self.sweeps, self.burn_in)

    def align(self, case: Case) -> Alignment:
        return self.align_many([case])[0]

    def align_many(self, cases: Sequence[Case]) -> list[Alignment]:
        known = np.array([[int(case.known.get(n, 0)) for n in self.inventory.known] for case in cases])  # 0: missing
        probabilities = self.posterior.predict(known, [case.seed for case in cases])
        answers = median_option(probabilities)
        return [
            Alignment(
                answers=self.protocol.orient(dict(zip(self.inventory.held_out, options.tolist(), strict=True))),
                summary={"expected_composite": self._composite(errors)},
            )
            for options, errors in zip(answers, expected_error(probabilities, answers), strict=True)
        ]

    def _composite(self, errors: np.ndarray) -> float:
        """The composite that the model itself expects of its answers: expected errors, mean per scale, summed."""
        scales = np.array([item.scale for item in self.inventory.select(self.inventory.held_out)])
        return float(sum(errors[scales == scale].mean() for scale in self.inventory.scales))
