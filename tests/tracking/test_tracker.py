"""What may leave the ledger for a mirror, and what may not."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from palign_bench.tracking.public import figures_of, public_identity, public_table, thin_scales_of, without_places
from palign_bench.tracking.wandb import WandbTracker
from tests.tracking.rows import IDENTITY, SCALE_OF, a_record
from tests.tracking.wandb_runs import runs_of


def test_names_stay_and_places_do_not() -> None:
    named = {
        "model": {"name": "owner/model", "dtype": "float32", "heads": np.int64(3)},
        "names": ["a.b-1.7B", {"k": None}],
    }
    assert without_places(named) == named
    places = ["/data/m", "~/m", "./m", "../m", "C:\\m", "http://host/m", "models/of/mine", "my people.CSV", "a.json"]
    assert without_places({"values": places, **dict.fromkeys("abc", places[0])}) == {"values": []}


def test_of_a_methods_texts_the_choices_of_conf_alone_leave() -> None:
    """Whatever a user's own method calls its files."""
    secret = [
        "my_people.csv.gz",
        "clinic_patients.db",
        "clinic/patients",
        "clinic",
        "a.mdb",
        "b.ods",
        "c.gguf",
        "d.bin",
    ]
    own = {f"setting_{number}": text for number, text in enumerate(secret)}
    usual = {"name": "mine", "row": "mine", "version": 2, "k": 3, "on": True, "none": None, "alphas": [0, 1.5]}
    usual |= {"peft": {"peft_type": "LORA", "r": 8}, "writer": "organism", "order": "random"}
    method = usual | own | {"_target_": "clinic.patients.Method", "files": secret, "more": own}
    method |= {"budget": "custom: path=clinic.db"}
    told = public_identity(IDENTITY | {"method": method})["method"]
    assert told == usual | {"budget": "custom", "files": [], "more": {}}


def test_what_hangs_on_fewer_than_three_answers_stays_here(tmp_path: Path, picture: Path) -> None:
    """The mean of one answer is that answer; the composite without the other scales would be it, too."""
    one_item = {number: scale for number, scale in SCALE_OF.items() if scale != "openness" or number == "4"}
    assert list(one_item.values()).count("openness") == 1
    record = a_record(0)
    assert thin_scales_of(record, one_item) == ["openness"]
    assert thin_scales_of(record, SCALE_OF) == []
    some = dict.fromkeys([n for n in SCALE_OF if SCALE_OF[n] == "openness"][:4])
    assert thin_scales_of(record | {"truth": record["truth"] | some}, SCALE_OF) == ["openness"]
    figures = figures_of(record, ["openness"])
    hidden = {"openness", "composite", "trait/openness", "person_trait/openness"}
    assert set(figures_of(record)) - set(figures) == hidden
    tracker = WandbTracker(mode="offline", folder=tmp_path, salt_file=tmp_path / ".salt")
    tracker.start_row(IDENTITY, "row", "table1", key="k", scale_of=one_item)
    tracker.log_person(record)
    tracker.finish_row({})
    over_all = ("composite", "specificity", "overall_profile_correlation", "exact_agreement", "discriminant_gap")
    row: dict[str, Any] = {"method": "row", "openness": 0.9, "extraversion": 0.7, **dict.fromkeys(over_all, 0.5)}
    table = pd.DataFrame([row | {"respondents": 1, "align_seconds": 2.0}])
    tracker.log_table(table, [picture], "table1", "t", one_item, ["openness"])
    followed, shown = runs_of(tmp_path)
    assert not hidden & set(followed.summary) and followed.summary["extraversion"] == pytest.approx(0.7)
    assert not hidden & {key for told in followed.history for key in told} and not hidden & set(
        followed.table("people")["columns"]
    )
    assert shown.table("table")["columns"] == ["method", "extraversion", "respondents", "align_seconds"]
    assert not (shown.folder / "files/media/images").exists()
    assert list(public_table(table, one_item).columns) == list(table.columns)
    of_many = public_table(table.assign(respondents=300), one_item, ["openness"])
    assert "composite" not in of_many and "extraversion" in of_many  # however many: the others' scores are told


def test_a_score_is_thin_by_the_items_that_have_truth_and_answer() -> None:
    """Each figure is a mean over its own items: the score's have both, a trait score's have one of the two."""
    openness = [number for number, scale in SCALE_OF.items() if scale == "openness"]

    def thin(truth: int, answers: int, apart: bool = False) -> list[str]:
        """Of so many openness items with a truth and with an answer, the same ones or as far apart as can be."""
        record = a_record(0)
        of_truth, of_answers = openness[truth:], openness[: -answers or None] if apart else openness[answers:]
        kept = {"truth": dict(record["truth"]), "answers": dict(record["answers"])}
        for number in of_truth:
            kept["truth"][number] = 0  # as released writes a missing answer
        for number in of_answers:
            del kept["answers"][number]
        return thin_scales_of(record | kept, SCALE_OF)

    assert thin(6, 6) == thin(6, 3) == thin(3, 6) == []
    assert thin(6, 1) == thin(1, 6) == thin(6, 2) == ["openness"]
    assert thin(4, 4, apart=True) == ["openness"]  # two have both
    assert thin(3, 3, apart=True) == []  # none has both: there is no score
    assert thin(6, 0) == []  # unparsed, all of them: nothing to tell


def test_a_row_has_the_tables_composite_or_none(tmp_path: Path) -> None:
    """The mean composite of the people scored, whatever a scale is called; none where somebody's is withheld."""
    scale_of = {str(number): ("self/other", "calm")[number % 2] for number in range(12)}
    scores = [(1.0, 2.0), (0.5, None), (2.0, 3.0)]

    def summary_of(thin: bool) -> dict[str, Any]:
        tracker = WandbTracker(mode="offline", folder=tmp_path / str(thin), salt_file=tmp_path / ".salt")
        tracker.start_row(IDENTITY, "row", "table1", key="k", scale_of=scale_of)
        for place, (first, second) in enumerate(scores):
            both = None if second is None else first + second
            answers = dict.fromkeys(scale_of, 4)
            if second is None:
                answers = {number: 4 for number, scale in scale_of.items() if scale != "calm"}
            if thin and place == 2:
                answers = {number: 4 for number, scale in scale_of.items() if scale != "calm" or int(number) < 4}
            tracker.log_person(
                {
                    "respondent": str(place),
                    "answers": answers,
                    "truth": dict.fromkeys(scale_of, 3),
                    "scores": {"self/other": first, "calm": second, "composite": both},
                    "cost": {},
                }
            )
        tracker.finish_row({"missing_cells": 0})
        (read,) = runs_of(tmp_path / str(thin))
        return read.summary

    told = summary_of(thin=False)
    assert told["composite"] == pytest.approx((3.0 + 5.0) / 2)
    assert told["self/other"] == pytest.approx(3.5 / 3) and told["calm"] == pytest.approx(2.5)
    told = summary_of(thin=True)
    assert not {"composite", "calm"} & set(told) and told["self/other"] == pytest.approx(3.5 / 3)


def test_of_a_users_questionnaire_the_hash_alone_leaves() -> None:
    for name in ("secretinv-07e4f146", "my own - items-07e4f146", "a\nb-07e4f146"):
        assert public_identity(IDENTITY | {"inventory": name})["inventory"] == "file-07e4f146"
    for name in ("ipip_neo_300", "ipip_neo_120", "dark_triad"):
        assert public_identity(IDENTITY | {"inventory": name})["inventory"] == name
