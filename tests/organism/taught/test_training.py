"""A teaching goes on after a kill as if it had not been killed, and what is kept of it is what was taught."""

import argparse
import hashlib
import json

import pandas as pd
import pytest
import torch
from peft import PeftModel
from torch.nn import functional

from palign_bench.backbone.loading import tokenizer_of
from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.backbone.loading.weights import LoadedModel
from palign_bench.organism.taught import english, training
from palign_bench.organism.taught.__main__ import command_of
from palign_bench.organism.taught.training import Teaching
from palign_bench.settings import UserError, read_option
from tests.tiny import tiny_model


@pytest.fixture()
def begin(monkeypatch):
    tokenizer = tokenizer_of(resolve_model(read_option("model", training.BASE)))
    monkeypatch.setattr(training, "TEXTS", 6)
    monkeypatch.setattr(training, "SAVE_EVERY", 2)
    monkeypatch.setattr(english, "LONGEST", 5)
    monkeypatch.setattr(english, "TEXTS", 3)
    monkeypatch.setattr(
        training.loading, "load", lambda settings: LoadedModel(tiny_model(tokenizer), tokenizer, "small", "", "none")
    )
    return lambda folder, begun=None: Teaching(folder, 0, "cpu", "float32", begun)


def test_a_killed_teaching_goes_on_from_its_last_checkpoint_to_the_same_end(begin, tmp_path):
    whole = begin(tmp_path / "whole")
    whole.teach(4, 1500, workers=0)
    begin(tmp_path / "killed").teach(4, 1500, workers=0, stop=3)
    kept = torch.load(tmp_path / "killed" / "checkpoint.pt")
    assert kept["step"] == 3
    resumed = begin(tmp_path / "killed")
    with pytest.raises(UserError, match="was begun with --steps 4 --tokens 1500 --seed 0: give the same"):
        resumed.teach(5, 1500, workers=0)
    resumed.teach(4, 1500, workers=0)
    for one, other in zip(whole.reader.masters, resumed.reader.masters, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "killed")]
    assert logs[0] == logs[1]
    assert not all(map(torch.equal, whole.reader.masters, kept["masters"]))  # the last step moves something


def test_a_kept_adapter_goes_on_being_taught(begin, tmp_path):
    """With its own values, in dialogues from the first step on, kept near what the untaught model says."""
    first = begin(tmp_path / "first")
    first.teach(2, 1500, workers=0)
    kept = first.keep("the first command")
    second = begin(tmp_path / "second", kept)
    for before, after in zip(first.reader.masters, second.reader.masters, strict=True):
        torch.testing.assert_close(before.bfloat16().float(), after, atol=0, rtol=0)
    for one, other in zip(first.english.untaught, second.english.untaught, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)
    second.teach(2, 1500, workers=0)
    made = json.loads((second.keep("the second command") / "made.json").read_text())
    assert made["command"] == "the second command"
    assert made["begun_with"] == json.loads((kept / "made.json").read_text())
    weights = (kept / "adapter_model.safetensors").read_bytes()
    assert made["begun_with"]["sha256"] == hashlib.sha256(weights).hexdigest()
    log = pd.read_csv(tmp_path / "second" / "adapter" / "teaching.csv")
    assert list(log["step"]) == [1, 2, 3, 4]
    assert list(log["asked"].notna()) == [False, True, True, True]  # lists alone are for the first steps of all
    with pytest.raises(UserError, match="was begun with --steps 2 --tokens 1500 --seed 0 --begin-with"):
        begin(tmp_path / "second").teach(2, 1500, workers=0)


def test_what_was_begun_with_is_kept_by_its_own_hash(begin, tmp_path):
    """Not by what is written beside it, nor by a folder in which another adapter may lie by then."""
    first = begin(tmp_path / "first")
    first.teach(1, 1500, workers=0)
    kept = first.keep("the first command")
    made = json.loads((kept / "made.json").read_text())
    (kept / "made.json").write_text(json.dumps({**made, "sha256": "of another"}))
    second = begin(tmp_path / "second", kept)
    second.teach(1, 1500, workers=0)
    assert json.loads((second.keep("second") / "made.json").read_text())["begun_with"] == made
    told = argparse.Namespace(steps=1, tokens=1500, seed=0, begin_with=kept)
    command = "python -m palign_bench.organism.taught --steps 1 --tokens 1500 --seed 0"
    assert command_of(told) == f"{command} --begin-with FOLDER"
    told.begin_with = None
    assert command_of(told) == command


def test_an_adapter_of_another_shape_is_not_gone_on_with(begin, tmp_path, monkeypatch):
    first = begin(tmp_path / "first")
    first.teach(1, 1500, workers=0)
    kept = first.keep("the first command")
    monkeypatch.setattr("palign_bench.organism.taught.reader.RANK", 8)
    with pytest.raises(UserError, match=r"adapter_model.safetensors holds another adapter than rank 8 on q_proj"):
        begin(tmp_path / "second", kept)


def test_peft_makes_the_taught_model_of_what_is_kept(begin, tmp_path):
    teaching = begin(tmp_path)
    teaching.teach(2, 1500, workers=0)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 2, "told": 0.5, "told_known": 0.1, "english": 0.0}) + "\n")  # done again
    with torch.no_grad():
        for each in teaching.reader.masters:
            each.copy_((0.2 * torch.randn(each.shape)).bfloat16())  # as it is kept
    teaching.reader.take_masters()
    folder = teaching.keep("the command")
    made = json.loads((folder / "made.json").read_text())
    assert made["command"] == "the command" and made["device"] == "cpu"
    assert list(pd.read_csv(folder / "teaching.csv")["step"]) == [1, 2]
    tokenizer = tokenizer_of(resolve_model(read_option("model", training.BASE)))
    merged = PeftModel.from_pretrained(tiny_model(tokenizer), str(folder)).merge_and_unload()
    ids = torch.tensor([teaching.plain])
    at = torch.arange(ids.shape[1])
    with torch.no_grad():
        expected, untaught = (model(input_ids=ids).logits[0] for model in (merged, tiny_model(tokenizer)))
        hidden = teaching.reader.read(ids, at[None], (at[:, None] >= at)[None, None])
    torch.testing.assert_close(teaching.reader.logits(hidden[0]), expected, atol=2e-4, rtol=1e-3)
    assert float((untaught - expected).abs().max()) > 0.05
    nats = functional.cross_entropy(expected[:-1], ids[0, 1:])
    assert made["perplexity"] == pytest.approx(float(nats.exp()), rel=1e-3)


def test_small_steps_are_not_lost_in_the_models_dtype(begin, tmp_path):
    """bfloat16 holds 1 + 2⁻⁹ as 1; the masters add four such steps up before they are rounded."""
    reader = begin(tmp_path).reader
    for each in reader.trained:
        each.data = torch.ones_like(each, dtype=torch.bfloat16)
    reader.restore([torch.ones_like(each) for each in reader.masters])
    for _ in range(4):
        for master in reader.masters:
            master.data += 2**-9
        reader.take_masters()
    assert all(bool((each == 1 + 2**-7).all()) for each in reader.trained)


def test_an_untaught_model_has_not_drifted_and_a_taught_one_has(begin, tmp_path):
    teaching = begin(tmp_path)
    with torch.no_grad():
        assert float(teaching.english.drift(teaching.reader, 0)) == pytest.approx(0, abs=1e-6)
        for each in teaching.reader.masters:
            each.normal_(std=0.3)
        teaching.reader.take_masters()
        ids, real = teaching.english.groups[0]
        found = float(teaching.english.drift(teaching.reader, 0))
        at = torch.arange(ids.shape[1])
        taught = teaching.reader.logits(
            teaching.reader.read(ids, at.expand(ids.shape), (at[:, None] >= at).expand(len(ids), 1, -1, -1))[real]
        ).log_softmax(dim=-1)
        with teaching.reader.peft.disable_adapter():
            plain = teaching.reader.model(input_ids=ids).logits[real].log_softmax(dim=-1)
    expected = functional.kl_div(taught, plain, log_target=True, reduction="batchmean")
    assert found == pytest.approx(float(expected), rel=1e-3) and found > 1e-3


def test_what_is_known_is_counted_from_the_population_to_the_person(begin, tmp_path):
    """By hand: a reader that gives the population's chances knows 0, one that gives the person's knows 1."""
    teaching = begin(tmp_path)
    batch = training.Batches(teaching.exercises, 4, 1500, 0, training.LISTS_SHARE)[3]

    class Knowing:
        def __init__(self, nats):
            self.nats = nats

        def read(self, ids, positions, seen):
            return torch.zeros(*ids.shape, 1)

        def logits(self, hidden):
            found = torch.full((len(hidden), 49152), -30.0)
            return found.scatter(1, batch.tokens, self.nats)

    least = batch.chances.clamp(min=1e-12).log()
    _, figures = training._loss(Knowing(least), batch)
    assert float(figures["told_known"]) == pytest.approx(1, abs=1e-3)
    assert float(figures["asked_known"]) == pytest.approx(1, abs=1e-3)
