"""A sweep of 64 tiny runs with two processes and with one, each process on one thread: how much faster two are.

The arms alternate, one pair a repeat. The processor seconds of each arm are printed too. Two processes need more of
them for the same runs where cores share a cache, or a host; twice the ratio is the most that two cores can then give.
"""

import argparse
from pathlib import Path
import resource
import statistics
import tempfile

from harness import machine, seconds
from neuralcollapse.experiments import sweep

BASE = {"dataset": "digits", "n_max": 100, "model_options": {"width": 64}, "threads": 1}


def sweep_seconds(jobs: int, runs: int, epochs: int) -> tuple[float, float]:
    """Wall and processor seconds from nothing to the last run folder, starting the processes included."""
    grid = {"base": BASE | {"epochs": epochs, "measure": [epochs]}, "grid": {"ratio": [1, 3, 10, 30]},
            "seeds": runs // 4}
    with tempfile.TemporaryDirectory() as folder:
        def run() -> None:
            result = sweep(grid, Path(folder) / "sweep", jobs=jobs)
            assert not result.failed
            assert len(result.cells) == runs

        before = processor_seconds()
        return seconds(run), processor_seconds() - before


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


def main() -> None:
    """Print a line for every pair, and the median ratio."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=64, help="a multiple of 4")
    options.add_argument("--epochs", type=int, default=30)
    options.add_argument("--repeats", type=int, default=3)
    given = options.parse_args()
    print(machine())
    print(f"sweep of {given.runs} runs of {given.epochs} epochs")
    ratios, most = [], []
    for _ in range(given.repeats):
        (one, one_cpu), (two, two_cpu) = (sweep_seconds(jobs, given.runs, given.epochs) for jobs in (1, 2))
        ratios.append(one / two)
        most.append(2 * one_cpu / two_cpu)
        print(f"1 process {one:.1f} s ({one_cpu:.0f} s of processor), 2 processes {two:.1f} s ({two_cpu:.0f} s): "
              f"{one / two:.2f} times faster", flush=True)
    print(f"median: {statistics.median(ratios):.2f} times faster, of at most {statistics.median(most):.2f} here")


if __name__ == "__main__":
    main()
