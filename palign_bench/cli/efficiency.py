"""`make efficiency`: what each method costs, measured one by one, relative to PAS (the paper's figures 5 and 17).

Every method runs with ``cost=isolated`` in a ledger of this measurement's own. Where trained methods take only a few
optimizer steps (of the paper's batch size), their full budget is extrapolated from the seconds per step, and marked.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.ledger.plan import Plan
from palign_bench.run.isolated import IsolationError
from palign_bench.settings import Settings, UserError, conf_folder, options, read_option

UNIT = "pas"  # what all ratios are to
METHODS = ("few_shot", UNIT, "lora", "dpo", "ppo")
REPEATS, CPU_STEPS = 3, 1
NAME = "efficiency"


def efficiency(arguments: Sequence[str]) -> None:
    """`palign-bench efficiency [options] [key=value …]`. Exits with 1 when a cell failed. Raises UserError."""
    chosen = _parse(arguments)
    methods = tuple(name for name in chosen.methods.split(",") if name)
    unknown = [name for name in methods if name not in options("method")]
    if unknown:
        raise UserError(f"--methods: {unknown[0]} does not exist; choose from {', '.join(options('method'))}.")
    if UNIT not in methods:
        raise UserError(f"--methods={chosen.methods}: every ratio is to {UNIT}, so {UNIT} must be among them.")
    ledger = chosen.runs / NAME / "measured" / datetime.now().strftime("%Y-%m-%d-%H-%M-%S")
    overrides = ["cost=isolated", f"cost_repeats={chosen.repeats}", f"name={NAME}", "training=paper", "tracking=none"]
    overrides += [f"respondents.limit={chosen.limit}", f"runs={ledger}", *chosen.overrides]
    jobs = [_settings(name, overrides, chosen.steps) for name in methods]
    failed = _measure(jobs)
    model, protocol = resolve_model(jobs[0]["model"])["name"], jobs[0]["protocol"]["name"]
    from palign_bench.report.efficiency import write_efficiency

    budgets = {name: _full_steps(name) for name in methods}
    print(write_efficiency(Plan(ledger, NAME, model, protocol), chosen.runs / NAME, budgets), flush=True)
    if failed:
        sys.exit(f"palign-bench: {failed} measurements failed; the tracebacks lie in {ledger}.")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("palign-bench efficiency", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", default=",".join(METHODS), help=f"comma-separated (default: {','.join(METHODS)})")
    parser.add_argument("--limit", type=int, default=1, help="people measured per method (default: 1)")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"of every cell (default: {REPEATS})")
    parser.add_argument(
        "--steps", type=int, help=f"optimizer steps of trained methods (default: all on CUDA, {CPU_STEPS} elsewhere)"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="results go to RUNS/efficiency (default: runs)")
    parser.add_argument("overrides", nargs="*", help="as for a run: model=llama3_8b model.weights=random …")
    return parser.parse_args(arguments)


def _settings(name: str, overrides: Sequence[str], steps: int | None) -> Settings:
    """The resolved settings of one method's job; a trained one with the steps to measure."""
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("config", [f"method={name}", *overrides])
    settings: Any = OmegaConf.to_container(config, resolve=True)
    if "budgets" not in settings["method"]:
        return settings
    on_cuda = _on_cuda(settings["model"]["device"])
    steps = steps or (None if on_cuda else CPU_STEPS)
    if steps is not None:
        settings["method"]["steps"] = steps
    if settings["method"].get("quantization") == "nf4" and not on_cuda:
        settings["method"]["quantization"] = "none"  # 4 bits save a GPU's memory; on a CPU they only cost time
    return settings


def _measure(jobs: Sequence[Settings]) -> int:
    """Run every job in a process of its own. Returns how many cells failed; a process that dies counts as one."""
    from palign_bench.run.job import run

    failed = 0
    for order, settings in enumerate(jobs):
        print(f"Measuring {settings['method']['name']} …", file=sys.stderr, flush=True)
        try:
            failed += run(settings, command=f"{NAME}-{os.getpid()}", order=order)
        except IsolationError as error:  # out of memory, for one: the other methods are worth measuring all the same
            print(f"palign-bench: {error}", file=sys.stderr, flush=True)
            failed += 1
    return failed


def _full_steps(name: str) -> int | None:
    """Optimizer steps (rollouts for on-policy methods) of the full budget; None for a method that trains nothing."""
    budgets = read_option("method", name).get("budgets")
    return int(budgets["paper"]["steps"]) if budgets else None


def _on_cuda(device: str) -> bool:
    from palign_bench.backbone.loading.settings import choose_device

    return choose_device(device).type == "cuda"
