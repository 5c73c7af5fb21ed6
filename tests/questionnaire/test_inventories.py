"""Inventories other than IPIP-NEO-300: the short form, the Dark Triad, and a user's own."""

import os
import re
from pathlib import Path

import pytest

from baselines.floors import floors
from palign_bench.aligner import Case
from palign_bench.questionnaire import prompts
from palign_bench.questionnaire.inventories import AGREEMENT, read_inventory
from palign_bench.questionnaire.inventory import Inventory, Respondent, ipip_neo_120, ipip_neo_300
from palign_bench.questionnaire.protocol import AsReleased, Corrected
from palign_bench.respondents import load_inventory
from palign_bench.settings import UserError, options, read_option

ITEMS = """number,text,scale,subscale,sign,known
1,Plan my day.,order,,+,yes
2,Leave things about.,order,,-,yes
3,Know where things are.,order,,+,no
4,Talk to strangers.,contact,,+,yes
5,Avoid parties.,contact,,-,no
"""


@pytest.fixture(scope="session")
def dark_triad() -> Inventory:
    if not (Path(os.environ.get("PALIGN_PAPI_DIR", "/nowhere")) / "dark_triad").is_dir():
        pytest.skip("the released files of the Dark Triad are not at hand")
    return load_inventory(read_option("inventory", "dark_triad"))


def written(folder: Path, items: str = ITEMS, about: str | None = None) -> Path:
    path = folder / "course.csv"
    path.write_text(items, encoding="utf-8")
    if about is not None:
        path.with_suffix(".yaml").write_text(about, encoding="utf-8")
    return path


def test_every_option_of_the_group_is_an_inventory() -> None:
    assert options("inventory") == ["dark_triad", "file", "ipip_neo_120", "ipip_neo_300"]
    assert load_inventory(read_option("inventory", "ipip_neo_300")) == ipip_neo_300()
    with pytest.raises(UserError, match=r"inventory\.name=bfi: choose one of ipip_neo_300, ipip_neo_120, dark_triad"):
        load_inventory({"name": "bfi"})
    with pytest.raises(UserError, match=r"inventory\.path is no setting of inventory=ipip_neo_300; it has none"):
        load_inventory({"name": "ipip_neo_300", "path": "x"})
    with pytest.raises(UserError, match=r"inventory\.download=perhaps: give true or false"):
        load_inventory({"name": "dark_triad", "download": "perhaps"})
    with pytest.raises(UserError, match=r"inventory\.path is not set"):
        load_inventory(read_option("inventory", "file"))


def test_no_shipped_inventory_has_two_items_that_read_alike(dark_triad: Inventory) -> None:
    """As a user's own is refused."""
    for inventory in (ipip_neo_300(), ipip_neo_120(), dark_triad):
        texts = [re.sub(r"\W", "", item.text.casefold()) for item in inventory.items]
        assert len(set(texts)) == len(texts)


def test_the_short_form_is_split_within_each_facet() -> None:
    short, long = ipip_neo_120(), ipip_neo_300()
    assert {item.number for item in short.items} == set(long.known)
    for numbers in (short.known, short.held_out):
        assert len(numbers) == 60
        assert sorted(str(short[n].subscale) for n in numbers) == sorted(2 * list(long.subscales))
    assert len(short.selection(0)) == 30 and set(short.selection(0)) <= set(short.known)


def test_the_dark_triad_is_asked_in_whole_sentences_with_options_of_agreement(dark_triad: Inventory) -> None:
    assert dark_triad.scales == {"M": "machiavellianism", "N": "narcissism", "P": "psychopathy"}
    assert [n for scale in "MNP" for n in dark_triad.known if dark_triad[n].scale == scale] == [
        *range(1, 7),
        *range(10, 16),
        *range(19, 25),
    ]
    assert {item.number for item in dark_triad.items if item.sign < 0} == {11, 15, 17, 20, 25}  # N2 N6 N8 P2 P7
    question = Corrected(dark_triad).question(dark_triad[26])  # P8 lacks its full stop
    assert question.startswith('Given a statement of yours: "I ') and '."\n' in question
    assert question.endswith("(A). Strongly agree\n(B). Agree\n(C). Neither agree nor disagree\n"
                             "(D). Disagree\n(E). Strongly disagree\n")  # fmt: skip
    assert all("抰" not in item.text and item.text == item.text.strip() for item in dark_triad.items)
    affirmed, denied = prompts.contrast("kind", dark_triad, dark_triad[9])
    assert affirmed == denied.replace("never", "always") and '."' in affirmed
    chosen = dark_triad.selection(0)
    assert [dark_triad[n].scale for n in chosen] == ["M", "N", "P"] and set(chosen) <= set(dark_triad.known)


def test_an_own_inventory_says_its_options_wording_question_and_scales(tmp_path: Path) -> None:
    about = """
title: Course
options: [Yes, Rather yes, Rather no, No]
scales: {contact: sociability, order: orderliness}
question: 'Is it true of you? "You {statement}."'
"""
    made = read_inventory(written(tmp_path, about=about))
    assert made.title == "Course" and made.name.startswith("course-")
    assert made.scales == {"contact": "sociability", "order": "orderliness"}
    assert list(made.scales) == ["contact", "order"]
    assert [option[:] for option in made.options] == [
        ("A", 4, "Yes"), ("B", 3, "Rather yes"), ("C", 2, "Rather no"), ("D", 1, "No")
    ]  # fmt: skip
    assert (made.known, made.held_out, made.subscales) == ((1, 2, 4), (3, 5), ())
    assert made.keyed(2, 4) == 1 and made.midpoint == 2.5 and made.nearest(2.5) == 3
    assert len(made.selection(0)) == 1  # one of each scale's would be more than half of three
    protocol = Corrected(made)
    assert protocol.question(made[1]) == (
        'Is it true of you? "You plan my day."\nOptions:\n(A). Yes\n(B). Rather yes\n(C). Rather no\n(D). No\n'
    )
    assert protocol.few_shot_prompt({1: 4, 2: 1}).endswith(";Plan my day.:Yes;Leave things about.:No")
    assert protocol.template_portrait({1: 4}) == "You plan my day (yes)."
    assert [protocol.parse(text) for text in (" (A)", " (d)", " (E)")] == [4, 1, None]
    # Another wording is another inventory: its cells are others.
    assert read_inventory(written(tmp_path, ITEMS.replace("my day", "the day"), about)).name != made.name


def test_a_table_is_read_however_it_is_written(tmp_path: Path) -> None:
    path, usual = written(tmp_path), read_inventory(written(tmp_path))
    for delimiter in ";\t":
        assert read_inventory(written(tmp_path, ITEMS.replace(",", delimiter))) == usual
    for content in (ITEMS.encode("utf-16"), ITEMS.encode("utf-8-sig"), ITEMS.replace("\n", "\r\n").encode()):
        path.write_bytes(content)
        assert read_inventory(path) == usual
    assert read_inventory(written(tmp_path, ITEMS + "\n,,,,,\n")) == usual


def test_a_text_with_a_line_break_is_one_line(tmp_path: Path) -> None:
    for between in ("\n", "\r\n", " \n\n ", "\u2028", "\x0b"):
        made = read_inventory(written(tmp_path, ITEMS.replace("Plan my day.", f'"Plan{between}my day, always."')))
        assert made[1].text == "Plan my day, always." and len(made.items) == 5
    assert read_inventory(written(tmp_path, ITEMS.replace("Plan my", "Plan  my")))[1].text == "Plan  my day."


def test_a_file_that_is_no_text_or_of_an_unknown_encoding_is_told(tmp_path: Path) -> None:
    path = written(tmp_path)
    for content, told in (
        (b"PK\x03\x04 and so on", r"course.csv: this is a spreadsheet's own format; save it as CSV \(UTF-8\)"),
        (ITEMS.replace("day", "séance").encode("cp1252"), "this is not UTF-8; save the file as UTF-8"),
        (ITEMS.encode() + b"\x81", r"byte \d+ is neither UTF-8 nor Latin-1; save the file as UTF-8"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=told):
            read_inventory(path)
    written(tmp_path).with_suffix(".yaml").write_bytes("title: Café".encode("cp1252"))
    with pytest.raises(UserError, match=r"course\.yaml: this is not UTF-8"):
        read_inventory(path)
    with pytest.raises(UserError, match=r"none\.csv: no such file; check inventory\.path"):
        read_inventory(tmp_path / "none.csv")


def test_what_the_yaml_file_says_is_taken_as_written(tmp_path: Path) -> None:
    """YAML has 1 for a number, ``no`` for false, and false for 0."""
    about = "options: [5, 4, 3, 2, 1]\nscales: {1: order, no: contact}\ntitle: 2024"
    items = ITEMS.replace("order,", "1,").replace("contact,", "no,")
    made = read_inventory(written(tmp_path, items, about))
    assert [option.label for option in made.options] == ["5", "4", "3", "2", "1"]
    assert (dict(made.scales), made.title) == ({"1": "order", "no": "contact"}, "2024")
    made = read_inventory(written(tmp_path, about="options: [Yes, 1, 0, No]"))
    assert [option.label for option in made.options] == ["Yes", "1", "0", "No"]


def test_the_yaml_file_may_be_called_yml_and_is_there_once(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.with_suffix(".yml").write_text("options: [Yes, No]\nscales: {order: o}", encoding="utf-8")
    with pytest.raises(UserError, match=r"course\.yml: scales name order; the items have order, contact"):
        read_inventory(path)
    path.with_suffix(".yml").write_text("options: [Yes, No]", encoding="utf-8")
    assert [option.label for option in read_inventory(path).options] == ["Yes", "No"]
    with pytest.raises(UserError, match=r"course\.yaml: course\.yml is there as well; keep one of the two"):
        read_inventory(written(tmp_path, about="options: [Yes, No]"))


def test_whole_sentences_are_not_asked_as_phrases_unless_told_so(tmp_path: Path) -> None:
    of_texts = "number,text,scale,known\n1,{},order,yes\n2,{},order,no\n3,{},order,no\n".format
    whole = of_texts("I plan my day.", "Sing.", "My desk’s tidy.")
    for items in (whole, of_texts("Sing.", "I’m tidy.", "I'd sing.")):
        with pytest.raises(
            UserError, match=r"course.csv: most .* asked as “You i.*\.”; say wording: sentence in the YAML"
        ):
            read_inventory(written(tmp_path, items))
    phrases = of_texts("I plan my day.", "Invite people.", "Ignore myself.")
    assert read_inventory(written(tmp_path, phrases)).wording == "phrase"
    for wording in ("sentence", "phrase"):
        assert read_inventory(written(tmp_path, whole, f"wording: {wording}")).wording == wording


def test_the_guides_example_is_read_with_its_yaml_file_and_without(tmp_path: Path) -> None:
    guide = Path(__file__).parents[2] / "docs" / "how-to" / "questionnaire.md"
    _, items, about = re.findall(r"^```\w*\n(.*?)^```", guide.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert read_inventory(written(tmp_path, items)).wording == "phrase"
    made = read_inventory(written(tmp_path, items, about))
    assert Corrected(made).question(made[1]).startswith('Is that true of you? "You plan the day."\n')


def test_without_known_the_first_half_of_each_scale_is_known(tmp_path: Path) -> None:
    lines = [line.split(",") for line in ITEMS.splitlines()]
    made = read_inventory(written(tmp_path, "\n".join(",".join(line[:3]) for line in lines) + "\n"))
    assert made.known == (1, 4) and {item.sign for item in made.items} == {1}
    assert made.options == ipip_neo_300().options and made.scales == {"order": "order", "contact": "contact"}


def test_subscales_of_one_name_under_two_scales_are_two(tmp_path: Path) -> None:
    """Known: work 5 and 1, home 1 and 5. Pooled, every mean would be 3; told apart, held-out answers are met."""
    lines = ["number,text,scale,subscale"]
    for number in range(1, 17):
        scale, subscale = ("work", "home")[(number - 1) // 8], ("general", "social")[(number - 1) // 4 % 2]
        lines.append(f"{number},Do thing {number}.,{scale},{subscale}")
    made = read_inventory(written(tmp_path, "\n".join(lines)))
    assert made.subscales == ("home: general", "home: social", "work: general", "work: social")
    assert made.known == (1, 2, 5, 6, 9, 10, 13, 14) and len(made.selection(0)) == 4
    answers = dict(zip(range(1, 17), 4 * [5] + 4 * [1] + 4 * [1] + 4 * [5], strict=True))
    floor = floors(["facet_mean"])["facet_mean"]
    floor.prepare(None, Corrected(made))
    case = Case("anyone", {n: answers[n] for n in made.known}, {}, 0)
    assert floor.align(case).answers == {n: answers[n] for n in made.held_out}
    distinct = "\n".join(lines).replace("home,general", "home,g").replace("home,social", "home,s")
    assert read_inventory(written(tmp_path, distinct)).subscales == ("g", "general", "s", "social")


def test_a_questionnaire_that_was_always_read_keeps_its_name(tmp_path: Path) -> None:
    """The name is part of a cell's identity: what was computed is found again."""
    assert read_inventory(written(tmp_path)).name == "course-a4ea0bdf"
    of_facets = ITEMS.replace("order,,", "order,tidy,").replace("contact,,", "contact,open,")
    assert read_inventory(written(tmp_path, of_facets)).name == "course-b0c6b5ed"
    about = "options: [Yes, Rather yes, 3, No]\nwording: sentence\nscales: {order: tidiness, contact: c}"
    assert read_inventory(written(tmp_path, about=about)).name == "course-9917f3eb"


@pytest.mark.parametrize(
    ("items", "about", "message"),
    [
        ("number,text\n1,Sing.\n", None, r"course.csv: column scale is missing"),
        (ITEMS.replace("known", "told"), None, r"column 'told' is not known"),
        (ITEMS.replace("5,Avoid", "x,Avoid"), None, r"line 6: number 'x'; give a whole number"),
        (ITEMS.replace("5,Avoid", "4,Avoid"), None, r"item number 4 is there twice"),
        (ITEMS.replace("Avoid parties", "talk to  strangers"), None, r"items 4 and 5 read alike \('talk to  strangers"),
        (ITEMS.replace("Leave things about", "Plan my day"), None, r"items 1 and 2 read alike .*; keep one of them"),
        (ITEMS, "[title, options]", r"course.yaml: must be lines of KEY: VALUE; it may say title, options"),
        (ITEMS.replace("Avoid parties", ""), None, r"line 6: text '\.' has no letter in it; give a statement"),
        (ITEMS.replace(",-,no", ",?,no"), None, r"line 6: sign '\?'; give \+ or -"),
        (ITEMS.replace("-,no", "-,maybe"), None, r"line 6: known 'maybe'; give yes or no"),
        (
            ITEMS.replace("Avoid parties.", "Avoid parties, always."),
            None,
            r"line 6: 7 cells under 6 columns; add or remove cells, or quote one with commas in it",
        ),
        (ITEMS.replace("+,no", "+,yes"), None, r"scale order has no held-out item"),
        (ITEMS.replace("order,,", "order,tidy,"), None, r"item 4 has no subscale and others have"),
        ("number,text,scale\n", None, r"no items in it"),
        (",,\n", None, r"column number is missing"),
        (" \n\n", None, r"course.csv: the file is empty; it must have a header like number,text,scale"),
        ("number,text,scale,text\n1,Sing.,order,Hum.\n", None, r"column text is there twice; keep one"),
        (ITEMS.replace("Plan my", '"Plan" my'), None, r"line 2: not a table with commas"),
        (ITEMS, "options: [Yes]", r"course.yaml: options: give a list of 2 to 7 labels"),
        (ITEMS, "options: [Yes, yes]", r"two labels are alike"),
        (ITEMS, "options: [Yes: 5, No: 1]", r"options: give a list of 2 to 7 labels"),
        (ITEMS, "options: [Yes, ]\noptions: [No, ]", r"course.yaml: cannot be read \(options is there twice"),
        (ITEMS, "title: [Course]", r"title: give a text"),
        (ITEMS, 'question: ["Say {statement}"]', r"write {statement} where the statement stands"),
        (
            ITEMS,
            "scales: {order: same, contact: same}",
            r"course.csv: two columns .* called same; give each scale a full",
        ),
        (ITEMS, "scales: {order: composite, contact: c}", r"two columns of the table would be called composite"),
        (ITEMS.replace("order", "composite"), None, r"two columns of the table would be called composite"),
        (ITEMS, "scales: {order: orderliness, contact: }", r"scales: give full names by the names in the CSV file"),
        (ITEMS, "scales: {1: orderliness, contact: c}", r"scales name 1, contact; the items have order, contact"),
        (ITEMS, "scales: {order: orderliness}", r"scales name order; the items have order, contact"),
        (ITEMS, "question: How true?", r"write {statement} where the statement stands"),
        (ITEMS, "wording: verse", r"wording=verse: choose one of phrase, sentence"),
        (ITEMS, "labels: [a, b]", r"has 'labels', which is not known; it may say title, options"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path: Path, items: str, about: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        read_inventory(written(tmp_path, items, about))
    assert "\n" not in str(raised.value)


def test_an_outline_is_taken_as_released_as_its_inventory_is() -> None:
    """Else a table of stored answers would take reversed ones for literal."""
    inventory = ipip_neo_300()
    outline = inventory.outline()
    earlier = {key: value for key, value in outline.items() if key != "stores_keyed"}
    for each in (outline, earlier):
        again = AsReleased(Inventory.of_outline(each))
        assert [again.reverses(item) for item in inventory.items] == [item.sign < 0 for item in inventory.items]


def test_an_outline_scores_as_the_inventory_does_and_holds_no_text(dark_triad: Inventory) -> None:
    outline = dark_triad.outline()
    assert outline["options"] == list(AGREEMENT) and "vengeance" not in str(outline) and "revenge" not in str(outline)
    again = Inventory.of_outline(outline)
    assert (again.known, again.held_out, again.scales) == (dark_triad.known, dark_triad.held_out, dark_triad.scales)
    person = Respondent("p", {item.number: 1 + item.number % 5 for item in dark_triad.items})
    assert [again.keyed(n, v) for n, v in person.answers.items()] == [
        dark_triad.keyed(n, v) for n, v in person.answers.items()
    ]
