"""Every metric against the slow two-pass float64 reference, on easy data and on the two hard cases."""

from itertools import pairwise

from alike import assert_alike
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest
import torch

from neuralcollapse.checks import InvalidInput
from neuralcollapse.measure import ClassMoments, CollapseMetric, Snapshot, measure
from references import two_pass

CASES = {  # spread within classes, common offset of all features; theory.md §6
    "easy": (0.5, 0.0), "means 1000 times the spread": (1e-3, 1.0), "deep collapse": (1e-6, 0.0),
    "far from the origin": (0.1, 100.0)}


def sample(case, seed=0, k=5, d=12, n=400, dtype=np.float32):
    spread, offset = CASES[case]
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.concatenate([np.arange(k).repeat(2), rng.choice(k, n - 2 * k, p=np.arange(1, k + 1) /
                                                                               np.arange(1, k + 1).sum())]))
    means = rng.standard_normal((k, d)) + offset
    features = (means[labels] + spread * rng.standard_normal((n, d))).astype(dtype)
    return features, labels, rng.standard_normal((k, d)).astype(dtype), rng.standard_normal(k).astype(dtype)


def assert_close(values, reference, rtol):
    for name, expected in reference.items():
        if isinstance(expected, dict):
            assert_close(values[name], expected, rtol)
        else:
            np.testing.assert_allclose(values[name], expected, rtol=rtol, atol=0, err_msg=name)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("center", ["classes", "samples", "none"])
@pytest.mark.parametrize("with_bias", [False, True])
def test_measure_equals_the_two_pass_reference(case, center, with_bias):
    features, labels, weight, bias = sample(case)
    bias = bias if with_bias else None
    values = measure(features, labels, weight, bias, center=center).to_dict()
    # float32 features: the scatter is summed in float32 about each class's own centre (theory.md §6: 1e-8 – 1e-6).
    assert_close(values, two_pass(features, labels, weight, bias, center), 1e-6)


@pytest.mark.parametrize("case", CASES)
def test_float64_features_agree_to_eleven_digits(case):
    features, labels, weight, _ = sample(case, dtype=np.float64)
    assert_close(measure(features, labels, weight).to_dict(), two_pass(features, labels, weight), 1e-11)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", [1, 37, 400])
def test_the_streaming_metric_agrees_whatever_the_batches(case, batch):
    features, labels, weight, bias = sample(case)
    head = torch.nn.Linear(12, 5)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
    metric = CollapseMetric(5, 12, head)
    for start in range(0, 400, batch):
        metric.update(torch.from_numpy(features[start:start + batch]), torch.from_numpy(labels[start:start + batch]))
    values = metric.measurement().to_dict()
    reference = two_pass(features, labels, weight, bias)
    del reference["nc4"]  # needs the second pass
    reference["margins"] = {}
    assert_close(values, reference, 1e-6)
    flat = metric.compute()
    assert flat["nc/within"].item() == values["nc1"]["pinv"]
    assert flat["nc/seli/classifiers"].item() == values["distance"]["classifiers"]
    assert flat["nc/class/3/norm"].item() == values["norms"]["classifiers"][3]
    assert torch.isnan(flat["nc/nearest_mean_disagreement"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_measured_as_the_numbers_they_are(dtype):
    features, labels, weight, _ = sample("easy")
    half = torch.from_numpy(features).to(dtype)
    moments = ClassMoments(5, 12)
    moments.update(half, torch.from_numpy(labels))
    exact = two_pass(half.double().numpy(), labels, weight)
    from neuralcollapse.measure.measurement import finish

    values = finish(moments.moments(), None, None, counts=None, names=None, targets=(),
                    center="classes").to_dict()
    assert_close({"nc1": values["nc1"], "cdnv": values["cdnv"]}, {"nc1": exact["nc1"], "cdnv": exact["cdnv"]}, 1e-6)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("k", "d"), [(5, 300), (30, 200)])  # above 128 features: products in float32
def test_float32_products_keep_the_digits_that_count(case, k, d):
    features, labels, weight, bias = sample(case, k=k, d=d, n=6000)
    values = measure(features, labels, weight, bias).to_dict()
    assert_close({name: values[name] for name in ("nc1", "cdnv", "nc2", "nc3", "nc4", "distance", "norms")},
                 {name: value for name, value in two_pass(features, labels, weight, bias).items()
                  if name in ("nc1", "cdnv", "nc2", "nc3", "nc4", "distance", "norms")}, 1e-6)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("center", ["classes", "samples", "none"])
@pytest.mark.parametrize(("k", "d"), [(5, 12), (12, 5), (20, 200)])
def test_scatter_in_one_pass_and_projection_in_two_agree(case, center, k, d):
    # k ≤ d: two passes project on the means and never form the scatter; one pass forms it.
    features, labels, weight, bias = sample(case, k=k, d=d, n=3000)
    one = measure(features, labels, weight, bias, center=center, nc4=None).to_dict()
    two = measure(features, labels, weight, bias, center=center).to_dict()
    assert one["nc4"] is None
    assert one["nc4_means"] is None
    assert two["nc4_means"] == "second-pass"
    del one["nc4"], one["nc4_means"]
    assert one["nc1"]["rank"] == min(k - (center != "none"), d)
    del one["distance"]["target"]
    assert_close(two, {name: one[name] for name in ("nc1", "cdnv", "distance", "nc2")}, 1e-6)
    assert two["margins"] == one["margins"]


@pytest.mark.parametrize("arranged", [lambda a: a[::-1], lambda a: a.astype(">f4"), np.asfortranarray,
                                      lambda a: np.lib.stride_tricks.as_strided(a, writeable=False)])
def test_arrays_of_any_layout_are_the_numbers_they_hold(arranged):
    features, labels, weight, bias = sample("easy")
    order = slice(None, None, -1) if arranged(features).strides[0] < 0 else slice(None)
    values = measure(arranged(features), labels[order], arranged(weight)[order], bias).to_dict()
    assert_close(values, two_pass(features, labels, weight, bias), 1e-6)


def test_torch_and_bfloat16_heads():
    features, labels, weight, bias = sample("easy")
    half = [torch.from_numpy(array).bfloat16() for array in (weight, bias)]
    values = measure(features, labels, *half).to_dict()
    assert_close(values, two_pass(features, labels, *(part.double().numpy() for part in half)), 1e-6)


@pytest.mark.parametrize(("offset", "spread"), [(0, 1e-6), (10, 1e-5), (100, 1e-4), (100, 1e-5)])
@pytest.mark.parametrize("k", [2, 10])
def test_thousands_of_collapsed_samples_in_float32_keep_their_digits(offset, spread, k):
    # Many samples a class in the first buffer: its mean must not be summed in float32.
    rng = np.random.default_rng(0)
    labels = rng.integers(0, k, 8192)
    features = (rng.standard_normal((k, 200))[labels] + offset + spread * rng.standard_normal((8192, 200)))
    features = features.astype(np.float32)
    exact = two_pass(features[:, :200], labels, np.eye(k, 200))["nc1"]
    for nc4 in (None, "second-pass"):
        values = measure(features, labels, np.eye(k, 200), nc4=nc4).to_dict()["nc1"]
        assert_close(values, exact, 1e-6)


@pytest.mark.parametrize("noise", [1e-3, 0.1])
def test_features_that_drift_away_from_their_first_mean_keep_their_digits(noise):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 40_000)
    features = rng.standard_normal((4, 200))[labels] + noise * rng.standard_normal((40_000, 200))
    features[3000:] += rng.random(200)
    features = features.astype(np.float32)
    values = measure(features, labels, np.eye(4, 200), nc4=None).to_dict()
    exact = two_pass(features, labels, np.eye(4, 200))
    assert_close({"nc1": {"trace": values["nc1"]["trace"]}, "cdnv": values["cdnv"]},
                 {"nc1": {"trace": exact["nc1"]["trace"]}, "cdnv": exact["cdnv"]}, 1e-6)
    # The scatter is summed in float32 over samples that share the drift.
    assert values["nc1"]["pinv"] == pytest.approx(exact["nc1"]["pinv"], rel=1e-5)


def test_a_layer_may_stand_for_its_weight_and_bias():
    features, labels, weight, bias = sample("easy")
    layer = torch.nn.Linear(12, 5)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    assert measure(features, labels, layer).to_dict() == measure(features, labels, weight, bias).to_dict()


def test_traces_only_leave_out_what_needs_products():
    features, labels, weight, _ = sample("easy")
    full, traces = (measure(features, labels, weight, scatter=scatter).to_dict() for scatter in (True, False))
    assert traces["nc1"].pop("pinv") is None
    assert full["nc1"].pop("pinv") is not None
    assert traces == full


def test_nc4_from_the_measurement_before():
    features, labels, weight, bias = sample("easy")
    later = features + 3 * np.random.default_rng(7).standard_normal(features.shape).astype(np.float32)
    before = measure(features, labels, weight, bias)
    after = measure(later, labels, weight, bias, nc4=before).to_dict()
    means = np.array([features[labels == c].astype(np.float64).mean(0) for c in range(5)])
    nearest = np.argmin(((later[:, None, :] - means) ** 2).sum(2), axis=1)
    assert after["nc4"] == pytest.approx(np.mean(nearest != (later @ weight.T + bias).argmax(1)), abs=1e-12)
    assert after["nc4_means"] == "previous"
    assert after["nc4"] != measure(later, labels, weight, bias).to_dict()["nc4"]


@pytest.mark.parametrize("spread", [1e-6, 0.3, 3.0])
def test_the_nearest_mean_is_exact_whether_or_not_the_triangle_inequality_decides(spread):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 9, 2000)
    features = rng.standard_normal((9, 4))[labels] + spread * rng.standard_normal((2000, 4))
    weight = rng.standard_normal((9, 4))
    nc4 = measure(features, labels, weight).to_dict()["nc4"]
    assert nc4 == pytest.approx(two_pass(features, labels, weight)["nc4"], abs=1e-12)


@pytest.mark.parametrize("k", [6, 40])
def test_small_directions_of_the_means_keep_their_digits(k):
    # Two class means 1e-5 apart beside others of distance 1 (a minority collapsing): an eigenvalue of 1e-11.
    rng = np.random.default_rng(2)
    d, labels = 50, np.arange(40 * k) % k
    means = rng.standard_normal((k, d))
    means[-1] = means[-2] + 1e-5 * rng.standard_normal(d)
    within = rng.standard_normal((40 * k, d))
    for c in range(k):
        within[labels == c] -= within[labels == c].mean(0)
    features = means[labels] + 1e-7 * within
    centred = means - means.mean(0)
    singular, right = np.linalg.svd(centred, full_matrices=False)[1:]
    along = (1e-7 * within @ right[:k - 1].T) ** 2
    expected = np.sum(along.mean(0) / (singular[:k - 1] ** 2 / k)) / k
    for nc4 in (None, "second-pass"):
        values = measure(features, labels, np.eye(k, d), nc4=nc4).to_dict()["nc1"]
        assert values["pinv"] == pytest.approx(expected, rel=1e-6)
        assert values["rank"] == k - 1


def test_statistics_over_pairs_in_blocks_equal_those_at_once(monkeypatch):
    features, labels, weight, bias = sample("means 1000 times the spread", k=30, n=300)
    whole = measure(features, labels, weight, bias).to_dict()
    monkeypatch.setattr("neuralcollapse.measure.measured.DENSE_BELOW", 1)  # no k × k product is kept
    monkeypatch.setattr("neuralcollapse.measure.arrangement._ROWS_AT_ONCE", 5)
    monkeypatch.setattr("neuralcollapse.measure.variability._PAIRS_AT_ONCE", 30 * 4)
    monkeypatch.setattr("neuralcollapse.low_rank.DENSE_BELOW", 1)
    blocks = measure(features, labels, weight, bias).to_dict()
    assert_close(blocks, {name: whole[name] for name in ("cdnv", "nc2")}, 1e-6)  # cosines in float32


def test_effective_rank_tells_a_simplex_from_a_line():
    labels = np.arange(40) % 4
    simplex = measure(np.eye(4)[labels], labels).to_dict()["nc1"]
    assert simplex["effective_rank"] == pytest.approx(3, abs=1e-9)
    line = measure(np.outer([0, 1, 2, 3], [1.0, 2, 0, 0])[labels], labels).to_dict()["nc1"]
    assert (line["rank"], line["effective_rank"]) == (1, pytest.approx(1, abs=1e-9))


@given(st.integers(0, 10**6), st.integers(1, 399), st.integers(1, 399))
def test_merging_is_associative_and_order_free(seed, one, two):
    features, labels, _, _ = sample("deep collapse", seed % 50)
    cuts = [0, *sorted((one, two)), 400]
    parts = []
    for low, high in pairwise(cuts):
        part = ClassMoments(5, 12)
        part.update(torch.from_numpy(features[low:high]), torch.from_numpy(labels[low:high]))
        parts.append(part.moments())
    a, b, c = parts
    whole = ClassMoments(5, 12)
    whole.update(torch.from_numpy(features), torch.from_numpy(labels))
    for merged in (a.merge(b).merge(c), a.merge(b.merge(c)), c.merge(a).merge(b)):
        assert torch.equal(merged.counts, whole.moments().counts)
        torch.testing.assert_close(merged.means, whole.moments().means, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(merged.squares, whole.moments().squares, rtol=1e-6, atol=0)
        torch.testing.assert_close(merged.scatter, whole.moments().scatter, rtol=1e-5, atol=1e-18)


def test_a_class_without_a_sample_is_null_and_the_rest_stands():
    features, labels, weight, _ = sample("easy")
    present = labels != 2
    values = measure(features[present], labels[present], weight).to_dict()
    assert values["nc1"]["pinv"] is None
    assert values["nc2"]["embeddings"]["angle"] is None
    assert values["distance"] == {"target": "seli", "classifiers": None, "embeddings": None, "logits": None}
    assert values["margins"]["per_class"]["min"][2] is None
    assert values["margins"]["per_class"]["min"][1] is not None
    assert values["nc2"]["classifiers"]["angle"] == pytest.approx(two_pass(features, labels, weight)["nc2"]
                                                                  ["classifiers"]["angle"])
    counted = measure(features[present], labels[present], weight, counts=np.bincount(labels)).to_dict()
    assert counted["distance"]["classifiers"] is not None
    assert counted["distance"]["embeddings"] is None


def test_degenerate_features_give_nulls_not_numbers():
    labels = np.array([0, 0, 1, 1, 2])
    values = measure(np.ones((5, 4)), labels, np.zeros((3, 4))).to_dict()
    assert values["nc1"] == {"pinv": None, "trace": None, "per_class": [None] * 3, "rank": None,
                             "effective_rank": None, "cutoff": None}
    assert values["cdnv"] is None
    assert values["nc3"] is None
    assert values["distance"]["classifiers"] is None


def bad(**changed):
    features, labels, weight, bias = sample("easy")
    arrays = {"features": features, "labels": labels, "weight": weight, "bias": bias} | changed
    return lambda: measure(**arrays)


def with_value(position, value):
    features = sample("easy")[0]
    features[position] = value
    return features


BAD = [
    (lambda: measure(np.eye(4), [0, 0, 0, 0]),
     "a geometry has at least two classes, got 1: give counts or a head of all classes"),
    (lambda: measure([[1.0, 2.0], [3.0]], [0, 1]),
     "features must be a matrix of numbers, got rows of different lengths"),
    (bad(features=with_value((17, 3), np.nan)), "features must be finite, got NaN or Inf in row 17 (1 of 400 rows)"),
    (bad(features=with_value((17, 3), np.inf)), "features must be finite, got NaN or Inf in row 17 (1 of 400 rows)"),
    (bad(features=np.full((400, 12), 1e200)),
     "features must be small enough to square, below 1e+18 in single and 1e+100 in double precision, got class means "
     "or spreads of 1e+200"),
    (bad(weight=np.full((5, 12), 1e101)), "weight must be small enough to square, below 1e+100, got 1e+101"),
    (bad(features=np.ones((7, 12))), "features and labels must have the same length, got 7 and 400"),
    (bad(features=np.ones(7)), "features must be a matrix with at least one row and column, got shape (7,)"),
    (bad(labels=np.full(400, 9)), "labels must be in 0 … 4, got 9 at position 0"),
    (lambda: measure(np.eye(3), [0, 1, 10**17]), "labels must be class indices 0 … k−1, got 100000000000000000 among 3 "
     "samples: give the head or the counts where there are so many classes"),
    (bad(labels=np.full(400, -1)), "labels must be in 0 … k−1, got -1 at position 0"),
    (bad(weight=np.ones((5, 11))), "weight must have shape (k, 12), one row per class as in torch's Linear, got "
                                   "(5, 11)"),
    (bad(weight=np.ones((12, 5))), "weight must have shape (k, 12), one row per class as in torch's Linear, got "
                                   "(12, 5): give its transpose"),
    (bad(weight=np.full((5, 12), np.nan)), "weight must be finite, got NaN or Inf"),
    (bad(bias=np.ones(4)), "bias must be 5 finite numbers, one per class, got shape (4,) ([1.0, 1.0, 1.0, 1.0])"),
    (bad(center="median"), "center must be one of classes, samples, none, got 'median'"),
    (bad(targets=("selli",)), "target must name a geometry, got 'selli': unknown loss 'selli': did you mean 'seli'? "
                              "known: cdt, ce, etf, la, ldt, mse, relu-ce, scl, seli, vs, "
                              "weighted"),
    (bad(counts=[1, 2]), "counts must be one per class, expected 5, got 2"),
    (lambda: CollapseMetric(5, 12).measurement(), "nothing to measure yet: call update(features, labels) first"),
    (lambda: CollapseMetric(5, 12).update(torch.ones(3, 12), torch.zeros(4, dtype=torch.long)),
     "features and labels must have the same length, got 3 and 4"),
    (lambda: CollapseMetric(5, 12).update(torch.ones(3, 11), torch.zeros(3, dtype=torch.long)),
     "features must have shape (n, 12), got (3, 11)"),
    (lambda: CollapseMetric(5, 12).update(torch.ones(3, 12), torch.full((3,), 0.5)),
     "labels must be whole numbers, got torch.float32 ([0.5, 0.5, 0.5])"),
    (lambda: CollapseMetric(5, 12).update(torch.ones(3, 12), torch.tensor([0, 5, 1])),
     "labels must be in 0 … 4, got 5 in batch 1"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message[:50] for _, message in BAD])
def test_bad_input_gets_its_one_line(call, message):
    with pytest.raises(InvalidInput) as caught:
        call()
    assert str(caught.value) == message


def test_a_bad_batch_is_named_and_leaves_what_was_measured_alone():
    features, labels, _, _ = sample("easy")
    metric, twin = CollapseMetric(5, 12), CollapseMetric(5, 12)
    for part in np.array_split(np.arange(400), 4):
        metric.update(torch.from_numpy(features[part]), torch.from_numpy(labels[part]))
        twin.update(torch.from_numpy(features[part]), torch.from_numpy(labels[part]))
    with pytest.raises(InvalidInput, match=r"in batch 5$"):
        metric.update(torch.full((3, 12), torch.nan), torch.tensor([0, 1, 2]))
    torch.testing.assert_close(metric.compute(), twin.compute(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_snapshots_come_back_as_they_went(suffix, tmp_path):
    features, labels, weight, bias = sample("easy")
    path = tmp_path / f"epoch{suffix}"
    Snapshot(features, labels, weight, bias).save(path)
    assert Snapshot.load(path).measure().to_dict() == measure(features, labels, weight, bias).to_dict()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_snapshot_of_tensors_is_a_copy_of_them(dtype, tmp_path):
    features, labels, weight, bias = (torch.from_numpy(part) for part in sample("easy"))
    layer = torch.nn.Linear(weight.shape[1], len(weight)).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    features = features.to(dtype).requires_grad_()
    expected = measure(features, labels, layer.weight, layer.bias)
    snapshot = Snapshot(features, labels, layer.weight, layer.bias)
    with torch.no_grad():
        layer.weight.zero_()  # training goes on
    snapshot.save(tmp_path / "epoch.npz")
    assert_alike(snapshot.measure(), expected, rtol=1e-5, atol=1e-9)
    assert Snapshot.load(tmp_path / "epoch.npz").measure().to_dict() == snapshot.measure().to_dict()


def test_snapshots_refuse_what_is_not_arrays(tmp_path):
    pickled, short, empty = (tmp_path / name for name in ("p.npz", "s.npz", "e.safetensors"))
    np.savez(pickled, features=np.array([{}], dtype=object), allow_pickle=True)
    short.write_bytes(b"PK\x03\x04half")
    empty.write_bytes(b"")
    np.savez(tmp_path / "incomplete.npz", features=np.ones((2, 2)))
    for path in (pickled, short, empty):
        with pytest.raises(InvalidInput, match=rf"^'{path.name}' cannot be read as \{path.suffix} arrays"):
            Snapshot.load(path)
    with pytest.raises(InvalidInput, match=r"labels missing, got features$"):
        Snapshot.load(tmp_path / "incomplete.npz")


def test_one_target_may_be_a_name():
    features, labels, weight = np.eye(4), [0, 0, 1, 1], np.eye(4)[:2]
    one, listed = (measure(features, labels, weight, targets=targets) for targets in ("seli", ["seli"]))
    assert one.to_dict() == listed.to_dict()
    assert one.target == "seli"


def test_names_are_checked_where_a_class_has_no_sample():
    with pytest.raises(InvalidInput, match=r"^names must be one per class, expected 2, got 1$"):
        measure(np.eye(4)[:2], [0, 0], np.eye(4)[:2], names=["a"])


class Quantised(torch.nn.Module):
    """Its weight is a method, as in torch's quantised layers."""

    def weight(self):
        return torch.eye(2)


@pytest.mark.parametrize(("layer", "given"), [(torch.nn.ReLU(), "none in ReLU"),
                                              (Quantised(), "a method in Quantised")])
def test_a_head_without_a_weight_is_refused(layer, given):
    message = f"^the head must have a weight of floats, one row per class, got {given}$"
    with pytest.raises(InvalidInput, match=message):
        measure(np.eye(4), [0, 0, 1, 1], layer)
    with pytest.raises(InvalidInput, match=message):
        CollapseMetric(2, 4, layer)


def test_a_fitted_classifier_without_intercept_is_a_head_without_bias():
    class Fitted:
        classes_, coef_ = np.array([0, 1]), np.eye(2, 4)
        fit = predict = None

    assert measure(np.eye(4), [0, 0, 1, 1], Fitted()).measured.bias is None
