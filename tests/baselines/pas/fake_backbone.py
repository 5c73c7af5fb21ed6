"""A backbone made of seeded random numbers, into which a test plants what PAS should find."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from palign_bench.aligner import Case
from palign_bench.backbone.alignment import Alignment, AnswerSheet
from palign_bench.questionnaire.inventory import DOMAINS, Answers, Inventory, Item, Respondent, ipip_neo_300
from palign_bench.questionnaire.protocol import EvaluationProtocol

LAYERS, HEADS, WIDTH = 3, 4, 6
Reply = Callable[[Alignment], Answers]


def collection_order(inventory: Inventory) -> list[int]:
    """Known items as activations are collected: domains A, C, E, N, O, inside a domain in prompt order."""
    return sorted(inventory.known, key=lambda n: (list(DOMAINS).index(inventory[n].scale), inventory.known.index(n)))


class FakeBackbone:
    """Head outputs are noise; at the planted head they also move along ``direction`` with the planted person's label.

    ``reply`` gives the answers under an alignment. Everything asked is kept for the test to look at.
    """

    capabilities = frozenset({"prompt", "activations"})

    def __init__(self, protocol: EvaluationProtocol, reply: Reply, planted: Answers, noise: float = 1.0) -> None:
        self.protocol = protocol
        self.reply = reply
        self.planted = planted
        self.noise = noise
        self.planted_head = (1, 2)
        self.direction = torch.tensor([3.0, 0.0, -4.0, 0.0, 0.0, 0.0]) / 5
        self.collected: list[tuple[str | None, str, str]] = []
        self.asked: list[tuple[list[Alignment], list[int]]] = []

    def head_activations(self, dialogues: Sequence[tuple[str | None, str, str]]) -> Tensor:
        self.collected = list(dialogues)
        generator = torch.Generator().manual_seed(7)
        outputs = torch.randn(len(dialogues), LAYERS, HEADS, WIDTH, generator=generator) * self.noise
        layer, head = self.planted_head
        for index, number in enumerate(collection_order(ipip_neo_300())):
            agreement = self.planted.get(number, 3) - 3
            outputs[2 * index, layer, head] += 2 * agreement * self.direction
            outputs[2 * index + 1, layer, head] -= 2 * agreement * self.direction
        return outputs

    def answer(self, alignment: Alignment, items: Sequence[Item]) -> AnswerSheet:
        numbers = tuple(item.number for item in items)
        replies = self.reply(alignment)
        return AnswerSheet(numbers, {number: replies[number] for number in numbers if number in replies})

    def answer_many(self, alignments: Sequence[Alignment], items: Sequence[Item]) -> list[AnswerSheet]:
        self.asked.append((list(alignments), [item.number for item in items]))
        return [self.answer(alignment, items) for alignment in alignments]


def person(seed: int) -> dict[int, float]:
    """Seeded literal answers to all 300 items, a tenth of them missing."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(1, 6, (300,), generator=generator).tolist()
    missing = torch.rand(300, generator=generator) < 0.1
    return {number: value for number, value, gone in zip(range(1, 301), values, missing, strict=True) if not gone}


def case_of(protocol: EvaluationProtocol, answers: Answers, seed: int = 0) -> Case:
    """What the runner would tell an aligner about someone with these answers."""
    respondent = Respondent("someone", answers)
    return Case(
        respondent.id,
        protocol.known(respondent),
        protocol.selection(respondent, 0),
        seed=seed,
        missing=tuple(n for n in protocol.inventory.known if n not in answers),
    )
