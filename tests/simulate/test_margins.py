"""The margins that optimisers may maximise, against plain linear algebra and against the best that is predicted."""

import numpy as np
import pytest
import torch

from neuralcollapse import ClassCounts, predict
from neuralcollapse.simulate import simulate
from neuralcollapse.simulate.margins import NAMES, margins

PROFILES = (ClassCounts.step(6, 10, n_min=2), ClassCounts.long_tail(6, 30, n_max=60), ClassCounts([9, 2, 2, 2, 2, 1]),
            ClassCounts([4] * 6))


def residues(q):
    """Residual of the quadratic-residue design of order q: signs with (q + 1)/2 rows whose products are all −2."""
    block = {x * x % q for x in range(1, q)}
    points = [x for x in range(q) if x not in block]
    return np.array([[1.0 if (x - shift) % q in block else -1.0 for shift in range(1, q)] for x in points])


def test_by_plain_linear_algebra_with_repeated_columns_and_padding():
    random = np.random.default_rng(0)
    W, H = random.standard_normal((2, 4, 3)), random.standard_normal((2, 3, 5))
    samples = np.array([[[2.0, 1, 3, 1, 4]], [[1.0, 1, 2, 5, 0]]])
    gap = np.array([0.3, -1.2])
    found = margins(*(torch.tensor(each) for each in (gap, W, H, samples)))
    for run in range(2):
        all_samples = np.repeat(H[run], samples[run, 0].astype(int), axis=1)
        sizes = {"nuclear": np.linalg.norm(W[run]) * np.linalg.norm(all_samples),
                 "spectral": np.linalg.norm(W[run], 2) * np.linalg.norm(all_samples, 2),
                 "max": 3 * np.abs(W[run]).max() * np.abs(all_samples).max()}
        for norm, size in sizes.items():
            np.testing.assert_allclose(found[NAMES[norm]][run], gap[run] / size, rtol=1e-12, atol=0)


@pytest.mark.parametrize("norm", ["nuclear", "spectral"])
@pytest.mark.parametrize("counts", PROFILES, ids=str)
def test_the_predicted_geometry_attains_the_largest_margin(counts, norm):
    best = predict(counts, norm=norm)
    root = np.sqrt(counts.values)
    left, values, right = np.linalg.svd(best.logits.dense() * root)
    W, H = left * np.sqrt(values), (right.T * np.sqrt(values)) / root[:, None]
    # The SVD's last direction is rounding: its square root would count.
    W[:, values < 1e-9], H[:, values < 1e-9] = 0, 0
    for symmetric in (False, True):
        start = simulate(counts, start=(W, H), symmetric=symmetric, steps=1, snapshots=[0])
        # The spectral optimum is certified to a gap of 1e-8, hence no sharper.
        np.testing.assert_allclose(start[NAMES[norm]][0, 0], best.margin, rtol=1e-7, atol=0)


def test_signs_of_a_design_attain_the_largest_max_margin():
    signs = residues(19)
    assert signs.shape == (10, 18)
    np.testing.assert_array_equal(signs @ signs.T, 20 * np.eye(10) - 2)
    counts = ClassCounts.step(10, 7, n_min=1)
    start = simulate(counts, start=(signs, signs), symmetric=True, steps=1, snapshots=[0])
    np.testing.assert_allclose(start["margin/max"][0, 0], predict(counts, norm="max").margin, rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", ["ngd", "spectral", "sign"])
def test_no_run_exceeds_the_largest_margin(method):
    found = simulate(list(PROFILES), method, steps=600, seeds=2, d=5, symmetric=True, schedule="sqrt", step=0.5)
    for norm, name in NAMES.items():
        best = np.array([predict(counts, norm=norm).margin for counts in PROFILES])
        share = found[name] / best[[cell["profile"] for cell in found.cells], None]
        assert share.max() <= 1 + 1e-9
        assert share[:, -1].min() > 0, "every run fits its classes"
    own = {"ngd": "margin", "spectral": "margin/spectral", "sign": "margin/max"}[method]
    assert (found[own][:, -1] > found[own][:, found.steps.size // 2]).all(), "its own margin grows"
