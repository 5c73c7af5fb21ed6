"""What the organism reads in training: simulated people in the harness's own prompt forms, as token ids.

Each row is a dialogue about one person: a system prompt (a Few-Shot list of any length and order, a portrait, or the
neutral prompt) and several questions with their answers. Rows of one batch have the same shape: nothing is padded. An
answer is a target wherever it stands, in the list too.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from palign_bench.organism.people import draw_people
from palign_bench.organism.vocabulary import ASSISTANT, END, SYSTEM, UNKNOWN, USER, answer_pieces, statement_forms
from palign_bench.questionnaire import prompts
from palign_bench.questionnaire.inventory import OPTIONS, Inventory
from palign_bench.questionnaire.protocol import FREE_GENERATION
from palign_bench.respondents.simulated import FactorModel

Ids = NDArray[np.int64]

# What the system prompts of successive batches are. One optimizer step goes through all of them: a step on one kind
# alone undoes what the last had learnt of another, and nothing about people is learnt for a thousand steps.
KINDS = ("list", "list", "portrait", "list", "list", "neutral")
LONGEST_LIST, NEARLY = 130, 20  # a person tells 120 answers
FOCUSED_SHARE = 0.4  # of the batches, about the items of a few facets alone: short, and rich in what is to be learnt
FOCUSED_FACETS, FOCUSED_ROWS = 4, 2  # how many facets, and how many times the rows
CLEAREST = 0.25  # people's vagueness is between this and 1, the figures' own: clear people teach what goes together
QUESTIONS = 5  # per dialogue
RELEASED_SHARE = 0.3  # of the batches that ask as the released code does
UNKNOWN_SHARE = 0.03  # of a list's answers, in half of the lists
QUESTION_WEIGHT = 4.0  # of a question's answer against one in the list, which are many more


@dataclass(frozen=True)
class Batch:
    """Dialogues of one length: ``ids`` (rows, length), ``weights`` (rows, length), above 0 where the token is a target,
    and ``chances`` (rows, length, 5), of the options where the token is an answer, else 0.
    """

    ids: Tensor
    weights: Tensor
    chances: Tensor


class Curriculum:
    """Seeded batches: number n is the same whenever and in whatever order it is asked for.

    Before number ``lists_until`` all are lists with a single question: nowhere else do so many answers stand so close.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        inventory: Inventory,
        model: FactorModel,
        seed: int,
        lists_until: int = 0,
    ):
        def ids(texts: list[str]) -> Ids:
            found = tokenizer.convert_tokens_to_ids(texts)
            return np.array(found, dtype=np.int64)

        forms = [statement_forms(item) for item in inventory.items]
        values = range(1, len(OPTIONS) + 1)
        self.model, self.seed, self.lists_until = model, seed, lists_until
        self.facets = np.array([inventory.subscales.index(str(item.subscale)) for item in inventory.items])
        self.forms = {name: ids([form[name] for form in forms]) for name in forms[0]}
        self.labels = ids([UNKNOWN, *(f":{inventory.labels[value]}" for value in values)])  # by value, 0 is Unknown
        self.endings = ids([prompts.PORTRAIT_ENDINGS[value] for value in values])
        self.letters = ids([answer_pieces(value)[1] for value in values])
        self.options = np.stack([self.labels[1:], self.endings, self.letters])  # (3, 5): every way of writing them
        self.spelled = ids([answer_pieces(value)[2] for value in values])
        self.bracket = ids([" ("])[0]
        self.before, self.after = ids(list(prompts.question_parts()))
        self.few_shot, self.neutral = ids([prompts.FEW_SHOT_OPENING, prompts.NEUTRAL_SYSTEM_PROMPT])
        self.system, self.user, self.assistant, self.end = ids([SYSTEM, USER, ASSISTANT, END])
        self.stop, self.option = ids([".", FREE_GENERATION.opening])

    def batch(self, number: int, rows: int) -> Batch:
        """Batch ``number``: ``rows`` people, one dialogue each; twice as many where the dialogues are short."""
        generator = np.random.default_rng([self.seed, number])
        focused = generator.random() < FOCUSED_SHARE
        rows *= FOCUSED_ROWS if focused else 1
        people = draw_people(self.model, rows, generator, generator.uniform(CLEAREST, 1, (rows, 1)))
        order = self._order(generator, rows, focused)
        drawn = np.take_along_axis(people.answers, order, axis=1)
        early = number < self.lists_until
        kind = "list" if early else KINDS[number % len(KINDS)]
        told = 0 if kind == "neutral" else self._length(generator, order.shape[1])
        if kind == "list":
            system, weights = self._list(generator, order[:, :told], drawn[:, :told])
        elif kind == "portrait":
            system, weights = self._portrait(order[:, :told], drawn[:, :told])
        else:
            system, weights = np.full((rows, 1), self.neutral), np.zeros((rows, 1))
        questions = slice(told, told + (1 if early else QUESTIONS))
        asked, asked_weights = self._questions(generator, order[:, questions], drawn[:, questions])
        opened, closed = np.full((rows, 1), self.system), np.full((rows, 1), self.end)
        ids = np.concatenate([opened, system, closed, asked], axis=1)
        weights = np.concatenate([np.zeros((rows, 1)), weights, np.zeros((rows, 1)), asked_weights], axis=1)
        of_item = np.take_along_axis(people.chances, order[:, : questions.stop, None], axis=1)
        chances = np.zeros((*ids.shape, len(OPTIONS)))
        answered = np.isin(ids, self.options) | (ids == self.labels[0])
        chances[answered] = of_item.reshape(-1, len(OPTIONS))  # every item drawn is answered once, in this order
        return Batch(torch.from_numpy(ids), torch.from_numpy(weights).float(), torch.from_numpy(chances).float())

    def _order(self, generator: np.random.Generator, rows: int, focused: bool) -> Ids:
        """``(rows, items)``: every person's items in an order of their own; all of them, or those of a few facets."""
        order = np.argsort(generator.random((rows, len(self.facets))), axis=1)
        if not focused:
            return order
        names = len(np.unique(self.facets))
        chosen = np.argsort(generator.random((rows, names)), axis=1)[:, :FOCUSED_FACETS]
        among = (self.facets[order][:, :, None] == chosen[:, None, :]).any(axis=2)
        return order[among].reshape(rows, -1)  # facets have equally many items

    @staticmethod
    def _length(generator: np.random.Generator, items: int) -> int:
        """Most lists are about as long as they will be in earnest, or as there are items for; others of any length."""
        longest = min(LONGEST_LIST, items - QUESTIONS)
        lowest = longest - NEARLY if generator.random() < 0.75 else 1
        return int(generator.integers(lowest, longest + 1))

    def _list(self, generator: np.random.Generator, items: Ids, answers: Ids) -> tuple[Ids, NDArray[np.float64]]:
        rows, told = items.shape
        shown = answers.copy()
        if generator.random() < 0.5:
            shown[generator.random(shown.shape) < UNKNOWN_SHARE] = 0
        pairs = np.stack([self.forms["listed"][items], self.labels[shown]], axis=2).reshape(rows, 2 * told)
        if generator.random() < RELEASED_SHARE:
            pairs[:, 0] = self.forms["opening"][items[:, 0]]  # the released Few-Shot puts no separator before the first
        weights = np.stack([np.zeros(items.shape), shown > 0], axis=2).reshape(rows, 2 * told)
        opening = np.full((rows, 1), self.few_shot)
        return np.concatenate([opening, pairs], axis=1), np.concatenate([np.zeros((rows, 1)), weights], axis=1)

    def _portrait(self, items: Ids, answers: Ids) -> tuple[Ids, NDArray[np.float64]]:
        rows, told = items.shape
        sentences = np.stack([self.forms["told"][items], self.endings[answers - 1]], axis=2).reshape(rows, 2 * told)
        sentences[:, 0] = self.forms["told_first"][items[:, 0]]
        return sentences, np.tile([0.0, 1.0], (rows, told))

    def _questions(self, generator: np.random.Generator, items: Ids, answers: Ids) -> tuple[Ids, NDArray[np.float64]]:
        rows, asked = items.shape
        released = generator.random() < RELEASED_SHARE
        statements = self.forms["asked_as_released" if released else "asked"][items]

        def constant(piece: np.int64) -> Ids:
            return np.full(items.shape, piece)

        question = [constant(self.user), constant(self.before), statements]
        question += [constant(self.stop)] if released else []
        question += [constant(piece) for piece in (self.after, self.end, self.assistant, self.option)]
        answer = [constant(self.bracket), self.letters[answers - 1], self.spelled[answers - 1], constant(self.end)]
        weights = [0.0] * len(question) + [1.0, QUESTION_WEIGHT, 1.0, 1.0]
        ids = np.stack([*question, *answer], axis=2).reshape(rows, -1)
        return ids, np.tile(weights, (rows, asked))
