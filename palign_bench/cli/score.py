"""`palign-bench score`: a table with somebody's answers as a row, with floors, intervals and the panel; no model."""

import argparse
import re
from pathlib import Path

import yaml

from palign_bench.cli.arguments import add_overrides, with_defaults
from palign_bench.files import write_atomically
from palign_bench.settings import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options beside the ledger's folder."""
    parser.add_argument("answers", type=Path, help="CSV: respondent,item,answer, or id,i1,i2,… (literal, 5 … 1)")
    parser.add_argument("--method-name", help="the row's name in the table (default: the file's name)")
    add_overrides(parser, "as for a run: respondents=papi protocol=as_released name=…")


def do(chosen: argparse.Namespace) -> list[str]:
    """`palign-bench score ANSWERS.csv [--method-name X] [KEY=VALUE …]` as the run that it stands for.

    The answers become a method of their own: a YAML in the ledger, which the run is pointed to. Raises UserError for
    a file that is not there.
    """
    answers = chosen.answers.expanduser()
    if not answers.is_file():
        raise UserError(
            f"{answers}: no such file; give a CSV file with the columns respondent,item,answer or id,i1,i2,…"
        )
    title = chosen.method_name or answers.stem
    name = re.sub(r"[^\w.-]+", "_", title).strip("._-").lower() or "given_answers"
    folder = chosen.runs.resolve() / "given_answers"
    method = {
        "_target_": "baselines.given_answers.GivenAnswers",
        "name": name,
        "title": title,
        "path": str(answers.resolve()),
    }
    write_atomically(folder / "method" / f"{name}.yaml", yaml.safe_dump(method, allow_unicode=True, sort_keys=False))
    defaults = {"runs": chosen.runs, "name": "score", "tracking": "none"}
    return ["--config-dir", str(folder), "-m", f"method=floors,{name}", *with_defaults(chosen.overrides, defaults)]
