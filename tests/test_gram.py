"""Diagonal plus low rank against the dense matrices it stands for."""

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest
import torch

from neuralcollapse.checks import InvalidInput
from neuralcollapse.gram import DiagonalPlusLowRank, Gram
from neuralcollapse.groups import Groups


def grouped(rng, sizes):
    index = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return Groups(index, np.array(sizes))


def random_matrix(rng, sizes, rank, kind=Gram):
    """A random matrix in structured form and densely."""
    groups = grouped(rng, sizes)
    g = len(sizes)
    diagonal, basis = rng.uniform(0.1, 2, g), rng.standard_normal((g, rank))
    core = rng.standard_normal((rank, rank))
    core = core @ core.T if kind is Gram else core
    expanded = basis[groups.index]
    dense = np.diag(diagonal[groups.index]) + expanded @ core @ expanded.T
    return kind(groups, diagonal, core, basis), dense


shapes = st.tuples(st.lists(st.integers(1, 4), min_size=1, max_size=5).filter(lambda s: sum(s) > 1),
                   st.integers(1, 4), st.integers(0, 10**6))


@given(shapes, shapes, st.sampled_from([Gram, DiagonalPlusLowRank]))
def test_every_operation_equals_the_dense_one(shape, other_shape, kind):
    sizes, rank, seed = shape
    rng = np.random.default_rng(seed)
    one, dense = random_matrix(rng, sizes, rank, kind)
    k = one.k
    parts = [k] if other_shape[0][0] % 2 else [1] * k  # another partition of the same classes
    two, dense_two = random_matrix(rng, parts, other_shape[1], kind)
    scale = np.linalg.norm(dense) * np.linalg.norm(dense_two)
    np.testing.assert_allclose(one.dense(), dense, atol=1e-12 * np.linalg.norm(dense))
    assert one.trace == pytest.approx(np.trace(dense), rel=1e-12, abs=1e-12)
    assert one.frobenius == pytest.approx(np.linalg.norm(dense), rel=1e-12)
    assert one.inner(two) == pytest.approx(np.sum(dense * dense_two), abs=1e-12 * scale)
    np.testing.assert_allclose((one + two).dense(), dense + dense_two, atol=1e-12 * scale)
    np.testing.assert_allclose((one * -2.5).dense(), -2.5 * dense, atol=1e-12 * scale)
    factor = rng.standard_normal((k, 3))
    np.testing.assert_allclose(one @ factor, dense @ factor, atol=1e-11 * np.linalg.norm(dense))
    assert one.distance_to(two) == pytest.approx(
        np.linalg.norm(dense / np.linalg.norm(dense) - dense_two / np.linalg.norm(dense_two)), abs=1e-12)


@given(shapes)
def test_norms_and_cosines(shape):
    sizes, rank, seed = shape
    gram, dense = random_matrix(np.random.default_rng(seed), sizes, rank)
    norms = np.sqrt(np.diag(dense))
    np.testing.assert_allclose(gram.norms, norms, rtol=1e-12)
    np.testing.assert_allclose(gram.cosines(), dense / np.outer(norms, norms), atol=1e-12)
    rows, columns = np.array([0]), np.array([gram.k - 1])
    np.testing.assert_allclose(gram.cosines(rows, columns), gram.cosines()[:1, -1:])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_distance_without_k_by_k_equals_the_dense_one(dtype, monkeypatch):
    rng = np.random.default_rng(0)
    logits, dense = random_matrix(rng, [3, 20, 7, 1], 3, DiagonalPlusLowRank)
    gram, dense_gram = random_matrix(rng, [3, 20, 7, 1], 3)
    left, right = rng.standard_normal((2, 31, 5)).astype(dtype)

    def exact(product, matrix):
        return np.linalg.norm(product / np.linalg.norm(product) - matrix / np.linalg.norm(matrix))

    expected = (exact(left.astype(float) @ right.T.astype(float), dense),
                exact(left.astype(float) @ left.T.astype(float), dense_gram))
    assert (logits.distance_between(left, right), gram.distance(left)) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr("neuralcollapse.low_rank.DENSE_BELOW", 0)
    monkeypatch.setattr("neuralcollapse.low_rank._ROWS_AT_ONCE", 8)
    assert (logits.distance_between(left, right), gram.distance(left)) == pytest.approx(expected, rel=1e-7)


def test_a_matching_factor_is_at_distance_zero_to_rounding():
    from neuralcollapse.predict import predict

    geometry = predict(np.arange(1, 200))
    W, M = geometry.factors(250, seed=0)
    assert geometry.classifiers.distance(3 * W) < 1e-12
    assert geometry.embeddings.distance(M / 7) < 1e-10


def test_a_measured_factor_may_be_a_tensor_of_any_kind_or_another_gram():
    gram, factor = Gram.from_dense(np.diag([1.0, 2.0, 3.0])), np.arange(6).reshape(3, 2)
    expected = gram.distance(factor.astype(np.float64))
    tensor = torch.tensor(factor)
    parameter = tensor.double().requires_grad_()
    for given_factor in (factor, factor.tolist(), tensor, tensor.half(), tensor.bfloat16(), parameter):
        assert gram.distance(given_factor) == expected
    assert gram.distance(Gram.from_dense((factor @ factor.T).astype(np.float64))) == pytest.approx(expected)


def test_zero_is_handled_exactly():
    zero = Gram.from_dense(np.zeros((3, 3)))
    assert zero.frobenius == 0
    assert np.isnan(zero.distance(np.ones((3, 2))))
    assert np.isnan(zero.distance_to(Gram.from_dense(np.eye(3))))
    assert np.isnan(zero.cosines()).all()
    assert zero.unit().frobenius == 0
    partly = Gram.from_dense(np.diag([1.0, 0.0, 4.0]))
    np.testing.assert_array_equal(np.isnan(partly.cosines()), [[False, True, False], [True] * 3, [False, True, False]])


def test_wrong_shapes_are_refused():
    gram = Gram.from_dense(np.eye(3))
    with pytest.raises(InvalidInput, match=r"^a factor must have one row per class, expected \(3, d\), got \(4, 2\)$"):
        gram.distance(np.ones((4, 2)))
    with pytest.raises(InvalidInput, match=r"^a factor must be finite, got nan at position 0 \(6 of 6 values\)$"):
        gram.distance(np.full((3, 2), np.nan))
    with pytest.raises(InvalidInput, match=r"^a factor must be numbers, got Linear$"):
        gram.distance(torch.nn.Linear(2, 3))
    with pytest.raises(InvalidInput, match=r"^both matrices must have the same classes, got 3 and 2$"):
        gram + Gram.from_dense(np.eye(2))


@given(shapes)
def test_centring_equals_the_dense_one(shape):
    sizes, rank, seed = shape
    rng = np.random.default_rng(seed)
    gram, dense = random_matrix(rng, sizes, rank)
    logits, dense_logits = random_matrix(rng, sizes, rank, DiagonalPlusLowRank)
    for groups, matrix, full, both in ((gram.groups, gram, dense, True), (logits.groups, logits, dense_logits, False)):
        share = rng.uniform(0.1, 1, groups.sizes.size)[groups.index]
        share /= share.sum()
        shift = np.eye(share.size) - np.outer(np.ones(share.size), share)
        ours = matrix.centred(share) if both else matrix.columns_centred(share)
        exact = shift @ full @ shift.T if both else full @ shift.T
        np.testing.assert_allclose(ours.dense(), exact, atol=1e-11 * np.linalg.norm(full))
        assert ours.frobenius == pytest.approx(np.linalg.norm(exact), rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("center", ["classes", "samples", "none"])
@pytest.mark.parametrize("target", ["seli", "ridge:0.5"])
def test_a_perfect_network_is_at_distance_zero_whatever_the_centre(center, target):
    from neuralcollapse.counts import ClassCounts
    from neuralcollapse.measure import measure
    from neuralcollapse.predict import target_geometry

    counts = ClassCounts([40, 40, 9, 4])
    W, M = target_geometry(target, counts).factors(7, seed=0)
    labels = np.repeat(np.arange(4), counts.values.astype(int))
    distance = measure(M[labels], labels, W, targets=(target,), center=center).to_dict()["distance"]
    assert max(distance[part] for part in ("classifiers", "embeddings", "logits")) < 1e-10


@pytest.mark.parametrize("combined", [Gram.inner, Gram.distance_to, Gram.__add__])
def test_another_number_of_classes_is_refused(combined):
    three, four = (Gram.from_dense(np.eye(k)) for k in (3, 4))
    with pytest.raises(InvalidInput, match=r"^both matrices must have the same classes, got 3 and 4$"):
        combined(three, four)
