"""Offsets that give all classes one margin.

Column c of C holds the logits of class c. Scales s_c > 0 and offsets β_c, z'_c = s_c z_c + β_c, give it the margin

    m_c = min_{j≠c} (o_c − o_j + S_jc),    S_jc = s_j (C_jj − C_jc),    o_c = s_c C_cc + β_c

All m_c are one number t iff o_c = t + max_{j≠c} (o_j − S_jc): o is an eigenvector of −S in max-plus algebra. One
exists whatever s is, and t is then the smallest mean of S along a cycle of classes (karp1978). No offsets have a larger
smallest margin: along that cycle the o cancel from Σ (o_c − o_j + S_jc), whose mean is t.
"""

from __future__ import annotations

from jaxtyping import Float
import numpy as np

_TIGHT = 1e-9  # of the largest scaled logit: a cycle that much above the smallest mean counts as one of it


def equal_margins(logits: Float[np.ndarray, "g g"], alone: Float[np.ndarray, " g"], scales: Float[np.ndarray, " g"]
                  ) -> tuple[Float[np.ndarray, " g"], float]:
    """Offsets β that give all classes one margin, and that margin.

    Parameters
    ----------
    logits : (g, g) array
        Column c the logits of class c, one class for each group of interchangeable ones.
    alone : (g,) array
        C_jc for another class c of j's own group; −inf where there is none.
    scales : (g,) array
        s.

    Returns
    -------
    offsets : (g,) array
        Sum 0. Where several would do, those that leave other gaps as even as they can.
    margin : float
        t.

    References
    ----------
    karp1978.

    Examples
    --------
    >>> offsets, margin = equal_margins(np.array([[4.0, 0.0], [1.0, 2.0]]), np.full(2, -np.inf), np.ones(2))
    >>> offsets.tolist(), margin
    ([-0.25, 0.25], 2.5)
    """
    own = logits.diagonal()
    lengths = scales[:, None] * (own[:, None] - logits)
    np.fill_diagonal(lengths, scales * (own - alone))
    margin = _smallest_cycle_mean(lengths)
    excess = lengths - margin
    paths = _shortest_paths(excess)
    # Every centre with differences within the paths keeps all margins at t at least; this one is in their middle.
    middle = (paths.mean(1) - paths.mean(0)) / 2
    critical = (excess + paths.T).min(1) <= _TIGHT * max(np.abs(logits).max() * scales.max(), margin)
    levels = (middle[critical, None] - paths[critical]).max(0)
    offsets = levels - scales * own
    return offsets - offsets.mean(), margin


def _smallest_cycle_mean(lengths: Float[np.ndarray, "g g"]) -> float:
    """The smallest mean length of a step along a cycle (karp1978): min_v max_i (d_g(v) − d_i(v))/(g − i)."""
    g = len(lengths)
    walks = np.zeros((g + 1, g))
    for i in range(g):
        walks[i + 1] = (walks[i][:, None] + lengths).min(0)
    return float(((walks[g] - walks[:g]) / (g - np.arange(g))[:, None]).max(0).min())


def _shortest_paths(lengths: Float[np.ndarray, "g g"]) -> Float[np.ndarray, "g g"]:
    """Floyd and Warshall's; no cycle may have a negative length."""
    paths = lengths.copy()
    np.fill_diagonal(paths, 0.0)
    for i in range(len(paths)):
        np.minimum(paths, paths[:, i, None] + paths[i], out=paths)
    return paths
