"""Whatever stands in a file or on the command line: one line that says so, or the right thing; never a traceback."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from palign_bench.files import LedgerError
from palign_bench.ledger.cells import CellFolder
from palign_bench.ledger.plan import Command, Plan, PlannedJob
from palign_bench.questionnaire.inventory import ipip_neo_300
from palign_bench.questionnaire.protocol import parse_is_decided, parse_released
from palign_bench.respondents.file import load_file
from palign_bench.respondents.source import RespondentsError
from palign_bench.run.assembly import resolve_training
from palign_bench.run.methods import make_aligners
from palign_bench.settings import UserError
from tests.ledgers import row_of

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
INVENTORY = ipip_neo_300()

json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
awkward_ids = st.sampled_from(["../../x", "a/b", "é", "x\x00", "\u202e", "a\nb", "", " ", ".", "con", "💥", "x" * 500])
ids = st.text(max_size=12) | awkward_ids
keys = st.sampled_from([str(n) for n in range(-1, 303)]) | st.text(max_size=3)
answers = st.dictionaries(keys, st.integers(-2, 8) | st.none() | st.floats() | st.booleans() | st.text(max_size=2))
people = st.lists(st.fixed_dictionaries({"id": ids | json_values, "answers": answers}) | json_values, max_size=4)


def load_or_tell(path: Path) -> Any:
    """The people of a file, or None where it is refused, in one line that names the file."""
    try:
        return load_file(str(path), inventory=ipip_neo_300())
    except UserError as error:
        assert path.name in str(error) and len(str(error).splitlines()) == 1, repr(str(error))
        return None


def check_people(source: Any, given_: int) -> None:
    """Nobody is dropped, and everyone is whole."""
    assert len(source.people) == given_
    assert len({person.id for person in source.people}) == given_
    for person in source.people:
        assert person.id.isprintable() and person.id.strip() == person.id != ""
        assert person.answers and set(person.answers.values()) <= {1, 2, 3, 4, 5}
        assert all(type(value) is int for value in person.answers.values())
        assert set(person.answers) <= set(INVENTORY.by_number)


@QUICK
@given(people | json_values)
def test_any_json_is_people_or_one_line(tmp_path: Path, document: Any) -> None:
    path = tmp_path / "people.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    source = load_or_tell(path)
    if source is not None:
        check_people(source, len(document))


@QUICK
@given(st.lists(st.dictionaries(st.sampled_from(["1", "2", "9", "10"]), st.integers(1, 5), min_size=4), min_size=1))
def test_sound_json_is_always_read(tmp_path: Path, all_answers: list[dict[str, int]]) -> None:
    path = tmp_path / "people.json"
    path.write_text(json.dumps([{"id": f"p{i}", "answers": each} for i, each in enumerate(all_answers)]))
    source = load_file(str(path), inventory=ipip_neo_300())
    assert [{str(k): v for k, v in person.answers.items()} for person in source.people] == all_answers


@QUICK
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"\xff\xfe[]")
@example(b"[" * 200_000)
@example(b'[{"id": 1, "answers": {"1": ' + b"9" * 5000 + b"}}]")
@example(b'[{"id": "a", "answers": {"1": NaN, "9": 1e999}}]')
def test_any_bytes_are_people_or_one_line(tmp_path: Path, content: bytes) -> None:
    for name in ("people.json", "people.csv"):
        (tmp_path / name).write_bytes(content)
        source = load_or_tell(tmp_path / name)
        assert source is None or source.people


@QUICK
@given(st.lists(st.tuples(ids, st.sampled_from("123456 x"), st.sampled_from("0123456")), max_size=5))
def test_any_csv_is_people_or_one_line(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([("id", "i1", "i9"), *rows])
    path = tmp_path / "people.csv"
    path.write_text(text.getvalue(), encoding="utf-8", errors="surrogatepass", newline="")
    source = load_or_tell(path)
    if source is not None:
        check_people(source, len(rows))
        assert [str(person.answers.get(9)) for person in source.people] == [row[2] for row in rows]


@QUICK
@given(st.text(max_size=40) | st.text(alphabet=st.characters(categories=["Cc", "Cf", "Cs"]), max_size=40))
@example("\x00\x1b[2J (B)")
@example("\u202e(A)")
def test_whatever_a_model_writes_is_an_option_or_unparsed_and_can_be_stored(tmp_path: Path, generated: str) -> None:
    option = parse_released(generated)
    assert option in (None, 1, 2, 3, 4, 5)
    assert option is None or parse_is_decided(generated)
    text = generated.encode("utf-8", "replace").decode()  # a tokenizer's decoder gives no lone surrogates
    folder = CellFolder(tmp_path)
    folder.record("p", {"texts": {"9": text}})
    assert folder.finished() == {"p"} and folder.read("p") == {"texts": {"9": text}}


@QUICK
@given(json_values | st.fixed_dictionaries({"sha256": st.text(max_size=5) | st.none(), "record": json_values}))
def test_a_cell_that_this_program_did_not_write_is_missing(tmp_path: Path, document: Any) -> None:
    folder = CellFolder(tmp_path)
    folder.record("p", {"n": 1})
    path = tmp_path / "respondents" / "p.json"
    path.write_text(json.dumps(document))
    assert folder.read("p") is None and folder.finished() == set()
    assert not path.exists() and path.with_suffix(".damaged").exists()


@QUICK
@given(st.binary(max_size=200))
@example(b"[" * 200_000)
def test_a_cell_of_any_bytes_is_missing(tmp_path: Path, content: bytes) -> None:
    folder = CellFolder(tmp_path)
    folder.record("p", {"n": 1})
    (tmp_path / "respondents" / "p.json").write_bytes(content)
    assert folder.read("p") is None and folder.finished() == set()


@QUICK
@given(st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_failure_file_is_a_failure(tmp_path: Path, content: bytes) -> None:
    folder = CellFolder(tmp_path)
    folder.fail("p", ValueError("x"))
    (tmp_path / "respondents" / "p.error.json").write_bytes(content)
    assert set(folder.failures()) == {"p"}


@QUICK
@given(json_values | st.fixed_dictionaries({"people": json_values, "jobs": json_values, "arguments": json_values,
                                            "started": json_values}))  # fmt: skip
def test_any_plan_reads_or_is_told(tmp_path: Path, document: Any) -> None:
    command = Command(tmp_path, "e", "c")
    row = row_of("row", CellFolder(tmp_path / "cells" / "row"), ("1",))
    command.write(["method=row"], [PlannedJob(0, (row,), {"model": "m", "protocol": "corrected"})])
    for path in (command.folder / "plan.json", command.folder / "command.json"):
        kept = path.read_text()
        path.write_text(json.dumps(document))
        try:
            for plan in Plan.all(tmp_path, "e"):
                plan.read()
            assert isinstance(Command.last(tmp_path, "e").arguments, list)
        except LedgerError as error:
            assert str(tmp_path) in str(error) and "\n" not in str(error)
        path.write_text(kept)


keywords = st.dictionaries(st.sampled_from(["k", "direction", "alphas", "penalty", "search"]), json_values, min_size=1)


@QUICK
@given(keywords)
def test_any_setting_of_pas_is_taken_or_told(given_: dict[str, Any]) -> None:
    settings_ = {"name": "pas", "_target_": "baselines.pas.aligner.PersonalityActivationSearch"} | given_
    try:
        aligners = make_aligners(settings_)
    except UserError as error:
        assert str(error).startswith("method=pas: ")
    else:
        assert list(aligners) == ["pas"]


@given(json_values)
def test_any_people_limit_is_taken_or_told(limit: Any) -> None:
    try:
        resolved = resolve_training({"name": "quick", "people_limit": limit}, on_cuda=False)
    except UserError as error:
        assert "training.people_limit=" in str(error)
    else:
        assert resolved["people_limit"] is None or resolved["people_limit"] >= 1


def test_a_large_file_is_read_whole(tmp_path: Path) -> None:
    """2,000 people with all answers, and one of them twice."""
    header = ",".join(["id", *(f"i{n}" for n in range(1, 301))])
    row = ",".join("12345"[n % 5] for n in range(300))
    path = tmp_path / "people.csv"
    path.write_text("\n".join([header, *(f"p{n},{row}" for n in range(2000))]))
    assert len(load_file(str(path), inventory=ipip_neo_300()).people) == 2000
    with pytest.raises(RespondentsError, match="id p7 is there twice"):
        path.write_text(path.read_text() + f"\np7,{row}")
        load_file(str(path), inventory=ipip_neo_300())
