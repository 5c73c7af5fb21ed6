"""Vanilla and Few-Shot: the methods that only prompt.

Paper, C.2, Few-shot Prompt: "Using the given IPIP-NEO-120 statements directly as the system prompts."
"""

from palign_bench.aligner import Aligner, Case
from palign_bench.backbone.alignment import Alignment


class Vanilla(Aligner):
    """The bare model under the neutral system prompt."""

    needs = frozenset({"prompt"})

    def align(self, case: Case) -> Alignment:
        return Alignment()


class FewShot(Aligner):
    """The known answers, listed in the system prompt as the protocol words them."""

    needs = frozenset({"prompt"})

    def align(self, case: Case) -> Alignment:
        return Alignment(system_prompt=self.protocol.few_shot_prompt(case.known, case.missing))
