"""A sweep of 64 tiny runs with two processes and with one, each process on one thread: how much faster two are."""

import argparse
from pathlib import Path
import tempfile

from harness import machine, seconds
from neuralcollapse.experiments import sweep

BASE = {"dataset": "digits", "epochs": 30, "n_max": 100, "model_options": {"width": 64}, "measure": [30], "threads": 1}


def sweep_seconds(jobs: int, runs: int, epochs: int) -> float:
    """Wall time from nothing to the last run folder, starting the processes included."""
    base = BASE | {"epochs": epochs, "measure": [epochs]}
    grid = {"base": base, "grid": {"ratio": [1, 3, 10, 30]}, "seeds": runs // 4}
    with tempfile.TemporaryDirectory() as folder:
        def run() -> None:
            result = sweep(grid, Path(folder) / "sweep", jobs=jobs)
            assert not result.failed
            assert len(result.cells) == runs

        return seconds(run)


def main() -> None:
    """Print the line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=64, help="a multiple of 4")
    options.add_argument("--epochs", type=int, default=30)
    given = options.parse_args()
    one, two = (sweep_seconds(jobs, given.runs, given.epochs) for jobs in (1, 2))
    print(machine())
    print(f"sweep of {given.runs} runs of {given.epochs} epochs: 1 process {one:.1f} s, 2 processes {two:.1f} s: "
          f"{one / two:.2f} times faster")


if __name__ == "__main__":
    main()
