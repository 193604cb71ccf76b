"""The path along λ, λ_eff, and weight decay in the theory's terms."""

import numpy as np
import pytest

from neuralcollapse.checks import InvalidInput, OutsideTheory
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import (
    balance_ridge,
    collapse_safety,
    lambda_eff,
    predict,
    ridge_from_weight_decay,
    ridge_path,
    weight_decay_from_ridge,
)

PROFILES = [[10, 10, 1, 1], [100, 100, 30, 30, 30, 5, 5, 2], [50, 20, 9, 3], [7, 7, 7]]


@pytest.mark.parametrize("counts", PROFILES)
@pytest.mark.parametrize("parameters", [{}, {"bias": True}, {"temperature": "label", "delta": 2.0}])
def test_a_path_is_certified_ends_in_collapse_and_approaches_the_limit(counts, parameters):
    if "delta" in parameters:
        parameters = parameters | {"delta": np.sqrt(counts)}
    path = ridge_path(counts, points=40, **parameters)
    assert path.worst_gap < 1e-9
    assert all(event.confirmed for event in path.events)
    assert path.ranks[-1] == 0
    assert path.ranks[0] == len(counts) - 1
    assert np.all(np.diff(path.ranks) <= 0)
    if "bias" not in parameters:
        assert path.to_limit["classifiers"][0] <= np.nanmin(path.to_limit["classifiers"]) + 1e-9


def test_every_point_equals_a_cold_solve():
    path = ridge_path([100, 100, 30, 5, 5, 2], points=12)
    for ridge, warm in zip(path.ridges, path.geometries, strict=True):
        cold = predict([100, 100, 30, 5, 5, 2], ridge=float(ridge))
        assert warm.objective == pytest.approx(cold.objective, rel=2e-9)
        np.testing.assert_allclose(warm.classifiers.dense(), cold.classifiers.dense(),
                                   atol=1e-4 * (cold.classifiers.frobenius + 1e-9))


@pytest.mark.parametrize("counts", [[10, 10, 1, 1], [50, 20, 9, 3]])
def test_ten_decades_without_loss_of_accuracy(counts):
    top = predict(counts, ridge=1.0).total_collapse
    path = ridge_path(counts, 1e-10 * top, 1.5 * top, points=60)
    assert path.worst_gap < 1e-9
    assert np.isfinite([geometry.objective for geometry in path.geometries]).all()


@pytest.mark.parametrize("counts", PROFILES[:3])
@pytest.mark.parametrize("ridge", [3e-3, 0.1, 0.7])
def test_lambda_eff_recovers_the_ridge_it_was_made_with(counts, ridge):
    W, M = predict(counts, ridge=ridge).factors(12, seed=0)
    estimate = lambda_eff(ridge_path(counts, points=40), 3 * W, M / 7)  # blind to scale
    assert estimate.ridge == pytest.approx(ridge, rel=0.01)
    assert estimate.distance < 1e-4
    assert estimate.interval[0] <= estimate.ridge <= estimate.interval[1]


def test_lambda_eff_states_how_flat_its_minimum_is():
    rng = np.random.default_rng(0)
    W, M = predict([10, 10, 1, 1], ridge=0.1).factors(6, seed=0)
    noisy = lambda_eff(ridge_path([10, 10, 1, 1], points=60), W + 0.3 * rng.standard_normal(W.shape), M)
    low, high = noisy.interval
    assert high / low > 1.2
    inside = (noisy.ridges > low) & (noisy.ridges < high)
    assert np.all(noisy.distances[inside] <= 1.06 * noisy.distance)


def test_lambda_eff_says_when_it_is_an_end_of_what_was_tried():
    path = ridge_path([50, 50, 5, 5], points=30)
    assert lambda_eff(path, *predict([50, 50, 5, 5]).factors()).edge == "smallest"
    assert lambda_eff(path, *predict([50, 50, 5, 5], ridge=1.0).factors()).edge is None
    short = ridge_path([50, 50, 5, 5], low=0.01, high=0.5, points=20)
    assert lambda_eff(short, *predict([50, 50, 5, 5], ridge=2.0).factors()).edge == "largest"


def test_the_balance_estimate_holds_at_a_solution():
    counts = np.array([10, 10, 1, 1])
    W, M = predict(counts, ridge=0.2).factors()
    features = float(np.sqrt(np.sum(counts[:, None] * M**2)))
    pair = ridge_from_weight_decay(0.8, 0.05)  # λ_W = 0.8, λ_H = 0.05, λ = 0.2
    assert balance_ridge(pair.head, W * pair.scale, features / pair.scale) == pytest.approx(0.2, rel=1e-9)


def test_weight_decay_goes_both_ways():
    for w, p, n in [(5e-4, 1e-5, 1000), (1e-3, None, 770), (0.1, 2.0, 1)]:
        pair = ridge_from_weight_decay(w, p, n)
        assert pair.ridge == pytest.approx(n * np.sqrt(w * (w if p is None else p)))
        assert weight_decay_from_ridge(pair.ridge, n, p) == pytest.approx(w)


def test_collapse_safety_names_who_merges_and_what_is_safe():
    counts = ClassCounts([500, 500, 5, 5], ["cat", "dog", "newt", "toad"])
    safety = collapse_safety(counts, weight_decay=5e-3, feature_penalty=1e-3)
    assert safety.ridge == pytest.approx(1010 * np.sqrt(5e-6))
    assert safety.merged == (("newt", "toad"),)
    assert not safety.safe
    again = collapse_safety(counts, weight_decay=safety.safe_weight_decay * 0.999, feature_penalty=1e-3)
    assert again.safe
    assert again.merged == ()
    assert collapse_safety(counts, weight_decay=1.0).merged == (("newt", "toad"), ("cat", "dog"))


@pytest.mark.parametrize(("call", "message"), [
    (lambda: ridge_path([5, 1], 2.0, 1.0), "a path needs low < high, got 2 and 1"),
    (lambda: ridge_path([5, 1], -1.0), "low must be a positive number, got -1.0"),
    (lambda: ridge_path([5, 1], points=1), "a path needs at least 2 points, got 1"),
    (lambda: ridge_path([5, 1], loss="mse"), "a path along the ridge is solved for the cross-entropies, got loss "
                                             "'mse': its geometry is in closed form, ask predict for any ridge"),
    (lambda: lambda_eff(ridge_path([5, 1], points=3)), "lambda_eff needs classifiers, embeddings or both, got neither"),
    (lambda: lambda_eff(ridge_path([5, 1], points=3), np.zeros((2, 3))),
     "lambda_eff needs classifiers that are not zero, and a path below total collapse"),
    (lambda: lambda_eff(ridge_path([5, 1], points=3), np.eye(2), np.full((2, 2), np.nan)),
     "a factor must be finite, got nan at position 0 (4 of 4 values)"),
    (lambda: lambda_eff(ridge_path([5, 1], points=3), np.eye(2), center="bogus"),
     "center must be one of classes, samples, none, got 'bogus'"),
    (lambda: predict([5, 1]).centred("bogus"), "center must be one of classes, samples, none, got 'bogus'"),
    (lambda: balance_ridge(0.1, np.eye(2), 0.0), "feature_norm must be a positive number, got 0.0"),
    (lambda: ridge_from_weight_decay(0), "weight_decay must be a positive number, got 0"),
    (lambda: ridge_from_weight_decay(1, -2), "feature_penalty must be a positive number, got -2"),
    (lambda: weight_decay_from_ridge(1, 0), "n must be a positive number, got 0"),
])
def test_bad_input_gets_its_one_line(call, message):
    with pytest.raises((InvalidInput, OutsideTheory)) as caught:
        call()
    assert str(caught.value) == message
