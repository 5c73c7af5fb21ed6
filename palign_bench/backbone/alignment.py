"""What a method makes of a person (`Alignment`, a value), and what a backbone answers under it (`AnswerSheet`)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file

from palign_bench.backbone.parts.readout import Readout, load_readout
from palign_bench.questionnaire.inventory import Answers

_TENSORS = "alignment.safetensors"
_PEFT_TENSORS, _PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"  # as PEFT calls them


@dataclass(frozen=True)
class Alignment:
    """Everything that makes a backbone answer as one respondent; every part is optional.

    ``system_prompt``: text before the question; ``None`` is the neutral prompt of the protocol.
    ``head_shifts``: ``(layers, heads × head_dim)`` float tensor added to the outputs of every layer's heads.
    ``adapter``: trained tensors by name, applied as ``adapter_kind`` (peft, full) says; ``adapter_settings`` is PEFT's
    configuration as JSON values (see ``backbone/parts/adapters.py``).
    ``readout``: a prediction of the options, pooled with the model's own at the answer position (`parts/readout.py`).
    ``answers``: a fixed answer per item, for floors, which need no backbone, in the protocol's orientation
    (`EvaluationProtocol.orient` makes it of literal values).
    ``summary``: what the ledger and the table tell about it (alpha, heads, losses, …): JSON values only.
    """

    system_prompt: str | None = None
    head_shifts: torch.Tensor | None = None
    adapter: Mapping[str, torch.Tensor] | None = None
    adapter_kind: str | None = None
    adapter_settings: Mapping[str, Any] | None = None
    readout: Readout | None = None
    answers: Answers | None = None
    trained_parameters: int = 0
    summary: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise TypeError or ValueError for a prompt that is no text, and a summary that cannot be kept."""
        if not isinstance(self.system_prompt, str | None):
            raise TypeError(f"Alignment(system_prompt=…) is a {type(self.system_prompt).__name__}; give a text or None")
        for key, value in self.summary.items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise type(error)(f"Alignment(summary=…): {key!r} is no JSON value ({error})") from error

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors under flat names, as saved."""
        flat = {f"adapter.{name}": tensor for name, tensor in (self.adapter or {}).items()}
        if self.head_shifts is not None:
            # Only the shifted heads' rows matter; a dense (layers, width) tensor of zeros would misstate the size.
            flat["head_shifts"] = self.head_shifts.to_sparse().values()
            flat["head_shift_positions"] = self.head_shifts.to_sparse().indices().int()
        if self.readout is not None:
            flat |= {f"readout.{name}": tensor for name, tensor in self.readout.tensors().items()}
        return flat

    def stored_bytes(self) -> int:
        """Bytes that must be kept per person to apply this alignment again (texts in UTF-8, tensors as stored)."""
        size = sum(tensor.numel() * tensor.element_size() for tensor in self.tensors().values())
        size += len((self.system_prompt or "").encode())
        return size + 8 * len(self.answers or {})

    def save(self, folder: Path) -> None:
        """Write ``alignment.json`` and, where there are tensors, ``alignment.safetensors`` into ``folder``.

        An adapter of PEFT is written as PEFT does, so that `peft.PeftModel.from_pretrained` reads the folder too.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name in (_TENSORS, _PEFT_TENSORS, _PEFT_CONFIG):
            (folder / name).unlink(missing_ok=True)  # of an earlier alignment
        if self.adapter_kind == "peft" and self.adapter is not None:
            _save_tensors(self.adapter, folder / _PEFT_TENSORS)
            (folder / _PEFT_CONFIG).write_text(json.dumps(self.adapter_settings, indent=2), encoding="utf-8")
            _save_tensors(replace(self, adapter=None).tensors(), folder / _TENSORS)
        else:
            _save_tensors(self.tensors(), folder / _TENSORS)
        document = {
            "system_prompt": self.system_prompt,
            "adapter_kind": self.adapter_kind,
            "adapter_settings": None if self.adapter_settings is None else dict(self.adapter_settings),
            "head_shifts_shape": None if self.head_shifts is None else list(self.head_shifts.shape),
            "readout": None if self.readout is None else self.readout.settings(),
            "answers": None if self.answers is None else {str(k): v for k, v in self.answers.items()},
            "trained_parameters": self.trained_parameters,
            "summary": dict(self.summary),
        }
        (folder / "alignment.json").write_text(json.dumps(document, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        document = json.loads((folder / "alignment.json").read_text(encoding="utf-8"))
        tensors, adapter_of_peft = (
            load_file(folder / name) if (folder / name).exists() else {} for name in (_TENSORS, _PEFT_TENSORS)
        )
        shape = document["head_shifts_shape"]
        shifts = None
        if shape is not None:
            shifts = torch.sparse_coo_tensor(
                tensors["head_shift_positions"].long(), tensors["head_shifts"], shape
            ).to_dense()
        adapter = {k.removeprefix("adapter."): v for k, v in tensors.items() if k.startswith("adapter.")}
        adapter |= adapter_of_peft
        answers, readout = document["answers"], document["readout"]
        return cls(
            system_prompt=document["system_prompt"],
            head_shifts=shifts,
            adapter=adapter or None,
            adapter_kind=document["adapter_kind"],
            adapter_settings=document["adapter_settings"],
            readout=None if readout is None else load_readout(readout, tensors),
            answers=None if answers is None else {int(k): v for k, v in answers.items()},
            trained_parameters=document["trained_parameters"],
            summary=document["summary"],
        )


def _save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    if tensors:  # cloned: the format holds no two names for one memory
        save_file({name: each.detach().cpu().contiguous().clone() for name, each in tensors.items()}, path)


@dataclass(frozen=True)
class AnswerSheet:
    """What came back for the items asked, in the protocol's orientation.

    ``answers``: 5…1 per item (floors: any real number); an unparsed item is absent.
    ``log_probs``: per item, the log-probabilities of the options, highest value first (``None`` when generated).
    ``texts``: per item, the generated text (``None`` when read from log-probabilities).
    ``audit``: per item of the audit, the freely generated text.
    """

    asked: tuple[int, ...]
    answers: Answers
    log_probs: Mapping[int, Sequence[float]] | None = None
    texts: Mapping[int, str] | None = None
    audit: Mapping[int, str] | None = None

    @property
    def ties(self) -> int:
        """Items whose likeliest options are exactly equally likely: their answer is the first of these."""
        return sum(sorted(row)[-1] == sorted(row)[-2] for row in (self.log_probs or {}).values())
