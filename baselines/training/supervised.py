"""LoRA, QLoRA, full fine-tuning and prompt-tuning: supervised on the known answers.

Paper, E.4: the parameter-efficient comparison, "based on a batch size of 8 and a total sample size of 120". The loss is
on the answer alone. QLoRA is LoRA on a backbone in NF4 (``method.quantization``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PromptTuningConfig, PromptTuningInit
from torch import Tensor
from trl import SFTConfig, SFTTrainer

from baselines.training.aligner import Lora, in_float32, lora_of, one_device
from baselines.training.cohort import Passage, Person, Trained, train_cohort
from baselines.training.cohort_aligner import CohortAligner
from baselines.training.session import TrainingClock
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.parts.adapters import VIRTUAL, full_tensors, trainable_copies

TECHNIQUES = ("lora", "full", "prompt")


class SupervisedFineTuning(CohortAligner):
    """Supervised fine-tuning of an adapter (``lora``), of all weights (``full``) or of a soft prompt (``prompt``).

    Full fine-tuning trains in the weights' own type. A soft prompt starts from embeddings of the vocabulary, drawn at
    random (Lester et al. 2021). Raises ValueError for a keyword out of its range.
    """

    version = 1

    def __init__(
        self,
        technique: str,
        lora: Mapping[str, Any] | None = None,
        virtual_tokens: int = 20,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if technique not in TECHNIQUES:
            raise ValueError(f"method.technique={technique}: choose one of {', '.join(TECHNIQUES)}")
        self.technique = technique
        self.lora = lora_of(lora) if technique == "lora" else None
        self.virtual_tokens = int(virtual_tokens)
        if self.virtual_tokens < 1:
            raise ValueError(f"method.virtual_tokens={virtual_tokens}: choose 1 or more")
        if self.cohort > 1 and self.lora is None:
            raise ValueError(f"method.cohort={self.cohort}: only technique=lora trains several people at once")
        if technique == "full":
            self.needs = self.needs | {"unquantized weights"}

    def examples(self, known: Mapping[int, int]) -> list[dict[str, Any]]:
        """Token ids of the dialogue, and labels that leave out (−100) all but the answer."""
        rows = []
        for number, value in known.items():
            texts = self.texts.items[number]
            answer = texts.answers[value]
            rows.append({"input_ids": texts.turn + answer, "labels": [-100] * len(texts.turn) + answer})
        return rows

    def train(self, rows: list[dict[str, Any]], seed: int, clock: TrainingClock, folder: Path) -> Alignment:
        model = self.local.model
        if self.technique == "full":
            trainable_copies(model)
        arguments = SFTConfig(
            **self.arguments(seed, folder),
            max_steps=self.steps,
            # The rows are tokenized and labelled: nothing to prepare, and nothing that max_length [1024] could cut.
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=None,
            # The same loss, but the vocabulary's logits are computed for the answer's tokens alone.
            loss_type="chunked_nll",
        )
        trainer = SFTTrainer(
            model=model,
            args=one_device(arguments),
            train_dataset=Dataset.from_list(rows),
            processing_class=self.texts.tokenizer,
            peft_config=self._peft_config(),
            callbacks=[clock],
        )
        trainer.data_collator = clock.timed(trainer.data_collator)
        if self.technique != "full":
            in_float32(trainer.model)
        trainer.train()
        return self._alignment(trainer.model)

    @property
    def adapter(self) -> Lora:
        assert self.lora is not None, "only technique=lora has a cohort"
        return self.lora

    def passages(self, rows: list[dict[str, Any]]) -> list[tuple[Passage, ...]]:
        """The dialogue with its answer."""
        return [(Passage(row["input_ids"], row["labels"].count(-100)),) for row in rows]

    def train_many(self, people: Sequence[Person], clock: TrainingClock) -> list[Trained]:
        """The mean over the batch's answer tokens, person by person."""

        def loss(log_probs: Tensor, tokens: Tensor, _: Tensor, counts: Tensor) -> dict[str, Tensor]:
            weight = counts[..., None]
            return {"loss": -(log_probs * weight).sum((1, 2)) / (tokens * weight).sum((1, 2))}

        return train_cohort(self.local.model, people, loss, self.recipe(), clock)

    def _peft_config(self) -> Any:
        if self.lora is not None:
            return self.lora.config()
        if self.technique == "full":
            return None
        return PromptTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=self.virtual_tokens,
            prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB,
        )

    def _alignment(self, model: Any) -> Alignment:
        if self.lora is not None:
            return self.lora_alignment(model, self.lora, {})
        if self.technique == "full":
            tensors = full_tensors(model)
        else:
            tensors = {VIRTUAL: model.prompt_encoder["default"].embedding.weight.detach().clone()}
        return Alignment(
            adapter=tensors,
            adapter_kind=self.technique,
            trained_parameters=sum(tensor.numel() for tensor in tensors.values()),
        )
