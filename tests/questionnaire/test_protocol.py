"""What is asked, read, true and chosen on, under both protocols."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palign_bench.questionnaire.inventory import DOMAINS, Inventory, Item, Respondent, ipip_neo_120, ipip_neo_300
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
from palign_bench.run.assembly import told_version
from tests.protocols import AS_RELEASED, CORRECTED

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


def test_what_is_told_of_a_person_is_literal_and_lacks_missing_answers(
    inventory: Inventory, person: Respondent
) -> None:
    for protocol in (CORRECTED, AS_RELEASED):
        known, held_out = protocol.known(person), protocol.held_out(person)
        assert known == {n: person.answers[n] for n in inventory.known if n in person.answers}
        assert held_out == {n: person.answers[n] for n in inventory.held_out if n in person.answers}
        assert (len(known), len(held_out)) == (118, 178)


def test_the_truth_of_corrected_is_literal(person: Respondent) -> None:
    assert CORRECTED.truth(CORRECTED.held_out(person)) == CORRECTED.held_out(person)


def test_the_truth_as_released_is_reversed_on_negative_items_and_counts_missing_answers_as_0(
    inventory: Inventory, person: Respondent
) -> None:
    truth = AS_RELEASED.truth(AS_RELEASED.held_out(person))
    assert list(truth) == list(inventory.held_out)
    assert sum(value == 0 for value in truth.values()) == 2
    for number, value in truth.items():
        literal = person.answers.get(number, 0)
        assert value == (literal if inventory[number].sign > 0 or not literal else 6 - literal)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_orient_keyed_and_truth_agree(inventory: Inventory, person: Respondent, name: str) -> None:
    protocol = PROTOCOLS[name](inventory)
    assert protocol.name == name
    truth = protocol.truth(protocol.held_out(person))
    for number, value in protocol.orient(person.answers).items():
        assert number in inventory.known or value == truth[number]
        keyed = person.answers[number] if inventory[number].sign > 0 else inventory.reverse(person.answers[number])
        assert protocol.keyed(number, value) == keyed
        assert protocol.keyed(number, keyed) == value
        assert protocol.reverses(inventory[number]) == (name == "as_released" and inventory[number].sign < 0)


def test_corrected_chooses_on_one_known_item_per_facet_the_same_for_all(
    inventory: Inventory, person: Respondent
) -> None:
    protocol = CORRECTED
    everything = Respondent("all", dict.fromkeys(range(1, 301), 3))
    chosen = protocol.selection(everything, seed=0)
    assert len(chosen) == 30 and set(chosen) <= set(inventory.known)
    assert {inventory[n].subscale for n in chosen} == set(inventory.subscales)
    assert list(chosen) == sorted(chosen)
    other = protocol.selection(person, seed=0)
    assert other == {n: person.answers[n] for n in chosen if n in person.answers}
    assert protocol.selection(everything, seed=0) == chosen
    assert set(protocol.selection(everything, seed=1)) != set(chosen)
    assert set(other.items()) <= set(protocol.known(person).items())


def test_selections_of_many_seeds_reach_every_known_item(inventory: Inventory) -> None:
    everything = Respondent("all", dict.fromkeys(range(1, 301), 3))
    reached: set[int] = set()
    for seed in range(60):
        reached |= set(CORRECTED.selection(everything, seed))
    assert reached == set(inventory.known)  # each of four has missed 60 draws with probability 3e-8


@pytest.mark.parametrize(
    ("items", "subscales", "chosen"),
    [(30, 15, 5), (10, 0, 1), (20, 0, 5), (60, 15, 15), (50, 0, 5)],
    ids=["BFI-2-S", "TIPI", "Mini-IPIP", "BFI-2", "IPIP-50"],
)
def test_at_most_half_of_the_known_answers_is_chosen_on(items: int, subscales: int, chosen: int) -> None:
    """Short questionnaires have one known item of each facet, or of each scale: to choose on all would fit nothing."""
    made = [Item(n, "Sing.", 1, "ACENO"[n % 5], f"f{n % subscales}" if subscales else None) for n in range(items)]
    groups = max(subscales, 5)
    known = tuple(n for n in range(items) if n // groups < items // groups // 2)
    short = Inventory("short", tuple(made), known, DOMAINS)
    for seed in range(5):
        assert len(short.selection(seed)) == chosen <= len(known) / 2 and set(short.selection(seed)) < set(known)
        changed = short.selection(seed) != as_it_was(short, seed)
        assert told_version(Corrected(short), None, None) == (3 if changed else None)


def as_it_was(inventory: Inventory, seed: int) -> list[int]:
    """What was chosen on before at most half of the known answers was: cells of another choice are others."""
    generator, groups = random.Random(f"selection-{seed}"), inventory.grouped(sorted(inventory.known))
    chosen: list[int] = []
    for group in inventory.subscales or tuple(inventory.scales):
        if known := groups.get(group):
            chosen += generator.sample(known, 1 if inventory.subscales else max(1, len(known) // 5))
    return sorted(chosen)


def test_a_choice_that_changed_has_another_version() -> None:
    """Ten known items of one scale and one of each of eight others; the big questionnaires choose as they did."""
    scales = {letter: letter for letter in "ABCDEFGHI"}
    items = [Item(n, "Sing.", 1, "A" if n < 20 else "BCDEFGHI"[n % 8]) for n in range(36)]
    uneven = Inventory("uneven", tuple(items), (*range(10), *range(20, 28)), scales)
    for inventory, version in ((uneven, 3), (ipip_neo_300(), None), (ipip_neo_120(), None)):
        assert told_version(Corrected(inventory), None, None) == version
        assert (inventory.selection(0) != as_it_was(inventory, 0)) == (version == 3)
        assert told_version(Corrected(inventory), len(inventory.known), None) == version


def test_as_released_chooses_on_the_held_out_answers(inventory: Inventory, person: Respondent) -> None:
    protocol = AS_RELEASED
    assert protocol.selection(person, seed=3) == protocol.held_out(person)


def test_statements_and_prompts_of_the_two(inventory: Inventory, person: Respondent) -> None:
    assert '"You worry about things."\n' in CORRECTED.question(inventory[1])
    assert '"You worry about things.."\n' in AS_RELEASED.question(inventory[1])
    opening = "Here are some of your behaviors and your level of recognition towards them"
    known = CORRECTED.known(person)
    missing = [n for n in inventory.known if n not in known]
    few_shot, pas = (AS_RELEASED.few_shot_prompt(known, missing, separator) for separator in (None, ";"))
    assert pas == few_shot.replace(opening, opening + ";") != few_shot
    assert few_shot.count(":Unknown") == 2 and few_shot.count(";") == 119
    negative = next(item for item in inventory.select(known) if item.sign < 0 and known[item.number] == 5)
    assert f"{negative.text}:Very Inaccurate" in few_shot
    corrected = [CORRECTED.few_shot_prompt(known, missing, separator) for separator in (None, ";")]
    assert corrected[0] == corrected[1] and "Unknown" not in corrected[0] and corrected[0].count(";") == 118
    assert f"{negative.text}:Very Accurate" in corrected[0]
    assert f"{negative.text}:Very Accurate" in CORRECTED.portrait_request(known, missing)
    assert f"{negative.text}:Very Inaccurate" in AS_RELEASED.portrait_request(known, missing)
    assert AS_RELEASED.portrait_request(known, missing).count(":Unknown") == 2
    assert CORRECTED.template_portrait(known) != AS_RELEASED.template_portrait(known)


def test_audit_asks_everyone_the_same_20_held_out_items_of_all_domains(inventory: Inventory) -> None:
    items = audit_items(inventory)
    numbers = [item.number for item in items]
    assert len(numbers) == AUDIT_ITEMS == 20 and numbers == sorted(set(numbers))
    assert set(numbers) <= set(inventory.held_out)
    assert {item.scale for item in items} == set("ACENO")
    assert {item.sign for item in items} == {1, -1}
    assert audit_items(inventory) == items
