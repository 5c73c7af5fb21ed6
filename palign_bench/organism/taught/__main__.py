"""``python -m palign_bench.organism.taught``: teach SmolLM2 to use what it is told, or go on where it was cut off."""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser("python -m palign_bench.organism.taught", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/taught"), help="default: %(default)s")
    parser.add_argument("--share", type=float, default=1.0, help="of every stage's steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    if chosen.share <= 0 or chosen.seed < 0:
        sys.exit("taught: give a --share above 0 and a --seed of at least 0")
    from palign_bench.organism.taught.training import teach

    print(f"The adapter lies in {teach(chosen.folder, chosen.share, chosen.seed)}.")


if __name__ == "__main__":
    main()
