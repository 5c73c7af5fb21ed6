"""Many people's LoRA adapters trained in one pass: the base weights are read once, each row has its person's adapter.

A linear layer's output for person n gains ``scaling × dropout(x) Aₙᵀ Bₙᵀ`` (Hu et al. 2021), everyone's in two batched
products. No term joins two people: losses are added, gradients clipped and AdamW's moments kept person by person. The
order of examples, the initial values and the optimizer are those of TRL's trainers, so that a person's adapter is what
they would have given, up to rounding and the draws of dropout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn
from transformers import PreTrainedModel, get_scheduler

from baselines.training.session import TrainingClock
from palign_bench.backbone.parts.adapters import leaving_no_trace

CLIP = 1.0  # largest norm of one person's gradient; transformers' default
DRAWS = 4  # 16-bit numbers for dropout from each random one of 64 bits; drawn singly they took a sixth of the time


@dataclass(frozen=True)
class Passage:
    """Token ids, of which those from ``start`` on are the answer."""

    ids: list[int]
    start: int


@dataclass(frozen=True)
class Person:
    """One person's examples, each of the same number of passages (DPO: preferred and rejected), and their seed."""

    examples: Sequence[tuple[Passage, ...]]
    seed: int


@dataclass(frozen=True)
class Recipe:
    """How everyone is trained. ``length``: every passage is padded to it, so that neighbours change no shape."""

    lora: LoraConfig
    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    schedule: str
    warmup_steps: int
    length: int


# Log-probabilities of the answers and their tokens, both (people, batch, passages); the examples' numbers and whether
# they count, both (people, batch). Returns values by name, each (people,); "loss" is what is minimised.
Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Trained:
    """One person's adapter by PEFT's names, and the values of `Loss` at every step."""

    adapter: dict[str, Tensor]
    logs: dict[str, list[float]]


class Adapters:
    """All people's low-rank matrices: per layer A ``(people, rank, inputs)`` and B ``(people, outputs, rank)``."""

    def __init__(self, model: PreTrainedModel, lora: LoraConfig, seeds: Sequence[int]):
        self.model, self.people = model, len(seeds)
        self.scaling, self.dropout = lora.lora_alpha / lora.r, float(lora.lora_dropout)
        with leaving_no_trace(model), torch.random.fork_rng(devices=[]):
            shapes = get_peft_model_state_dict(get_peft_model(model, lora))
            self.names = [name.removesuffix(".lora_A.weight") for name in shapes if name.endswith(".lora_A.weight")]
            self.inputs = [shapes[f"{name}.lora_A.weight"].shape[1] for name in self.names]
            self.outputs = [shapes[f"{name}.lora_B.weight"].shape[0] for name in self.names]
            drawn = [self._initial(lora.r, seed) for seed in seeds]
        device = model.device
        self.a = [nn.Parameter(torch.stack(each).to(device)) for each in zip(*drawn, strict=True)]
        self.b = [
            nn.Parameter(torch.zeros(self.people, width, lora.r, device=device))  # no change at first
            for width in self.outputs
        ]
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def _initial(self, rank: int, seed: int) -> list[Tensor]:
        """A of every layer as PEFT draws it after ``seed``: it makes both matrices as linear layers, then A anew."""
        torch.manual_seed(seed)
        found = []
        for inputs, outputs in zip(self.inputs, self.outputs, strict=True):
            layer = nn.Linear(inputs, rank, bias=False)
            nn.Linear(rank, outputs, bias=False)
            nn.init.kaiming_uniform_(layer.weight, a=5**0.5)
            found.append(layer.weight.detach())
        return found

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [*self.a, *self.b]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model with everyone's adapter on; its rows come person by person, equally many each."""
        with ExitStack() as stack:
            for name, a, b in zip(self.names, self.a, self.b, strict=True):
                layer = self.model.get_submodule(name.removeprefix("base_model.model."))
                stack.callback(layer.register_forward_hook(self._hook(a, b)).remove)
            yield

    def _hook(self, a: Tensor, b: Tensor) -> Callable[..., Tensor]:
        def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = inputs[0].reshape(self.people, -1, inputs[0].shape[-1]).to(a.dtype)
            if self.dropout:
                x = x * self._kept(x.shape[1:])
            update = torch.bmm(torch.bmm(x, a.mT), b.mT) * (self.scaling / (1 - self.dropout))
            return (output + update.view(output.shape)).to(output.dtype)

        return add

    def _kept(self, shape: torch.Size) -> Tensor:
        """What is not dropped, each person's from their own generator: who else is trained changes no draw."""
        numbers = -(-math.prod(shape) // DRAWS)
        drawn = torch.empty(self.people, numbers, dtype=torch.int64, device=self.model.device)
        for own, generator in zip(drawn, self.generators, strict=True):
            own.random_(-(2**63), None, generator=generator)
        uniform = drawn.view(torch.int16)[:, : math.prod(shape)].reshape(self.people, *shape)
        return uniform >= round(self.dropout * 2**16) - 2**15

    def clip(self) -> None:
        """Scale each person's gradient to a norm of at most `CLIP`."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
        scale = (CLIP / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale[:, None, None])

    def of(self, person: int) -> dict[str, Tensor]:
        """One person's matrices by PEFT's names, copied."""
        found = {}
        for name, a, b in zip(self.names, self.a, self.b, strict=True):
            found[f"{name}.lora_A.weight"] = a[person].detach().clone()
            found[f"{name}.lora_B.weight"] = b[person].detach().clone()
        return found


def train_cohort(
    model: PreTrainedModel, people: Sequence[Person], loss: Loss, recipe: Recipe, clock: TrainingClock
) -> list[Trained]:
    """Train everyone's adapter at once. The caller wraps it in `leaving_no_trace`."""
    adapters = Adapters(model, recipe.lora, [person.seed for person in people])
    optimizer = torch.optim.AdamW(adapters.parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    scheduler = get_scheduler(recipe.schedule, optimizer, recipe.warmup_steps, recipe.steps)
    orders = [batches(len(person.examples), recipe.batch_size, person.seed) for person in people]
    logs: list[dict[str, list[float]]] = [{} for _ in people]
    clock.begin()
    with adapters.applied():
        for _ in range(recipe.steps):
            chosen = [next(order) for order in orders]
            values = loss(*_forward(model, people, chosen, recipe))
            values["loss"].sum().backward()
            adapters.clip()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            for name, column in values.items():
                for log, value in zip(logs, column.tolist(), strict=True):
                    log.setdefault(name, []).append(value)
            clock.step()
    clock.end()
    return [Trained(adapters.of(index), log) for index, log in enumerate(logs)]


def batches(examples: int, size: int, seed: int) -> Iterator[list[int]]:
    """Numbers of a person's examples, batch by batch and epoch by epoch, as accelerate's seeded sampler draws them."""
    epoch = 0
    while True:
        order = torch.randperm(examples, generator=torch.Generator().manual_seed(seed + epoch)).tolist()
        yield from (order[start : start + size] for start in range(0, examples, size))
        epoch += 1


def _forward(
    model: PreTrainedModel, people: Sequence[Person], chosen: Sequence[list[int]], recipe: Recipe
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `Loss` takes. A batch at an epoch's end may be short: it is filled with examples that do not count."""
    size, each = recipe.batch_size, len(people[0].examples[0])
    filled = [numbers + [numbers[0]] * (size - len(numbers)) for numbers in chosen]
    counts = torch.tensor([[float(i < len(numbers)) for i in range(size)] for numbers in chosen], device=model.device)
    examples = [person.examples[n] for person, own in zip(people, filled, strict=True) for n in own]
    passages = [passage for example in examples for passage in example]
    log_probs, tokens = answer_log_probs(model, passages, recipe.length)
    shape = (len(people), size, each)
    return log_probs.view(shape), tokens.view(shape), torch.tensor(filled, device=model.device), counts


def answer_log_probs(model: PreTrainedModel, passages: Sequence[Passage], length: int) -> tuple[Tensor, Tensor]:
    """Float32 log-probability of each passage's answer, and how many tokens it has, both ``(passages,)``.

    Right-padded and causal, so no mask is needed; the vocabulary's logits are computed for the answers alone.
    """
    longest = max(len(p.ids) - p.start for p in passages)
    ids = torch.zeros(len(passages), length, dtype=torch.long)
    before = torch.zeros(len(passages), longest, dtype=torch.long)  # the positions that predict the answer's tokens
    targets, real = torch.zeros_like(before), torch.zeros(len(passages), longest)
    for row, passage in enumerate(passages):
        answer = passage.ids[passage.start :]
        ids[row, : len(passage.ids)] = torch.tensor(passage.ids)
        before[row, : len(answer)] = torch.arange(passage.start - 1, len(passage.ids) - 1)
        targets[row, : len(answer)] = torch.tensor(answer)
        real[row, : len(answer)] = 1.0
    device = model.device
    decoder: Any = model.base_model
    hidden = decoder(input_ids=ids.to(device), use_cache=False).last_hidden_state
    rows = torch.arange(len(passages), device=device)[:, None]
    logits = model.get_output_embeddings()(hidden[rows, before.to(device)]).float()
    chosen = logits.log_softmax(-1).gather(-1, targets.to(device)[..., None]).squeeze(-1)
    return (chosen * real.to(device)).sum(-1), real.to(device).sum(-1)
