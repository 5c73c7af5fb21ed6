"""A rehearsal of a GPU on a machine without one: ``python -m tests.rehearsal`` runs methods on a pretended device.

A tensor that is moved to the device stays in the computer's memory but says that it is elsewhere; an operation that
meets tensors from both places fails as it would with CUDA. The same numbers must come out as on the CPU. Not rehearsed:
CUDA's own kernels, half precision, and what asks for CUDA by name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from palign_bench.aligner import Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.engines.base import POSITIONS_PER_BATCH
from palign_bench.backbone.loading.weights import LoadedModel
from palign_bench.backbone.local import LocalBackbone
from palign_bench.questionnaire.inventory import ipip_neo_300
from palign_bench.questionnaire.protocol import Corrected
from palign_bench.respondents import simulate
from palign_bench.run.assembly import resolve_budget
from palign_bench.run.methods import make_aligners
from palign_bench.settings import read_option
from tests.tiny import tiny_model, tiny_tokenizer

PLACE = "rehearsal"

# CUDA, too, copies between the places, and takes an index from the CPU for a tensor of its own.
_CROSSING = {"aten::copy_", "aten::_to_copy"}
_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class Elsewhere(Tensor):
    """A tensor that says that it is on the pretended device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Elsewhere:
        made: Elsewhere = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(PLACE, 0),
        )
        made.inner = inner
        return made

    def __init__(self, inner: Tensor):
        super().__init__()

    def tolist(self) -> Any:
        return self.inner.tolist()

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        return Elsewhere(self.inner.detach())

    @data.setter
    def data(self, other: Elsewhere) -> None:
        self.inner = other.inner

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class Rehearsal(TorchDispatchMode):
    """Sees what is made on the pretended device, too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


def _compute(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    name, device = func._schema.name, kwargs.get("device")
    tensors = [each for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    there = [each for each in tensors if isinstance(each, Elsewhere)]
    here = [each for each in tensors if not isinstance(each, Elsewhere) and each.dim()]
    indexed = name in _INDEXING and isinstance(args[0], Elsewhere)
    if there and here and name not in _CROSSING and not indexed:
        shapes = [tuple(each.shape) for each in here]
        raise RuntimeError(f"{name}: expected all tensors to be on the same device; on the CPU are {shapes}")
    if name == "aten::copy_":
        result_there = isinstance(args[0], Elsewhere)
    else:
        result_there = bool(there) if device is None else torch.device(device).type == PLACE
    plain_args, plain = pytree.tree_map_only(Elsewhere, lambda each: each.inner, (args, dict(kwargs)))
    if device is not None:
        plain["device"] = torch.device("cpu")
    result = func(*plain_args, **plain)
    if name == "aten::copy_":
        return args[0]
    if not result_there:
        return result
    wrapped = pytree.tree_map_only(Tensor, Elsewhere, result)
    return return_and_correct_aliasing(func, args, dict(kwargs), wrapped)


class DeviceModule(_DummyBackendModule):
    """What ``torch.rehearsal`` offers beyond the least."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float32, torch.bfloat16]


@contextmanager
def pretended() -> Iterator[torch.device]:
    """The device's tensors, and what else it needs: the CPU's batches and random numbers."""
    POSITIONS_PER_BATCH[PLACE] = POSITIONS_PER_BATCH["cpu"]
    os.environ["ACCELERATE_TORCH_DEVICE"] = f"{PLACE}:0"  # else TRL's trainers look for a GPU that they know
    AcceleratorState._reset_state(True)
    generator = torch.Generator
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device=…) makes on the CPU and moves
    torch.Generator = lambda device="cpu": generator("cpu")  # type: ignore[assignment,misc]
    with Rehearsal():
        yield torch.device(PLACE, 0)


def _backbone(device: torch.device, engine: str = "auto") -> LocalBackbone:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer).to(device)
    model.requires_grad_(False)
    return LocalBackbone(LoadedModel(model, tokenizer, "tiny", "tiny", "none"), Corrected(ipip_neo_300()), engine)


def _cases(count: int = 2) -> list[Case]:
    protocol = Corrected(ipip_neo_300())
    people = simulate(count=count, seed=3).people
    return [Case(each.id, protocol.known(each), protocol.selection(each, 0), seed=7) for each in people]


def _answers(backbone: LocalBackbone, alignment: Alignment) -> list[Tensor]:
    inventory = backbone.protocol.inventory
    items, audit = inventory.select(inventory.held_out[:5]), inventory.select(inventory.held_out[:2])
    sheet = backbone.answer(alignment, items, audit)
    assert sheet.log_probs is not None and sheet.audit is not None
    return [torch.tensor(list(sheet.log_probs.values())), torch.tensor([len(text) for text in sheet.audit.values()])]


def _alignments(device: torch.device, method: str, **settings: Any) -> list[Tensor]:
    """What a method makes for two people, and their answers under it."""
    backbone = _backbone(device)
    chosen = resolve_budget(read_option("method", method) | settings, {"name": "quick"})
    (aligner,) = make_aligners(chosen).values()
    aligner.prepare(backbone, backbone.protocol)
    found: list[Tensor] = []
    for alignment in aligner.align_many(_cases()):
        found += [each.detach().cpu() for _, each in sorted((alignment.adapter or {}).items())]
        found += [] if alignment.head_shifts is None else [alignment.head_shifts.cpu()]
        found += _answers(backbone, alignment)
    return found


def answering(device: torch.device) -> list[Tensor]:
    """Both engines, under head shifts."""
    shift = torch.randn(2, 64, generator=torch.Generator("cpu").manual_seed(1))
    shifted = Alignment(system_prompt="You like maps.", head_shifts=shift)
    return [
        each for engine in ("shared_prefix", "full_prompts") for each in _answers(_backbone(device, engine), shifted)
    ]


# Without dropout: a CPU draws how far it is to the next dropped number, another device a mask.
_LORA = read_option("method", "lora")["peft"] | {"lora_dropout": 0.0}

PARTS: dict[str, Callable[[torch.device], Sequence[Tensor]]] = {
    "answering": answering,
    "pas": lambda device: _alignments(device, "pas", k=2, alphas=[2, 4]),
    "readout": lambda device: _alignments(device, "readout"),
    "cohort": lambda device: _alignments(device, "lora", cohort=2, steps=2, learning_rate=0.01, peft=_LORA),
    "training": lambda device: _alignments(device, "lora", steps=2, learning_rate=0.01, peft=_LORA),
    "full_finetuning": lambda device: _alignments(device, "full_finetuning", steps=2, learning_rate=0.01),
    "rloo": lambda device: _alignments(device, "rloo", steps=1, batch_size=4, learning_rate=0.01, max_new_tokens=3),
    "ppo": lambda device: _alignments(
        device, "ppo", steps=1, batch_size=4, learning_rate=0.01, max_new_tokens=3, quantization=None
    ),
    "cohort_rloo": lambda device: _alignments(
        device, "rloo", cohort=2, steps=2, batch_size=4, learning_rate=0.01, max_new_tokens=3
    ),
    "cohort_ppo": lambda device: _alignments(
        device, "ppo", cohort=2, steps=2, batch_size=4, learning_rate=0.01, max_new_tokens=3, quantization=None
    ),
    "cohort_dpo": lambda device: _alignments(device, "dpo", cohort=2, steps=2, batch_size=2, quantization=None),
}


def main(parts: Sequence[str]) -> None:
    """Raise unless each part gives the same on the pretended device as on the CPU."""
    _setup_privateuseone_for_python_backend(PLACE, DeviceModule())  # first of all: autograd counts the devices once
    expected = {part: PARTS[part](torch.device("cpu")) for part in parts}
    with pretended() as device:
        _mixing_fails(device)
        for part in parts:
            found = PARTS[part](device)
            for one, other in zip(found, expected[part], strict=True):
                torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)  # after a step of AdamW rounding shows
            print(f"{part}: {len(found)} tensors are the same")


def _mixing_fails(device: torch.device) -> None:
    there, here = torch.ones(2, device=device), torch.ones(2)
    assert there.device == device and (there + here.to(device)).tolist() == [2, 2]
    for mix in (lambda: there + here, lambda: torch.cat([here, there]), lambda: here[there.long()]):
        try:
            mix()
        except RuntimeError as error:
            assert "expected all tensors to be on the same device" in str(error)
        else:
            raise AssertionError("the pretended device lets tensors of two places meet")


if __name__ == "__main__":
    main(sys.argv[1:] or list(PARTS))
