"""Multipliers against loops, against SELI within a budget of gradients, and against certified solutions without."""

import numpy as np
import pytest

from neuralcollapse import ClassCounts, predict
from neuralcollapse.checks import InvalidInput
from neuralcollapse.simulate import simulate
from references import limit_dense, unit_distance

COUNTS = [4, 3, 1]
LABELS = np.repeat(np.arange(3), COUNTS)


def distances(runs, cell, counts, delta=None, kind="class"):
    """D_W, D_M, D_Z of where a run ended, from a dense SVD."""
    W, H, labels = runs.samples(cell)
    means = np.array([H[labels == c].mean(0) for c in range(len(W))])
    return [unit_distance(found, target) for found, target in
            zip((W @ W.T, means @ means.T, W @ means.T), limit_dense(counts, delta, kind), strict=True)]


def offset_gradient(W, H, offsets, labels, ridge):
    """Gradient and margins of Σ log(1 + Σ exp(ι_ij − (z_y − z_j))) + λ/2(‖W‖² + ‖H‖²), by loops."""
    G_W, G_H, margins = ridge * W, ridge * H, np.zeros_like(offsets)
    for i, y in enumerate(labels):
        margins[i] = W[y] @ H[i] - W @ H[i]
        odds = np.exp(offsets[i] - margins[i])
        odds[y] = 0
        p = odds / (1 + odds.sum())
        r = p - p.sum() * np.eye(len(W))[y]
        G_W = G_W + np.outer(r, H[i])
        G_H[i] = G_H[i] + W.T @ r
    return G_W, G_H, margins


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_step_and_a_raise_are_their_loops(symmetric):
    rng = np.random.default_rng(0)
    W, M = rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
    runs = simulate(COUNTS, "multipliers", start=(W, M), symmetric=symmetric, ridge=0.3, step=0.05, target=[5.0, 2.0],
                    every=2, momentum=0.8, steps=15)
    for cell, target in enumerate((5.0, 2.0)):
        x, v, offsets = [W, M[LABELS]], [0.0, 0.0], np.zeros((8, 3))
        for t in range(15):
            *g, margins = offset_gradient(*x, offsets, LABELS, 0.3)
            if t >= 8 and t % 2 == 0:
                offsets = offsets + target - margins
            v = [0.8 * a - 0.05 * one for a, one in zip(v, g, strict=True)]
            x = [block + 0.8 * a - 0.05 * one for block, a, one in zip(x, v, g, strict=True)]
        np.testing.assert_allclose(runs.classifiers[cell], x[0], rtol=1e-11, atol=1e-12)
        features = runs.features[cell][LABELS] if symmetric else runs.features[cell]
        np.testing.assert_allclose(features, x[1], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("counts", [ClassCounts.step(10, 100, n_min=1), ClassCounts.step(10, 100, n_min=7),
                                    ClassCounts.step(10, 1000, n_min=1), ClassCounts.step(10, 300, n_min=3),
                                    ClassCounts.step(10, 1, n_min=20),
                                    ClassCounts.long_tail(10, 100, n_max=500), ClassCounts.step(4, 20, n_min=5),
                                    ClassCounts.long_tail(30, 100, n_max=500), ClassCounts([50, 7, 6, 2, 1])], ids=str)
def test_seli_within_2000_gradients_whatever_the_counts(counts):
    runs = simulate(counts, "multipliers", steps=2000, seeds=4, symmetric=True)
    for part in ("classifiers", "embeddings", "logits"):
        assert runs[f"seli/{part}"][:, -1].max() < 1e-4, part
    assert max(distances(runs, 0, counts.values)) < 1e-4  # the route without the library's own geometry


def test_the_narrowest_model_and_every_sample_on_its_own_end_there_too():
    narrow = simulate(ClassCounts.step(10, 100, n_min=1), "multipliers", steps=2000, seeds=4, symmetric=True, d=9)
    assert max(narrow[f"seli/{part}"][:, -1].max() for part in ("classifiers", "embeddings", "logits")) < 1e-6
    counts = [20, 20, 1, 1]
    free = simulate(counts, "multipliers", steps=2000, seeds=2)
    assert max(distances(free, 0, counts)) < 1e-6
    assert free["nc1"][:, -1].max() < 1e-12


def test_a_temperature_of_the_loss_leads_to_its_own_limit():
    counts, delta = [12, 6, 2], [2.0, 1.0, 0.8]
    runs = simulate(counts, "multipliers", delta=delta, temperature="label", iota=[0.5, 0.0, -1.0], steps=3000,
                    symmetric=True, d=4)
    assert max(distances(runs, 0, counts, delta, "label")) < 1e-6
    assert repr(runs).startswith("Simulation(multipliers on ce, 1 cells, 3000 steps: D to limit of")


def test_margins_end_at_the_target_and_the_loss_is_reported_without_offsets():
    runs = simulate([6, 6, 1, 1], "multipliers", target=6.0, steps=3000, symmetric=True)
    logits = runs.classifiers[0] @ runs.features[0].T
    margins = (logits.diagonal() - logits)[~np.eye(4, dtype=bool)]
    np.testing.assert_allclose(margins, 6.0, rtol=1e-8, atol=0)
    np.testing.assert_allclose(np.exp(runs["log_loss"][0, -1]), 14 * np.log1p(3 * np.exp(-6.0)), rtol=1e-7, atol=0)


@pytest.mark.parametrize("counts", [ClassCounts.step(10, 100, n_min=1), ClassCounts.long_tail(6, 30, n_max=60)],
                         ids=str)
def test_without_raises_it_is_the_certified_solution_at_its_ridge(counts):
    """To 1e-6 in every Gram; and SELI is far: at 0.1 where the raises leave less than 1e-4."""
    runs = simulate(counts, "multipliers", every=0, steps=2000, seeds=2, symmetric=True)
    geometry = predict(counts, ridge=runs.cells[0]["ridge"], tolerance=1e-12)
    W, M = runs.classifiers[0], runs.features[0]
    for found, gram in ((W @ W.T, geometry.classifiers), (M @ M.T, geometry.embeddings), (W @ M.T, geometry.logits)):
        assert unit_distance(found, gram.dense()) < 1e-6
    np.testing.assert_allclose(np.exp(runs["log_objective"][:, -1]), geometry.objective, rtol=1e-9, atol=0)
    assert runs["seli/classifiers"][:, -1].min() > 0.1


def test_what_is_left_out_is_chosen_from_the_counts():
    runs = simulate([[400, 4], [4, 4]], "multipliers", steps=1)
    chosen = {"scale": 400 ** -0.25, "ridge": 0.6, "target": 8.0, "momentum": 0.9, "every": 50,
              "step": 0.8 / (0.6 * 8 * 10)}
    assert {name: runs.cells[0][name] for name in chosen} == pytest.approx(chosen, rel=1e-12)
    assert runs.cells[1]["step"] == pytest.approx(0.8 / (0.6 * 8), rel=1e-12)
    large = simulate(ClassCounts.step(90, 1600, n_min=1), "multipliers", steps=1, symmetric=True).cells[0]
    momentum = 1 - 2 * np.sqrt(0.8 / (24 * 40))
    assert large["momentum"] == pytest.approx(momentum, rel=1e-12)
    assert (large["target"], large["every"]) == (24.0, round(5 / (1 - momentum)))
    given = {"ridge": 0.1, "target": 3.0, "every": 7.0, "step": 0.01, "scale": 0.5, "momentum": 0.7}
    cell = simulate([4, 2], "multipliers", steps=1, **given).cells[0]
    assert {name: cell[name] for name in given} == given


def test_other_methods_keep_their_plain_defaults():
    cell = simulate([4, 2], "nesterov", steps=1).cells[0]
    assert (cell["ridge"], cell["scale"]) == (0.0, 1.0)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"ridge": 0.0}, "method 'multipliers' holds a ridge, which must be positive and below the one at which a class "
     "merges, min ω·δ·√n = 1, got 0: leave it out for 0.3 of it"),
    ({"loss": "mse"}, "method 'multipliers' raises the margins of cross-entropy, which the square loss 'mse' does not "
     "have: take another method"),
    ({"target": 0}, "target must be a positive number, got 0"),
    ({"every": 2.5}, "every must be a whole number ≥ 0, got 2.5"),
    ({"every": -1}, "every must be a number ≥ 0, got -1"),
])
def test_bad_input_is_refused_in_one_line(arguments, message):
    with pytest.raises(InvalidInput) as error:
        simulate([2, 1], "multipliers", steps=1, **arguments)
    assert str(error.value) == message
