"""``python -m palign_bench.organism``: train the model organism, or go on with a training that was cut off."""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser("python -m palign_bench.organism", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/organism"), help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=1100, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=8, help="people per kind of prompt and step (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    for name, lowest in (("steps", 4), ("rows", 1), ("seed", 0)):
        if getattr(chosen, name) < lowest:
            sys.exit(f"organism: --{name} {getattr(chosen, name)}: give a whole number of at least {lowest}")
    from palign_bench.organism.training import train

    finished = train(chosen.folder, chosen.steps, chosen.rows, chosen.seed)
    print(f"The organism lies in {finished}. To use it: palign-bench model=organism model.name_or_path={finished}")


if __name__ == "__main__":
    main()
