"""The program, as `palign-bench` and as `python -m palign_bench`: the command line, where Ctrl-C is told in one line.

The command line is imported inside, since that takes half a second, in which a user may change their mind.
"""

import sys


def main() -> None:
    """Entry point. Exit code 0: all cells finished; 1: some failed, or a user's mistake; 130: interrupted;
    141: the reader of a pipe has left."""
    try:
        from palign_bench.cli.main import main as command_line

        command_line()
    except KeyboardInterrupt:
        print("\nInterrupted. Finished people stay; the same command does the rest.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
