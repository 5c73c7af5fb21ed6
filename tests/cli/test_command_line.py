"""`palign-bench` as a user types it: tables, sweeps, resumption, and one line for every mistake."""

import json
import os
import shutil
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pytest
import yaml
from transformers import AutoTokenizer

from palign_bench.cli import main as cli
from palign_bench.cli.commands import SUBCOMMANDS
from palign_bench.ledger.cells import CellFolder
from palign_bench.run import session
from palign_bench.settings import options
from tests.architectures import tiny_of
from tests.command import COST_COLUMNS, SCORE_COLUMNS, cells, run, run_here, save_many_headed, settings, table
from tests.tiny import tiny_tokenizer
from tests.tracking.wandb_runs import RunRead

METHODS = ("floors", "vanilla", "few_shot", "pas")
FLOORS = 11


class Ran:
    """A command that ran to its end."""

    def __init__(self, folder: Path, arguments: list[str]):
        self.folder, self.runs, self.arguments = folder, folder / "runs", arguments
        self.result: CompletedProcess[str] = run(*arguments, folder=folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_many_headed(tmp_path_factory.mktemp("many-headed") / "tiny24")


@pytest.fixture(scope="module")
def table1(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The whole command on two people, tracked by Weights & Biases offline."""
    folder = tmp_path_factory.mktemp("table1")
    choice = ["experiment=table1", f"method={','.join(METHODS)}"]
    ran = Ran(folder, [*choice, *settings(model, folder / "runs", tracking="wandb")])
    assert ran.result.returncode == 0, ran.result.stderr
    return ran


def test_table1_has_every_row_and_column(table1: Ran) -> None:
    frame = table(table1.runs)
    expected = SCORE_COLUMNS + COST_COLUMNS
    assert [name for name in frame.columns if name in expected] == expected
    assert len(frame) == FLOORS + 3 and {"vanilla", "few_shot", "pas", "ridge", "truth"} <= set(frame["method"])
    assert set(frame["respondents"]) == {2} and set(frame["missing_cells"]) == {0}
    by_method = frame.set_index("method")
    assert by_method.loc["truth", "composite"] == 0
    constants = {f"constant_{letter}" for letter in "abcde"}
    assert len(set(by_method.loc[sorted(constants), "composite"])) >= 4  # two may tie on two people
    assert by_method.loc["pas", "stored_bytes"] >= by_method.loc["few_shot", "stored_bytes"] > 0


def test_the_table_is_printed_and_written(table1: Ran) -> None:
    output = " ".join(table1.result.stdout.split())  # the title is wrapped, where depends on the model's path in it
    assert "protocol corrected" in output and "20 simulated people" in output and "tiny24" in output
    assert "Few-Shot" in output and "Ridge on others" in output
    (folder,) = (path for path in (table1.runs / "table1").iterdir() if path.is_dir() and path.name != "commands")
    assert folder.name == "tiny24-corrected"
    names = {path.name for path in folder.iterdir() if path.is_file()}
    assert {f"table1.{kind}" for kind in ("csv", "json", "md", "tex", "png")} <= names
    assert "Traceback" not in table1.result.stderr


def test_the_ledger_says_where_numbers_come_from(table1: Ran) -> None:
    (path,) = (table1.runs / "cells").glob("few_shot-tiny24-simulated-corrected-*")
    folder = CellFolder(path)
    assert len(folder.finished()) == 2
    provenance = folder.provenance()[-1]
    assert provenance["packages"]["torch"] and provenance["packages"]["transformers"] and provenance["cores"]
    assert folder.identity()["seed"] == 0
    assert yaml.safe_load((path / "config.yaml").read_text())["method"]["name"] == "few_shot"
    assert str(table1.folder) not in (path / "identity.json").read_text()
    assert folder.shared()["load_seconds"] > 0


def test_the_table_is_found_in_the_offline_run(table1: Ran) -> None:
    found = {}
    for folder in (table1.runs / "wandb").glob("offline-run-*"):
        read = RunRead(folder)
        found[read.run.display_name] = read
    tables = [read for read in found.values() if read.run.job_type == "table"]
    assert len(tables) == 1 and {read.run.run_group for read in found.values()} == {"table1"}
    logged = tables[0].table("table")
    frame = pd.DataFrame(logged["data"], columns=logged["columns"])
    expected = table(table1.runs)
    assert list(frame["method"]) == list(expected["method"])
    assert frame["composite"].astype(float).tolist() == pytest.approx(expected["composite"].tolist())
    row = found["few_shot-tiny24-corrected-0"]
    means = expected.set_index("method").loc["few_shot"]
    assert row.summary["composite"] == pytest.approx(means["composite"])
    assert row.summary["openness"] == pytest.approx(means["openness"])
    assert len(row.table("people")["data"]) == 2
    for path in (table1.runs / "wandb").rglob("*"):
        assert not path.is_file() or b"simulated-0001" not in path.read_bytes(), path


def test_the_same_command_again_computes_nothing_and_says_so(table1: Ran) -> None:
    before, frame = cells(table1.runs), table(table1.runs)
    again = run(*table1.arguments, "tracking=none", folder=table1.folder)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("2 people finished before, nothing to do") == FLOORS + 3
    assert "Loading" not in again.stderr
    assert cells(table1.runs) == before
    pd.testing.assert_frame_equal(table(table1.runs), frame, check_exact=True)


def test_report_prints_the_table_without_a_model(table1: Ran) -> None:
    (folder,) = (path for path in (table1.runs / "table1").iterdir() if path.is_dir() and path.name != "commands")
    written = (folder / "table1.csv").read_text()
    (folder / "table1.csv").unlink()
    told = run("report", "table1", "--runs", "runs", folder=table1.folder)
    assert told.returncode == 0, told.stderr
    assert (folder / "table1.csv").read_text() == written
    assert told.stdout.split("\nWritten to ")[0] == table1.result.stdout.split("\nWritten to ")[0]
    assert "Loading" not in told.stderr


def test_sweeps_under_two_protocols_and_two_launchers_agree(model: Path, tmp_path: Path) -> None:
    """One process after the other or two at once, as joblib launches them: the same tables."""
    frames: dict[str, list[pd.DataFrame]] = {}
    for launcher in ("basic", "joblib"):
        runs = tmp_path / launcher
        arguments = ["-m", "method=floors,vanilla", "protocol=corrected,as_released", f"hydra/launcher={launcher}"]
        if launcher == "joblib":
            arguments.append("hydra.launcher.n_jobs=2")
        ran = run(*arguments, *settings(model, runs, people=1), folder=tmp_path)
        assert ran.returncode == 0, ran.stderr
        told = " ".join(ran.stdout.split())  # a title may wrap anywhere
        assert "protocol corrected" in told and "protocol as_released" in told
        frames[launcher] = [table(runs, "run", protocol)[SCORE_COLUMNS] for protocol in ("corrected", "as_released")]
    for one, other in zip(frames["basic"], frames["joblib"], strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    corrected, released = frames["basic"]
    assert list(corrected["method"]) == list(released["method"]) and len(corrected) == FLOORS + 1
    assert list(corrected["composite"]) != list(released["composite"])


def test_a_mistake_in_a_launched_process_reaches_the_exit_code(tiny_folder: Path, tmp_path: Path) -> None:
    """The tiny model has eight heads; only the process that the launcher started knows."""
    launcher = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1", "method=pas"]
    ran = run(*launcher, *settings(tiny_folder, tmp_path / "runs"), folder=tmp_path)
    assert ran.returncode == 1
    assert "method.k=24: the model has only 8 heads" in ran.stderr and "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("raise UserError('too little of it')", "palign-bench: too little of it"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "palign-bench: a process of hydra/launcher=joblib was killed"),
    ],
)
def test_a_launched_process_that_fails_leaves_the_others_their_table(end: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text(
        "import os, signal\nfrom baselines.few_shot import Vanilla\nfrom palign_bench.settings import UserError\n"
        f"class Ends(Vanilla):\n    def prepare(self, backbone, protocol):\n        {end}\n"
    )
    variables = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    arguments = ["method=vanilla", "model=organism", "tracking=none", "respondents=simulated", "respondents.limit=1"]
    assert run_here(*arguments, folder=tmp_path).returncode == 0
    launcher = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    classes = "method._target_=baselines.few_shot.Vanilla,ends.Ends"
    ran = run(*launcher, *arguments, classes, "name=launched", folder=tmp_path, variables=variables)
    assert ran.returncode == 1 and "Traceback" not in ran.stderr
    assert ran.stderr.count(f"\n{told}") == 1  # what joblib itself warns of when it ends may follow
    assert list(table(tmp_path / "runs", "launched")["missing_cells"]) == [0, 1]


def test_slurm_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is optional")
    people = ["respondents=simulated", "respondents.count=5", "tracking=none"]
    ran = run("-m", "method=floors", "hydra/launcher=submitit_slurm", *people, folder=tmp_path)
    assert ran.returncode == 1 and "Traceback" not in ran.stderr
    assert "palign-bench: hydra/launcher=submitit_slurm: this machine has no SLURM" in ran.stderr


def test_help_lists_the_choices(tmp_path: Path) -> None:
    told = run("run", "--help", folder=tmp_path)
    assert told.returncode == 0
    for group in ("method", "model", "protocol", "respondents", "tracking"):
        (line,) = [line for line in told.stdout.splitlines() if line.startswith(f"{group}: ")]
        assert line.removeprefix(f"{group}: ").split(", ") == options(group)
    assert not (tmp_path / "runs").exists()


def test_cfg_shows_what_would_run(tmp_path: Path) -> None:
    told = run("--cfg", "job", "method=pas", "method.k=3", "respondents.limit=7", folder=tmp_path)
    assert told.returncode == 0
    shown = yaml.safe_load(told.stdout)
    assert (shown["method"]["k"], shown["respondents"]["limit"], shown["model"]["name"]) == (3, 7, "smollm2_135m")
    assert not (tmp_path / "runs").exists()


def test_a_mistake_is_one_line_in_a_real_terminal_too(tmp_path: Path) -> None:
    told = run("method=few_shot", "respondents.limt=3", folder=tmp_path)
    assert told.returncode == 1 and told.stdout == ""
    assert told.stderr == (
        "palign-bench: respondents.limt is no setting (did you mean limit?); the keys of respondents are "
        "count, download, folder, ids, limit, name, seed.\n"
    )


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
    "name=../elsewhere": "name=../elsewhere: this names no folder inside the ledger; use letters",
    "name=cells": "name=cells: this is a folder of the ledger's own",
    "method.name=../../x": "method.name=../../x: use letters, digits, dots",
    "training=measured training.steps=0": "training.steps=0: choose a whole number, 1 or more, or auto.",
    "retry=errors": "retry=errors: choose one of all, failed, never.",
    "+foo=1": "+foo=1: this adds a setting; only values change, as in foo=VALUE",
    "++seed=1": "++seed=1: this adds a setting; only values change, as in seed=VALUE",
    "+model.foo=1": "+model.foo=1: this adds a setting",
    "~seed": "~seed: this removes a setting",
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


def in_process(
    arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What a command that fails with exit code 1 says, without the seconds that a process of its own takes."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["palign-bench", *arguments])
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setattr(session.loading, "load", _no_model)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    message = ended.value.code
    told = capsys.readouterr().err
    if isinstance(message, str):  # what Python prints, with exit code 1
        return told + message + "\n"
    assert message == 1
    return told


def _no_model(_: Any) -> Any:
    raise AssertionError("a model was loaded")


def test_mistakes_in_later_jobs_are_told_before_the_first_computes(tiny_folder: Path, tmp_path: Path) -> None:
    """Each once; and nothing is left behind."""
    arguments = ["-m", "method=vanilla,pas,pas_no_prompt", "seed=0,x", *settings(tiny_folder, tmp_path / "runs")]
    ran = run(*arguments, folder=tmp_path)
    assert ran.returncode == 1
    first, second, rest = ran.stderr.splitlines()
    assert rest == "Nothing was computed. Without a mistake are method=vanilla."
    assert first == "palign-bench: seed=x: give a whole number."
    assert second.startswith("palign-bench: method.k=24: the model has only 8 heads")
    assert not (tmp_path / "runs").exists()


def test_a_failed_cell_is_told_and_the_exit_code_says_so(table1: Ran, model: Path, tmp_path: Path) -> None:
    """A portrait that cannot be read fails one person's cell; the sweep goes on, and mending it finishes the row."""
    arguments = ["method=personality_prompt", "method.max_new_tokens=4", *settings(model, tmp_path / "runs")]
    first = run_here(*arguments, folder=tmp_path)
    assert first.returncode == 0, first.stderr
    portraits = sorted((tmp_path / "runs" / "portraits").glob("*.json"))
    assert len(portraits) == 2
    kept = portraits[0].read_text()
    portraits[0].write_text("{")
    for path in (tmp_path / "runs").glob("cells/personality_prompt-*/respondents/*.json"):
        path.unlink()
    broken = run(*arguments, folder=tmp_path)
    assert broken.returncode == 1
    assert "1 cell is missing" in broken.stderr and str(portraits[0].name) in broken.stderr
    assert table(tmp_path / "runs", "run")["missing_cells"].tolist() == [1]
    errors = list((tmp_path / "runs").glob("cells/*/respondents/*.error.json"))
    assert len(errors) == 1 and "Traceback" in json.loads(errors[0].read_text())["traceback"]
    portraits[0].write_text(kept)
    mended = run_here(*arguments, folder=tmp_path)
    assert mended.returncode == 0 and "1 of 2 people finished before, 1 to do" in mended.stderr
    assert not list((tmp_path / "runs").glob("cells/*/respondents/*.error.json"))


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
