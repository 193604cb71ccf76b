"""The certified finite-ridge solver against cvxpy with SCS and Clarabel, at equal accuracy, in one run.

Equal accuracy: each peer's objective is within 1e-6 of the certified optimum (relative), ours within 1e-9.
Usage: bench_ridge.py [largest k for the peers, default 40]
"""

import sys
import warnings

import cvxpy as cp
import numpy as np

from harness import machine, median_seconds, seconds
from neuralcollapse import ClassCounts, predict
from neuralcollapse.predict import ridge_path

RIDGES = {"rank-losing": 1.0, "else": 0.1}
PEERS = {  # settings that reach 1e-6 soonest: Clarabel wants the objective scaled down, SCS its default eps tightened
    "Clarabel": {"solver": cp.CLARABEL, "scale": 0.01},
    "SCS": {"solver": cp.SCS, "scale": 1.0, "eps": 1e-6, "max_iters": 50_000},
}


def long_tail(k: int, ridge_one: bool) -> np.ndarray:
    """Ratio 100; n_min = 1 loses rank at λ = 1, n_min = 5 does not at λ = 0.1."""
    return ClassCounts.long_tail(k, 100, 100 if ridge_one else 500).values


def convex_program(counts: np.ndarray, ridge: float, scale: float) -> cp.Problem:
    """theory.md §4 as cvxpy sees it."""
    k = counts.size
    logits = cp.Variable((k, k))
    loss = cp.sum(cp.multiply(counts, cp.log_sum_exp(logits, axis=0) - cp.diag(logits)))
    return cp.Problem(cp.Minimize(scale * (loss + ridge * cp.normNuc(logits @ np.diag(np.sqrt(counts))))))


def peer_seconds(counts: np.ndarray, ridge: float, optimum: float, settings: dict) -> tuple[float, float]:
    """Time of one `solve` of a problem compiled before (in the peer's favour), and its relative error."""
    options = dict(settings)
    scale = options.pop("scale")
    problem = convex_program(counts, ridge, scale)
    problem.get_problem_data(options["solver"])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            time = seconds(lambda: problem.solve(**options))
    except cp.SolverError:
        return float("nan"), float("nan")
    return time, abs(problem.value / scale / optimum - 1)


def main() -> None:
    """Print the tables."""
    print(machine())
    largest = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    step = {k: ClassCounts.step(k, 100, n_min=7) for k in (10, 1000, 10**6)}
    for k, counts in step.items():
        gap = predict(counts, ridge=0.5).gap  # groups the classes too, once for all that follows
        solve = median_seconds(lambda c=counts: predict(c, ridge=0.5))
        path = median_seconds(lambda c=counts: ridge_path(c), 3)
        print(f"STEP k = {k:>9,}: {1e3 * solve:7.2f} ms, gap {gap:.0e}; 100-point path {path:.2f} s")
    grouped = ClassCounts(np.repeat(np.floor(np.geomspace(5, 5000, 100)), 100))
    print(f"k = 10,000 in {grouped.groups.sizes.size} groups: "
          f"{seconds(lambda: predict(grouped, ridge=0.5)):.2f} s, gap {predict(grouped, ridge=0.5).gap:.0e}")
    for k in (10, 20, 40, 80, 100, 300):
        for name, ridge in RIDGES.items():
            counts = long_tail(k, ridge == 1.0)
            geometry = predict(counts, ridge=ridge)
            ours = median_seconds(lambda c=counts, r=ridge: predict(c, ridge=r), 5 if k <= 100 else 1)
            line = f"long tail k = {k:>3}, {name:>11}: {1e3 * ours:8.1f} ms, gap {geometry.gap:.0e}"
            if k <= largest:
                for peer, settings in PEERS.items():
                    if peer == "Clarabel" and k > 40:
                        continue  # performance.md: 40 s and 630 MB at k = 40
                    time, error = peer_seconds(counts, ridge, geometry.objective, settings)
                    line += f"; {peer} {time:.3g} s (error {error:.0e}): {time / ours:,.0f}×"
            print(line, flush=True)


if __name__ == "__main__":
    main()
