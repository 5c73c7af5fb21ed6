"""Many people's LoRA adapters trained in one pass: the base weights are read once, each row has its person's adapter.

A linear layer's output for person n gains ``scaling × dropout(x) Aₙᵀ Bₙᵀ`` (Hu et al. 2021), everyone's in two batched
products. No term joins two people: losses are added, gradients clipped and AdamW's moments kept person by person.
Optimizer, schedule, clipping and dropout are read from the very configuration that TRL's trainers take (`Recipe.of`),
and the order of examples and the initial values are theirs, so that a person's adapter is what they would have given,
up to rounding and the draws of dropout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainingArguments, get_scheduler

from baselines.training.layers import dropped_numbers, updated_product
from baselines.training.session import TrainingClock
from baselines.training.trainers import Loss, answer_tokens
from baselines.training.tree import TreeSize, answer_log_probs
from palign_bench.backbone.anatomy import Anatomy
from palign_bench.backbone.forward import replace_forward
from palign_bench.backbone.parts.adapters import leaving_no_trace

# What `Adapters` computes of PEFT's LoRA; a setting beyond these would be ignored here.
LORA_SETTINGS = frozenset(
    {"peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "bias"}
)


@dataclass(frozen=True)
class Person:
    """One person's examples as the method makes them, and their seed.

    With labels, every example has the same number of `Passage` (DPO: preferred and rejected).
    """

    examples: Sequence[Any]
    seed: int


@dataclass(frozen=True)
class Recipe:
    """How everyone is trained. ``size`` of a person's texts in every pass, so that neighbours change no shape; without
    positions it is as the texts need, and neighbours change how a result is rounded.
    """

    lora: LoraConfig
    arguments: TrainingArguments
    size: TreeSize

    @classmethod
    def of(cls, arguments: TrainingArguments, lora: LoraConfig, size: TreeSize) -> Recipe:
        """The recipe of a trainer's configuration. Raises ValueError for what would be trained in another way here."""
        if arguments.bf16 or arguments.fp16:
            raise ValueError("a cohort is trained in the weights' own type, without autocast")
        return cls(lora, arguments, size)

    @property
    def steps(self) -> int:
        return int(self.arguments.max_steps)

    @property
    def examples_at_once(self) -> int:
        return int(self.arguments.per_device_train_batch_size)

    @property
    def batch_size(self) -> int:
        return self.examples_at_once * int(self.arguments.gradient_accumulation_steps)

    @property
    def dropout(self) -> float:
        """TRL turns it off for DPO, whatever the adapter's configuration says."""
        return 0.0 if getattr(self.arguments, "disable_dropout", False) else float(self.lora.lora_dropout)

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """The trainers' own, for matrices, all of which they decay."""
        made, settings = Trainer.get_optimizer_cls_and_kwargs(self.arguments)
        return made(parameters, weight_decay=self.arguments.weight_decay, **settings)

    def schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """The trainers' own."""
        arguments: Any = self.arguments
        return get_scheduler(
            arguments.lr_scheduler_type,
            optimizer,
            arguments.get_warmup_steps(self.steps),
            self.steps,
            scheduler_specific_kwargs=arguments.lr_scheduler_kwargs or {},
        )


@dataclass(frozen=True)
class Trained:
    """One person's adapter by PEFT's names, the values of `Loss` at every step, and the share of it that moved."""

    adapter: dict[str, Tensor]
    logs: dict[str, list[float]]
    moved_share: float
    told: Mapping[str, Any] = field(default_factory=dict)  # more for the summary


# Takes the adapters, the step's number and what moves them by their gradients; returns values by name, each (people,).
Step = Callable[["Adapters", int, Callable[[], None]], Mapping[str, Tensor]]


class Adapters:
    """All people's low-rank matrices: per layer A ``(people, rank, inputs)`` and B ``(people, outputs, rank)``."""

    def __init__(self, model: PreTrainedModel, recipe: Recipe, seeds: Sequence[int]):
        lora = recipe.lora
        self.model, self.people, self.seeds = model, len(seeds), tuple(seeds)
        self.scaling = lora.lora_alpha / (math.sqrt(lora.r) if lora.use_rslora else lora.r)
        self.dropout = recipe.dropout
        self.moment = (0, 0)  # step, and the pass within it: what dropout draws depends on these
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
        self.initial = [each.detach().clone() for each in self.a]
        self.generators = [torch.Generator(device) for _ in seeds]
        self._drawn: tuple[Any, list[Tensor]] = None, []  # of which pass, and what dropout takes of each layer

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
            for index, (name, a, b) in enumerate(zip(self.names, self.a, self.b, strict=True)):
                layer = self.model.get_submodule(name.removeprefix("base_model.model."))
                replace_forward(stack, layer, partial(self._updated, index, layer, layer.forward, a, b))
            yield

    def _updated(
        self, index: int, layer: nn.Module, own: Callable[[Tensor], Tensor], a: Tensor, b: Tensor, inputs: Tensor
    ) -> Tensor:
        x = inputs.reshape(self.people, -1, inputs.shape[-1])
        dropped = self._dropped(index, x.shape[1]) if self.dropout else None
        found = updated_product(layer, x, own, a, b, self.scaling / (1 - self.dropout), dropped)
        return found.view(*inputs.shape[:-1], -1)

    def _dropped(self, layer: int, positions: int) -> Tensor:
        """What dropout takes, drawn from person, step and pass: who else is trained changes no draw.

        Nor does computing a layer a second time, as gradient checkpointing does.
        """
        device = self.model.device
        if device.type != "cpu":  # a mask, and those of all layers at once would fill memory
            own = [
                dropped_numbers(positions * self.inputs[layer], self.dropout, device, generator)
                for generator in self._seeded(layer)
            ]
            return torch.cat(own)
        if self._drawn[0] != (self.moment, positions):
            counts = positions * torch.tensor(self.inputs)
            drawn = [self._of_all_layers(counts, person, each) for person, each in enumerate(self._seeded())]
            self._drawn = (self.moment, positions), [torch.cat(each) for each in zip(*drawn, strict=True)]
        return self._drawn[1][layer]

    def _of_all_layers(self, counts: Tensor, person: int, generator: torch.Generator) -> Sequence[Tensor]:
        """Of one person, layer by layer, in one draw: the places among everyone's numbers of that layer."""
        places = dropped_numbers(int(counts.sum()), self.dropout, self.model.device, generator)
        ends = counts.cumsum(0)
        sizes = torch.searchsorted(places, ends).diff(prepend=torch.zeros(1, dtype=torch.long))
        places += torch.repeat_interleave(person * counts - (ends - counts), sizes)
        return places.split(sizes.tolist())

    def _seeded(self, *more: int) -> Iterator[torch.Generator]:
        """Everyone's generator, of this pass."""
        for generator, seed in zip(self.generators, self.seeds, strict=True):
            yield generator.manual_seed(hash((seed, *self.moment, *more)) % 2**63)

    def clip(self, largest: float) -> None:
        """Scale each person's gradient to a norm of at most ``largest``; 0 leaves it, as in transformers."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if not largest:
            return
        norm = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
        scale = (largest / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale[:, None, None])

    def moved_share(self, person: int) -> float:
        """Share of one person's numbers that are not what they were at first."""
        moved = sum(int((a[person] != start[person]).sum()) for a, start in zip(self.a, self.initial, strict=True))
        moved += sum(int(b[person].count_nonzero()) for b in self.b)
        return moved / sum(each[person].numel() for each in self.parameters)

    def of(self, person: int) -> dict[str, Tensor]:
        """One person's matrices by PEFT's names, copied."""
        found = {}
        for name, a, b in zip(self.names, self.a, self.b, strict=True):
            found[f"{name}.lora_A.weight"] = a[person].detach().clone()
            found[f"{name}.lora_B.weight"] = b[person].detach().clone()
        return found


def train_cohort(
    model: PreTrainedModel,
    seeds: Sequence[int],
    recipe: Recipe,
    clock: TrainingClock,
    step: Step,
    more: Sequence[nn.Parameter] = (),
) -> list[Trained]:
    """Train everyone's adapter at once, and what ``more`` there is. The caller wraps it in `leaving_no_trace`."""
    adapters = Adapters(model, recipe, seeds)
    optimizer = recipe.optimizer([*adapters.parameters, *more])
    scheduler = recipe.schedule(optimizer)
    logs: list[dict[str, list[float]]] = [{} for _ in seeds]
    model.train()
    if recipe.arguments.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})

    def move() -> None:
        adapters.clip(recipe.arguments.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()

    clock.on_train_begin()
    for number in range(recipe.steps):
        for name, column in step(adapters, number, move).items():
            for log, value in zip(logs, column.tolist(), strict=True):
                log.setdefault(name, []).append(value)
        scheduler.step()
        clock.on_step_end()
    clock.on_train_end()
    return [Trained(adapters.of(index), log, adapters.moved_share(index)) for index, log in enumerate(logs)]


def labelled_step(
    model: PreTrainedModel, people: Sequence[Person], loss: Loss, recipe: Recipe, per_token: bool = False
) -> Step:
    """One optimizer step on everyone's next batch; the model attends along trees (`attention_for_trees`).

    ``per_token``: an example weighs as many times as its answer has tokens, and otherwise as much as every other.
    """
    orders = [batches(len(person.examples), recipe.batch_size, person.seed) for person in people]

    def step(adapters: Adapters, number: int, move: Callable[[], None]) -> Mapping[str, Tensor]:
        chosen = [next(order) for order in orders]
        sums: dict[str, Tensor] = {}
        with adapters.applied():
            for turn, start in enumerate(range(0, max(map(len, chosen)), recipe.examples_at_once)):
                adapters.moment = number, turn
                values = loss(*_forward(model, people, chosen, start, recipe, per_token))
                values["loss"].sum().backward()
                sums = {name: sums.get(name, 0.0) + value.detach() for name, value in values.items()}
            move()
        return sums

    return step


def batches(examples: int, size: int, seed: int) -> Iterator[list[int]]:
    """Numbers of a person's examples, batch by batch and epoch by epoch, as accelerate's seeded sampler draws them."""
    epoch = 0
    while True:
        order = torch.randperm(examples, generator=torch.Generator().manual_seed(seed + epoch)).tolist()
        yield from (order[start : start + size] for start in range(0, examples, size))
        epoch += 1


def _forward(
    model: PreTrainedModel,
    people: Sequence[Person],
    chosen: Sequence[list[int]],
    start: int,
    recipe: Recipe,
    per_token: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The arguments of `Loss` for one forward pass: everyone's examples from ``start`` on.

    A batch at an epoch's end may be short: the pass is filled with examples of weight 0.
    """
    size, each = recipe.examples_at_once, len(people[0].examples[0])
    filled, weights = [], []
    for person, numbers in zip(people, chosen, strict=True):
        own = numbers[start : start + size]
        whole = sum(answer_tokens(person.examples[n]) for n in numbers) if per_token else len(numbers)
        filled.append(own + [numbers[0]] * (size - len(own)))
        weights.append([1.0 / whole] * len(own) + [0.0] * (size - len(own)))
    groups = [
        [passage for n in own for passage in person.examples[n]] for person, own in zip(people, filled, strict=True)
    ]
    log_probs = answer_log_probs(Anatomy(model), groups, recipe.size).view(len(people), size, each)
    return log_probs, torch.tensor(filled, device=model.device), torch.tensor(weights, device=model.device)
