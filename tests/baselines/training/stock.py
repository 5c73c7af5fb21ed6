"""TRL's own trainers and PEFT's own layers, padded and with every logit: what ours are compared with."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from trl import DPOTrainer, SFTTrainer

from baselines.training import aligner as aligner_module
from baselines.training.aligner import TrainedAligner
from baselines.training.tree import Passage
from palign_bench.backbone.parts.adapters import peft_config
from tests.baselines.training.conftest import Bench


class StockDPOTrainer(DPOTrainer):
    """TRL's, its rows taken as tokenized."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


def rows_of(examples: list[tuple[Passage, ...]]) -> list[dict[str, Any]]:
    """As TRL takes them."""
    if len(examples[0]) == 1:
        return [{"input_ids": e.ids, "labels": [-100] * e.start + e.ids[e.start :]} for (e,) in examples]
    return [
        {"prompt_ids": c.ids[: c.start], "chosen_ids": c.ids[c.start :], "rejected_ids": r.ids[r.start :]}
        for c, r in examples
    ]


def stock_aligner(bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> TrainedAligner:
    """A prepared LoRA, full fine-tuning or DPO that is trained as TRL and PEFT would without us."""
    aligner = bench.aligner(name, **settings)

    def trainer(rows: list[tuple[Passage, ...]], seed: int, clock: Any, folder: Path) -> Any:
        arguments: Any = aligner.configuration(seed, folder)
        arguments.remove_unused_columns = True
        kind: Any = StockDPOTrainer if name == "dpo" else SFTTrainer
        return kind(
            model=bench.backbone.model,
            args=arguments,
            train_dataset=Dataset.from_list(rows_of(rows)),
            processing_class=aligner.texts.tokenizer,
            peft_config=None if aligner.peft is None else peft_config(aligner.peft),
            callbacks=[clock],
        )

    monkeypatch.setattr(aligner, "trainer", trainer)
    train = aligner.train

    def without_lean_layers(*arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as within:
            within.setattr(aligner_module, "lean_layers", lambda _: nullcontext())
            return train(*arguments)

    monkeypatch.setattr(aligner, "train", without_lean_layers)
    return aligner
