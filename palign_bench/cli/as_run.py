"""Subcommands that stand for one run or several: table1, testbed, efficiency, resume, score.

Each returns the arguments of its run, or does several itself and returns None.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import yaml

from palign_bench.cli.arguments import add_experiment, add_overrides, with_defaults, without
from palign_bench.files import write_atomically
from palign_bench.ledger.cells import fingerprint
from palign_bench.ledger.plan import Command, Plan
from palign_bench.report import make_report
from palign_bench.report.names import UNIT
from palign_bench.settings import UserError, options

# People per row of the first table: what is done in minutes on two cores. Trained rows have a limit of their own.
FIRST_MODEL, PEOPLE, PEOPLE_OF_OTHERS, TRAINED_AT_ONCE = "organism", 20, 3, 2
BESIDE, METHODS_BESIDE, PEOPLE_BESIDE = "smollm2_135m_taught", "floors,vanilla,few_shot,readout,pas", 2

PEOPLE_OF_CURVES = 60
SIMULATED = {"respondents": "simulated", "respondents.figures": "published"}
SIMULATED_NAMES = ("testbed_simulated", "learning_curve_simulated")

MEASURED = ("few_shot", UNIT, "prompt_tuning", "lora", "qlora", "full_finetuning", "dpo", "ppo")
REPEATS = 3


def table1_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--beside", default=BESIDE, help=f"the other model; empty: none (default: {BESIDE})")
    parser.add_argument("--methods-beside", default=METHODS_BESIDE, help=f"its rows (default: {METHODS_BESIDE})")
    add_overrides(parser)


def table1(chosen: argparse.Namespace) -> list[str] | None:
    """The first table, of the organism, and beside it a few rows of a model that reads words.

    With a ``model=`` of one's own it is the run `experiment=table1` on a few people.
    """
    model = next((each for each in chosen.overrides if each.startswith("model=")), "")
    whole = ["experiment=table1", f"runs={chosen.runs}"]
    if model in ("", f"model={FIRST_MODEL}"):
        sizes = {"model": FIRST_MODEL, "respondents.limit": PEOPLE, "training.cohort": TRAINED_AT_ONCE}
    else:
        sizes = {"respondents.limit": PEOPLE_OF_OTHERS}
    first = [*whole, *with_defaults(chosen.overrides, sizes)]
    if model or not chosen.beside:
        return first
    name = f"table1_{chosen.beside}"
    rows = [f"name={name}", f"model={chosen.beside}", f"method={chosen.methods_beside}"]
    few = f"respondents.limit={PEOPLE_BESIDE}"
    second = [*whole, *rows, few, *without(chosen.overrides, "name", "method", "respondents.limit")]
    log = chosen.runs / f"{name}.log"
    print(f"The table of {FIRST_MODEL} here; beside it {chosen.beside}: progress in {log}", flush=True)
    side_by_side([first], [second], log)
    _show(chosen.runs, name)
    return None


def testbed_arguments(parser: argparse.ArgumentParser) -> None:
    told = f"people of the learning curves (default: {PEOPLE_OF_CURVES})"
    parser.add_argument("--curve", type=int, default=PEOPLE_OF_CURVES, help=told)
    add_overrides(parser)


def testbed(chosen: argparse.Namespace) -> None:
    """Every method and learning curves, on real people and, beside them, on simulated ones.

    Everybody is asked, unless ``respondents.limit`` is typed.
    """
    log = chosen.runs / f"{SIMULATED_NAMES[0]}.log"
    print(f"Real people here, simulated ones beside them: progress in {log}", flush=True)
    side_by_side(*commands_of_testbed(chosen), log)
    _show(chosen.runs, *SIMULATED_NAMES)


def commands_of_testbed(chosen: argparse.Namespace) -> tuple[list[list[str]], list[list[str]]]:
    """Those on the real people, and those on simulated ones."""
    ledger = f"runs={chosen.runs}"
    testbed = ["experiment=testbed", ledger, *chosen.overrides]
    curve = ["experiment=learning_curve", ledger, f"respondents.limit={chosen.curve}"]
    curve += without(chosen.overrides, "respondents.limit", "training.people_limit")
    simulated = [
        with_defaults(without(command, *SIMULATED), SIMULATED | {"name": name})
        for command, name in zip((testbed, curve), SIMULATED_NAMES, strict=True)
    ]
    return [testbed, curve], simulated


def efficiency_arguments(parser: argparse.ArgumentParser) -> None:
    names = ",".join(MEASURED)
    parser.add_argument("--methods", default=names, help=f"comma-separated (default: {names})")
    parser.add_argument("--limit", type=int, default=1, help="people measured per method (default: 1)")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"of every cell (default: {REPEATS})")
    parser.add_argument("--steps", type=int, help="optimizer steps of trained methods (default: all on CUDA, else 1)")
    add_overrides(parser, "as for a run: model=llama3_8b model.weights=random …")


def efficiency(chosen: argparse.Namespace) -> list[str]:
    """What each method costs, measured one by one, relative to PAS (figures 5 and 17)."""
    methods = [name for name in chosen.methods.split(",") if name]
    unknown = [name for name in methods if name not in options("method")]
    if unknown:
        raise UserError(f"--methods: {unknown[0]} does not exist; choose from {', '.join(options('method'))}.")
    if UNIT not in methods:
        raise UserError(f"--methods={chosen.methods}: every ratio is to {UNIT}, so {UNIT} must be among them.")
    steps = [f"training.steps={chosen.steps}"] if chosen.steps is not None else []
    sizes = [f"cost_repeats={chosen.repeats}", f"respondents.limit={chosen.limit}", *steps]
    return ["experiment=efficiency", f"method={','.join(methods)}", *sizes, f"runs={chosen.runs}", *chosen.overrides]


def resume_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment(parser)
    parser.add_argument("--list", action="store_true", help="show the experiment's commands, numbered, and stop")
    parser.add_argument("--command", type=int, metavar="N", help="repeat the N-th of the list (default: the last)")
    add_overrides(parser, "settings to change, e.g. retry=failed or shard=2/4")


def resume(chosen: argparse.Namespace) -> list[str] | None:
    """An experiment's command again, of which only what is missing is computed; None after listing the commands.

    Everybody is computed, whatever shards the command was run in; ``shard=2/4`` computes a part.
    """
    if "=" in chosen.name:
        chosen.name, chosen.overrides = "table1", [chosen.name, *chosen.overrides]
    commands, number = Command.all(chosen.runs, chosen.name), chosen.command
    if chosen.list:
        for place, each in enumerate(commands, 1):
            print(f"{place}  {each.started[:16].replace('T', ' ')}  palign-bench {shlex.join(each.arguments)}")
        return None
    if number is not None and not 1 <= number <= len(commands):
        raise UserError(f"--command {number}: {chosen.name} has the commands 1 to {len(commands)} (see --list).")
    overrides = [f"runs={chosen.runs}", *chosen.overrides]  # the ledger may have been moved since
    kept = without(commands[(number or 0) - 1].arguments, *(each.partition("=")[0] for each in overrides))
    of_score = re.compile("--config-dir=.*/given_answers")
    kept = [_given_answers(chosen.runs) if of_score.fullmatch(each) else each for each in kept]
    print(f"palign-bench {shlex.join([*kept, *overrides])}", file=sys.stderr)
    return [*kept, *overrides]


def score_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("answers", type=Path, help="CSV: respondent,item,answer, or id,i1,i2,… (literal, 5 … 1)")
    parser.add_argument("--method-name", help="the row's name in the table (default: the file's name)")
    add_overrides(parser, "as for a run: respondents=papi protocol=as_released name=…")


def score(chosen: argparse.Namespace) -> list[str]:
    """A table with somebody's answers as a row, with floors, intervals and the panel; no model.

    The answers become a method of their own: a YAML in the ledger, which the run is pointed to. Raises UserError for
    a file that is not there.
    """
    answers = chosen.answers.expanduser()
    if not answers.is_file():
        raise UserError(
            f"{answers}: no such file; give a CSV file with the columns respondent,item,answer or id,i1,i2,…"
        )
    tracked = [each for each in chosen.overrides if each.startswith("tracking=") and each != "tracking=none"]
    if tracked and not chosen.method_name:
        raise UserError(
            f"{tracked[-1]}: the row would be called by the file's name, which no tracker is told; give --method-name"
        )
    title = chosen.method_name or answers.stem
    readable = re.sub("[^a-z0-9]+", "_", title.lower())[:40].strip("_")
    made = {
        "_target_": "baselines.given_answers.GivenAnswers",
        "name": f"given_{readable}".rstrip("_"),
        "title": title,
        "path": str(answers.resolve()),
    }
    # What Hydra finds it by: no method of ours has this name, nor have other answers in a file that is called the same.
    option = f"{made['name']}_{fingerprint(made)}"
    method = yaml.safe_dump(made, allow_unicode=True, sort_keys=False)
    write_atomically(chosen.runs / "given_answers" / "method" / f"{option}.yaml", method)
    defaults = {"runs": chosen.runs, "name": "score", "tracking": "none"}
    beside = next((each for each in chosen.overrides if each.startswith("method=")), "method=floors")
    settings = with_defaults(without(chosen.overrides, "method"), defaults)
    return [_given_answers(chosen.runs), "-m", f"{beside},{option}", *settings]


def _given_answers(runs: Path) -> str:
    """Hydra's option by which it finds the methods that `score` wrote into this ledger."""
    return f"--config-dir={runs.resolve() / 'given_answers'}"


def side_by_side(here: Sequence[Sequence[str]], beside: Sequence[Sequence[str]], log: Path) -> None:
    """Run commands one after the other and, at the same time, others whose words go to the file ``log``.

    Where one fails, those after it are left out, and the program exits with its code when the others have ended.
    """
    processes: list[subprocess.Popen[bytes]] = []

    def run_all(commands: Sequence[Sequence[str]], output: IO[bytes] | None) -> int:
        for command in commands:
            typed = [sys.executable, "-m", "palign_bench", *command]
            one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
            processes.append(subprocess.Popen(typed, stdout=output, stderr=output, env=one_thread))
            if code := processes[-1].wait():
                return code
        return 0

    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output, ThreadPoolExecutor(1) as thread:
        others = thread.submit(run_all, beside, output)
        try:
            codes = run_all(here, None), others.result()
        except BaseException:  # Ctrl-C or a signal, which may have reached this process alone
            for process in processes:
                process.terminate()
            raise
    if codes[1]:
        last_words = log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
        print(f"{log}:", *last_words, sep="\n", file=sys.stderr)
    if any(codes):
        sys.exit(codes[0] or codes[1])


def _show(runs: Path, *names: str) -> None:
    """Print the tables of these experiments."""
    for name in names:
        for plan in Plan.all(runs, name):
            print(make_report(plan).text)
