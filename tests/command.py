"""The real `palign-bench` in processes of its own, on a tiny model and simulated people."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import LlamaForCausalLM

from palign_bench.__main__ import main
from palign_bench.questionnaire.inventory import OPTIONS, ipip_neo_300
from palign_bench.questionnaire.prompts import question
from tests.tiny import CHAT_TEMPLATE, tiny_model, tiny_tokenizer

PROGRAM = Path(sys.executable).with_name("palign-bench")

FLOORS = 11  # rows of method=floors

# What is known of a table before any clock is read.
SCORE_COLUMNS = [
    "method", "protocol", "model", "respondents", "agreeableness", "conscientiousness", "extraversion", "neuroticism",
    "openness", "composite", "composite_low", "composite_high", "difference_to_best_own_floor",
    "difference_to_best_people_floor", "specificity", "trait_correlation", "most_frequent_option_share",
    "unparsed_rate", "missing_cells",
]  # fmt: skip
COST_COLUMNS = [
    "shared_seconds", "align_seconds", "answer_seconds", "peak_memory_mib", "trained_parameters", "stored_bytes",
]  # fmt: skip


def save_many_headed(folder: Path) -> Path:
    """A tiny model with the 24 heads that PAS shifts by default, and words for the statements: short prompts."""
    texts = [question(item.text) for item in ipip_neo_300().items] + [option.label for option in OPTIONS] * 50
    tokenizer = tiny_tokenizer().train_new_from_iterator(texts, vocab_size=2000, show_progress=False)
    tokenizer.chat_template = CHAT_TEMPLATE
    config = tiny_model(tokenizer).config
    config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads, config.head_dim = 3, 8, 4, 8
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def settings(model: Path, runs: Path, people: int = 2, tracking: str = "none") -> list[str]:
    """Arguments for the first people of 20 simulated ones."""
    return [
        "model=local",
        f"model.name_or_path={model}",
        "respondents=simulated",
        "respondents.count=20",
        f"respondents.limit={people}",
        f"tracking={tracking}",
        f"runs={runs}",
    ]


def environment(home: Path) -> dict[str, str]:
    """This process's variables without an account of Weights & Biases; its caches stay in the test's folder.

    What a hundred processes import is compiled by the first of them, whatever this process keeps.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    folders = {f"WANDB_{name}_DIR": str(home / "wandb-home") for name in ("DATA", "CACHE", "CONFIG")}
    return {**kept, **folders, "NETRC": str(home / "no-netrc"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def start(*arguments: str, folder: Path, variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """`palign-bench` with these arguments, started in ``folder``, under these variables of the environment too."""
    return subprocess.Popen(
        [str(PROGRAM), *arguments],
        cwd=folder,
        env=environment(folder) | dict(variables or {}),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heed_interrupts,
    )


def heed_interrupts() -> None:
    """A test run started in the background ignores Ctrl-C and hands that on; a command at a terminal does not."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run(*arguments: str, folder: Path, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`palign-bench` with these arguments, run to its end in ``folder``."""
    process = start(*arguments, folder=folder, variables=variables)
    output, errors = process.communicate(timeout=600)
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def run_here(
    *arguments: str, folder: Path, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What `run` returns, from this process, which has imported already what takes another five seconds."""
    output, errors = io.StringIO(), io.StringIO()
    terminated, code = signal.getsignal(signal.SIGTERM), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.chdir(folder)
        for name, value in (variables or {}).items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["palign-bench", *arguments])
        try:
            main()
        except SystemExit as ended:
            code = 1 if isinstance(ended.code, str) else int(ended.code or 0)
            print(f"{ended.code}\n" if isinstance(ended.code, str) else "", end="", file=errors)  # as Python does
        finally:
            signal.signal(signal.SIGTERM, terminated)
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())


def table(runs: Path, name: str = "table1", protocol: str = "corrected") -> pd.DataFrame:
    """The CSV of the one model's table."""
    (path,) = (runs / name).glob(f"*-{protocol}/{name}.csv")
    return pd.read_csv(path)


def cells(runs: Path) -> dict[Path, tuple[int, int, bytes]]:
    """Finished cells with what would change if they were written again."""
    found = {}
    for path in (runs / "cells").glob("*/respondents/*.json"):
        status = path.stat()
        found[path.relative_to(runs)] = (status.st_ino, status.st_mtime_ns, path.read_bytes())
    return found
