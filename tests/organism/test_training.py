"""The organism's own training: the loss falls, and a training that was cut off ends as if it had not been."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from palign_bench.organism import training
from palign_bench.organism.training import AnswerTrainer, Batches, statement_vectors, train
from palign_bench.organism.vocabulary import build_tokenizer
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.respondents.simulated import factor_model


@pytest.fixture(autouse=True)
def often_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY", 10)


def test_a_training_that_was_cut_off_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "whole", steps=20, rows=2, seed=3)
    made, read = Batches.__getitem__, []

    def cut_off(self: Batches, number: int) -> Any:
        read.append(number)
        if len(read) == 15:
            raise KeyboardInterrupt
        return made(self, number)

    monkeypatch.setattr(Batches, "__getitem__", cut_off)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", steps=20, rows=2, seed=3)
    monkeypatch.setattr(Batches, "__getitem__", made)
    finished = train(tmp_path / "cut", steps=20, rows=2, seed=3)
    first, second = load_file(whole / "model.safetensors"), load_file(finished / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    log = (finished / "training.csv").read_text().splitlines()
    assert log == (whole / "training.csv").read_text().splitlines() and len(log) == 3
    assert json.loads((finished / "made.json").read_text())["steps"] == 20
    assert (finished / "training.png").stat().st_size > 1000
    assert train(tmp_path / "cut", steps=20, rows=2, seed=3) == finished  # nothing is trained twice


def test_the_fewest_steps_that_may_be_asked_for_are_kept_with_their_log(tmp_path: Path) -> None:
    finished = train(tmp_path, steps=4, rows=1, seed=0)
    assert [line.split(",")[0] for line in (finished / "training.csv").read_text().splitlines()] == ["step", "4"]


def test_the_loss_falls(tmp_path: Path) -> None:
    """Until the expected distance is added to it."""
    steps = 60
    finished = train(tmp_path, steps=steps, rows=4, seed=0)
    lines = [line.split(",") for line in (finished / "training.csv").read_text().splitlines()[1:]]
    losses = [float(loss) for step, loss, _ in lines if int(step) <= training.DISTANCE_FROM * steps]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("done", [0.5, 1.0])
def test_chances_that_leave_the_options_never_help(done: float) -> None:
    """Nor with the expected distance, which would be none if no option had a chance."""
    other, steps = 5, 100  # the token after the five options
    trainer: Any = AnswerTrainer.__new__(AnswerTrainer)
    trainer.options = torch.arange(other)[None]
    trainer.state = SimpleNamespace(global_step=done * steps, max_steps=steps)
    batch = {
        "input_ids": torch.tensor([[other, 2]]),
        "weights": torch.tensor([[0.0, 1.0]]),
        "chances": torch.full((1, 2, 5), 0.2),
    }

    def loss(logit_of_other: float) -> float:
        logits = torch.zeros(1, 2, other + 1)
        logits[:, :, other] = logit_of_other
        model = SimpleNamespace(
            model=lambda **_: SimpleNamespace(last_hidden_state=logits), lm_head=lambda hidden: hidden
        )
        return float(trainer.compute_loss(model, batch))

    distance = training.DISTANCE_WEIGHT * 1.6 if done == 1 else 0.0  # of five even chances from five even chances
    assert loss(-20) == pytest.approx(math.log(5) + distance, abs=1e-4)
    assert loss(0) == pytest.approx(math.log(6) + distance, abs=1e-4)


def test_statement_vectors_are_near_where_answers_go_together(inventory: Inventory) -> None:
    """A statement's nearest is of its facet and keyed alike, its most opposite of its facet and keyed otherwise."""
    vectors = statement_vectors(factor_model("published"), 192, seed=0)
    assert vectors.norm(dim=1).square().mean() == pytest.approx(training.LENGTH**2, rel=1e-4)
    products = (vectors @ vectors.T).fill_diagonal_(0)
    items = inventory.items
    nearest = [items[i] for i in products.argmax(dim=1).tolist()]
    opposite = [items[i] for i in products.argmin(dim=1).tolist()]
    alike = [
        (near.subscale, near.sign) == (item.subscale, item.sign) for item, near in zip(items, nearest, strict=True)
    ]
    mixed = [item for item in items if {other.sign for other in items if other.subscale == item.subscale} == {1, -1}]
    against = [opposite[items.index(item)] for item in mixed]
    otherwise = [
        (far.subscale, far.sign) == (item.subscale, -item.sign) for item, far in zip(mixed, against, strict=True)
    ]
    assert sum(alike) > 0.9 * len(alike) and sum(otherwise) > 0.9 * len(otherwise)


def test_new_models_start_with_one_vector_per_statement(inventory: Inventory) -> None:
    tokenizer = build_tokenizer(inventory)
    embeddings = training.new_model(tokenizer, factor_model("published"), seed=0).get_input_embeddings().weight
    for forms in training.forms_of_one_statement(tokenizer, inventory)[:5]:
        assert (embeddings[forms] == embeddings[forms[0]]).all()
