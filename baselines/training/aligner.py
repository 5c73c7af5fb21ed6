"""What all trained methods share: the way from a person's answers to an alignment, alone or in a cohort."""

import copy
import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from tqdm import tqdm
from transformers import TrainingArguments

from baselines.training.attention import attention_for_trees
from baselines.training.checks import check_adapter, check_randomness
from baselines.training.cohort import LORA_SETTINGS, Person, Recipe, Trained, labelled_step, train_cohort
from baselines.training.layers import lean_layers
from baselines.training.memory import refused_by_gpu
from baselines.training.precision import in_float32, keep_small_updates, moved_share
from baselines.training.reversibility import ReversibilityCheck
from baselines.training.session import TrainingClock, curves, training_session
from baselines.training.settings import ADAMW, TrainingSettings
from baselines.training.texts import TrainingTexts
from baselines.training.trainers import Loss, collated, numbered, one_device
from baselines.training.tree import TreeSize, tree_size
from palign_bench.aligner import Aligner, Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.anatomy import Anatomy
from palign_bench.backbone.base import Backbone
from palign_bench.backbone.engines.decoding import own_decoding
from palign_bench.backbone.engines.out_of_memory import free_memory, is_out_of_memory
from palign_bench.backbone.local import LocalBackbone
from palign_bench.backbone.parts.adapters import (
    adapter_tensors,
    full_tensors,
    is_soft_prompt,
    peft_config,
    peft_settings,
    trainable_copies,
)
from palign_bench.backbone.quiet import quiet
from palign_bench.backbone.tokenizing import shared_length
from palign_bench.questionnaire.protocol import EvaluationProtocol
from palign_bench.settings import UserError, first_line, whole

SEEDS = 2**31  # what the libraries take
# Numbers in one person's hidden states of a pass with which a processor's products run at their full rate: with LoRA on
# SmolLM2 (400,000) a cohort takes a tenth longer a person than one by one, on the organism (15,000) two fifths as long.
FILLING = 2**18
Result = TypeVar("Result")


class DoesNotFitError(RuntimeError):
    """Training takes more memory than there is, even one example at a time."""


class TrainedAligner(Aligner):
    """A method that trains weights on one person's known answers.

    ``peft``: PEFT's configuration of the adapter as a dictionary; None trains every weight. ``cohort``: how many people
    are trained in one pass; with 1, and where one person fills a processor, TRL's trainer trains them one by one. The
    other keywords are `TrainingSettings`.
    """

    needs = frozenset({"prompt", "gradients"})
    takes_cohorts: ClassVar[bool] = False
    turns_dropout_off: ClassVar[bool] = False  # the model's own too: what is trained is compared with what was
    per_token: ClassVar[bool] = False  # an example weighs as many times as its answer has tokens; else as every other
    kind: ClassVar[Any]  # of `baselines.training.trainers`
    curves: ClassVar[Mapping[str, str]] = {"loss": "loss"}  # what the trainer logs, and how the summary calls it
    backbone: LocalBackbone

    def __init__(self, *, peft: Mapping[str, Any] | None, cohort: int = 1, **training: Any) -> None:
        self.training = TrainingSettings.of(training)
        whole("method.cohort", cohort)
        self.cohort = self._most = int(cohort)
        self.peft = None if peft is None else dict(peft)
        if self.peft is None:
            self.needs = self.needs | {"unquantized weights"}
        else:
            peft_config(self.peft)
        if self.cohort > 1:
            self._check_cohort()
        self._checked = False  # whether this row's adapter was seen to come off and go on exactly

    def _check_cohort(self) -> None:
        if not self.takes_cohorts or self.peft is None or self.peft["peft_type"] != "LORA":
            raise ValueError(f"method.cohort={self.cohort}: only LoRA, DPO, PPO and RLOO train several people at once")
        beyond = sorted(self.peft.keys() - LORA_SETTINGS)
        if beyond:
            raise ValueError(f"method.cohort={self.cohort}: a cohort trains plain LoRA, without peft.{beyond[0]}")

    def prepare(self, backbone: Backbone | None, protocol: EvaluationProtocol) -> None:
        """Tokenize the known items once for all people. Raises UserError for what cannot be trained here as asked."""
        super().prepare(backbone, protocol)
        assert isinstance(backbone, LocalBackbone), "training needs a model in this process"
        if backbone.model.device.index:
            raise UserError(
                f"model.device={backbone.model.device}: the trainers use the first visible GPU; set "
                f"CUDA_VISIBLE_DEVICES={backbone.model.device.index} and model.device=cuda."
            )
        if self.training.optim != ADAMW and (backbone.model.device.type != "cuda" or not find_spec("bitsandbytes")):
            raise UserError(
                f"method.optim={self.training.optim}: it needs a CUDA GPU and bitsandbytes; use method.optim={ADAMW}."
            )
        self.texts = TrainingTexts.of(backbone)
        self._checked = False
        self.cohort = self._cohort_on(backbone.model)
        model, method, probe = backbone.model, type(self).__name__, self._probe()
        if self.turns_dropout_off or self.cohort > 1:
            check_randomness(model, probe, method, self.cohort, self.turns_dropout_off)
        adapter = None if self.peft is None else peft_config(self.peft)
        if adapter is not None:
            check_adapter(model, probe, adapter, method, self.cohort)
        spared, optim = self.training.gradient_checkpointing, self.training.optim
        longest = self._longest() + (self.peft or {}).get("num_virtual_tokens", 0)
        if (reason := refused_by_gpu(model, adapter, longest, spared, optim)) is not None:
            raise UserError(f"{method}: {reason}")

    # What a method says.

    def labels(self, case: Case) -> dict[int, int]:
        """The option that stands beside each answered known item, as the protocol labels it."""
        return {number: int(value) for number, value in self.protocol.orient(case.known).items()}

    @abstractmethod
    def examples(self, known: Mapping[int, int]) -> list[Any]:
        """What is made of the answered known items; nothing where the method can learn nothing from them.

        Each is a tuple of `Passage` for a method whose `loss` is one of labelled texts.
        """

    @abstractmethod
    def configuration(self, seed: int, folder: Path) -> TrainingArguments:
        """The settings of TRL's trainer, from which a cohort takes its recipe too."""

    def loss(self, people: Sequence[Person], arguments: TrainingArguments) -> Loss:
        """The loss of labelled texts; the model is bare when this is called."""
        raise NotImplementedError

    def trainer(self, rows: list[Any], seed: int, clock: TrainingClock, folder: Path) -> Any:
        """TRL's trainer on the model, ready to train on `examples`; the caller takes off again what it attaches."""
        model, arguments = self.backbone.model, one_device(self.configuration(seed, folder))
        loss = self.loss([Person(rows, seed)], arguments)
        trainer = self.kind(
            model=model,
            args=arguments,
            train_dataset=numbered(rows),
            data_collator=clock.timed(collated),
            processing_class=self.texts.tokenizer,
            peft_config=None if self.peft is None else peft_config(self.peft),
            callbacks=[clock],
        )
        trainer.learn(Anatomy(model), rows, loss, self.per_token)
        return trainer

    def policy(self, trainer: Any) -> Any:
        """The model that a trainer trains."""
        return trainer.model

    @property
    def optimizer_steps(self) -> int:
        """How often the optimizer moves the weights."""
        return self.training.steps

    # How one person, and how several, are trained.

    def align(self, case: Case) -> Alignment:
        """Train on one person's known answers. Without a usable one the alignment is the bare model, with a reason."""
        if self.cohort > 1:  # one left over of a cohort is trained as the others were
            return self.align_many([case])[0]
        rows = self.examples(self.labels(case))
        if not rows:
            return Alignment(summary=self.told(rows))
        return self._within_memory(lambda: self._align(rows, case.seed % SEEDS))

    def _align(self, rows: list[Any], seed: int) -> Alignment:
        torch.manual_seed(seed)
        check = None if self._checked or self._places_itself else ReversibilityCheck(self.backbone.model, self._probe())
        with (
            self._session() as (clock, folder),
            own_decoding(self.backbone.model, self.backbone.engine.end_tokens),  # TRL's rollouts follow it
        ):
            trained = self.train(rows, seed, clock, folder, check)
        if check is not None:
            with self.backbone.applied(trained):
                check.applied()
            check.bare()
        self._checked = True
        clock.charge_steps(self.optimizer_steps)
        summary = self.told(rows) | dict(trained.summary) | self.curves_of(clock.logs) | clock.summary()
        return replace(trained, summary=summary)

    def train(
        self,
        rows: list[Any],
        seed: int,
        clock: TrainingClock,
        folder: Path,
        check: ReversibilityCheck | None = None,
    ) -> Alignment:
        """Train on the model and return its trained tensors; the caller takes them off the model again."""
        originals = trainable_copies(self.backbone.model) if self.peft is None else None
        trainer = self.trainer(rows, seed, clock, folder)
        model = self.policy(trainer)
        in_float32(model)
        moving = keep_small_updates(trainer) if model is trainer.model else _trained(model)
        before = originals or [each.detach().clone() for each in moving]
        with lean_layers(model):
            trainer.train()
        if check is not None:
            with clock.uncounted():
                check.trained()
        whole = self.peft is None
        return Alignment(
            adapter=full_tensors(model) if whole else adapter_tensors(model),
            adapter_kind="full" if whole else "peft",
            adapter_settings=None if whole else peft_settings(model.peft_config["default"]),
            trained_parameters=sum(each.numel() for each in _trained(model)),
            summary={"moved_share": moved_share(before, moving)},
        )

    def warm_up(self, case: Case) -> None:
        """One step on the person's answers."""
        once = copy.copy(self)
        once.training = replace(self.training, steps=1)
        once.align(case)

    def align_many(self, cases: Sequence[Case]) -> list[Alignment]:
        """Train several people. Who has no usable answer gets the bare model, with a reason."""
        if self.cohort == 1:
            return [self.align(case) for case in cases]
        rows = [self.examples(self.labels(case)) for case in cases]
        people = [Person(each, case.seed % SEEDS) for each, case in zip(rows, cases, strict=True) if each]
        trained = iter(self._within_memory(lambda: self._align_cohort(people)) if people else [])
        return [next(trained) if each else Alignment(summary=self.told(each)) for each in rows]

    def _align_cohort(self, people: Sequence[Person]) -> list[Alignment]:
        """Train at most ``cohort`` people; fewer are filled up with themselves where passes have one shape.

        In half precision products of another shape round otherwise, which training turns into other answers: a person's
        result would depend on how many were left beside them.
        """
        recipe = self._recipe()
        most = max(self.cohort, len(people)) if recipe.size.positions else len(people)
        filled = list(islice(cycle(people), most))
        with self._session() as (clock, _), lean_layers(self.backbone.model):
            adapters = self.train_people(filled, recipe, clock)[: len(people)]
        settings = peft_settings(recipe.lora)  # with the names that ``all-linear`` stands for in this model
        clock.charge_steps(self.optimizer_steps * len(people))
        more = clock.share(len(people)) | {"cohort": len(people)}
        return [
            Alignment(
                adapter=each.adapter,
                adapter_kind="peft",
                adapter_settings=settings,
                trained_parameters=sum(tensor.numel() for tensor in each.adapter.values()),
                summary=self.told(own.examples)
                | self.curves_of(each.logs)
                | more
                | {"moved_share": each.moved_share, **each.told},
            )
            for each, own in zip(adapters, people, strict=True)
        ]

    def _session(self) -> AbstractContextManager[tuple[TrainingClock, Path]]:
        name = type(self).__name__
        return training_session(self.backbone.model, self.training.steps, name, self.turns_dropout_off)

    def _cohort_on(self, model: Any) -> int:
        """As many as asked for; one where a processor is as fast with each alone."""
        if self._most == 1 or model.device.type != "cpu":
            return self._most
        if self.pass_size().positions * Anatomy(model).width < FILLING:
            return self._most
        name = type(self).__name__
        tqdm.write(f"{name}: one person fills this processor, so people are trained one by one", file=sys.stderr)
        return 1

    def train_people(self, people: Sequence[Person], recipe: Recipe, clock: TrainingClock) -> list[Trained]:
        """Train several people's adapters in one pass."""
        model = self.backbone.model
        loss = self.loss(people, recipe.arguments)
        step = labelled_step(model, people, loss, recipe, self.per_token)
        with attention_for_trees(model):
            return train_cohort(model, [person.seed for person in people], recipe, clock, step)

    def _recipe(self) -> Recipe:
        lora: Any = peft_config(self.peft or {})
        with quiet("transformers"):
            return Recipe.of(self.configuration(0, Path()), lora, self.pass_size())

    def pass_size(self) -> TreeSize:
        """Large enough for whatever a person answers, so that everyone is trained in passes of one shape."""
        known = self.inventory.known
        options = self.inventory.options
        examples = [each for n in known for option in options for each in self.examples({n: option.value})]
        shared = shared_length([passage.ids for example in examples for passage in example])
        own = max(map(tree_size, examples)) - shared
        return TreeSize(shared + self.training.examples_at_once * own, self._longest())

    def _longest(self) -> int:
        """Tokens of the longest known item with its answer."""
        texts = self.texts.items.values()
        return max(len(each.turn) + len(answer) for each in texts for answer in each.answers.values())

    def _within_memory(self, work: Callable[[], Result]) -> Result:
        """``work()``, in smaller micro-batches where memory runs out. Raises DoesNotFitError for one example."""
        usual = self.training
        try:
            while True:
                try:
                    return work()
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    told = first_line(error)
                smaller = self.training.in_smaller_passes()
                if smaller is None:
                    raise DoesNotFitError(
                        f"training does not fit, even one example at a time ({told}); set "
                        "method.gradient_checkpointing=true, model.quantization=nf4 or a smaller adapter"
                    )
                self.training = smaller
                tqdm.write(f"memory ran out, again with method.micro_batch={smaller.micro_batch}", file=sys.stderr)
                free_memory()  # out here: the exception has let go of the tensors
        finally:
            self.training = usual

    # What is said about it.

    def told(self, rows: Sequence[Any]) -> dict[str, Any]:
        """What the summary says before any training, with the reason where there is nothing to train on."""
        settings = self.training
        reason = {} if rows else {"reason": "no known answer to learn from"}
        return reason | {
            "budget": settings.budget,
            "steps": settings.steps,
            "batch_size": settings.batch_size,
            "micro_batch": settings.examples_at_once,
            "learning_rate": settings.learning_rate,
            "warmup_steps": settings.warmup_steps,
            "examples": len(rows),
        }

    def curves_of(self, logs: Mapping[str, list[float]]) -> dict[str, Any]:
        """First and last value and a thinned curve of each. Raises FloatingPointError when one is not finite."""
        return curves({name: logs[logged] for logged, name in self.curves.items() if logs.get(logged)})

    def arguments(self, seed: int, folder: Path) -> dict[str, Any]:
        """The trainer's settings that all methods share."""
        return self.training.arguments(self.backbone.model.device, seed, folder)

    @property
    def _places_itself(self) -> bool:
        """A soft prompt is no part of the model: the engines place it."""
        return is_soft_prompt(self.peft)

    def _probe(self) -> torch.Tensor:
        texts = next(iter(self.texts.items.values()))
        return torch.tensor([texts.turn + next(iter(texts.answers.values()))], device=self.backbone.model.device)


def _trained(model: Any) -> list[torch.Tensor]:
    return [each for each in model.parameters() if each.requires_grad]
