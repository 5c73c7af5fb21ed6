"""`python -m palign_bench` does what `palign-bench` does."""

from palign_bench.cli.main import main

if __name__ == "__main__":
    main()
