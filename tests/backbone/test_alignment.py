"""An alignment is a value: it can be saved, loaded and measured, and nothing is lost on the way."""

import json
from pathlib import Path

import pytest
import torch

from palign_bench.aligner import Aligner, Case
from palign_bench.backbone.alignment import Alignment


def shifts(layers: int = 3, width: int = 16, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Shifts of one head of four in two of the layers."""
    dense = torch.zeros(layers, width, dtype=dtype)
    dense[0, 4:8] = torch.tensor([0.1, -2.5, 1e-7, 3.0])
    dense[2, 12:16] = torch.tensor([1.0, 2.0, -3.0, 1 / 3])
    return dense


def round_trip(alignment: Alignment, folder: Path) -> Alignment:
    alignment.save(folder)
    return Alignment.load(folder)


@pytest.mark.parametrize(
    "alignment",
    [
        Alignment(),
        Alignment(system_prompt=""),
        Alignment(system_prompt='You are "Ümit".\n你好', summary={"alpha": 2.0, "heads": [[0, 1]], "note": None}),
        Alignment(answers={9: 4, 10: 2.5, 300: 1}, trained_parameters=7),
    ],
)
def test_texts_and_answers_come_back(alignment: Alignment, tmp_path: Path) -> None:
    assert round_trip(alignment, tmp_path / "a" / "b") == alignment
    assert not (tmp_path / "a" / "b" / "alignment.safetensors").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_head_shifts_come_back_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    alignment = Alignment(system_prompt="x", head_shifts=shifts(dtype=dtype), summary={"alpha": 4})
    again = round_trip(alignment, tmp_path)
    assert again.head_shifts is not None and again.head_shifts.dtype == dtype
    assert torch.equal(again.head_shifts, shifts(dtype=dtype))
    assert (again.system_prompt, again.summary) == ("x", {"alpha": 4})


def test_a_shift_of_zero_comes_back_with_its_shape(tmp_path: Path) -> None:
    again = round_trip(Alignment(head_shifts=torch.zeros(2, 8)), tmp_path)
    assert again.head_shifts is not None and torch.equal(again.head_shifts, torch.zeros(2, 8))
    assert again.stored_bytes() == 0


def test_an_adapter_comes_back(tmp_path: Path) -> None:
    adapter = {
        "model.layers.0.q_proj.lora_A.weight": torch.randn(2, 8),
        "model.layers.0.q_proj.lora_B.weight": torch.randn(8, 2, dtype=torch.bfloat16).T,  # not contiguous
        "head_shifts": torch.ones(1),  # a name of our own must not clash
    }
    again = round_trip(Alignment(adapter=adapter, adapter_kind="full", trained_parameters=33), tmp_path)
    assert again.adapter is not None and again.head_shifts is None
    assert set(again.adapter) == set(adapter)
    assert all(torch.equal(again.adapter[name], tensor) for name, tensor in adapter.items())
    assert (again.adapter_kind, again.trained_parameters) == ("full", 33)


def test_tensors_that_share_memory_are_saved_apart(tmp_path: Path) -> None:
    tied = torch.randn(4, 4)
    again = round_trip(Alignment(adapter={"a": tied, "b": tied, "part": tied[:2]}, adapter_kind="full"), tmp_path)
    assert again.adapter is not None
    assert torch.equal(again.adapter["a"], tied) and torch.equal(again.adapter["b"], tied)
    assert torch.equal(again.adapter["part"], tied[:2])


def test_saving_again_leaves_nothing_of_the_earlier_alignment(tmp_path: Path) -> None:
    Alignment(head_shifts=shifts(), adapter={"x": torch.ones(2)}, adapter_kind="full").save(tmp_path)
    assert round_trip(Alignment(system_prompt="only this"), tmp_path) == Alignment(system_prompt="only this")


def test_the_document_is_plain_json(tmp_path: Path) -> None:
    Alignment(system_prompt="x", head_shifts=shifts(), answers={9: 4}).save(tmp_path)
    document = json.loads((tmp_path / "alignment.json").read_text())
    assert document["head_shifts_shape"] == [3, 16] and document["answers"] == {"9": 4}


def test_stored_bytes() -> None:
    assert Alignment().stored_bytes() == 0
    assert Alignment(system_prompt="aé你").stored_bytes() == 1 + 2 + 3
    assert Alignment(answers=dict.fromkeys(range(180), 3)).stored_bytes() == 180 * 8
    adapter = {"a": torch.zeros(3, 4, dtype=torch.bfloat16), "b": torch.zeros(5)}
    assert Alignment(adapter=adapter).stored_bytes() == 3 * 4 * 2 + 5 * 4
    # Eight numbers with a row and a column each; the zeros of the other heads are not kept.
    assert Alignment(head_shifts=shifts()).stored_bytes() == 8 * (4 + 2 * 4)
    assert Alignment(system_prompt="ab", head_shifts=shifts(layers=300)).stored_bytes() == 2 + 8 * (4 + 2 * 4)


def test_stored_bytes_are_those_on_disk(tmp_path: Path) -> None:
    """The tensors' file is a length, a header and exactly the bytes that were counted."""
    alignment = Alignment(head_shifts=shifts(), adapter={"x": torch.randn(7, 3)})
    alignment.save(tmp_path)
    content = (tmp_path / "alignment.safetensors").read_bytes()
    assert len(content) - 8 - int.from_bytes(content[:8], "little") == alignment.stored_bytes()


def test_fitting_leaves_the_selection_out_when_it_is_known() -> None:
    known = {1: 5, 2: 4, 3: 0}
    assert Case("p", known, {2: 4}, seed=0).fitting == {1: 5, 3: 0}
    assert Case("p", known, {9: 1, 10: 2}, seed=0).fitting == known
    assert Case("p", known, {}, seed=0).fitting == known


def test_a_cohort_is_aligned_one_by_one_unless_a_method_knows_better() -> None:
    class Echo(Aligner):
        def align(self, case: Case) -> Alignment:
            return Alignment(system_prompt=case.respondent_id)

    cases = [Case(name, {}, {}, seed=0) for name in "ab"]
    assert [each.system_prompt for each in Echo().align_many(cases)] == ["a", "b"]
