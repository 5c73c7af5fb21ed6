"""Asking in other ways: what the model reads, and that an answer is read by its label wherever that stands."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.base import Backbone
from palign_bench.backbone.engines.base import Engine, Request
from palign_bench.questionnaire.inventory import OPTIONS, Inventory, Item
from palign_bench.questionnaire.variant import FRAMES, ITEMS, VARIANTS, Variant
from palign_bench.report.invariance import letters_kept, position_test
from palign_bench.run.checks import check_words
from palign_bench.settings import UserError, read_option
from tests.protocols import AS_RELEASED, CORRECTED
from tests.tiny import tiny_tokenizer

Pick = Callable[[Mapping[str, str]], str]  # a letter, given the labels by letter as the question lists them


class Choosing(Engine):
    """Reads the options out of the prompt itself and picks a letter."""

    def __init__(self, pick: Pick):
        super().__init__(tiny_tokenizer(), frozenset(), 2048)
        self.pick = pick

    def option_log_probs(self, request: Request, options: Sequence[int]) -> Tensor:
        letters = [self.text([token]) for token in options]
        rows = []
        for prompt in request.prompts.whole:
            listed = dict(re.findall(r"\((\w)\)\. (.+)", self.text(prompt)))
            assert len(listed) == len(OPTIONS)
            rows.append([0.9 if letter == self.pick(listed) else 0.025 for letter in letters])
        return torch.tensor(rows).log()

    def greedy(self, request: Request) -> list[str]:
        raise AssertionError("nothing is generated")


class Reader(Backbone):
    """A model that picks letters by a rule."""

    capabilities = frozenset({"prompt", "log_probs"})
    identity: ClassVar[dict[str, str]] = {}

    def __init__(self, pick: Pick):
        engine = Choosing(pick)
        super().__init__(engine.tokenizer, CORRECTED, engine)

    def applied(self, alignment: Alignment) -> AbstractContextManager[None]:
        return nullcontext()

    def generate(self, alignment: Alignment, system: str, user: str, max_new_tokens: int, temperature: float) -> str:
        raise AssertionError("nothing is generated")

    def option_scores(self, alignment: Alignment, items: Sequence[Item]) -> None:
        return None


def _first_letter(listed: Mapping[str, str]) -> str:
    return "A"


def _by_label(listed: Mapping[str, str]) -> str:
    """Always the same label, whatever letter it has."""
    return next(letter for letter, label in listed.items() if label == "Moderately Inaccurate")


def _asked(pick: Pick, name: str, inventory: Inventory) -> list[float]:
    reader, items = Reader(pick), inventory.select(inventory.held_out[:6])
    sheet = reader.asking(Variant(name).asked(CORRECTED)).answer(Alignment(), items)
    assert reader.protocol is CORRECTED
    return [sheet.answers[item.number] for item in items]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_model_that_follows_labels_answers_the_same_in_every_variant(name: str, inventory: Inventory) -> None:
    assert _asked(_by_label, name, inventory) == [2] * 6


def test_a_model_that_takes_the_first_letter_answers_whatever_label_is_there(inventory: Inventory) -> None:
    found = {name: _asked(_first_letter, name, inventory) for name in VARIANTS}
    assert found.pop("reversed") == [1] * 6  # (A). Very Inaccurate
    assert found.pop("rotated") == [3] * 6  # (A). Neither Accurate Nor Inaccurate
    assert all(answers == [5] * 6 for answers in found.values())


def test_position_bias_is_one_for_the_letter_and_zero_for_the_label(inventory: Inventory) -> None:
    for pick, bias in ((_first_letter, 1), (_by_label, 0)):
        answers = {n: torch.tensor([_asked(pick, n, inventory)]).numpy() for n in ("plain", "reversed", "rotated")}
        for name in ("reversed", "rotated"):
            kept = letters_kept(answers["plain"], answers[name], Variant(name), inventory)
            assert kept.tolist() == [bias] * 6
        assert position_test(list(answers.values()), inventory)[1] == pytest.approx(bias)


def test_the_question_lists_what_the_variant_says(inventory: Inventory) -> None:
    item = inventory[inventory.held_out[0]]
    plain = CORRECTED.question(item)
    labels = [option.label for option in OPTIONS]
    for name, order in (("reversed", labels[::-1]), ("rotated", labels[2:] + labels[:2])):
        asked = Variant(name).asked(CORRECTED)
        listed = "".join(f"({letter}). {label}\n" for letter, label in zip("ABCDE", order, strict=True))
        assert asked.question(item) == plain[: plain.index("(A)")] + listed
        texts = [f" ({letter}). {label}" for letter, label in zip("ABCDE", order, strict=True)]
        assert [labels[5 - (asked.parse(text) or 0)] for text in texts] == order
    for name in ("plain", "repeat", "shuffled"):
        assert Variant(name).asked(CORRECTED).question(item) == plain
    questions = {Variant(name).asked(CORRECTED).question(item) for name in FRAMES}
    assert len(questions | {plain}) == 4
    assert all(
        CORRECTED.statement(item) in each and each.endswith(plain[plain.index("Options:") :]) for each in questions
    )


def test_shuffled_tells_the_same_answers_in_another_order(inventory: Inventory) -> None:
    known = {n: 1 + n % 5 for n in inventory.known}
    plain = CORRECTED.few_shot_prompt(known)
    shuffled = Variant("shuffled").told(CORRECTED, 0).few_shot_prompt(known)
    assert plain != shuffled and Counter(plain.split(";")) == Counter(shuffled.split(";"))
    assert shuffled == Variant("shuffled").told(CORRECTED, 0).few_shot_prompt(known)
    assert shuffled != Variant("shuffled").told(CORRECTED, 1).few_shot_prompt(known)
    for name in set(VARIANTS) - {"shuffled"}:
        assert Variant(name).told(CORRECTED, 0) is CORRECTED


def test_the_items_are_the_same_in_every_variant_one_of_each_facet(inventory: Inventory) -> None:
    numbers = Variant("plain").items(inventory, 0)
    assert len(numbers) == ITEMS and set(numbers) < set(inventory.held_out)
    assert {inventory[n].subscale for n in numbers} == set(inventory.subscales)
    assert {Variant(name).items(inventory, 0) for name in VARIANTS} == {numbers}
    assert Variant("plain").items(inventory, 1) != numbers


def test_what_cannot_be_asked_is_refused(inventory: Inventory) -> None:
    assert Variant.parse("none", CORRECTED) is None
    with pytest.raises(UserError, match="variant=upside_down: choose one of plain, reversed"):
        Variant.parse("upside_down", CORRECTED)
    with pytest.raises(UserError, match="variant=reversed is not defined for protocol=as_released"):
        Variant.parse("reversed", AS_RELEASED)
    own = SimpleNamespace(inventory=SimpleNamespace(name="mine", asks="{statement}?"), reading=CORRECTED.reading)
    with pytest.raises(UserError, match="variant=frame_1: mine brings a question of its own"):
        Variant.parse("frame_1", own)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", VARIANTS)
def test_the_organism_reads_its_own_question_alone(name: str) -> None:
    organism = read_option("model", "organism")
    if name in ("plain", "shuffled", "repeat"):
        check_words(organism, CORRECTED, Variant(name))
    else:
        with pytest.raises(UserError, match=f"model=organism cannot read variant={name}"):
            check_words(organism, CORRECTED, Variant(name))
