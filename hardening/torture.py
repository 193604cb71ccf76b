"""Random predictions over extreme counts and ridges against 50-digit arithmetic.

In the limit the Gram matrices themselves are compared. At a ridge the optimum has no closed form: the primal and the
dual value of the solution are computed in 50 digits, and their gap bounds its error without trusting the solver.
"""

from __future__ import annotations

import argparse
from pathlib import Path
import sys
import warnings

import mpmath
import numpy as np

from neuralcollapse.checks import NotConverged
from neuralcollapse.predict import predict

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from harness import Check
from references import limit_mpmath

DIGITS = 50
LIMIT_TOLERANCE, GAP_TOLERANCE = 1e-12, 1e-8


def main(many: int = 1000, seed: int = 0) -> Check:
    """Half of them in the limit, half at a ridge."""
    check = Check("torture", "random predictions against 50-digit arithmetic: counts from 1 to 10⁹, k = 2 … 7, ridges "
                  "from 10⁻⁶ to 1.2 of the total collapse")
    rng = np.random.default_rng(seed)
    worst = {"limit": 0.0, "gap": 0.0}
    unfinished = 0
    for number in range(many):
        k = int(rng.integers(2, 8))
        counts = np.rint(10 ** rng.uniform(0, rng.uniform(0.1, 9), k)).clip(1)
        if rng.random() < 0.5:  # equal counts are what groups and thresholds are about
            counts[rng.integers(k)] = counts[rng.integers(k)]
        if number % 2 == 0:
            error = limit_error(rng, counts)
            worst["limit"] = max(worst["limit"], error)
            if not error <= LIMIT_TOLERANCE:
                check.fail(f"limit at counts {counts.tolist()}: off by {error:.1e}")
        else:
            share = float(10 ** rng.uniform(-6, np.log10(1.2)))
            gap, told, converged = gap_at(counts, share)
            unfinished += not converged
            if converged:
                worst["gap"] = max(worst["gap"], gap)
            if not gap <= max(GAP_TOLERANCE, 2 * told):
                check.fail(f"counts {counts.tolist()} at {share:.3g} of the total collapse: gap {gap:.1e}, told "
                           f"{told:.1e}")
        check.count += 1
    check.figures = {"largest relative error in the limit": f"{worst['limit']:.0e}",
                     "largest duality gap": f"{worst['gap']:.0e}", "gaps missed and said so": unfinished}
    check.close()
    return check


def limit_error(rng: np.random.Generator, counts: np.ndarray) -> float:
    """The largest relative error of norms and Grams of a random loss, in the limit."""
    kind = rng.choice(["ce", "ldt", "cdt"])
    delta = None if kind == "ce" else 10 ** rng.uniform(-1, 1, counts.size)
    geometry = predict(counts, str(kind), **({} if delta is None else {"delta": delta}))
    exact = limit_mpmath(counts, delta, "label" if kind in ("ce", "ldt") else "class", DIGITS)
    errors = []
    with mpmath.workdps(DIGITS):
        for gram, norms, size, full in ((geometry.classifiers, exact[0], exact[2], exact[4]),
                                        (geometry.embeddings, exact[1], exact[3], exact[5])):
            ours = gram.dense()
            scale = mpmath.mpf(gram.frobenius)
            errors += [abs(mpmath.mpf(x) / scale * size / y - 1) for x, y in zip(gram.norms**2, [n**2 for n in norms],
                                                                                strict=True)]
            errors += [abs(mpmath.mpf(ours[i, j]) / scale - full[i, j] / size)
                       for i in range(counts.size) for j in range(counts.size)]
        return float(max(errors))


def gap_at(counts: np.ndarray, share: float) -> tuple[float, float, bool]:
    """At a share of the total collapse: the relative gap of cross-entropy in 50 digits, the gap told, whether met."""
    ridge = share * predict(counts, ridge=1.0).total_collapse
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", NotConverged)
        geometry = predict(counts, ridge=ridge)
    logits = geometry.logits.dense()
    with mpmath.workdps(DIGITS):
        k = counts.size
        n = [mpmath.mpf(float(x)) for x in counts]
        z = [[mpmath.mpf(logits[i, c]) for i in range(k)] for c in range(k)]  # by class
        loss, a, slope, shares = mpmath.mpf(0), mpmath.matrix(k, k), mpmath.matrix(k, k), []
        for c in range(k):
            top = max(z[c])
            total = mpmath.fsum(mpmath.exp(x - top) for x in z[c])
            loss += n[c] * (top + mpmath.log(total) - z[c][c])
            shares.append([mpmath.exp(x - top) / total for x in z[c]])
            for i in range(k):
                a[i, c] = z[c][i] * mpmath.sqrt(n[c])
                slope[i, c] = (shares[c][i] - (i == c)) * mpmath.sqrt(n[c])
        primal = loss + mpmath.mpf(ridge) * mpmath.fsum(mpmath.svd_r(a, compute_uv=False))
        largest = max(mpmath.svd_r(slope, compute_uv=False))
        shrink = min(mpmath.mpf(1), mpmath.mpf(ridge) / largest)
        dual = mpmath.mpf(0)
        for c in range(k):
            for i in range(k):
                p = shrink * shares[c][i] + (1 - shrink) * (i == c)
                dual -= n[c] * (p * mpmath.log(p) if p > 0 else 0)
        return float((primal - dual) / abs(primal)), float(geometry.gap or 0.0), not caught


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--many", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    sys.exit(bool(main(given.many, given.seed).failures))
