"""Title and block of a shipped method's rows, for plans that a test makes by hand."""

from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from palign_bench.aligner import Aligner
from palign_bench.run.assembly import resolve_budget
from palign_bench.run.methods import make_aligners, title_and_block
from palign_bench.settings import conf_folder, options


@cache
def shipped(name: str) -> tuple[dict[str, Any], dict[str, Aligner]]:
    """The resolved settings of a method of conf/, and its aligners by row."""
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        composed: Any = OmegaConf.to_container(compose("config", [f"method={name}", "runs=runs"]), resolve=True)
    method = resolve_budget(composed["method"], {"name": "quick"})
    return method, make_aligners(method)


def title_and_block_of(row: str) -> tuple[str, str]:
    """What a command would plan for the row; the name and the methods' block for a row that nobody ships."""
    for name in ("floors", row):
        if name in options("method"):
            method, aligners = shipped(name)
            if row in aligners:
                return title_and_block(method, row, aligners[row])
    return row, "methods"
