"""One step of every method with loops over samples and classes, in NumPy; nothing here imports the library.

Parameters are W (k, d), H (n, d) and b (k,) or None, with labels (n,).
"""

from __future__ import annotations

import numpy as np


def gradient(W, H, b, labels, *, square=False, weight=None, delta=None, iota=None, by_label=False, ridge_w=0.0,
             ridge_h=0.0):
    """(objective, ∇W, ∇H, ∇b) of the summed loss with its ridges."""
    k = W.shape[0]
    weight, delta = (np.ones(k) if v is None else np.asarray(v, float) for v in (weight, delta))
    iota = np.zeros(k) if iota is None else np.asarray(iota, float)
    G_W, G_H, G_b, total = ridge_w * W, ridge_h * H, np.zeros(k), 0.0
    for i, y in enumerate(labels):
        raw = W @ H[i] + (0 if b is None else b)
        slope = np.full(k, delta[y]) if by_label else delta
        if square:
            r = raw - np.eye(k)[y]
            total += 0.5 * r @ r
        else:
            z = slope * raw + iota
            p = np.exp(z - z.max())
            p /= p.sum()
            total += -weight[y] * np.log(p[y])
            r = weight[y] * slope * (p - np.eye(k)[y])
        G_W = G_W + np.outer(r, H[i])
        G_H = G_H.copy()
        G_H[i] += W.T @ r
        G_b += r
    total += 0.5 * ridge_w * np.sum(W**2) + 0.5 * ridge_h * np.sum(H**2)
    return total, [G_W, G_H] + ([] if b is None else [G_b])


def run(method, start, of, steps, *, step=0.1, decay=0.0, relu=False, **hyper):
    """`steps` steps of `method` from `start` (a list of arrays); `of(parameters, t)` gives (objective, gradients)."""
    x = [np.array(block, dtype=float) for block in start]
    memory = {}
    for t in range(steps):
        eta = step / (t + 1) ** decay
        objective, g = of(x, t)
        moves = METHODS[method](g, objective, memory, eta, t, hyper)
        x = [block + move for block, move in zip(x, moves, strict=True)]
        if relu:
            x[1] = np.maximum(x[1], 0)
    return x


def _momentum(memory, g, beta):
    memory["V"] = [beta * v + one for v, one in zip(memory.get("V", [0.0] * len(g)), g, strict=True)]
    return memory["V"]


def _gd(g, objective, memory, eta, t, hyper):
    return [-eta * one for one in g]


def _heavy_ball(g, objective, memory, eta, t, hyper):
    return _momentum(memory, [-eta * one for one in g], hyper.get("momentum", 0.9))


def _nesterov(g, objective, memory, eta, t, hyper):
    beta = hyper.get("momentum", 0.9)
    v = _momentum(memory, [-eta * one for one in g], beta)
    return [beta * a - eta * one for a, one in zip(v, g, strict=True)]


def _adam(g, objective, memory, eta, t, hyper):
    b1, b2, eps = hyper.get("momentum", 0.9), hyper.get("beta2", 0.999), hyper.get("epsilon", 1e-8)
    memory.setdefault("m", [np.zeros_like(one) for one in g])
    memory.setdefault("v", [np.zeros_like(one) for one in g])
    moves = []
    for i, one in enumerate(g):
        memory["m"][i] = b1 * memory["m"][i] + (1 - b1) * one
        memory["v"][i] = b2 * memory["v"][i] + (1 - b2) * one**2
        first, second = memory["m"][i] / (1 - b1 ** (t + 1)), memory["v"][i] / (1 - b2 ** (t + 1))
        moves.append(-eta * first / (np.sqrt(second) + eps))
    return moves


def _ngd(g, objective, memory, eta, t, hyper):
    size = np.sqrt(sum(np.sum(one**2) for one in g))
    return _momentum(memory, [-eta * one / size for one in g], hyper.get("momentum", 0.0))


def _ngd_loss(g, objective, memory, eta, t, hyper):
    return _momentum(memory, [-eta * one / objective for one in g], hyper.get("momentum", 0.0))


def _sign(g, objective, memory, eta, t, hyper):
    return [-eta * np.sign(m) for m in _momentum(memory, g, hyper.get("momentum", 0.0))]


def _matrix(block):
    return block if block.ndim == 2 else block[:, None]


def _spectral(g, objective, memory, eta, t, hyper):
    moves = []
    for m in _momentum(memory, g, hyper.get("momentum", 0.0)):
        u, s, v = np.linalg.svd(_matrix(m), full_matrices=False)
        kept = s > 1e-12 * s[0]
        moves.append(-eta * (u[:, kept] @ v[kept]).reshape(m.shape))
    return moves


def _muon(g, objective, memory, eta, t, hyper):
    beta = hyper.get("momentum", 0.95)
    moves = []
    for one, m in zip(g, _momentum(memory, g, beta), strict=True):
        x = _matrix(one + beta * m)
        x = x / np.linalg.norm(x)
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        moves.append(-eta * x.reshape(one.shape))
    return moves


METHODS = {"gd": _gd, "heavy-ball": _heavy_ball, "nesterov": _nesterov, "adam": _adam, "ngd": _ngd,
           "ngd-loss": _ngd_loss, "sign": _sign, "spectral": _spectral, "muon": _muon}
