"""What of the settings is a cell's identity."""

from dataclasses import replace

import pytest

from palign_bench.backbone.loading.settings import ModelError, resolve_model
from palign_bench.questionnaire.inventory import ipip_neo_120, ipip_neo_300, options_of
from palign_bench.questionnaire.protocol import Corrected
from palign_bench.run import session
from palign_bench.run.assembly import method_identity
from palign_bench.run.checks import check_words
from palign_bench.run.methods import make_aligners
from palign_bench.settings import UserError, read_option
from tests.run.test_methods import MyMethod


def test_the_organism_is_refused_a_questionnaire_that_it_was_not_taught() -> None:
    """The words around a statement are known to it, and once hid that the statement is not."""
    organism, long = read_option("model", "organism"), ipip_neo_300()
    texts = ["Plan my day.", "Sing.", "Leave things about.", "Worry about everything there is."]
    own = [replace(item, text=text) for item, text in zip(long.items, texts, strict=False)]
    for items in ([*long.items[:3], own[3]], own):
        with pytest.raises(
            UserError, match=r"model=organism cannot read inventory=mine: .* use a model that reads any"
        ):
            check_words(organism, Corrected(replace(long, name="mine", items=tuple(items))))
    otherwise = (
        {"asks": 'You said: "You {statement}."'},
        {"options": options_of(("Yes", "No"))},
        {"wording": "sentence"},
    )
    for change in otherwise:
        with pytest.raises(UserError, match="model=organism cannot read inventory=mine"):
            check_words(organism, Corrected(replace(long, name="mine", **change)))
    for known in (long, ipip_neo_120(), replace(long, name="mine", items=long.items[:10])):
        check_words(organism, Corrected(known))
    check_words(read_option("model", "smollm2_135m"), Corrected(replace(long, name="mine", items=tuple(own))))


def test_how_a_row_reads_is_no_part_of_its_identity() -> None:
    method = read_option("method", "pas")
    renamed = method | {"title": "Another", "block": "checks"}
    assert method_identity(method, "pas", MyMethod()) == method_identity(renamed, "pas", MyMethod())


def test_what_decides_a_users_own_method_decides_its_cells() -> None:
    """A file by its content where the method tells it, else by its path; the class, unless it is the project's."""

    class WithData(MyMethod):
        data_hash = "abc"

    here, there = ({"name": "mine", "_target_": "mine.Method", "path": path} for path in ("one.txt", "two.txt"))
    assert method_identity(here, "mine", MyMethod()) != method_identity(there, "mine", MyMethod())
    assert method_identity(here, "mine", WithData()) == method_identity(there, "mine", WithData())
    other = here | {"_target_": "mine.Other"}
    assert method_identity(here, "mine", MyMethod()) != method_identity(other, "mine", MyMethod())
    ours, moved = (here | {"_target_": f"baselines.{place}"} for place in ("few_shot.FewShot", "prompts.FewShot"))
    assert method_identity(ours, "mine", MyMethod()) == method_identity(moved, "mine", MyMethod())


def test_a_method_of_ones_own_under_a_shipped_name_does_not_take_its_cells() -> None:
    """As one gets it by copying a method's file and changing its class alone."""
    shipped = read_option("method", "few_shot")
    copied = shipped | {"_target_": "baselines.cheerful.Cheerful"}
    assert method_identity(copied, "few_shot", MyMethod()) != method_identity(shipped, "few_shot", MyMethod())
    assert "_target_" not in method_identity(shipped, "few_shot", MyMethod())["method"]


def test_a_method_without_a_name_is_refused() -> None:
    with pytest.raises(UserError, match=r"the method of baselines\.few_shot\.FewShot has no name: give its YAML one"):
        make_aligners({"_target_": "baselines.few_shot.FewShot"})


def test_a_model_that_changes_before_it_is_loaded_is_not_kept_as_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells were named by the files that were there when the command began."""
    model, here = resolve_model(read_option("model", "organism")), session.Session()
    planned = here.identify(model)
    monkeypatch.setattr(session.Session, "identify", lambda self, each: planned | {"weights_hash": "earlier"})
    with pytest.raises(ModelError, match="model=organism: its files have changed since this command began"):
        here.load_backbone(model, Corrected(ipip_neo_300()))
