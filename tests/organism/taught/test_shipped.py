"""The adapter that is shipped: its hash, its English, and that it uses what it is told."""

import hashlib
import json
from importlib import resources

import numpy as np
import pytest
import torch

from palign_bench.backbone.loading import load
from palign_bench.backbone.loading.settings import package_adapter, resolve_model
from palign_bench.organism.people import draw_people
from palign_bench.organism.taught.english import perplexity
from palign_bench.organism.taught.exercises import Batch, Exercise
from palign_bench.organism.taught.lessons import Lessons, unseen_items
from palign_bench.organism.taught.reader import Reader
from palign_bench.questionnaire.inventory import ipip_neo_300
from palign_bench.respondents.simulated import factor_model
from palign_bench.settings import read_option

SETTINGS = resolve_model({**read_option("model", "smollm2_135m_taught"), "dtype": "float32"})
INVENTORY = ipip_neo_300()


@pytest.fixture(scope="module")
def taught():
    loaded = load(SETTINGS)
    return Reader(loaded.model, "none"), Lessons(loaded.tokenizer, INVENTORY)


def test_the_hash_is_the_one_written_down():
    folder = package_adapter(SETTINGS)
    assert folder is not None
    made = json.loads((folder / "made.json").read_text())
    assert made["sha256"] == hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert made["begun_with"]["sha256"] != made["sha256"] and "make that one first" in made["note"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 15e6


def test_it_still_speaks_english(taught):
    """Perplexity of a fixed text within a tenth of the untaught model's: 31.4."""
    reader, lessons = taught
    text = (resources.files("palign_bench") / "organism" / "taught" / "plain_text.txt").read_text(encoding="utf-8")
    ids = lessons.tokenizer(text, add_special_tokens=False)["input_ids"]
    untaught = load(resolve_model({**read_option("model", "smollm2_135m"), "dtype": "float32"})).model
    with torch.no_grad():
        nats = untaught(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss
    assert perplexity(reader, ids) < 1.1 * float(nats.exp())


def test_people_it_was_not_taught_on_are_told_apart(taught):
    """Clear simulated people of a seed of their own; what sets them apart from the average answer is predicted."""
    reader, lessons = taught
    people = draw_people(factor_model("published"), 4, np.random.default_rng(2026), 0.6)
    rows = {item.number: row for row, item in enumerate(INVENTORY.items)}
    known = np.array([rows[number] for number in INVENTORY.known])
    unseen = {rows[number] for number in unseen_items(INVENTORY)}
    asked = np.array([row for row in (rows[number] for number in INVENTORY.held_out) if row not in unseen])[::9]
    letters = [lessons.token(f"({letter}", -1) for letter in "ABCDE"]
    expected = []
    for answers in people.answers:
        questions = [lessons.question(int(row)) for row in asked]
        said, width = lessons.listing(known, answers[known]).ids, max(len(each.ids) for each in questions)
        ids = said + [token for each in questions for token in each.ids + [0] * (width - len(each.ids))]
        dialogue = Exercise(ids, len(said), width)
        dialogue.add("asked", width, letters, np.ones(5), np.ones(5))  # what would be taught, which is not used here
        batch = Batch.of([dialogue])
        places = [len(said) + number * width + each.letter for number, each in enumerate(questions)]
        with torch.no_grad():
            hidden = reader.read(batch.ids, batch.positions, batch.seen)[0, places]
            chances = reader.logits(hidden).softmax(dim=1)[:, letters]
        assert float(chances.sum(dim=1).min()) > 0.9  # an option is named
        expected.append((chances / chances.sum(dim=1, keepdim=True)).numpy() @ np.arange(5, 0, -1))
    average = draw_people(factor_model("published"), 5000, np.random.default_rng(1)).answers.mean(axis=0)[asked]
    apart = np.array(expected) - average
    truth = people.answers[:, asked] - average
    own = np.mean([np.corrcoef(apart[place], truth[place])[0, 1] for place in range(4)])
    others = np.mean([np.corrcoef(apart[place], truth[place - 1])[0, 1] for place in range(4)])
    assert own > 0.5 and own > others + 0.4
