"""Policies of several people trained in one pass: they sample answers, which a rule rewards, and learn from them.

What is learnt from a rollout is TRL's own formula, whose settings are read (`Objective`). Prompts and draws are a
person's own, whoever else is trained. Unlike TRL's rollouts, what prompts and answers have in common is read once, and
the reference reads no answer twice.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from baselines.training.attention import attention_for_trees
from baselines.training.cohort import Adapters, Recipe, Step
from baselines.training.reference import Reference
from baselines.training.tree import Passage, TreeReading, read
from palign_bench.backbone.anatomy import Anatomy
from palign_bench.backbone.engines.attention import why_no_shared_prefix
from palign_bench.backbone.tokenizing import shared_length

Rule = Callable[[Sequence[str], Sequence[int]], list[float]]


@dataclass(frozen=True)
class Prompts:
    """One person's prompts as token ids, the option that each asks about, the rule that rewards, and their seed."""

    ids: Sequence[list[int]]
    options: Sequence[int]
    rule: Rule
    seed: int


@dataclass(frozen=True)
class Sampling:
    """At most ``longest`` tokens at ``temperature``; ``answers`` to each of ``prompts`` of a rollout."""

    tokenizer: PreTrainedTokenizerBase
    temperature: float
    longest: int
    prompts: int
    answers: int


@dataclass(frozen=True)
class Rollout:
    """What everyone sampled, ``(people, answers, longest)`` where not said otherwise; 0 after an answer's end.

    ``lengths`` ``(people, answers)``: tokens up to and with the end token. ``log_probs``: under the policy that
    sampled, ``reference``: under the bare model. ``states`` has the width as its last dimension: what predicted each
    token, and at ``lengths`` what follows the last one. ``scores`` ``(people, answers)``: the rule's rewards.
    """

    lengths: Tensor
    log_probs: Tensor
    reference: Tensor
    states: Tensor
    scores: Tensor

    @property
    def sampled(self) -> Tensor:
        """Whether there is a token."""
        return torch.arange(self.log_probs.shape[-1], device=self.lengths.device) < self.lengths[..., None]

    @property
    def kl(self) -> Tensor:
        """By the first-order estimator, token by token."""
        return self.log_probs - self.reference


class Objective(ABC):
    """What is learnt from a rollout, for each of several people."""

    passes = 1  # optimizer steps on one rollout

    @property
    def weights(self) -> Sequence[nn.Parameter]:
        """What is trained beside the adapters, person by person in the first dimension."""
        return ()

    @abstractmethod
    def judge(self, rollout: Rollout) -> Mapping[str, Tensor]:
        """Take in a rollout. Returns values of it by TRL's names, each ``(people,)``."""

    @abstractmethod
    def loss(self, rows: slice, log_probs: Tensor, states: Tensor) -> Mapping[str, Tensor]:
        """Losses of these rows of everyone's answers by name, means over the rows ``(people,)``; "loss" is minimised.

        ``log_probs`` ``(people, rows, longest)``, and of the states ``(people, rows, longest + 1, width)``.
        """


def policy_step(
    model: Any, people: Sequence[Prompts], sampling: Sampling, objective: Objective, recipe: Recipe
) -> Step:
    """One rollout of everyone's next prompts, and the optimizer steps on it."""
    anatomy = Anatomy(model)
    reference = Reference(model, recipe.batch_size, sampling.temperature)
    orders = [prompt_batches(len(each.ids), sampling.prompts, each.seed) for each in people]

    def step(adapters: Adapters, number: int, move: Callable[[], None]) -> Mapping[str, Tensor]:
        chosen = [[n for n in next(order) for _ in range(sampling.answers)] for order in orders]
        prompts = [[person.ids[n] for n in numbers] for person, numbers in zip(people, chosen, strict=True)]
        with adapters.applied():
            answers, log_probs, states = sample(anatomy, prompts, _draws(people, number, sampling), sampling)
        texts = [
            [Passage(prompt + answer, len(prompt)) for prompt, answer in zip(*each, strict=True)]
            for each in zip(prompts, answers, strict=True)
        ]
        bare = pad_sequence(reference.log_probs([each for own in texts for each in own]), batch_first=True)
        lengths = torch.tensor([[len(each) for each in own] for own in answers], device=model.device)
        rollout = Rollout(
            lengths, log_probs, bare.view(log_probs.shape), states, _scores(people, chosen, answers, sampling, model)
        )
        told = dict(objective.judge(rollout))
        parts = range(0, recipe.batch_size, recipe.examples_at_once)
        with adapters.applied(), attention_for_trees(model):
            for _ in range(objective.passes):
                for start in parts:
                    rows = slice(start, start + recipe.examples_at_once)
                    reading = read(anatomy, [own[rows] for own in texts])
                    values = objective.loss(rows, *_padded(reading, len(people), log_probs.shape[-1], sampling))
                    (values["loss"].sum() / len(parts)).backward()
                    for name, value in values.items():
                        told[name] = told.get(name, 0.0) + value.detach() / (len(parts) * objective.passes)
                move()
        return told

    return step


def prompt_batches(prompts: int, size: int, seed: int) -> Iterator[list[int]]:
    """Numbers of a person's prompts, in full batches, epoch by epoch, as TRL's RLOO draws them."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(prompts, generator=generator).tolist()
        yield from (order[start : start + size] for start in range(0, prompts - size + 1, size))


def _draws(people: Sequence[Prompts], step: int, sampling: Sampling) -> Tensor:
    """Uniform numbers ``(people, answers, longest)``, each person's from their seed and the step."""
    shape = sampling.prompts * sampling.answers, sampling.longest
    generators = [torch.Generator().manual_seed(hash((each.seed, step)) % 2**63) for each in people]
    return torch.stack([torch.rand(shape, generator=generator) for generator in generators])


@torch.no_grad()
def sample(
    anatomy: Anatomy, prompts: Sequence[Sequence[list[int]]], draws: Tensor, sampling: Sampling
) -> tuple[list[list[list[int]]], Tensor, Tensor]:
    """Everyone's answers with their end token, and `Rollout.log_probs` and `Rollout.states` of them.

    ``draws`` ``(people, answers, longest)`` decide: a token is where a draw falls among the summed probabilities.
    """
    model, people, each = anatomy.model, len(prompts), len(prompts[0])
    pad, end = sampling.tokenizer.pad_token_id, sampling.tokenizer.eos_token_id
    was_training = model.training
    model.eval()  # with checkpointing, models in training keep no cache
    state, cache, mask = _read_prompts(anatomy, prompts, sampling)
    positions = mask.sum(1, keepdim=True)
    draws = draws.flatten(0, 1).to(model.device)
    running = torch.ones(len(draws), dtype=torch.bool, device=model.device)
    tokens: list[Tensor] = []
    log_probs: list[Tensor] = []
    states: list[Tensor] = []
    while True:
        states.append(state)
        every = (anatomy.logits(state).float() / sampling.temperature).log_softmax(-1)
        summed = every.exp().cumsum(-1)
        drawn = torch.searchsorted(summed, draws[:, len(tokens), None] * summed[:, -1:], right=True)
        drawn = drawn.clamp(max=summed.shape[-1] - 1)
        log_probs.append(every.gather(1, drawn)[:, 0].masked_fill(~running, 0.0))
        tokens.append(drawn[:, 0].masked_fill(~running, pad))
        running = running & (tokens[-1] != end)
        if len(tokens) == sampling.longest or not running.any():
            break
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        state = anatomy.decoder(
            input_ids=tokens[-1][:, None],
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        positions = positions + 1
    model.train(was_training)
    rows = torch.stack(tokens, 1).tolist()
    answers = [row[: row.index(end) + 1] if end in row else row for row in rows]
    return (
        [answers[start : start + each] for start in range(0, len(answers), each)],
        torch.stack(log_probs, 1).view(people, each, -1),
        torch.stack(states, 1).view(people, each, len(states), -1),
    )


def _read_prompts(
    anatomy: Anatomy, prompts: Sequence[Sequence[list[int]]], sampling: Sampling
) -> tuple[Tensor, Any, Tensor]:
    """What precedes the first token of every answer: hidden states ``(rows, width)``, cache and mask ``(rows, n)``.

    Where the model's attention is plain, what all prompts begin with is computed once for each person, and a prompt
    once for all its answers. The mask is 0 at pads, which come before what is a prompt's own.
    """
    device = anatomy.model.device
    shares = why_no_shared_prefix(anatomy) is None
    copies = sampling.answers if shares else 1
    once = [prompt for own in prompts for prompt in own[::copies]]
    # A last token is always read as a prompt's own.
    beginning = shared_length([prompt[:-1] for prompt in once]) if shares else 0
    cache = None
    if beginning:
        ids = torch.tensor([own[0][:beginning] for own in prompts], device=device)
        cache = anatomy.decoder(input_ids=ids, use_cache=True).past_key_values
        cache.batch_repeat_interleave(len(once) // len(prompts))
    rests = [prompt[beginning:] for prompt in once]
    width = max(map(len, rests))
    pads = [width - len(rest) for rest in rests]
    mask = torch.tensor([[1] * beginning + [0] * n + [1] * (width - n) for n in pads], device=device)
    output = anatomy.decoder(
        input_ids=torch.tensor([[0] * n + rest for n, rest in zip(pads, rests, strict=True)], device=device),
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0)[:, beginning:],
        past_key_values=cache,
        use_cache=True,
    )
    cache = output.past_key_values
    if copies > 1:
        cache.batch_repeat_interleave(copies)
    state = output.last_hidden_state[:, -1].repeat_interleave(copies, dim=0)
    return state, cache, mask.repeat_interleave(copies, dim=0)


def _scores(
    people: Sequence[Prompts],
    chosen: Sequence[Sequence[int]],
    answers: Sequence[Sequence[list[int]]],
    sampling: Sampling,
    model: Any,
) -> Tensor:
    told = [
        person.rule(
            [str(sampling.tokenizer.decode(each, skip_special_tokens=True)) for each in own],
            [person.options[n] for n in numbers],
        )
        for person, numbers, own in zip(people, chosen, answers, strict=True)
    ]
    return torch.tensor(told, dtype=torch.float32, device=model.device)


def _padded(reading: TreeReading, people: int, longest: int, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Log-probabilities ``(people, rows, longest)`` and states ``(people, rows, longest + 1, width)`` of answers."""
    lengths = reading.lengths
    log_probs = pad_sequence(reading.log_probs(sampling.temperature).split(lengths), batch_first=True)
    at = [torch.tensor(path[-length - 1 :]) for path, length in zip(reading.paths, lengths, strict=True)]
    places = pad_sequence(at, batch_first=True).to(reading.hidden.device)
    places = nn.functional.pad(places, (0, longest + 1 - places.shape[1]))
    log_probs = nn.functional.pad(log_probs, (0, longest - log_probs.shape[1]))
    return (
        log_probs.view(people, -1, longest),
        reading.hidden.detach()[places].view(people, -1, longest + 1, reading.hidden.shape[-1]),
    )
