"""`palign-bench efficiency`: what each method costs, measured one by one, relative to PAS (figures 5 and 17).

Short for `experiment=efficiency`, so it is resumed, counted and reported as any experiment.
"""

import argparse

from palign_bench.cli.arguments import add_overrides
from palign_bench.settings import UserError, options

UNIT = "pas"  # what all ratios are to
METHODS = ("few_shot", UNIT, "prompt_tuning", "lora", "qlora", "full_finetuning", "dpo", "ppo")
REPEATS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options beside the ledger's folder; results go to its `efficiency/`."""
    parser.add_argument("--methods", default=",".join(METHODS), help=f"comma-separated (default: {','.join(METHODS)})")
    parser.add_argument("--limit", type=int, default=1, help="people measured per method (default: 1)")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"of every cell (default: {REPEATS})")
    parser.add_argument("--steps", type=int, help="optimizer steps of trained methods (default: all on CUDA, else 1)")
    add_overrides(parser, "as for a run: model=llama3_8b model.weights=random …")


def do(chosen: argparse.Namespace) -> list[str]:
    """The subcommand as an ordinary command. Raises UserError."""
    methods = [name for name in chosen.methods.split(",") if name]
    unknown = [name for name in methods if name not in options("method")]
    if unknown:
        raise UserError(f"--methods: {unknown[0]} does not exist; choose from {', '.join(options('method'))}.")
    if UNIT not in methods:
        raise UserError(f"--methods={chosen.methods}: every ratio is to {UNIT}, so {UNIT} must be among them.")
    steps = [f"training.steps={chosen.steps}"] if chosen.steps else []
    sizes = [f"cost_repeats={chosen.repeats}", f"respondents.limit={chosen.limit}", *steps]
    return ["experiment=efficiency", f"method={','.join(methods)}", *sizes, f"runs={chosen.runs}", *chosen.overrides]
