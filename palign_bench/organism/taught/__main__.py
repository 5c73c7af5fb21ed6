"""``python -m palign_bench.organism.taught``: teach SmolLM2 to use what it is told, or go on where it was cut off."""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser("python -m palign_bench.organism.taught", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/taught"), help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=350, help="default: %(default)s, three minutes on an H100")
    parser.add_argument("--tokens", type=int, default=36_000, help="of a step, about (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--begin-with", type=Path, metavar="FOLDER", help="go on teaching this adapter (another --seed: other people)"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that draw people (default: %(default)s)")
    chosen = parser.parse_args()
    if min(chosen.steps, chosen.tokens) < 1 or min(chosen.seed, chosen.workers) < 0:
        sys.exit("taught: give --steps and --tokens of at least 1, a --seed and --workers of at least 0")
    if (chosen.folder / "adapter").exists():
        sys.exit(f"taught: {chosen.folder / 'adapter'} is finished; give another --folder")
    if chosen.begin_with is not None and not (chosen.begin_with / "made.json").exists():
        sys.exit(f"taught: --begin-with {chosen.begin_with} holds no adapter that was taught (made.json)")
    import torch

    from palign_bench.organism.taught.training import Teaching
    from palign_bench.settings import UserError

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        print("No GPU: a step takes minutes here; --steps 2 --tokens 3000 shows how it goes.", file=sys.stderr)
    try:
        dtype = "bfloat16" if device == "cuda" else "float32"
        teaching = Teaching(chosen.folder, chosen.seed, device, dtype, chosen.begin_with)
        teaching.teach(chosen.steps, chosen.tokens, chosen.workers)
    except UserError as error:
        sys.exit(f"taught: {error}")
    print(f"The adapter lies in {teaching.keep(command_of(chosen))}.")


def command_of(chosen: argparse.Namespace) -> str:
    """The command that is kept beside the adapter.

    FOLDER stands for where the adapter lay that it began with, whose hash is kept too: another may lie there by now.
    """
    begun = "" if chosen.begin_with is None else " --begin-with FOLDER"
    numbers = f"--steps {chosen.steps} --tokens {chosen.tokens} --seed {chosen.seed}"
    return f"python -m palign_bench.organism.taught {numbers}{begun}"


if __name__ == "__main__":
    main()
