"""Nodes and weights for the square root of a diagonal minus rank one, in linear time.

    x^{1/2} ≈ Σ_j ω_j x/(x + t_j²)   for low ≤ x ≤ high,   equivalently   x^{-1/2} ≈ Σ_j ω_j/(x + t_j²)

The rule is method 3 of hale2008: the trapezoidal rule after the conformal map t = √low·sc(u | 1 − low/high).
Its error falls like exp(−2π²N/(ln(high/low) + 3)), so N grows with the logarithm of the spread only.
"""

from __future__ import annotations

from jaxtyping import Float
import numpy as np
from scipy.special import ellipk, ellipkm1

# exp(−2·20) = 4e-18: below the rounding of the sum. performance.md measured 15–16 nodes at a ratio of 100.
_DIGITS = 20.0
# The series below needs a modulus away from 1; widening a narrow interval costs two nodes.
_NARROWEST = 4.0


def square_root_rule(low: float, high: float) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Squared nodes t_j² (ascending) and weights ω_j, to double precision at any spread.

    Parameters
    ----------
    low, high : float
        0 < low ≤ high.

    Returns
    -------
    squared_nodes, weights : (N,) arrays

    References
    ----------
    hale2008, §4 (method 3); theory.md §2.

    Examples
    --------
    >>> t2, w = square_root_rule(1.0, 100.0)
    >>> x = 7.0
    >>> bool(abs(np.sum(w * x / (x + t2)) - np.sqrt(x)) < 1e-14)
    True
    """
    high = max(high, _NARROWEST * low)
    modulus2 = low / high
    quarter, quarter_imaginary = ellipk(modulus2), ellipkm1(modulus2)  # K and K'
    half = int(np.ceil(_DIGITS * (np.log(high / low) + 3) / np.pi**2 / 2))
    n = 2 * half
    u = (np.arange(half) + 0.5) * quarter_imaginary / n  # u < K'/2; the rest follows by u → K' − u
    sc, sc_slope = _tangent(u, modulus2, quarter, quarter_imaginary)
    scale = 2 * quarter_imaginary / (np.pi * n)
    lower, upper = np.sqrt(low) * sc, np.sqrt(high) / sc
    weights = scale * np.concatenate([np.sqrt(low) * sc_slope, (np.sqrt(high) * sc_slope / sc**2)[::-1]])
    return np.concatenate([lower, upper[::-1]]) ** 2, weights


def _tangent(u: Float[np.ndarray, " h"], modulus2: float, quarter: float,
             quarter_imaginary: float) -> tuple[Float[np.ndarray, " h"], Float[np.ndarray, " h"]]:
    """sc(u | 1 − modulus2) and its derivative, from the nome series of sn at an imaginary argument.

    scipy's `ellipj` takes 1 − modulus2, which loses the modulus when the spread passes 1e10; the series
    Σ q^{m/2}/(1 − q^m) sinh(mπu/2K), m odd, does not. On u ≤ K'/2 its terms fall like q^{m/4}.
    """
    log_nome = -np.pi * quarter_imaginary / quarter
    m = np.arange(1, 2 + int(4 * 40 / -log_nome), 2)
    x = np.pi * u[:, None] / (2 * quarter)
    factor = 1 / -np.expm1(m * log_nome)
    up, down = np.exp(m * (log_nome / 2 + x)), np.exp(m * (log_nome / 2 - x))
    scale = np.pi / (np.sqrt(modulus2) * quarter)
    sc = scale * np.sum(factor * (up - down), axis=1)
    slope = scale * np.pi / (2 * quarter) * np.sum(m * factor * (up + down), axis=1)
    return sc, slope
