"""Slow, loopy references written from the papers and theory.md; nothing here imports the library."""

from __future__ import annotations

import json
from pathlib import Path

import mpmath
import numpy as np

VECTORS = json.loads((Path(__file__).parent / "predict/vectors.json").read_text())


def sqrt_psd(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def limit_dense(counts, delta=None, kind="class") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """G_W, G_M and logits by a dense SVD (theory.md §2–3)."""
    n = np.asarray(counts, float)
    k = n.size
    delta = np.ones(k) if delta is None else np.asarray(delta, float)
    e = np.ones(k) / np.sqrt(k) if kind == "label" else (1 / delta) / np.linalg.norm(1 / delta)
    logits = (np.eye(k) - np.outer(e, e)) @ np.diag(1 / delta)
    left, singular, right = np.linalg.svd(logits * np.sqrt(n))
    singular[-1] = 0.0
    return (left * singular) @ left.T, (right.T * singular) @ right / np.sqrt(np.outer(n, n)), logits


def step_dense(a, b, large, small) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """G_W, G_M and logits of a majorities and b minorities in closed form (thrampoulidis2022; theory.md §2).

    G_W = √large (I − J/a) ⊕ √small (I − J/b) + τ vvᵀ with v ∝ (1/a, −1/b), and with (√n_c v_c) for the other root.
    """
    k, n = a + b, np.repeat([large, small], [a, b]).astype(float)
    within = np.zeros((k, k))
    within[:a, :a] = np.sqrt(large) * (np.eye(a) - 1 / a)
    within[a:, a:] = np.sqrt(small) * (np.eye(b) - 1 / b)
    tau = np.sqrt((a * small + b * large) / k)
    v = np.repeat([1 / a, -1 / b], [a, b])
    u = np.sqrt(n) * v
    other = within + tau * np.outer(u, u) / (u @ u)
    return within + tau * np.outer(v, v) / (v @ v), other / np.sqrt(np.outer(n, n)), np.eye(k) - 1 / k


def limit_mpmath(counts, delta=None, kind="class", digits=50):
    """(norms_W, norms_M, frobenius_W, frobenius_M, G_W, G_M) in 50-digit arithmetic."""
    with mpmath.workdps(digits + 30):  # squared singular values spread by the ratio: guard digits
        k = len(counts)
        n = [mpmath.mpf(float(c)) for c in counts]
        delta = [mpmath.mpf(1)] * k if delta is None else [mpmath.mpf(float(x)) for x in delta]
        e = [mpmath.mpf(1)] * k if kind == "label" else [1 / x for x in delta]
        size = mpmath.sqrt(sum(x * x for x in e))
        e = [x / size for x in e]
        a = mpmath.matrix(k, k)
        for i in range(k):
            for j in range(k):
                a[i, j] = ((1 if i == j else 0) - e[i] * e[j]) * mpmath.sqrt(n[j]) / delta[j]

        def root(square):
            values, vectors = mpmath.eigsy(square)
            scaled = vectors.copy()
            for c in range(k):
                factor = mpmath.sqrt(values[c]) if c > 0 else mpmath.mpf(0)  # ascending: the first is the null one
                for r in range(k):
                    scaled[r, c] = vectors[r, c] * factor
            return scaled * vectors.T

        w, m = root(a * a.T), root(a.T * a)
        for i in range(k):
            for j in range(k):
                m[i, j] /= mpmath.sqrt(n[i] * n[j])

        def frobenius(g):
            return mpmath.sqrt(sum(x * x for x in g))

        return ([mpmath.sqrt(w[i, i]) for i in range(k)], [mpmath.sqrt(m[i, i]) for i in range(k)],
                frobenius(w), frobenius(m), w, m)


def unit_distance(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.linalg.norm(one / np.linalg.norm(one) - two / np.linalg.norm(two)))


def two_pass(features, labels, weight, bias=None, center="classes") -> dict:
    """Every metric of theory.md §6 with loops over classes and samples, in float64."""
    h, w = np.asarray(features, np.float64), np.asarray(weight, np.float64)
    k, n = w.shape[0], len(labels)
    means = np.array([h[labels == c].mean(0) for c in range(k)])
    within = np.zeros((h.shape[1], h.shape[1]))
    variance = np.zeros(k)
    for c in range(k):
        z = h[labels == c] - means[c]
        within += z.T @ z / n
        variance[c] = np.mean(np.sum(z**2, axis=1))
    mu = {"classes": means.mean(0), "samples": h.mean(0), "none": np.zeros(h.shape[1])}[center]
    m = means - mu
    between = sum(np.outer(row, row) for row in m) / k
    nc1 = np.trace(within @ np.linalg.pinv(between, rcond=1e-12, hermitian=True)) / k
    cdnv = np.mean([(variance[i] + variance[j]) / (2 * np.sum((means[i] - means[j])**2))
                    for i in range(k) for j in range(k) if i != j])
    simplex = np.eye(k) - 1 / k
    z = h @ w.T + (0 if bias is None else bias)
    margins = np.array([z[i, labels[i]] - np.max(np.delete(z[i], labels[i])) for i in range(n)])
    nearest = np.array([np.argmin([np.sum((x - mean)**2) for mean in means]) for x in h])

    def arrangement(v):
        norms = np.linalg.norm(v, axis=1)
        cos = (v @ v.T) / np.outer(norms, norms)
        off = ~np.eye(k, dtype=bool)
        return {"norm_cv": norms.std() / norms.mean(), "angle": np.mean(np.abs(cos[off] + 1 / (k - 1))),
                "etf_distance": unit_distance(v @ v.T, simplex)}

    g_w, g_m, logits = limit_dense(np.bincount(labels, minlength=k))
    share = {"classes": np.full(k, 1 / k), "samples": np.bincount(labels, minlength=k) / n, "none": np.zeros(k)}[center]
    shift = np.eye(k) - np.outer(np.ones(k), share)  # the prediction is centred as the measurement is
    g_m, logits = shift @ g_m @ shift.T, logits @ shift.T
    return {
        "nc1": {"pinv": nc1, "trace": np.trace(within) / np.trace(between), "per_class": variance / np.trace(between)},
        "cdnv": cdnv, "nc2": {"classifiers": arrangement(w), "embeddings": arrangement(m)},
        "nc3": np.linalg.norm(w / np.linalg.norm(w) - m / np.linalg.norm(m)),
        "nc4": np.mean(nearest != z.argmax(1)),
        "distance": {"classifiers": unit_distance(w @ w.T, g_w), "embeddings": unit_distance(m @ m.T, g_m),
                     "logits": unit_distance(w @ m.T, logits)},
        "norms": {"classifiers": np.linalg.norm(w, axis=1), "embeddings": np.linalg.norm(m, axis=1)},
        "margins": {"min": margins.min(), "mean": margins.mean()},
        "accuracy": {"overall": np.mean(z.argmax(1) == labels)},
    }
