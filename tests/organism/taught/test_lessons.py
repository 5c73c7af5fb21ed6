"""Texts as the harness writes them, and where a statement has just been read, in SmolLM2's own tokens."""

import numpy as np
import pytest

from palign_bench.backbone.chat_format import ChatFormat
from palign_bench.backbone.loading import tokenizer_of
from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.organism.taught.lessons import Lessons, unseen_items
from palign_bench.questionnaire import prompts
from palign_bench.questionnaire.inventory import OPTIONS, ipip_neo_300
from palign_bench.questionnaire.protocol import PROTOCOLS
from palign_bench.settings import read_option

INVENTORY = ipip_neo_300()


@pytest.fixture(scope="module")
def lessons():
    return Lessons(tokenizer_of(resolve_model(read_option("model", "smollm2_135m"))), INVENTORY)


def test_one_held_out_item_of_every_facet_is_never_shown():
    unseen = unseen_items(INVENTORY)
    assert len(unseen) == 30 and set(unseen) <= set(INVENTORY.held_out)
    assert len({INVENTORY[number].subscale for number in unseen}) == 30
    assert unseen == unseen_items(INVENTORY)


def test_every_item_that_may_be_shown_is_drawn_and_no_other(lessons):
    unseen, drawn = set(unseen_items(INVENTORY)), set()
    for seed in range(60):
        told, asked = lessons.draw(np.random.default_rng(seed), 40, 8, of_few_facets=bool(seed % 2))
        assert len(asked) == 8 and not set(told) & set(asked)
        drawn |= {INVENTORY.items[row].number for row in (*told, *asked)}
    assert drawn == {item.number for item in INVENTORY.items} - unseen


def test_a_list_and_a_question_are_the_harness_own_tokens(lessons):
    protocol = PROTOCOLS["corrected"](INVENTORY)
    known = {number: 1 + number % 5 for number in INVENTORY.known[:20]}
    rows = np.array([[item.number for item in INVENTORY.items].index(number) for number in known])
    said = lessons.listing(rows, np.array(list(known.values())))
    item = INVENTORY.items[7]
    asked = lessons.question(7)
    prompt = ChatFormat(lessons.tokenizer).render(
        (protocol.few_shot_prompt(known), protocol.question(item), protocol.reading.opening)
    )
    assert said.ids + asked.ids == lessons.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert len(asked.ids) == asked.letter + 1


@pytest.mark.parametrize("form", ["listing", "portrait"])
def test_where_the_answer_of_every_item_comes_next(lessons, form):
    rows = np.arange(300)
    answers = 1 + rows % 5
    said = getattr(lessons, form)(rows, answers)
    for row in range(0, 300, 7):
        read = lessons.tokenizer.decode(said.ids[: said.asks[row] + 1])
        item = INVENTORY.items[row]
        wanted = f"{item.text}:" if form == "listing" else f"You {prompts.statement(INVENTORY, item)},"
        assert read.endswith(wanted)


@pytest.mark.parametrize("asks", [prompts.ASKS["phrase"], *prompts.FRAMES["phrase"]])
def test_a_question_is_marked_where_its_letter_comes_next(lessons, asks):
    for row in range(0, 300, 23):
        asked = lessons.question(row, asks=asks, answer=2)
        read = lessons.tokenizer.decode(asked.ids[: asked.letter + 1])
        assert f'You {prompts.statement(INVENTORY, INVENTORY.items[row])}."' in read and read.endswith("Option (")
        written = lessons.tokenizer.decode(asked.ids[asked.letter + 1 :])
        assert written == f"D). {INVENTORY.labels[2]}{lessons.tokenizer.eos_token}"
        assert asked.values == tuple(option.value for option in OPTIONS)
