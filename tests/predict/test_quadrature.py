"""The quadrature of the square root against 40-digit arithmetic."""

import mpmath
import numpy as np
import pytest
from scipy.special import ellipj, ellipkm1

from neuralcollapse.predict.quadrature import square_root_rule


@pytest.mark.parametrize("ratio", [1.0, 1.5, 4.0, 100.0, 1e6, 1e9, 1e15, 1e20])
def test_the_rule_gives_the_square_root_to_rounding(ratio):
    low = 3.7
    squared_nodes, weights = square_root_rule(low, low * ratio)
    for x in low * ratio ** np.linspace(0, 1, 23):
        with mpmath.workdps(40):
            value = mpmath.fsum(mpmath.mpf(w) * mpmath.mpf(x) / (mpmath.mpf(x) + mpmath.mpf(t))
                                for t, w in zip(squared_nodes.tolist(), weights.tolist(), strict=True))
            error = abs(value / mpmath.sqrt(mpmath.mpf(x)) - 1)
        assert error < 2e-15  # a few roundings of the weights; the rule itself is at 4e-18


def test_nodes_agree_with_scipys_elliptic_functions():
    low, high = 2.0, 2000.0
    squared_nodes, _ = square_root_rule(low, high)
    n = squared_nodes.size
    sn, cn, _, _ = ellipj((np.arange(n) + 0.5) * ellipkm1(low / high) / n, 1 - low / high)
    np.testing.assert_allclose(squared_nodes, low * (sn / cn) ** 2, rtol=1e-11)


def test_the_number_of_nodes_grows_with_the_logarithm_of_the_spread():
    sizes = [square_root_rule(1.0, 10.0**p)[0].size for p in (2, 4, 6, 8)]
    assert sizes[0] <= 16  # performance.md: 15–16 nodes at R = 100
    assert max(np.diff(sizes)) <= 12
