"""Each kind of verdict on geometries built to be it, and every threshold from both sides."""

import numpy as np
import pytest

from neuralcollapse.counts import ClassCounts
from neuralcollapse.measure import measure
from neuralcollapse.measure.verdict import APART, COLLAPSED, FILLED, KEPT, MERGED, NEAR, judge, merging
from neuralcollapse.predict import predict

STEP = ClassCounts.step(classes=10, ratio=100, minority=0.5, n_min=4)
BALANCED = ClassCounts([40] * 10)


def network(counts, target="seli", nc1=0.01, d=24):
    """Features, labels and head in the predicted geometry; NC1 is met exactly by two opposite halves per class."""
    weight, means = predict(counts, target).factors(d, seed=0)
    labels = np.repeat(np.arange(counts.k), counts.values.astype(int))
    return spread(means, labels, nc1), labels, weight, means


def spread(means, labels, nc1, seed=1):
    direction = np.random.default_rng(seed).standard_normal(means.shape[1])
    sign = np.where(np.arange(labels.size) % 2, 1.0, -1.0)  # every class begins at an even place: counts are even
    centred = means - means.mean(0)
    size = np.sqrt(nc1 * np.sum(centred**2) / len(means)) / np.linalg.norm(direction)
    return means[labels] + size * sign[:, None] * direction


def verdict(features, labels, weight, target="seli", **options):
    return judge(measure(features, labels, weight, targets=(target,) if target else (), **options))


def on_subspace(matrix, dimensions):
    basis = np.linalg.qr(np.random.default_rng(2).standard_normal((matrix.shape[1], dimensions)))[0]
    return matrix @ basis @ basis.T


@pytest.mark.parametrize(("counts", "target"), [(BALANCED, "etf"), (BALANCED, "seli"), (STEP, "seli"),
                                                (STEP, "ridge:0.5"), (ClassCounts([400, 90, 20, 4]), "seli")])
def test_the_predicted_geometry_is_healthy_whatever_its_rank(counts, target):
    features, labels, weight, _ = network(counts, "etf" if target == "etf" else "seli", nc1=0.0)
    if target.startswith("ridge"):
        weight, means = predict(counts, ridge=0.5).factors(24, seed=0)
        features = means[labels]
    found = verdict(features, labels, weight, target)
    assert found.kind == "healthy collapse"
    assert found.dimensions == found.expected_dimensions == counts.k - 1
    assert found.scalars()["nc/dimensions"] == 1.0
    np.testing.assert_allclose(found.distances, 0, atol=1e-7)
    np.testing.assert_allclose(found.effective_rank, found.expected_effective_rank, rtol=1e-6, atol=1e-6)


def test_seli_at_a_hundred_spends_little_on_minorities_and_is_healthy_all_the_same():
    features, labels, weight, _ = network(STEP)
    found = verdict(features, labels, weight)
    gram = predict(STEP).embeddings.dense()  # the independent route: a dense eigendecomposition
    share = np.linalg.eigvalsh(gram)[1:] / np.trace(gram)
    assert found.expected_effective_rank == pytest.approx(np.exp(-np.sum(share * np.log(share))), rel=1e-9, abs=1e-12)
    assert found.expected_effective_rank < 0.7 * 9
    assert found.kind == "healthy collapse"


@pytest.mark.parametrize("counts", [BALANCED, STEP])
@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("both", [False, True])
def test_features_on_a_line_or_plane_have_lost_dimensions(counts, dimensions, both):
    features, labels, weight, _ = network(counts)
    flat = on_subspace(features, dimensions)
    found = verdict(flat, labels, on_subspace(weight, dimensions) if both else weight)
    assert found.kind == "dimensional collapse"
    assert (found.dimensions, found.expected_dimensions) == (dimensions, 9)
    assert f"fill {dimensions} of 9 predicted dimensions" in found.sentences[0]


def test_identical_features_and_a_head_of_zeros_are_dimensional_collapse():
    features, labels, weight, _ = network(BALANCED)
    assert verdict(np.ones_like(features), labels, weight).kind == "dimensional collapse"
    assert verdict(features, labels, np.zeros_like(weight)).kind == "dimensional collapse"


def test_narrow_features_are_named():
    features, labels, weight, _ = network(BALANCED)
    basis = np.linalg.qr(np.random.default_rng(2).standard_normal((24, 3)))[0]
    found = verdict(features @ basis, labels, weight @ basis)
    assert found.kind == "dimensional collapse"
    assert "fill 3 of 9 predicted dimensions (the features have 3)" in found.sentences[0]


def test_merged_minorities_are_minority_collapse_with_advice():
    features, labels, weight, means = network(STEP)
    weight[5:] = weight[5:].mean(0)
    found = verdict(features, labels, weight)
    assert str(found) == (
        "minority collapse: Minority classifiers share one direction: mean minority cosine 1.00 where 0.34 is "
        "predicted. Theory merges classes from λ = 2 on, a weight decay of 0.00099 on head and features with a mean "
        "loss over 2020 samples: go below it, or weigh minority classes more.")
    assert found.merging.share == pytest.approx(1, abs=1e-12)
    means[5:] = means[5:].mean(0)  # the class means merged too: still the minorities alone
    assert verdict(spread(means, labels, 0.01), labels, weight).kind == "minority collapse"
    # and everything flattened on a plane is more than that
    assert verdict(on_subspace(features, 2), labels, on_subspace(weight, 2)).kind == "dimensional collapse"


def test_a_prediction_that_has_merged_them_itself_is_minority_collapse():
    weight, means = predict(STEP, ridge=5.0).factors(24, seed=0)
    labels = np.repeat(np.arange(10), STEP.values.astype(int))
    found = verdict(means[labels], labels, weight, "ridge:5")
    assert found.kind == "minority collapse"
    assert found.merging.predicted == pytest.approx(1, abs=1e-6)
    assert found.merging.share == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("counts", [BALANCED, STEP])
@pytest.mark.parametrize("seed", range(5))
def test_random_features_and_head_are_not_collapsed(counts, seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(10), counts.values.astype(int))
    found = verdict(rng.standard_normal((labels.size, 24)), labels, rng.standard_normal((10, 24)))
    assert found.kind == "not collapsed"
    assert found.sentences[0].startswith("Samples still spread about their class means (NC1 = ")


def test_what_is_missing_is_said():
    features, labels, weight, _ = network(STEP)
    kept = labels > 0
    for found, why in ((verdict(features, labels, None), "There is no head to judge."),
                       (verdict(features[kept], labels[kept], weight, counts=STEP), "1 of 10 classes have no sample."),
                       (verdict(features, labels, weight, None), "There is no target to hold it against.")):
        assert (found.kind, found.sentences) == ("unknown", (why,))
        assert np.isnan(list(found.scalars().values())).all()


@pytest.mark.parametrize(("side", "kind"), [(0.99, "healthy collapse"), (1.01, "not collapsed")])
def test_collapsed_from_both_sides(side, kind):
    features, labels, weight, _ = network(BALANCED, nc1=side * COLLAPSED)
    found = verdict(features, labels, weight)
    assert found.nc1 == pytest.approx(side * COLLAPSED, rel=1e-9)
    assert found.kind == kind


@pytest.mark.parametrize("part", ["classifiers", "embeddings"])
@pytest.mark.parametrize(("side", "kind"), [(0.97, "healthy collapse"), (1.03, "not collapsed")])
def test_near_from_both_sides(part, side, kind):
    _, labels, weight, means = network(BALANCED)
    low, high = 1.0, 4.0  # one of nine equal directions stretched: solve for the D that is asked
    for _ in range(60):
        stretch = (low + high) / 2
        values = np.array([stretch] + [1.0] * 8)
        distance = np.sqrt(2 - 2 * values.sum() / (3 * np.linalg.norm(values)))
        low, high = (stretch, high) if distance < side * NEAR else (low, stretch)
    axis = np.linalg.svd(means)[2][0]

    def stretched(factor):
        return factor + (np.sqrt(stretch) - 1) * np.outer(factor @ axis, axis)

    if part == "classifiers":
        weight = stretched(weight)
    else:
        means = stretched(means)
    found = verdict(means[labels], labels, weight)
    assert found.distances[part == "embeddings"] == pytest.approx(side * NEAR, rel=1e-6)
    assert found.kind == kind


def towards_one(weight, share):
    """Minority classifiers of STEP whose mean cosine is `share` of the way from predicted to 1, by bisection."""
    predicted = predict(STEP).classifiers.cosines()[5, 6]
    low, high = 0.0, 1.0
    for _ in range(60):
        mixed = weight.copy()
        mixed[5:] += (low + high) / 2 * (weight[5:].mean(0) - weight[5:])
        units = mixed[5:] / np.linalg.norm(mixed[5:], axis=1, keepdims=True)
        reached = ((units @ units.T).sum() - 5) / 20
        low, high = ((low + high) / 2, high) if reached < predicted + share * (1 - predicted) else (low,
                                                                                                  (low + high) / 2)
    return mixed


@pytest.mark.parametrize("side", [0.98, 1.02])
def test_merged_from_both_sides(side):
    features, labels, weight, _ = network(STEP)
    found = verdict(features, labels, towards_one(weight, side * MERGED))
    assert found.merging.share == pytest.approx(side * MERGED, rel=1e-9)
    assert (found.kind == "minority collapse") == (side > 1)


@pytest.mark.parametrize("side", [0.98, 1.02])
def test_apart_from_both_sides(side):
    _, labels, weight, means = network(STEP)
    weight[5:] = weight[5:].mean(0)
    found = verdict(spread(means, labels, side * APART), labels, weight)
    assert found.merging.apart == (side < 1)
    assert found.kind == ("minority collapse" if side < 1 else "not collapsed")


@pytest.mark.parametrize("side", [0.9, 1.1])
def test_filled_from_both_sides(side):
    _, labels, weight, means = network(BALANCED)
    axes = np.linalg.svd(means)[2][:3]  # three of nine directions shrunk: with them lost, 6/9 < KEPT are left
    # A direction's share is s/(6 + 3s) of the energy where 1/9 is predicted: s = 6f/(9 − 3f) gives the share f/9.
    f = side * FILLED
    shrunk = means + (np.sqrt(6 * f / (9 - 3 * f)) - 1) * (means @ axes.T) @ axes
    found = verdict(shrunk[labels], labels, weight)
    assert found.dimensions == (9 if side > 1 else 6)
    assert (found.kind == "dimensional collapse") == (side < 1)


@pytest.mark.parametrize(("lost", "kind"), [(1, "not collapsed"), (2, "dimensional collapse")])
def test_kept_from_both_sides(lost, kind):
    assert 7 / 9 < KEPT < 8 / 9
    _, labels, weight, means = network(BALANCED)
    axes = np.linalg.svd(means)[2][:lost]
    found = verdict((means - means @ axes.T @ axes)[labels], labels, weight)
    assert (found.dimensions, found.kind) == (9 - lost, kind)


def test_merging_needs_two_minority_classes_and_directions():
    features, labels, weight, _ = network(BALANCED)
    assert merging(measure(features, labels, weight)) is None
    features, labels, weight, _ = network(STEP)
    weight[7] = 0
    assert merging(measure(features, labels, weight)) is None
    assert merging(measure(features, labels, targets=())) is None
