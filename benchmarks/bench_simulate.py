"""Grids of the unconstrained-features model against one eager autograd + SGD loop, in (runs × steps) per second.

k = d = 10, n = 550 (STEP, R = 10), gradient descent. The floor is what no closed gradient can do without: three small
products and one exponential per logit.
Usage: bench_simulate.py [device, default cpu]
"""

import sys

import torch
from torch.nn import functional as F

from harness import machine, ratio, wait
from neuralcollapse import ClassCounts
from neuralcollapse.simulate import simulate

COUNTS = ClassCounts.step(10, 10, n_min=10)
N, K = int(COUNTS.n), COUNTS.k
# name, dtype, runs, whether within-class symmetric, and what it must reach (theory: performance.md, "Simulating").
CASES = (("one run", "float64", 1, False, 4), ("grid", "float64", 64, False, 9), ("grid", "float32", 64, False, 20),
         ("symmetric", "float64", 64, True, 150), ("symmetric", "float64", 256, True, 150))
LOOP_STEPS = 2000


def autograd_loop(device: str) -> None:
    """The usual way: one model, autograd and torch.optim.SGD, float64."""
    labels = torch.repeat_interleave(torch.arange(K), torch.tensor(COUNTS.values, dtype=torch.int64)).to(device)
    generator = torch.Generator().manual_seed(0)
    W, H = (torch.nn.Parameter(torch.randn(rows, K, generator=generator, dtype=torch.float64).to(device))
            for rows in (K, N))
    optimizer = torch.optim.SGD([W, H], lr=1e-3)
    for _ in range(LOOP_STEPS):
        optimizer.zero_grad()
        F.cross_entropy(H @ W.T, labels, reduction="sum").backward()
        optimizer.step()
    wait(device)


class Floor:
    """Three products and one exponential per logit, into buffers."""

    def __init__(self, dtype: str, runs: int, columns: int, device: str):
        kind = getattr(torch, dtype)
        self.W, self.G = (torch.randn(runs, K, K, dtype=kind, device=device) for _ in range(2))
        self.H, self.Z, self.V = (torch.randn(runs, K, columns, dtype=kind, device=device) for _ in range(3))

    def run(self, steps: int) -> None:
        """As many steps."""
        for _ in range(steps):
            torch.bmm(self.W, self.H, out=self.Z)
            torch.exp(self.Z, out=self.Z)
            torch.bmm(self.Z, self.H.mT, out=self.G)
            torch.bmm(self.W, self.Z, out=self.V)
        wait(str(self.Z.device))


def grid(dtype: str, runs: int, symmetric: bool, steps: int, device: str) -> None:
    """The library's, snapshots at the ends alone; its fixed costs are part of it."""
    simulate(COUNTS, "gd", steps=steps, seeds=runs, step=1e-3, symmetric=symmetric, dtype=dtype, device=device,
             d=K, snapshots=[steps], memory="16GB")


def main() -> None:
    """Print the table."""
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    print(machine(device), "| torch threads:", torch.get_num_threads(), flush=True)
    cases = [*CASES, ("grid", "float32", 4096, False, 20)] if device != "cpu" else CASES
    for name, dtype, runs, symmetric, target in cases:
        columns = K if symmetric else N
        # Enough that snapshots, predictions and the looks for divergence are a few percent, as in a real run.
        steps = 20_000 if runs == 1 else 1_500_000 // runs if symmetric else 1_500
        inverse, ours, loop = ratio(lambda a=(dtype, runs, symmetric, steps, device): grid(*a),
                                    lambda: autograd_loop(device), 3)
        floor = Floor(dtype, runs, columns, device)
        above, _, _ = ratio(lambda a=(dtype, runs, symmetric, steps, device): grid(*a),
                            lambda f=floor, s=steps: f.run(s), 3)
        speed = runs * steps / LOOP_STEPS / inverse
        print(f"{name:>9}, {runs:>4} runs, {dtype}: {runs * steps / ours:12,.0f} against {LOOP_STEPS / loop:7,.0f} "
              f"run-steps/s: {speed:6.1f}× (asked {target}×); {above:.1f} × the floor", flush=True)


if __name__ == "__main__":
    main()
