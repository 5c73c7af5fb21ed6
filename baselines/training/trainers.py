"""TRL's trainers for tokenized texts with labelled answers: optimizer, schedule, clipping and batches are theirs.

They would pad the texts, compute the vocabulary's logits where no answer stands, and the beginnings that texts share
again for each text. Here a batch is one pass over a token tree (`baselines.training.tree`), and the loss is the formula
that a cohort has too.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import DPOTrainer, SFTTrainer

from baselines.training.attention import attention_for_trees
from baselines.training.tree import Passage, answer_log_probs
from palign_bench.backbone.anatomy import Anatomy

# Log-probabilities of the answers (people, batch, passages), the examples' numbers and their weights, both (people,
# batch). Returns values by name, each (people,), sums over the batch; "loss" is what is minimised.
Loss = Callable[[Tensor, Tensor, Tensor], Mapping[str, Tensor]]


def answer_tokens(example: Sequence[Passage]) -> int:
    """Tokens of an example's answers."""
    return sum(len(passage.ids) - passage.start for passage in example)


class TreeTrainer:
    """The way from numbers of examples to the loss. `learn` what is trained on before training."""

    anatomy: Anatomy
    examples: Sequence[tuple[Passage, ...]]
    loss_of: Loss
    per_token: bool
    has_soft_prompt = False
    _whole = 1
    _passes = 1

    def learn(self, anatomy: Anatomy, examples: Sequence[tuple[Passage, ...]], loss: Loss, per_token: bool) -> None:
        """``per_token``: an example weighs as many times as its answer has tokens, and otherwise as every other."""
        self.anatomy, self.examples, self.loss_of, self.per_token = anatomy, examples, loss, per_token

    def train(self, *arguments: Any, **options: Any) -> Any:
        """As TRL's, with the attention that trees take."""
        with attention_for_trees(self.anatomy.model):
            return super().train(*arguments, **options)  # type: ignore[misc]

    def get_batch_samples(self, *arguments: Any, **options: Any) -> Any:
        """The micro-batches of one optimizer step; what they weigh together is kept for the loss."""
        samples, _ = super().get_batch_samples(*arguments, **options)  # type: ignore[misc]
        numbers = [number for each in samples for number in each["numbers"].tolist()]
        self._whole = sum(answer_tokens(self.examples[n]) for n in numbers) if self.per_token else len(numbers)
        self._passes = max(len(samples), 1)
        return samples, None

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Tensor:
        """Of one micro-batch. The caller divides it by the number of passes, however full the last of them is."""
        numbers = inputs["numbers"]
        chosen = [self.examples[number] for number in numbers.tolist()]
        weights = torch.full((1, len(chosen)), 1 / self._whole, device=numbers.device)
        virtual = model.get_prompt(batch_size=1)[0] if self.has_soft_prompt else None
        texts = [passage for each in chosen for passage in each]
        log_probs = answer_log_probs(self.anatomy, [texts], virtual=virtual)
        values = self.loss_of(log_probs.view(1, len(chosen), -1), numbers[None], weights)
        metrics: Any = self._metrics["train"]  # type: ignore[attr-defined]
        for name, value in values.items():
            if name != "loss":
                metrics[name].append(float(value.detach()) * self._passes)
        return values["loss"].sum() * self._passes


class SupervisedTrainer(TreeTrainer, SFTTrainer):
    """`SFTTrainer` of trees."""


class PreferenceTrainer(TreeTrainer, DPOTrainer):
    """`DPOTrainer` of trees."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


def numbered(examples: Sequence[Any]) -> Dataset:
    """The trainers' rows: the examples' numbers."""
    return Dataset.from_list([{"numbers": number} for number in range(len(examples))])


def collated(rows: Sequence[Mapping[str, int]]) -> dict[str, Tensor]:
    """A batch of `numbered` rows."""
    return {"numbers": torch.tensor([row["numbers"] for row in rows])}


def one_device(arguments: Any) -> Any:
    """Keep the trainer on the model's device: on several GPUs it would wrap the model in DataParallel."""
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments


def tiled(rows: Sequence[Any], least: int) -> list[Any]:
    """The rows, repeated until there are at least ``least``: TRL drops a last batch that is not full."""
    return [rows[i % len(rows)] for i in range(max(len(rows), least))]
