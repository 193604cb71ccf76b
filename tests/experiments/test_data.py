"""Data sets, their splits and profiles, and every bad one with its message."""

import numpy as np
import pytest

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data import DATASETS, load_data, load_samples, profile


def write(path, **arrays):
    np.savez(path, **arrays)
    return f"npz:{path}"


def features(n=40, classes=4, d=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(5, 2, size=(n, d)), np.arange(n) % classes


def test_split_is_disjoint_balanced_and_recorded():
    config = TrainConfig(ratio=10)
    data, samples = load_data(config), load_samples("digits")
    assert not np.intersect1d(data.indices, data.test_indices).size
    assert data.counts == ClassCounts.step(10, 10, n_max=140)
    assert np.bincount(samples.labels[data.indices]).tolist() == data.counts.values.tolist()
    assert data.test_counts.tolist() == [34] * 10
    assert np.array_equal(samples.labels[data.test_indices], data.test_labels.numpy())


def test_normalised_by_the_training_part_alone():
    data, samples = load_data(TrainConfig()), load_samples("digits")
    train = samples.inputs[data.indices].astype(np.float64)
    np.testing.assert_allclose(data.mean, [train.mean()], rtol=1e-6)
    np.testing.assert_allclose(data.spread, [train.std()], rtol=1e-6)
    np.testing.assert_allclose(data.inputs.numpy(), (train - train.mean()) / train.std(), rtol=1e-4, atol=1e-5)
    test = samples.inputs[data.test_indices]
    np.testing.assert_allclose(data.test_inputs.numpy(), (test - train.mean()) / train.std(), rtol=1e-4, atol=1e-5)


def test_the_seed_decides_the_samples():
    same, other = load_data(TrainConfig(seed=3)), load_data(TrainConfig(seed=4))
    assert np.array_equal(load_data(TrainConfig(seed=3)).indices, same.indices)
    assert not np.array_equal(same.indices, other.indices)


@pytest.mark.parametrize(("settings", "expected"), [
    ({"ratio": 10}, [100, 100, 10, 10]), ({"ratio": 30}, [90, 90, 3, 3]), ({"ratio": 2.5}, [100, 100, 40, 40]),
    ({"ratio": 10, "minority": 0.25}, [100, 100, 100, 10]), ({"ratio": 10, "n_max": 50}, [50, 50, 5, 5]),
    ({"imbalance": "long-tail", "ratio": 8}, [104, 52, 26, 13]), ({"imbalance": "none"}, [100] * 4),
    ({"imbalance": "none", "n_max": 7}, [7] * 4), ({"imbalance": "natural"}, [104, 100, 100, 109]),
    ({"imbalance": "natural", "n_max": 102}, [102, 100, 100, 102]), ({"ratio": 1}, [100] * 4)])
def test_profiles(settings, expected):
    counts = profile(TrainConfig(**settings), ClassCounts([104, 100, 100, 109], ["a", "b", "c", "d"]))
    assert counts.values.tolist() == expected
    assert counts.names == ("a", "b", "c", "d")


def test_minorities_may_be_the_scarce_classes():
    assert profile(TrainConfig(ratio=10), ClassCounts([500, 500, 20, 30])).values.tolist() == [200, 200, 20, 20]


def test_mnist5k():
    data = load_data(TrainConfig(dataset="mnist5k", ratio=100))
    assert data.shape == (1, 28, 28)
    assert data.counts == ClassCounts.step(10, 100, n_max=400)


def test_every_data_set_has_a_summary_and_whole_labels():
    for entry in DATASETS:
        assert entry.summary
        if not entry.options.keys() & {"argument", "hub"}:
            samples = entry.function()
            assert samples.inputs.dtype == np.float32
            assert np.array_equal(np.unique(samples.labels), np.arange(len(samples.names)))


@pytest.mark.parametrize("labels", [np.array(["cat", "dog"] * 20), np.array([7.0, -3.0] * 20),
                                    np.array([True, False] * 20)])
def test_npz_labels_of_any_kind(tmp_path, labels):
    X, _ = features()
    samples = load_samples(write(tmp_path / "a.npz", X=X, y=labels))
    assert sorted(set(samples.labels.tolist())) == [0, 1]
    assert samples.names == tuple(map(str, np.unique(labels.astype(int) if labels.dtype.kind in "fb" else labels)))


def test_npz_images_and_names(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(20) % 2
    grey = load_samples(write(tmp_path / "a.npz", features=rng.random((20, 8, 8)), labels=y, names=["no", "yes"]))
    last = load_samples(write(tmp_path / "b.npz", X=rng.integers(0, 255, (20, 9, 8, 3)).astype(np.uint8), y=y))
    assert (grey.inputs.shape, grey.names) == ((20, 1, 8, 8), ("no", "yes"))
    assert last.inputs.shape == (20, 3, 9, 8)


def test_constant_feature_stays_finite(tmp_path):
    X, y = features()
    X[:, 1] = 4.0
    data = load_data(TrainConfig(dataset=write(tmp_path / "a.npz", X=X, y=y), ratio=2))
    assert np.isfinite(data.inputs.numpy()).all()
    assert data.spread[1] == 1.0


NUMBERS = features()
BAD_FILES = [
    ({"X": NUMBERS[0]}, "'PATH' must hold an array 'y' or 'labels', got X"),
    ({"X": NUMBERS[0], "y": NUMBERS[1][:5]}, "'PATH' must hold one label per sample, expected 40, got shape (5,)"),
    ({"X": NUMBERS[1], "y": NUMBERS[1]},
     "'PATH' must hold numbers of shape (N, d), (N, h, w) or (N, c, h, w), got int64 of shape (40,)"),
    ({"X": np.full((4, 2), "a"), "y": NUMBERS[1][:4]},
     "'PATH' must hold numbers of shape (N, d), (N, h, w) or (N, c, h, w), got <U1 of shape (4, 2)"),
    ({"X": np.where(np.arange(120).reshape(40, 3) == 7, np.nan, 1.0), "y": NUMBERS[1]},
     "inputs of 'PATH' must be finite, got NaN or Inf in sample 2 (1 of 40 samples)"),
    ({"X": NUMBERS[0], "y": NUMBERS[1] + 0.5},
     "labels of 'PATH' must be whole numbers or text, got [0.5, 1.5, 2.5, 3.5, 0.5]"),
    ({"X": NUMBERS[0], "y": NUMBERS[1], "names": ["a", "b"]},
     "'PATH' names 2 classes: its labels must be 0 … 1, each at least once, got [0, 1, 2, 3]"),
    ({"X": NUMBERS[0], "y": NUMBERS[1] * 0}, "counts must name at least two classes, got 1 ([40])"),
    ({"X": NUMBERS[0][:5], "y": NUMBERS[1][:5]},
     "the data set is too small for a test part: class 1 has 1 sample, expected at least 2"),
    ({"X": NUMBERS[0], "y": NUMBERS[1].astype(object)},
     "the data set 'PATH' must be an .npz file of plain arrays, nothing pickled: it could not be read as one"),
]


@pytest.mark.parametrize(("arrays", "message"), BAD_FILES, ids=lambda value: str(value)[-40:])
def test_bad_file(tmp_path, arrays, message):
    name = write(tmp_path / "a.npz", **arrays)
    with pytest.raises(InvalidInput) as error:
        load_data(TrainConfig(dataset=name))
    assert str(error.value) == message.replace("PATH", str(tmp_path / "a.npz"))


BAD_SETTINGS = [
    ({"dataset": "digit"}, "unknown data set 'digit': did you mean 'digits'? known: cifar10, cifar100, "
                            "digits, fashion-mnist, folder, hf, mnist, mnist5k, npz, parquet, text, tokens"),
    ({"dataset": "digits:x"}, "data set 'digits' must be given as 'digits', got 'digits:x'"),
    ({"dataset": "npz:"}, "data set 'npz' must be given as 'npz:PATH', got 'npz:'"),
    ({"dataset": "npz:no.npz"}, "cannot read the data set 'no.npz': No such file or directory"),
    ({"ratio": 200}, "the data set is too small for ratio 200: with 143 samples in the largest class the smallest "
                     "would keep 0.71; use a ratio of at most 143"),
    ({"n_max": 50, "ratio": 100}, "the data set is too small for ratio 100: with 50 samples in the largest class "
                                  "the smallest would keep 0.5; use a ratio of at most 50"),
    ({"imbalance": "long-tail", "ratio": 5000},
     "the data set is too small for ratio 5000: with 144 samples in the largest class the smallest would keep "
     "0.029; use a ratio of at most 144"),
    ({"n_max": 145}, "the data set is too small for these counts: class 0 has 144 of 145, class 2 has 143 of 145"),
    ({"minority": 0.25},
     "minority × classes must be a whole number, got 0.25 × 10 = 2.5: the nearest share is 0.2"),
]


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS, ids=lambda value: str(value)[:40])
def test_bad_setting(settings, message):
    with pytest.raises(InvalidInput) as error:
        load_data(TrainConfig(**settings))
    assert str(error.value) == message
