"""What is asked, read, true and chosen on, under both protocols."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palign_bench.questionnaire.inventory import Inventory, Respondent, reverse
from palign_bench.questionnaire.protocol import (
    AUDIT_ITEMS,
    FREE_GENERATION,
    PROTOCOLS,
    AsReleased,
    Corrected,
    audit_items,
    parse_is_decided,
    parse_released,
)

# What follows "Option" in the generated text, and what the released code reads in it. The window has 12 characters, of
# which "\n\nOption" takes eight: four characters of the generation are looked at.
PARSED = [
    (" (A)", 5), (" (B)", 4), (" (C)", 3), (" (D)", 2), (" (E)", 1),
    (" (a)", 5), (" (e)", 1), (" (c). Neither", 3),
    (" A.", 5), (" B:", 4), (" D\n", 2), (": E.", 1),
    (" E<|im_end|>", 1), (" E<|eot_id|>", 1), (" E", None), ("E", None), ("", None),
    (" E ", 1), ("s: A", None), ("  (A)", None), (" (A", None), ("   E.", None), ("  E.", 1),
    (" Absolutely", None), (" A good one", 5), (" Accurate", None), (" Very", None), (" be.", 1),
    ("\n\n(B)", None), ("\n(B)", 4), (" (F)", None), (" 1.", None), (" A1", 5), (" (A)(B)", 5), (" é.", None),
]  # fmt: skip


@pytest.fixture
def person(inventory: Inventory) -> Respondent:
    """Answers that walk through 1…5, with one known and one held-out item of either sign missing."""
    missing = set()
    for numbers in (inventory.known, inventory.held_out):
        for sign in (1, -1):
            missing.add(next(n for n in numbers if inventory[n].sign == sign))
    return Respondent("p", {n: n * 7 % 5 + 1 for n in range(1, 301) if n not in missing})


@pytest.mark.parametrize(("generated", "value"), PARSED)
def test_parse(generated: str, value: int | None) -> None:
    assert parse_released(generated) == value


def test_free_generation_is_that_of_the_released_code() -> None:
    assert (FREE_GENERATION.opening, FREE_GENERATION.generates, FREE_GENERATION.max_new_tokens) == ("Option", True, 15)
    assert AsReleased.reading is FREE_GENERATION
    assert Corrected.reading.opening == "Option (" and not Corrected.reading.generates


text = st.text(alphabet=st.sampled_from(list("abcdeABCDEfxyz ().:<|>\n1é")), max_size=8)


@settings(max_examples=1000, deadline=None)
@given(text, text)
def test_a_decided_parse_never_changes(generated: str, more: str) -> None:
    if parse_is_decided(generated):
        assert parse_released(generated + more) == parse_released(generated)


@settings(max_examples=300, deadline=None)
@given(text)
def test_an_undecided_parse_can_still_change(generated: str) -> None:
    """Otherwise rows would be generated longer than needed."""
    if not parse_is_decided(generated):
        assert parse_released(generated) is None
        endings = ["A.", "."]  # a letter and its non-letter, or the non-letter that a last letter waits for
        left = 4 - len(generated)
        assert left < 2 or any(parse_released(generated + ending) is not None for ending in endings)


def test_corrected_is_literal_and_leaves_missing_answers_out(inventory: Inventory, person: Respondent) -> None:
    protocol = Corrected()
    known, truth = protocol.known(inventory, person), protocol.truth(inventory, person)
    assert known == {n: person.answers[n] for n in inventory.known if n in person.answers}
    assert truth == {n: person.answers[n] for n in inventory.held_out if n in person.answers}
    assert (len(known), len(truth)) == (118, 178)
    assert not set(known) & set(truth)


def test_as_released_is_reversed_on_negative_items_and_counts_missing_answers_as_0(
    inventory: Inventory, person: Respondent
) -> None:
    protocol = AsReleased()
    for numbers, answers in (
        (inventory.known, protocol.known(inventory, person)),
        (inventory.held_out, protocol.truth(inventory, person)),
    ):
        assert list(answers) == list(numbers)
        assert sum(value == 0 for value in answers.values()) == 2
        for number, value in answers.items():
            literal = person.answers.get(number)
            if literal is None:
                assert value == 0
            else:
                assert value == (literal if inventory[number].sign > 0 else 6 - literal)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_orient_and_keyed_agree_with_what_is_told_of_a_person(
    inventory: Inventory, person: Respondent, name: str
) -> None:
    protocol = PROTOCOLS[name]()
    assert protocol.name == name
    oriented = protocol.orient(inventory, person.answers)
    told = {**protocol.known(inventory, person), **protocol.truth(inventory, person)}
    for number, value in oriented.items():
        assert value == told[number]
        keyed = person.answers[number] if inventory[number].sign > 0 else reverse(person.answers[number])
        assert protocol.keyed(inventory, number, value) == keyed
        assert protocol.keyed(inventory, number, keyed) == value


def test_corrected_chooses_on_one_known_item_per_facet_the_same_for_all(
    inventory: Inventory, person: Respondent
) -> None:
    protocol = Corrected()
    everything = Respondent("all", dict.fromkeys(range(1, 301), 3))
    chosen = protocol.selection(inventory, everything, seed=0)
    assert len(chosen) == 30 and set(chosen) <= set(inventory.known)
    assert {inventory[n].facet for n in chosen} == set(inventory.facets)
    assert list(chosen) == sorted(chosen)
    other = protocol.selection(inventory, person, seed=0)
    assert other == {n: person.answers[n] for n in chosen if n in person.answers}
    assert protocol.selection(inventory, everything, seed=0) == chosen
    assert set(protocol.selection(inventory, everything, seed=1)) != set(chosen)
    assert set(other.items()) <= set(protocol.known(inventory, person).items())


def test_selections_of_many_seeds_reach_every_known_item(inventory: Inventory) -> None:
    everything = Respondent("all", dict.fromkeys(range(1, 301), 3))
    reached: set[int] = set()
    for seed in range(60):
        reached |= set(Corrected().selection(inventory, everything, seed))
    assert reached == set(inventory.known)  # each of four has missed 60 draws with probability 3e-8


def test_as_released_chooses_on_the_held_out_answers(inventory: Inventory, person: Respondent) -> None:
    protocol = AsReleased()
    assert protocol.selection(inventory, person, seed=3) == protocol.truth(inventory, person)


def test_statements_and_prompts_of_the_two(inventory: Inventory, person: Respondent) -> None:
    assert '"You worry about things."\n' in Corrected().question(inventory[1])
    assert '"You worry about things.."\n' in AsReleased().question(inventory[1])
    opening = "Here are some of your behaviors and your level of recognition towards them"
    stored = AsReleased().known(inventory, person)
    few_shot, pas = (AsReleased().few_shot_prompt(inventory, stored, for_pas=p) for p in (False, True))
    assert pas == few_shot.replace(opening, opening + ";") != few_shot
    assert few_shot.count(":Unknown") == 2 and few_shot.count(";") == 119
    literal = Corrected().known(inventory, person)
    corrected = [Corrected().few_shot_prompt(inventory, literal, for_pas=p) for p in (False, True)]
    assert corrected[0] == corrected[1] and "Unknown" not in corrected[0] and corrected[0].count(";") == 118


def test_audit_asks_everyone_the_same_20_held_out_items_of_all_domains(inventory: Inventory) -> None:
    items = audit_items(inventory)
    numbers = [item.number for item in items]
    assert len(numbers) == AUDIT_ITEMS == 20 and numbers == sorted(set(numbers))
    assert set(numbers) <= set(inventory.held_out)
    assert {item.domain for item in items} == set("ACENO")
    assert {item.sign for item in items} == {1, -1}
    assert audit_items(inventory) == items
