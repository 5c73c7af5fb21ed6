"""Dialogues with simulated people in tokens, and how likely each answer is wherever one is told or asked for.

A dialogue is a system prompt that tells of a person and several questions that all continue it. Learning the chances
of every answer, told ones among them, is learning to predict a person from what has been read so far: a list of 120
answers teaches 120 times in one pass.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from palign_bench.organism.people import People, draw_people
from palign_bench.organism.taught.lessons import Asked, Lessons
from palign_bench.questionnaire import prompts
from palign_bench.questionnaire.inventory import OPTIONS, Option
from palign_bench.respondents.simulated import FactorModel

Array = NDArray[np.float64]
Kind = Literal["list", "few_facets", "all_facets"]
Target = Literal["told", "asked", "written"]
TARGETS: tuple[Target, ...] = ("told", "asked", "written")

VAGUENESS = (0.35, 1.0)  # of people drawn for teaching: clear ones teach what goes together, 1 is the figures' own
QUESTIONS = 8  # about a person
_TOLD = {"list": (20, 60), "few_facets": (8, 40), "all_facets": (60, 121)}  # answers told, from and below
_NEUTRAL_SHARE, _LIST_SHARE = 0.08, 0.75  # of prompts that tell nothing; of what is told as a list
_SEPARATOR_SHARE = 0.8  # of lists with a separator before the first answer: the released Few-Shot has none there
_FRAME_SHARE, _RELEASED_SHARE, _WRITTEN_SHARE = 0.2, 0.17, 0.4  # of questions: in other words; answered to the end
_USUAL_SHARE, _REVERSED_SHARE, _ROTATED_SHARE = 0.75, 0.33, 0.23  # of the options' orders; the last two of the others
_CHOICES = len(OPTIONS)
_POPULATION = 20_000  # people from whom the population's chances are taken
_MULTIPLE = 64  # batches' lengths are multiples of it, so that a GPU's allocator and kernels see few shapes


class Answer(NamedTuple):
    """At ``place`` the next token is one of ``tokens`` with these ``chances``.

    ``population``: cross-entropy in nats of who knows the population's chances and nothing of the person.
    """

    place: int
    tokens: list[int]
    chances: list[float]
    population: float
    target: int


@dataclass
class Exercise:
    """One dialogue: ``prefix`` tokens of the system prompt, then questions of ``width`` tokens each."""

    ids: list[int]
    prefix: int
    width: int
    answers: list[Answer] = field(default_factory=list)

    def add(self, target: Target, place: int, tokens: Sequence[int], chances: ArrayLike, usual: ArrayLike) -> None:
        """Chances are divided by their sum: which way an answer goes is asked given how far it goes."""
        own, of_all = (np.array(each) / np.sum(each) for each in (chances, usual))
        entropy, missing = float(-(own * np.log(of_all)).sum()), _CHOICES - len(tokens)
        padded = [*tokens, *[0] * missing], [*own, *[0.0] * missing]
        self.answers.append(Answer(place, *padded, entropy, TARGETS.index(target)))


@dataclass(frozen=True)
class Batch:
    """Several dialogues. ``ids`` ``(dialogues, length)``; ``prefix``, ``width`` ``(dialogues,)``; ``rows``, ``places``,
    ``population``, ``targets`` ``(places,)``; ``tokens``, ``chances`` ``(places, 5)``.
    """

    ids: Tensor
    prefix: Tensor
    width: Tensor
    rows: Tensor
    places: Tensor
    tokens: Tensor
    chances: Tensor
    population: Tensor
    targets: Tensor

    @classmethod
    def of(cls, exercises: Sequence[Exercise]) -> "Batch":
        length = -(-max(len(each.ids) for each in exercises) // _MULTIPLE) * _MULTIPLE
        answers = [(row, *answer) for row, each in enumerate(exercises) for answer in each.answers]
        rows, places, tokens, chances, population, targets = map(torch.tensor, zip(*answers, strict=True))
        return cls(
            torch.tensor([each.ids + [0] * (length - len(each.ids)) for each in exercises]),
            torch.tensor([each.prefix for each in exercises]),
            torch.tensor([each.width for each in exercises]),
            rows, places, tokens, chances.float(), population.float(), targets,
        )  # fmt: skip

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(each.to(device) for each in astuple(self)))

    @property
    def positions(self) -> Tensor:
        """``(dialogues, length)``: every question goes on where the system prompt ends."""
        after = self._at - self.prefix[:, None]
        return torch.where(after < 0, self._at, self.prefix[:, None] + after % self.width[:, None].clamp(min=1))

    @property
    def seen(self) -> Tensor:
        """``(dialogues, 1, length, length)``: a question sees the system prompt and itself."""
        after = self._at - self.prefix[:, None]
        question = after.clamp(min=-1).div(self.width[:, None].clamp(min=1), rounding_mode="floor")
        alike = (after < 0)[:, None, :] | (question[:, :, None] == question[:, None, :])
        return (alike & (self._at[:, None] >= self._at))[:, None]

    @property
    def _at(self) -> Tensor:
        return torch.arange(self.ids.shape[1], device=self.ids.device)


class Exercises:
    """Draws dialogues; each depends on its generator alone."""

    def __init__(self, lessons: Lessons, model: FactorModel):
        self.lessons, self.model = lessons, model
        generator = np.random.default_rng(1)
        self.population = self._people(generator, _POPULATION).chances.mean(axis=0)
        token = lessons.token
        self._letters = [token(f"({option.letter}", -1) for option in OPTIONS]
        self._how_far = [token(f".:{label}", 1) for label in ("Very", "Moderately", "Neither")]
        self._which_way = [token(f".:Very {label}", 2) for label in ("Accurate", "Inaccurate")]
        self._endings = [token(f"things{prompts.PORTRAIT_ENDINGS[value]}", 2) for value in range(1, 6)]

    def draw(self, generator: np.random.Generator, kind: Kind) -> Exercise:
        """A list that nothing is asked about, or a list or portrait and `QUESTIONS` about the person."""
        alone = kind == "list"
        rows, asked = self.lessons.draw(
            generator, int(generator.integers(*_TOLD[kind])), 0 if alone else QUESTIONS, kind != "all_facets"
        )
        people = self._people(generator, 1)
        answers, chances = people.answers[0], people.chances[0]
        as_list = generator.random() < _LIST_SHARE
        if not alone and generator.random() < _NEUTRAL_SHARE:
            rows, said = rows[:0], self.lessons.neutral()
        elif as_list:
            separator = ";" if generator.random() < _SEPARATOR_SHARE else ""
            said = self.lessons.listing(rows, answers[rows], separator)
        else:
            said = self.lessons.portrait(rows, answers[rows])
        questions = [self._question(generator, int(row), int(answers[row])) for row in asked]
        width = max((len(each.ids) for each in questions), default=0)
        ids = said.ids + [token for each in questions for token in each.ids + [0] * (width - len(each.ids))]
        exercise = Exercise(ids, len(said.ids), width)
        for row, place in zip(rows, said.asks, strict=True):
            self._tell(exercise, place, int(answers[row]), chances[row], self.population[row], as_list)
        for number, (row, each) in enumerate(zip(asked, questions, strict=True)):
            self._ask(exercise, len(said.ids) + number * width, each, chances[row], self.population[row])
        return exercise

    def _people(self, generator: np.random.Generator, count: int) -> People:
        return draw_people(self.model, count, generator, generator.uniform(*VAGUENESS, (count, 1)))

    def _question(self, generator: np.random.Generator, row: int, answer: int) -> Asked:
        """In several wordings and orders of the options; now and then with the answer to be written to its end."""
        drawn, asks = generator.random(), prompts.ASKS["phrase"]
        if drawn < _FRAME_SHARE:
            asks = prompts.FRAMES["phrase"][int(generator.integers(len(prompts.FRAMES["phrase"])))]
        as_released = _FRAME_SHARE <= drawn < _FRAME_SHARE + _RELEASED_SHARE
        written = answer if generator.random() < _WRITTEN_SHARE else None
        return self.lessons.question(row, _ordered(generator), asks, as_released, written)

    def _tell(
        self, exercise: Exercise, place: int, answer: int, chances: Array, population: Array, as_list: bool
    ) -> None:
        """A portrait's ending is one token; a list's label says how far (Very, Moderately, Neither), then which way."""
        if not as_list:
            exercise.add("told", place, self._endings, chances, population)
            return

        def firmness(each: Array) -> list[float]:
            return [each[4] + each[0], each[3] + each[1], each[2]]

        exercise.add("told", place, self._how_far, firmness(chances), firmness(population))
        if answer != 3:
            very = answer in (1, 5)
            ways = [4, 0] if very else [3, 1]
            # "Very" is one token, "Moderately" two.
            exercise.add("told", place + (1 if very else 2), self._which_way, chances[ways], population[ways])

    def _ask(self, exercise: Exercise, start: int, asked: Asked, chances: Array, population: Array) -> None:
        """The letters' chances and, where it is to be written, the rest of the answer."""
        shown = [value - 1 for value in asked.values]
        exercise.add("asked", start + asked.letter, self._letters, chances[shown], population[shown])
        for place in range(asked.letter + 1, len(asked.ids) - 1):
            exercise.add("written", start + place, [asked.ids[place + 1]], [1.0], [1.0])


def _ordered(generator: np.random.Generator) -> tuple[Option, ...]:
    """The options in an order of their own under A to E, so that a letter means what stands beside it."""
    drawn, unusual = generator.random(), generator.random()
    if drawn < _USUAL_SHARE:
        return OPTIONS
    if unusual < _REVERSED_SHARE:
        listed = OPTIONS[::-1]
    elif unusual < _REVERSED_SHARE + _ROTATED_SHARE:
        listed = OPTIONS[2:] + OPTIONS[:2]
    else:
        listed = tuple(OPTIONS[place] for place in generator.permutation(len(OPTIONS)))
    return tuple(Option(own.letter, each.value, each.label) for own, each in zip(OPTIONS, listed, strict=True))
