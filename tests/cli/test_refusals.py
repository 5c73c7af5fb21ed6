"""What is told in one line before a model is loaded, with nothing left behind."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from palign_bench.backbone import loading
from palign_bench.cli import main as cli
from palign_bench.cli.commands import SUBCOMMANDS
from tests.architectures import tiny_of
from tests.command import run, run_here, settings
from tests.tiny import tiny_tokenizer

MISTAKES = {
    "methd=floors": "methd is no setting (did you mean method?); the keys are ",
    "method=florrs": "method=florrs does not exist (did you mean floors?); choose one of ",
    "-m method=floors,few_sot": "method=few_sot does not exist (did you mean few_shot?); choose one of ",
    "experiment=table1 method=floors,few_sot": "method=few_sot does not exist (did you mean few_shot?); choose one of ",
    "model=_base": "model=_base does not exist; choose one of llama3_70b, ",
    "-m model=organism,_base": "model=_base does not exist; choose one of llama3_70b, ",
    "experiment=table2": "experiment=table2 does not exist (did you mean table6?); choose one of effects, efficiency",
    "protocol=correct": "protocol=correct does not exist (did you mean corrected?); choose one of as_released",
    "protocol.name=correct": "protocol=correct does not exist; choose one of corrected, as_released",
    "model=gpt5": "model=gpt5 does not exist; choose one of ",
    "tracking=mlflow": "tracking=mlflow does not exist; choose one of none, trackio, wandb",
    "method.kk=3 method=pas": "method.kk is no setting (did you mean k?); the keys of method are alphas, direction, k,",
    "respondents.limit=0": "respondents.limit=0: give a whole number of at least 1, or null for all",
    "respondents.limit=three": "respondents.limit=three: give a whole number",
    "respondents.limit=1.5": "respondents.limit=1.5: give a whole number",
    "respondents.ids=[nobody]": "respondents.ids: unknown nobody; ids of simulated are simulated-0001",
    "respondents.count=-3": "respondents.count=-3: give a whole number",
    "respondents=file respondents.path=missing.csv": "missing.csv: no such file; check respondents.path",
    "respondents=file": "respondents.path is not set: give the file with your people",
    "respondents=papi respondents.folder=/nowhere": "respondents.folder=/nowhere is no folder",
    "seed=x": "seed=x: give a whole number",
    "model.dtype=float8": "model.dtype=float8: choose auto or one of bfloat16, float32, float16",
    "model.device=gpu": "model.device=gpu: choose auto, cpu, cuda or cuda:N",
    "model.weights=pickle": "model.weights=pickle: choose one of package, hub, random",
    "model.quantization=int4": "model.quantization=int4: choose one of none, nf4",
    "model.engine=fast": "model.engine=fast: choose one of auto, shared_prefix, full_prompts, vllm",
    "model.engine=vllm model.quantization=nf4": "model.engine=vllm: model.quantization=nf4 is not served; use none",
    "method=pas model.engine=vllm": "method=pas needs activations, which model.engine=vllm does not open; use",
    "model=local": "model.name_or_path is empty: give a folder or a hub name",
    "model.name_or_path=/no/where": "model.name_or_path=/no/where: there is no such folder",
    "model=llama3_8b model.weights=package": "model.weights=package: model=llama3_8b comes in no package",
    "method=pas method.k=0": "method.k=0: choose a whole number, 1 or more",
    "method=pas method.search=all": "method.search=all: choose one of grid, golden",
    "method=floors method.rows=[constant_z]": "method.rows: unknown constant_z; choose among constant_a",
    "method=personality_prompt method.writer=gpt": "method.writer=gpt: choose one of self, released, template, ",
    "method=personality_prompt method.writer=released": "person simulated-0001 of respondents=simulated has none",
    "shard=3/2": "shard=3/2: give i/n with 1 ≤ i ≤ n, as in shard=2/4, or null",
    "shard=0/2": "shard=0/2: give i/n",
    "shard=2": "shard=2: give i/n",
    "shard=-1/2": "shard=-1/2: give i/n",
    "shard=1/2/3": "shard=1/2/3: give i/n",
    "name=../elsewhere": "name=../elsewhere: use letters, digits, dots, dashes and underscores, at most 150 bytes.",
    "name=x=1": "name=x=1: use letters, digits, dots, dashes and underscores, at most 150 bytes.",
    "name=cells": "name=cells: this is a folder of the ledger's own",
    f"name={'x' * 151}": f"name={'x' * 151}: use letters, digits, dots, dashes and underscores, at most 150 bytes.",
    "name=given_answers": "name=given_answers: this is a folder of the ledger's own",
    "row_seconds=inf": "row_seconds=inf: give a number of seconds above 0",
    "inventory=dark_triad respondents=dark_triad inventory.folder=/nowhere": "inventory.folder=/nowhere is no folder",
    "method.name=../../x": "method.name=../../x: use letters, digits, dots",
    "training=measured training.steps=0": "training.steps=0: choose a whole number, 1 or more, or auto.",
    "retry=errors": "retry=errors: choose one of all, failed, never.",
    "+foo=1": "+foo=1: this adds a setting; only values change, as in foo=VALUE",
    "++seed=1": "++seed=1: this adds a setting; only values change, as in seed=VALUE",
    "+model.foo=1": "+model.foo=1: this adds a setting",
    "~seed": "~seed: this removes a setting",
    '+hydra.sweeper.params.seed="1,2"': "type what is swept over as settings, as in -m seed=1,2 instead",
    'hydra.sweeper.params={seed:"1,2"}': "type what is swept over as settings, as in -m seed=1,2 instead",
    "+method.foo=1 method=pas": "method=pas: ",
    "+respondents.foo=1": "respondents.foo is no setting of respondents=simulated",
    "experiment=table1 method.k=6": "method.k is no setting of method=floors, vanilla, few_shot",
    "experiment=table1 method=pas,few_shot method.k=6": "have it: method=pas.",
    "method=pas method.k=271": "method.k=271: the model has only 270 heads (30 layers × 9)",
    "runs=taken/runs": "taken",
    "dashboard nothing": "runs/nothing holds no table",
    "status nothing": "runs/nothing holds no table",
    "resume nothing": "runs/nothing holds no table",
    "report nothing": "runs/nothing holds no table",
    "forecast nothing": "runs/nothing holds no table",
    "status": "run `palign-bench experiment=table1` first, or name another ledger with --runs FOLDER.",
    "score nobody.csv": "nobody.csv: no such file; give a CSV file with the columns respondent,item,answer or id,i1",
    "people nobody.csv": "nobody.csv: no such file or source; give a file or one of auto, ",
    "people": "the following arguments are required: source (see palign-bench people --help)",
}


def _no_model(_: Any) -> Any:
    raise AssertionError("a model was loaded")


def in_process(
    arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What a command that fails with exit code 1 says, without the seconds that a process of its own takes."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["palign-bench", *arguments])
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setattr(loading, "load", _no_model)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    message = ended.value.code
    told = capsys.readouterr().err
    if isinstance(message, str):  # what Python prints, with exit code 1
        return told + message + "\n"
    assert message == 1
    return told


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_is_told_in_one_line_before_a_model_is_loaded(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    typed_keys = {each.split("=")[0] for each in typed.split()}
    defaults = {"method": "few_shot", "respondents": "simulated", "tracking": "none"}
    if typed.startswith("experiment=table1 method.k"):
        del defaults["method"]  # the experiment's own methods are the point
    arguments = typed.split()
    if arguments[0] not in SUBCOMMANDS:
        arguments += [f"{key}={value}" for key, value in defaults.items() if key not in typed_keys]
    told = in_process(arguments, tmp_path, monkeypatch, capsys)
    assert told.startswith("palign-bench: ") and MISTAKES[typed] in told
    assert told.count("\n") == 1, told
    assert not (tmp_path / "runs").exists(), "a command that was refused leaves a trace"


def test_a_name_is_one_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it stands in the commands that are printed."""
    told = in_process(["method=floors", "respondents=simulated", "name=a b"], tmp_path, monkeypatch, capsys)
    assert told == "palign-bench: name=a b: use letters, digits, dots, dashes and underscores, at most 150 bytes.\n"


def test_a_mistake_is_one_line_in_a_real_terminal_too(tmp_path: Path) -> None:
    told = run("method=few_shot", "respondents.limt=3", folder=tmp_path)
    assert told.returncode == 1 and told.stdout == ""
    assert told.stderr == (
        "palign-bench: respondents.limt is no setting (did you mean limit?); the keys of respondents are "
        "count, download, folder, ids, limit, name, seed.\n"
    )


@pytest.mark.parametrize("typed", ["respondents=file respondents.path=missing.csv", "known_answers=121", "shard=2"])
def test_a_mistake_about_people_is_told_without_the_seconds_that_pytorch_takes(typed: str, tmp_path: Path) -> None:
    program = "import sys; from palign_bench.__main__ import main; import atexit; "
    program += "atexit.register(lambda: print('torch' in sys.modules)); main()"
    arguments = [sys.executable, "-c", program, "method=pas", "tracking=none", *typed.split()]
    ran = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert ran.stderr.startswith(f"palign-bench: {typed.split()[-1].partition('.path=')[-1]}"), ran.stderr
    assert (ran.returncode, ran.stdout) == (1, "False\n")


def test_mistakes_in_later_jobs_are_told_before_the_first_computes(tiny_folder: Path, tmp_path: Path) -> None:
    """Each once; and nothing is left behind."""
    arguments = ["-m", "method=vanilla,pas,pas_no_prompt", "seed=0,x", *settings(tiny_folder, tmp_path / "runs")]
    ran = run_here(*arguments, folder=tmp_path)
    assert ran.returncode == 1
    first, second, rest = ran.stderr.splitlines()
    assert rest == "Nothing was computed. There is no mistake in method=vanilla."
    assert first == "palign-bench: seed=x: give a whole number."
    assert second.startswith("palign-bench: method.k=24: the model has only 8 heads")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("architecture", "method", "told"),
    [
        ("mamba", "lora", "method=lora needs gradients: PEFT puts no adapter on the state-space layers"),
        ("mamba", "pas", "method=pas needs activations: not every layer of model_type mamba has one known output"),
        ("diffllama", "pas", "method=pas needs activations: the attention of model_type diffllama mixes its heads"),
        ("llama", "few_shot", "its context holds 64 tokens, and a question with its answer takes "),
    ],
)
def test_what_an_architecture_lacks_is_told_in_one_line_before_its_weights_are_loaded(
    architecture: str,
    method: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tiny_of(architecture)
    model.config.max_position_embeddings = 64 if architecture == "llama" else 512
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    arguments = [
        f"method={method}",
        "model=local",
        "model.name_or_path=model",
        "respondents=simulated",
        "tracking=none",
    ]
    capsys.readouterr()  # a bar of saving
    found = in_process(arguments, tmp_path, monkeypatch, capsys)
    assert found.startswith("palign-bench: ") and told in found and found.count("\n") == 1, found
    assert not (tmp_path / "runs").exists()


def test_a_token_that_the_model_does_not_have_is_told_before_its_weights_are_loaded(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that no prompt holds, as a pad that was added for training, does no harm."""
    here = Path(shutil.copytree(model, tmp_path / "model"))
    tokenizer = AutoTokenizer.from_pretrained(here)
    arguments = ["method=vanilla", "model=local", "model.name_or_path=model", "respondents.limit=1",
                 "respondents=simulated", "tracking=none"]  # fmt: skip
    tokenizer.add_tokens(["<pad-of-mine>"])
    tokenizer.save_pretrained(here)
    harmless = run_here(*arguments, f"runs={tmp_path / 'harmless'}", folder=tmp_path)
    assert harmless.returncode == 0, harmless.stderr
    tokenizer.add_tokens(["ccurat"])
    tokenizer.save_pretrained(here)
    capsys.readouterr()
    told = in_process(arguments, tmp_path, monkeypatch, capsys)
    assert f"writes 'ccurat' as token {len(tokenizer) - 1:,}, and the model has " in told and told.count("\n") == 1
    assert not (tmp_path / "runs").exists()
