"""The stages of teaching, from the bottom up: statements and answers, people, then the options, in two steps.

A stage trains some layers and reads what those below already know without gradients.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from palign_bench.organism.people import People, draw_people
from palign_bench.organism.taught.lessons import Asked, Lessons, Told
from palign_bench.organism.taught.network import Network, Tree
from palign_bench.organism.taught.people import VAGUENESS, AnswerFigures, Array, Rows
from palign_bench.organism.taught.targets import Targets
from palign_bench.questionnaire import prompts
from palign_bench.questionnaire.inventory import OPTIONS, Option
from palign_bench.respondents.simulated import FactorModel

STATEMENTS, ANSWERS, PEOPLE = 7, 10, 17  # layers that read what is to be known of them
LOOKING = (11, 13)  # layers whose heads are shown where to look
FETCHING, _FETCHERS = (18, 20), 3  # layers, and heads of each, that look from a letter back to the question's statement
CARRIED = 23  # layer that reads what they fetched
AGREEING = 6  # query heads of `LOOKING` that look at answers that go together; the others at contrary ones
_LIST_SHARE, _RELEASED_SHARE, _FRAME_SHARE = 0.75, 0.17, 0.23  # of what is told as a list; of questions in other words
_REVERSED_ORDER, _ROTATED_ORDER = 0.33, 0.23  # of the options in an unusual order; the rest is random
_WRITTEN_SHARE = 0.4  # of the questions whose whole answer is to be written
_VECTOR_WEIGHT, _ANSWER_WEIGHT, _PERSON_WEIGHT = 0.5, 1.5, 3.0
_QUESTION_WEIGHT, _WRITTEN_WEIGHT = 2.0, 0.5
_ASKED = 7  # questions about a person

Figures = dict[str, float]
Lesson = tuple[Tensor, Figures]


@dataclass(frozen=True)
class Stage:
    """``bottom`` to ``top``: the layers trained. ``english_every``: steps from one text of `English` to the next."""

    name: str
    bottom: int
    top: int
    steps: int
    learning_rate: float
    rows: int  # dialogues per step
    english_every: int
    english_weight: float
    lesson: Callable[["Classroom", np.random.Generator], Lesson]


@dataclass(frozen=True)
class Classroom:
    """All that a lesson needs; a lesson is drawn from its generator alone."""

    network: Network
    lessons: Lessons
    model: FactorModel
    figures: AnswerFigures
    targets: Targets

    def statements(self, generator: np.random.Generator) -> Lesson:
        """What a statement is about, and what an answer says, whoever gave it."""
        told, asked = self.lessons.draw(generator, int(generator.integers(25, 60)), 8, of_few_facets=False)
        answers = generator.integers(1, 6, len(told))
        said = self._said(generator, told, answers)
        tree, asks = _up_to_the_statements(said, self._questions(generator, asked))
        hidden, kept, _ = self.network.run(tree, 0, ANSWERS, trained=range(ANSWERS), keep=(STATEMENTS,))
        rows, loss = np.concatenate([told, asked]), torch.zeros(())
        figures: Figures = {}
        for name, layer in (("statement", kept[STATEMENTS]), ("statement_kept", hidden)):
            chosen, distance = self.targets.item_loss(self.targets.read(layer[asks], self.targets.of_item), rows)
            loss = loss + chosen + _VECTOR_WEIGHT * distance
            figures |= {f"{name}_nats": chosen.item(), name: distance.item()}
        read = self.targets.read(hidden[said.ends], self.targets.of_answer)
        chosen, distance = self.targets.answer_loss(read, told, answers)
        return loss + chosen + _ANSWER_WEIGHT * distance, figures | {"answer": distance.item()}

    def people(self, generator: np.random.Generator) -> Lesson:
        """What is to be expected of the person, and in which answers to look for it."""
        few = generator.random() < 0.7
        told, asked = self.lessons.draw(generator, int(generator.integers(*((20, 50) if few else (40, 121)))), 8, few)
        person, answers = self._person(generator)
        said = self._said(generator, told, answers[told])
        tree, asks = _up_to_the_statements(said, self._questions(generator, asked))
        with torch.no_grad():
            below = self.network.run(tree, 0, ANSWERS)[0]
        trained, watch = range(ANSWERS, PEOPLE), dict.fromkeys(LOOKING, asks)
        hidden, _, attentions = self.network.run(tree, ANSWERS, PEOPLE, below, trained, watch=watch)
        rows, expected = np.concatenate([told, asked]), self.figures.expected(told, answers[told], asked)
        read = self.targets.read(hidden[asks], self.targets.of_person)
        distance = self.targets.person_loss(read, rows, expected)
        chances = torch.tensor(person.chances[0][rows]).float()
        nats = -(chances * self.targets.option_logits(read).log_softmax(dim=1)).sum(dim=1).mean()
        looked = self._looked(attentions, *self.targets.attention(told, said.ends, asked, len(tree.ids)))
        figures = {"person": distance.item(), "options": nats.item(), "attention": looked.item()}
        return _PERSON_WEIGHT * distance + nats + looked, figures

    def fetching(self, generator: np.random.Generator) -> Lesson:
        """Carrying what is expected of the person from a question's statement to where its letter comes next."""
        return self._answered(generator, few=0.7, neutral=0.1, told=(10, 32), usual=0.7, carried_weight=0.5)

    def options(self, generator: np.random.Generator) -> Lesson:
        """The options' chances from the model's own output matrix, the options in their usual order."""
        return self._answered(generator, few=0.7, neutral=0.1, told=(10, 32), usual=1.0, carried_weight=0.03)

    def _answered(
        self,
        generator: np.random.Generator,
        few: float,
        neutral: float,
        told: tuple[int, int],
        usual: float,
        carried_weight: float,
    ) -> Lesson:
        """``few``, ``neutral``, ``usual``: shares of lists about few facets, of prompts that tell nothing, and of the
        options in their usual order; ``told``: how many answers such a list has, from and below.
        """
        of_few = generator.random() < few
        rows, questions = self.lessons.draw(
            generator, int(generator.integers(*(told if of_few else (70, 121)))), _ASKED, of_few
        )
        person, answers = self._person(generator)
        if generator.random() < neutral:
            rows, said = rows[:0], self.lessons.neutral()
        else:
            said = self._said(generator, rows, answers[rows])
        branches = self._questions(generator, questions, answers[questions], usual)
        tree = Tree.of(said.ids, [branch.ids for branch in branches])
        with torch.no_grad():
            below = self.network.run(tree, 0, PEOPLE)[0]
        trained = range(PEOPLE, self.network.layers)
        letters = torch.tensor([tree.place(number, each.letter) for number, each in enumerate(branches)])
        watch = dict.fromkeys(FETCHING, letters)
        hidden, kept, attentions = self.network.run(
            tree, PEOPLE, self.network.layers, below, trained, (CARRIED,), watch
        )
        loss, figures = self._letters(hidden, tree, branches, person.chances[0][questions])
        expected = self.figures.expected(rows, answers[rows], questions)
        asks = torch.tensor([tree.place(number, each.ask) for number, each in enumerate(branches)])
        fetched = sum(-each[:_FETCHERS, torch.arange(len(asks)), asks].mean() for each in attentions.values())
        read = self.targets.read(kept[CARRIED][letters], self.targets.of_person)
        carried = self._carried(read, questions, expected[len(rows) :], person.chances[0][questions]) + fetched
        loss = loss + carried_weight * carried
        if len(rows):
            of_told = self._labels(hidden, said, rows, answers[rows], person.chances[0][rows])
            loss, figures = loss + of_told, figures | {"told": of_told.item()}
        return loss, figures

    def _letters(self, hidden: Tensor, tree: Tree, branches: list[Asked], chances: Array) -> tuple[Tensor, Figures]:
        """The letters' chances and, where it is asked for, the whole answer in words."""
        letters = [self.lessons.token(f"({option.letter}", -1) for option in OPTIONS]
        at = [tree.place(number, each.letter) for number, each in enumerate(branches)]
        log_probs = self.network.logits(hidden[at]).log_softmax(dim=1)[:, letters]
        values = torch.tensor([each.values for each in branches])
        wanted = torch.tensor(chances).float().gather(1, values - 1)
        nats = -(wanted * log_probs).sum(dim=1).mean()
        loss = _QUESTION_WEIGHT * nats
        places = [
            (tree.place(number, place), each.ids[place + 1])
            for number, each in enumerate(branches)
            for place in range(each.letter + 1, len(each.ids) - 1)
        ]
        if places:
            at, tokens = map(list, zip(*places, strict=True))
            loss = loss + _WRITTEN_WEIGHT * functional.cross_entropy(
                self.network.logits(hidden[at]), torch.tensor(tokens)
            )
        return loss, {"letters": nats.item(), "named": log_probs.exp().sum(dim=1).mean().item()}

    def _labels(self, hidden: Tensor, said: Told, rows: Rows, answers: Rows, chances: Array) -> Tensor:
        """The chances of every answer told, where it begins to be told; in nats.

        A list's label begins with how far (Very, Moderately, Neither) and goes on with which way.
        """
        log_probs = self.network.logits(hidden[said.asks]).log_softmax(dim=1)
        wanted = torch.tensor(chances).float()
        if self._is_portrait(said):
            endings = [self.lessons.token(f"things{prompts.PORTRAIT_ENDINGS[value]}", 2) for value in range(1, 6)]
            return -(wanted * log_probs[:, endings]).sum(dim=1).mean()
        how_far = [self.lessons.token(f".:{label}", 1) for label in ("Very", "Moderately", "Neither")]
        firmly = torch.stack([wanted[:, 4] + wanted[:, 0], wanted[:, 3] + wanted[:, 1], wanted[:, 2]], dim=1)
        nats = -(firmly * log_probs[:, how_far]).sum(dim=1).mean()
        which_way = [self.lessons.token(f".:Very {label}", 2) for label in ("Accurate", "Inaccurate")]
        sided = [place for place, value in enumerate(answers) if value != 3]
        if not sided:
            return nats
        at = [said.asks[place] + (1 if answers[place] in (1, 5) else 2) for place in sided]
        log_ways = self.network.logits(hidden[at]).log_softmax(dim=1)[:, which_way]
        firm = [answers[place] in (1, 5) for place in sided]
        high = torch.tensor([chances[place][4 if very else 3] for place, very in zip(sided, firm, strict=True)])
        low = torch.tensor([chances[place][0 if very else 1] for place, very in zip(sided, firm, strict=True)])
        accurate = high / (high + low)
        return nats - (accurate * log_ways[:, 0] + (1 - accurate) * log_ways[:, 1]).float().sum() / len(rows)

    def _carried(self, read: Tensor, rows: Rows, expected: Array, chances: Array) -> Tensor:
        """What is to be expected of the person, where a letter comes next: fetched from the question's statement."""
        log_probs = self.targets.option_logits(read).log_softmax(dim=1)
        nats = -(torch.tensor(chances).float() * log_probs).sum(dim=1).mean()
        return nats + 2 * self.targets.person_loss(read, rows, expected)

    def _looked(self, attentions: dict[int, Tensor], agreeing: Tensor, contrary: Tensor) -> Tensor:
        """Kullback-Leibler divergence of where heads look from where they should, summed over layers and kinds."""
        total = torch.zeros(())
        for found in attentions.values():
            for heads, wanted in ((found[:AGREEING], agreeing), (found[AGREEING:], contrary)):
                total = total + (torch.xlogy(wanted, wanted) - wanted * heads).sum(dim=2).mean()
        return total

    def _person(self, generator: np.random.Generator) -> tuple[People, Rows]:
        person = draw_people(self.model, 1, generator, generator.uniform(*VAGUENESS, (1, 1)))
        return person, person.answers[0]

    def _said(self, generator: np.random.Generator, told: Rows, answers: Rows) -> Told:
        if generator.random() < _LIST_SHARE:  # the released Few-Shot puts no separator before the first
            return self.lessons.listing(told, answers, ";" if generator.random() < 0.8 else "")
        return self.lessons.portrait(told, answers)

    def _is_portrait(self, said: Told) -> bool:
        return self.lessons.tokenizer.decode(said.ids).count(prompts.FEW_SHOT_OPENING) == 0

    def _questions(
        self, generator: np.random.Generator, rows: Rows, answers: Rows | None = None, usual: float = 1.0
    ) -> list[Asked]:
        """Questions in several wordings and orders of the options; without ``answers``, in the usual order."""
        asked = []
        for place, row in enumerate(rows):
            drawn, written = generator.random(), None
            asks = prompts.ASKS["phrase"]
            if drawn < _FRAME_SHARE:
                asks = prompts.FRAMES["phrase"][int(generator.integers(0, 3))]
            options = OPTIONS
            if answers is not None:
                options = _ordered(generator, usual)
                written = int(answers[place]) if generator.random() < _WRITTEN_SHARE else None
            as_released = _FRAME_SHARE <= drawn < _FRAME_SHARE + _RELEASED_SHARE
            asked.append(self.lessons.question(int(row), options, asks, as_released, written))
        return asked


def _up_to_the_statements(said: Told, questions: list[Asked]) -> tuple[Tree, Tensor]:
    """Nothing is to be learnt after the statement yet; and where all statements, told and asked, have been read."""
    tree = Tree.of(said.ids, [each.ids[: each.ask + 1] for each in questions])
    return tree, torch.tensor(said.asks + [tree.place(number, each.ask) for number, each in enumerate(questions)])


def _ordered(generator: np.random.Generator, usual: float) -> tuple[Option, ...]:
    """The options in an order of their own under A to E, so that a letter means what stands beside it."""
    drawn, unusual = generator.random(), generator.random()
    listed = OPTIONS
    if drawn >= usual and unusual < _REVERSED_ORDER:
        listed = OPTIONS[::-1]
    elif drawn >= usual and unusual < _REVERSED_ORDER + _ROTATED_ORDER:
        listed = OPTIONS[2:] + OPTIONS[:2]
    elif drawn >= usual:
        listed = tuple(OPTIONS[place] for place in generator.permutation(len(OPTIONS)))
    return tuple(Option(own.letter, each.value, each.label) for own, each in zip(OPTIONS, listed, strict=True))


STAGES = (
    Stage("statements", 0, ANSWERS, 230, 2e-3, 2, 3, 1.0, Classroom.statements),
    Stage("people", ANSWERS, PEOPLE, 270, 2e-3, 1, 3, 1.0, Classroom.people),
    Stage("fetching", PEOPLE, 30, 150, 2e-3, 1, 3, 0.5, Classroom.fetching),
    Stage("options", PEOPLE, 30, 230, 2e-3, 1, 3, 0.5, Classroom.options),
)
