"""Dialogues: the chances that are learnt are the drawn person's, of the tokens that really come next."""

import numpy as np
import pytest
import torch

from palign_bench.backbone.loading import tokenizer_of
from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.organism.taught.exercises import QUESTIONS, TARGETS, Batch, Exercises
from palign_bench.organism.taught.lessons import Lessons
from palign_bench.organism.taught.reader import Reader
from palign_bench.questionnaire.inventory import ipip_neo_300
from palign_bench.respondents.simulated import factor_model
from palign_bench.settings import read_option
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def exercises():
    tokenizer = tokenizer_of(resolve_model(read_option("model", "smollm2_135m")))
    return Exercises(Lessons(tokenizer, ipip_neo_300()), factor_model("published"))


@pytest.mark.parametrize("kind", ["list", "few_facets", "all_facets"])
def test_an_answer_that_was_told_or_written_is_among_the_tokens_whose_chances_are_learnt(exercises, kind):
    for seed in range(6):
        drawn = exercises.draw(np.random.default_rng(seed), kind)
        for place, tokens, chances, _, target in drawn.answers:
            assert sum(chances) == pytest.approx(1)
            ends = (place - drawn.prefix) % drawn.width == drawn.width - 1 if place >= drawn.prefix else False
            following = None if ends else drawn.ids[place + 1]
            if TARGETS[target] == "told":
                assert following in tokens
            elif TARGETS[target] == "asked":
                assert ends or following in (*tokens, 0)  # 0: padding, where no answer is to be written
            else:
                assert following == tokens[0]


def test_a_list_alone_asks_nothing_and_the_others_ask_all_their_questions(exercises):
    alone = exercises.draw(np.random.default_rng(0), "list")
    assert alone.width == 0 and len(alone.ids) == alone.prefix
    asked = exercises.draw(np.random.default_rng(0), "few_facets")
    assert (len(asked.ids) - asked.prefix) / asked.width == QUESTIONS
    assert sum(TARGETS[answer.target] == "asked" for answer in asked.answers) == QUESTIONS


def test_people_are_told_apart_from_the_population_by_their_own_chances(exercises):
    """Who knows the person is better than who knows the population, on average and not at every answer."""
    drawn = [exercises.draw(np.random.default_rng(seed), "all_facets") for seed in range(5)]
    chances = np.array([answer.chances for each in drawn for answer in each.answers])
    least = -(chances * np.log(np.maximum(chances, 1e-12))).sum(axis=1)
    usual = np.array([answer.population for each in drawn for answer in each.answers])
    assert (usual - least > -1e-9).all()  # Gibbs' inequality
    assert 0.1 < (usual - least).mean() < 0.6


def test_the_same_seed_draws_the_same_dialogue(exercises):
    first, second, other = (exercises.draw(np.random.default_rng(seed), "few_facets") for seed in (4, 4, 5))
    assert first == second != other


def test_every_question_of_a_batch_is_read_as_if_it_alone_followed_the_prompt(exercises):
    tokenizer = tiny_tokenizer()
    reader = Reader(tiny_model(tokenizer), "none")
    drawn = [exercises.draw(np.random.default_rng(seed), kind) for seed, kind in enumerate(("few_facets", "list"))]
    for each in drawn:
        each.ids = [token % len(tokenizer) for token in each.ids]
    batch = Batch.of(drawn)
    plain = tiny_model(tokenizer)
    with torch.no_grad():
        read = reader.logits(reader.read(batch.ids, batch.positions, batch.seen)[batch.rows, batch.places])
        for row, each in enumerate(drawn):
            places = [answer.place for answer in each.answers]
            for place in sorted({places[0], places[-1], *places[::40]}):
                start = each.prefix + (place - each.prefix) // each.width * each.width if place >= each.prefix else 0
                ids = each.ids[: each.prefix] + each.ids[start : place + 1] if start else each.ids[: place + 1]
                expected = plain(input_ids=torch.tensor([ids])).logits[0, -1]
                (found,) = ((batch.rows == row) & (batch.places == place)).nonzero().flatten()[:1].tolist()
                torch.testing.assert_close(read[found], expected, atol=2e-4, rtol=1e-4)
