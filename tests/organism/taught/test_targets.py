"""The lessons of the lower stages: directions that do not disturb one another, and losses that are zero where met."""

import numpy as np
import pytest
import torch

from palign_bench.backbone.loading import tokenizer_of
from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.organism.taught.lessons import Lessons
from palign_bench.organism.taught.people import AnswerFigures
from palign_bench.organism.taught.targets import Scale, Targets
from palign_bench.questionnaire.inventory import ipip_neo_300
from palign_bench.respondents.simulated import factor_model
from palign_bench.settings import read_option

ROWS = np.array([3, 140, 250])


@pytest.fixture(scope="module")
def targets():
    lessons = Lessons(tokenizer_of(resolve_model(read_option("model", "smollm2_135m"))), ipip_neo_300())
    scale = Scale(torch.linspace(-1, 1, 576), torch.linspace(0.5, 2, 576))
    return Targets(lessons, AnswerFigures.of(factor_model("published")), scale)


def test_directions_are_orthonormal(targets):
    every = torch.cat([targets.of_item, targets.of_answer, targets.of_person])
    torch.testing.assert_close(every @ every.t(), torch.eye(len(every)), atol=1e-5, rtol=0)


def test_what_is_written_in_the_directions_is_read_back_and_costs_nothing(targets):
    expected = np.array([0.3, -0.2, 0.0])
    wanted = torch.zeros(3, 12)
    wanted[:, 5:11] = torch.tensor(expected[:, None] / 0.5).float()
    signs = np.array([ipip_neo_300().items[row].sign for row in ROWS])
    wanted[:, 11] = torch.tensor(expected / 0.5 * signs).float()
    hidden = (wanted @ targets.of_person) * targets.scale.deviation + targets.scale.mean
    read = targets.read(hidden, targets.of_person)
    torch.testing.assert_close(read, wanted, atol=1e-4, rtol=1e-4)
    assert float(targets.person_loss(read, ROWS, expected)) < 1e-8
    assert float(targets.person_loss(read, ROWS, -expected)) > 0.1


def test_heads_are_sent_to_answers_that_go_with_the_statement_and_were_told_before(targets):
    told, asked, ends = np.array([0, 30, 60, 5]), np.array([90]), [12, 20, 31, 40]
    agreeing, contrary = targets.attention(told, ends, asked, 50)
    for looks in (agreeing, contrary):
        torch.testing.assert_close(looks.sum(dim=1), torch.ones(5))
        for place in range(4):
            assert float(looks[place, ends[place] :].sum()) == 0  # nothing that comes later, nor the answer itself
    assert float(agreeing[0, 0]) == 1  # nothing told yet: the first token
    together = targets.figures.together[90, told]
    assert float(agreeing[4, ends].max() > 0) == float(together.max() > 0.12)
    assert float(contrary[4, ends].max() > 0) == float(together.min() < -0.12)
