"""The questionnaire against the PyPI package `five-factor-e` and, where they are at hand, the released PAPI files."""

import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest
from ipipneo.facet import Facet
from ipipneo.reverse import IPIP_NEO_ITEMS_REVERSED_300, ReverseScored300
from ipipneo.utility import organize_list_json

from palign_bench.questionnaire.inventory import DOMAINS, OPTIONS, Inventory, ipip_neo_300
from palign_bench.questionnaire.scoring import trait_scores

PAPI_FOLDER = "PALIGN_PAPI_DIR"


@pytest.fixture
def papi_folder() -> Path:
    """The released files themselves (the item key is not in the cache); skips where no folder is named."""
    folder = os.environ.get(PAPI_FOLDER)
    if not folder:
        pytest.skip(f"{PAPI_FOLDER} names no folder with the released item key and split")
    return Path(folder)


def signs(inventory: Inventory, numbers: tuple[int, ...]) -> tuple[int, int]:
    """How many of these items are positively and how many negatively keyed."""
    count = Counter(inventory[number].sign for number in numbers)
    return count[1], count[-1]


def test_counts(inventory: Inventory) -> None:
    assert [item.number for item in inventory.items] == list(range(1, 301))
    assert len({item.text for item in inventory.items}) == 300
    assert signs(inventory, tuple(range(1, 301))) == (152, 148)
    assert (len(inventory.known), len(inventory.held_out)) == (120, 180)
    assert signs(inventory, inventory.known) == (65, 55)
    assert signs(inventory, inventory.held_out) == (87, 93)
    assert sorted(inventory.known + inventory.held_out) == list(range(1, 301))
    assert list(inventory.held_out) == sorted(inventory.held_out)


def test_every_facet_has_ten_items_and_four_of_them_are_known(inventory: Inventory) -> None:
    assert set(Counter(item.subscale for item in inventory.items).values()) == {10}
    assert set(Counter(inventory[number].subscale for number in inventory.known).values()) == {4}
    assert inventory.subscales == tuple(sorted(f"{domain}{n}" for domain in DOMAINS for n in range(1, 7)))
    assert set(Counter(item.scale for item in inventory.items).values()) == {60}


def test_every_text_is_one_sentence(inventory: Inventory) -> None:
    for item in inventory.items:
        assert item.text[0].isupper() and item.text.rstrip('"').endswith("."), item
        assert item.text == item.text.strip() and item.text.count(".") == 1, item


def test_signs_and_facets_are_those_of_five_factor_e(inventory: Inventory) -> None:
    assert {item.number for item in inventory.items if item.sign < 0} == set(IPIP_NEO_ITEMS_REVERSED_300)
    layout = [f"{domain}{facet}" for facet in range(1, 7) for domain in "NEOAC"]
    assert [item.subscale for item in inventory.items] == [layout[(n - 1) % 30] for n in range(1, 301)]


@pytest.mark.parametrize("seed", range(5))
def test_trait_scores_agree_with_the_scorer_of_five_factor_e(inventory: Inventory, seed: int) -> None:
    generator = random.Random(seed)
    literal = {number: generator.randint(1, 5) for number in range(1, 301)}
    asked = [{"id_question": number, "id_select": value} for number, value in literal.items()]
    # Its reversal works on literal answers, in place, and its facet sums want the answers in item order.
    keyed = ReverseScored300(answers={"answers": asked})
    sums = Facet(nquestion=300).domain(Facet(nquestion=300).score(organize_list_json(answers=keyed)))
    expected = {name: sums[domain] / 60 for domain, name in DOMAINS.items()}
    assert trait_scores(inventory, literal) == pytest.approx(expected)


def test_trait_scores_a_few_answers(inventory: Inventory) -> None:
    negative = next(item.number for item in inventory.items if item.sign < 0)
    domain = inventory[negative].scale
    assert trait_scores(inventory, {negative: 5}) == {DOMAINS[domain]: 1}
    assert inventory.keyed(negative, inventory.keyed(negative, 2)) == 2
    positive = next(item.number for item in inventory.items if item.sign > 0 and item.scale == domain)
    assert trait_scores(inventory, {negative: 5, positive: 4}) == {DOMAINS[domain]: 2.5}


def test_options_run_from_a_5_to_e_1() -> None:
    assert [(option.letter, option.value) for option in OPTIONS] == [("A", 5), ("B", 4), ("C", 3), ("D", 2), ("E", 1)]
    assert [ipip_neo_300().reverse(option.value) for option in OPTIONS] == [1, 2, 3, 4, 5]


def test_selecting_keeps_the_order_asked_for(inventory: Inventory) -> None:
    assert [item.number for item in inventory.select([300, 9, 10])] == [300, 9, 10]
    with pytest.raises(KeyError):
        inventory.select([301])


def test_the_questionnaire_is_read_once() -> None:
    assert ipip_neo_300() is ipip_neo_300()


def test_wording_signs_and_facets_are_those_of_the_released_item_key(inventory: Inventory, papi_folder: Path) -> None:
    import xlrd

    sheet = xlrd.open_workbook(str(papi_folder / "IPIP-NEO-ItemKey.xls")).sheet_by_index(0)
    header = [str(name) for name in sheet.row_values(0)]
    rows = [dict(zip(header, sheet.row_values(i), strict=True)) for i in range(1, sheet.nrows)]
    assert len(rows) == 300
    for row in rows:
        item = inventory[int(row["Full#"])]
        assert (item.text, item.subscale) == (row["Item"], row["Key"])
        assert ("+" if item.sign > 0 else "-") + item.subscale == row["Sign"]


def test_split_is_the_released_one(inventory: Inventory, papi_folder: Path) -> None:
    split = json.loads((papi_folder / "mpi_300_split.json").read_text())
    assert list(inventory.known) == split["train_index"]
    assert list(inventory.held_out) == sorted(split["test_index"])
