"""One contract for every aligner: what any method of conf/method owes the runner, the ledger and the other methods."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.local import LocalBackbone
from palign_bench.files import canonical
from palign_bench.questionnaire.inventory import Respondent
from palign_bench.settings import options
from tests.contract.conftest import Bench

ANSWER_IN_A_NEW_PROCESS = """
import json, sys
from pathlib import Path
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.loading.weights import load
from palign_bench.backbone.local import LocalBackbone
from palign_bench.questionnaire.inventory import ipip_neo_300
from palign_bench.questionnaire.protocol import Corrected


inventory = ipip_neo_300()
items = inventory.select(inventory.held_out)
backbones, answers = {}, {}
for name, (folder, model) in json.loads(Path(sys.argv[1]).read_text()).items():
    if model["quantization"] not in backbones:
        backbones[model["quantization"]] = LocalBackbone(load(model), Corrected(inventory))
    sheet = backbones[model["quantization"]].answer(Alignment.load(Path(folder)), items)
    answers[name] = {str(number): row for number, row in sheet.log_probs.items()}
Path(sys.argv[2]).write_text(json.dumps(answers))
"""


def same(one: Alignment, other: Alignment) -> bool:
    """Whether two alignments would act alike: every text, tensor and answer equal."""
    tensors, others = one.tensors(), other.tensors()
    return (
        one.system_prompt == other.system_prompt
        and one.answers == other.answers
        and one.adapter_settings == other.adapter_settings
        and tensors.keys() == others.keys()
        and all(torch.equal(tensors[name], others[name]) for name in tensors)
    )


def with_permuted_held_out(bench: Bench, person: Respondent) -> Respondent:
    held_out = [n for n in bench.inventory.held_out if n in person.answers]
    values = [person.answers[n] for n in held_out]
    random.Random(1).shuffle(values)
    assert values != [person.answers[n] for n in held_out]
    return replace(person, answers=person.answers | dict(zip(held_out, values, strict=True)))


def test_every_held_out_item_is_answered(bench: Bench, method: str) -> None:
    outcome = bench.outcome(method)
    answers = outcome.sheet.answers if outcome.sheet else outcome.alignment.answers
    assert set(bench.inventory.held_out) <= set(answers)
    assert all(1 <= answers[number] <= 5 for number in bench.inventory.held_out)


def test_the_bare_model_is_bit_identical_afterwards(bench: Bench, method: str) -> None:
    outcome = bench.outcome(method)
    if outcome.backbone is None:
        assert outcome.alignment.answers
        return
    assert torch.equal(outcome.logits_before, outcome.logits_after)
    model = outcome.backbone.model
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    assert not [name for name, _ in model.named_modules() if "lora" in name]
    assert not hasattr(model, "peft_config")
    assert outcome.backbone.virtual is None


def test_the_bare_model_is_back_after_an_exception(bench: Bench, method: str) -> None:
    outcome = bench.outcome(method)
    if outcome.backbone is None:
        pytest.skip("acts on no backbone")

    def logits(backbone: LocalBackbone) -> torch.Tensor:
        with torch.no_grad():
            return backbone.model(input_ids=torch.arange(5, 25)[None]).logits.clone()

    before = logits(outcome.backbone)
    with pytest.raises(KeyboardInterrupt), outcome.backbone.applied(outcome.alignment):
        raise KeyboardInterrupt
    assert torch.equal(logits(outcome.backbone), before)


def test_the_same_seed_gives_the_same_alignment(bench: Bench, method: str) -> None:
    first = bench.outcome(method).alignment
    aligner, _ = bench.aligner(method)
    assert same(bench.align(aligner, bench.source.people[0]), first)


def test_another_seed_and_another_person_align_too(bench: Bench, method: str) -> None:
    aligner = bench.outcome(method).aligner
    bench.align(aligner, bench.source.people[0], seed=1)
    bench.align(aligner, bench.source.people[1])


def test_held_out_answers_change_no_alignment(bench: Bench, method: str) -> None:
    outcome = bench.outcome(method)
    if "held_out" in outcome.aligner.needs:
        pytest.skip("a check that is given the truth")
    other = with_permuted_held_out(bench, bench.source.people[0])
    assert same(bench.align(outcome.aligner, other), outcome.alignment)


def test_the_summary_is_json(bench: Bench, method: str) -> None:
    summary = bench.outcome(method).alignment.summary
    assert json.loads(canonical(dict(summary))) == json.loads(json.dumps(dict(summary)))


def test_stored_bytes_and_trained_parameters_are_told(bench: Bench, method: str) -> None:
    alignment = bench.outcome(method).alignment
    bare = alignment.system_prompt is None and not alignment.tensors() and alignment.answers is None
    assert (alignment.stored_bytes() > 0) is not bare
    if alignment.adapter is not None:
        assert alignment.trained_parameters == sum(t.numel() for t in alignment.adapter.values())
        assert alignment.stored_bytes() >= alignment.trained_parameters * 2


@pytest.fixture(scope="session")
def answers_of_a_new_process(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list]]:
    """Every alignment saved, loaded in one new process, applied there and asked."""
    folder = tmp_path_factory.mktemp("saved")
    saved: dict[str, tuple[str, dict]] = {}
    for name in options("method"):
        outcome = bench.outcome(name)
        if outcome.sheet is not None:
            outcome.alignment.save(folder / name)
            saved[name] = (str(folder / name), bench.model_settings(name))
    (folder / "saved.json").write_text(json.dumps(saved))
    script = [sys.executable, "-c", ANSWER_IN_A_NEW_PROCESS, str(folder / "saved.json"), str(folder / "answers.json")]
    finished = subprocess.run(script, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return json.loads((folder / "answers.json").read_text())


def test_saved_and_loaded_in_a_new_process_it_answers_the_same(
    bench: Bench, method: str, answers_of_a_new_process: dict[str, dict[str, list]]
) -> None:
    sheet = bench.outcome(method).sheet
    if sheet is None:
        pytest.skip("its answers are the alignment")
    assert sheet.log_probs is not None
    found = answers_of_a_new_process[method]
    for number, row in sheet.log_probs.items():
        assert found[str(number)] == pytest.approx(list(row), abs=1e-6)
