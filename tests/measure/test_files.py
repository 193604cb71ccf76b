"""Files of features: every format gives what the arrays in memory give, in bounded memory, and says what is wrong."""

import io
import itertools
import json
import os
import pickle
import re
import subprocess
import sys
from textwrap import dedent
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors
import torch

from neuralcollapse.checks import InvalidInput
from neuralcollapse.measure import Snapshot, measure, measure_file, measure_files
from neuralcollapse.measure.files import Reading, load_head
from references import two_pass

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

K, D, N = 4, 7, 40_000  # more rows than one block holds


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    labels = rng.choice(K, N, p=[0.6, 0.25, 0.1, 0.05])
    features = 3 * rng.standard_normal((K, D))[labels] + rng.standard_normal((N, D))
    return {"features": features, "labels": labels, "weight": rng.standard_normal((K, D)),
            "bias": rng.standard_normal(K)}


def leaves(value, path=()):
    """Every number of a nested value under its path."""
    if isinstance(value, dict):
        return {at: leaf for key, inner in value.items() for at, leaf in leaves(inner, (*path, key)).items()}
    if isinstance(value, list):
        return {at: leaf for key, inner in enumerate(value) for at, leaf in leaves(inner, (*path, key)).items()}
    return {path: value}


def assert_agree(one, two, rtol=1e-12):
    """Both measurements, number by number; atol, since NC4 and margins may be 0 but for rounding."""
    left, right = leaves(one.to_dict()), leaves(two.to_dict())
    assert left.keys() == right.keys()
    for path, expected in right.items():
        if isinstance(expected, float):
            np.testing.assert_allclose(left[path], expected, rtol=rtol, atol=1e-14, err_msg=str(path))
        else:
            assert left[path] == expected, path


def table_of(features, labels, kind="fixed", names=("features", "labels")):
    width = features.shape[1]
    flat = pa.array(features.ravel())
    listed = {"fixed": lambda: pa.FixedSizeListArray.from_arrays(flat, width),
              "list": lambda: pa.ListArray.from_arrays(np.arange(len(features) + 1) * width, flat),
              "large": lambda: pa.LargeListArray.from_arrays(np.arange(len(features) + 1) * width, flat)}[kind]()
    return pa.table({"id": pa.array(range(len(labels))), names[0]: listed, names[1]: labels})


def columns_first(values):
    return np.asfortranarray(values)


WRITERS = {
    "stored.npz": lambda path, a: np.savez(path, **a),
    "compressed.npz": lambda path, a: np.savez_compressed(path, **a),
    "stored-by-columns.npz": lambda path, a: np.savez(path, **a | {"features": columns_first(a["features"])}),
    "compressed-by-columns.npz": lambda path, a: np.savez_compressed(
        path, **a | {"features": columns_first(a["features"])}),
    "other-endian.npz": lambda path, a: np.savez(path, **{
        name: array.astype(array.dtype.newbyteorder(">")) for name, array in a.items()}),
    "tensors.safetensors": lambda path, a: save_file(a, path),
    "table.parquet": lambda path, a: pq.write_table(table_of(a["features"], a["labels"]), path),
}


# -- formats ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in WRITERS if not name.endswith(".parquet")])
def test_a_file_gives_what_its_arrays_give(arrays, tmp_path, name):
    WRITERS[name](tmp_path / name, arrays)
    expected = measure(**arrays)
    assert_agree(measure_file(tmp_path / name), expected)
    reference = two_pass(*arrays.values())
    for key in ("nc3", "nc4", "cdnv"):
        np.testing.assert_allclose(expected.to_dict()[key], reference[key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["fixed", "list", "large"])
def test_a_table_with_a_head_beside_it_gives_what_the_arrays_give(arrays, tmp_path, kind):
    table = table_of(arrays["features"], arrays["labels"], kind)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=9_999)  # blocks straddle row groups
    np.savez(tmp_path / "head.npz", weight=arrays["weight"], bias=arrays["bias"])
    assert_agree(measure_file(tmp_path / "a.parquet", head=tmp_path / "head.npz"), measure(**arrays))


def test_lone_arrays_give_what_the_arrays_give(arrays, tmp_path):
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", columns_first(array) if name == "features" else array)
    paths = {name: tmp_path / f"{name}.npy" for name in arrays}
    expected = measure(arrays["features"], arrays["labels"], arrays["weight"])
    assert_agree(measure_file(paths["features"], labels=paths["labels"], head=paths["weight"]), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
def test_narrow_types_are_measured_as_the_numbers_they_stand_for(arrays, tmp_path, dtype):
    narrow = (4 * arrays["features"]).astype(dtype)
    weight = arrays["weight"].astype(np.float32)
    np.savez(tmp_path / "a.npz", features=narrow, labels=arrays["labels"].astype(np.uint8), weight=weight)
    pq.write_table(table_of(narrow, arrays["labels"]), tmp_path / "a.parquet")
    expected = measure(narrow.astype(np.float64), arrays["labels"], weight)
    for path in ("a.npz", "a.parquet"):  # float32 class means in between
        assert_agree(measure_file(tmp_path / path, head=tmp_path / "a.npz"), expected, rtol=1e-6)


def test_bfloat16_is_measured_as_the_numbers_it_stands_for(arrays, tmp_path):
    tensors = {name: torch.from_numpy(arrays[name]).bfloat16() for name in ("features", "weight", "bias")}
    save_tensors(tensors | {"labels": torch.from_numpy(arrays["labels"])}, tmp_path / "a.safetensors")
    wide = {name: tensor.double() for name, tensor in tensors.items()}
    assert_agree(measure_file(tmp_path / "a.safetensors"), measure(labels=arrays["labels"], **wide), rtol=1e-6)


def test_without_a_head_the_features_are_measured_and_the_rest_is_null(arrays, tmp_path):
    np.savez(tmp_path / "a.npz", features=arrays["features"], labels=arrays["labels"])
    found = measure_file(tmp_path / "a.npz")
    assert_agree(found, measure(arrays["features"], arrays["labels"]))
    values = found.to_dict()
    assert [values[key] for key in ("nc3", "nc4", "nc4_means")] == [None] * 3
    assert values["distance"]["classifiers"] is None
    assert values["distance"]["embeddings"] > 0
    np.testing.assert_allclose(values["nc1"]["pinv"], two_pass(*arrays.values())["nc1"]["pinv"], rtol=1e-9)
    assert Snapshot.load(tmp_path / "a.npz").weight is None
    assert_agree(Snapshot.load(tmp_path / "a.npz").measure(), found)


def test_options_reach_the_measurement(arrays, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    found = measure_file(tmp_path / "a.npz", counts=[500, 50, 5, 5], targets=("etf", "seli"), center="samples",
                         nc4=None, scatter=False, names=list("abcd"))
    assert_agree(found, measure(**arrays, counts=[500, 50, 5, 5], targets=("etf", "seli"), center="samples", nc4=None,
                         scatter=False, names=list("abcd")))
    values = found.to_dict()
    assert (values["nc4"], values["nc1"]["pinv"], values["center"]) == (None, None, "samples")
    assert found.measured.targets["seli"].counts.values.tolist() == [500, 50, 5, 5]


def test_columns_and_arrays_by_other_names(arrays, tmp_path):
    features, labels = arrays["features"][:100], arrays["labels"][:100]
    expected = measure(features, labels)
    for names, options in ((("embedding", "label"), {}), (("embeddings", "labels"), {}),
                           (("hidden", "y"), {"column": "hidden", "label_column": "y"})):
        pq.write_table(table_of(features, labels, names=names), tmp_path / "a.parquet")
        np.savez(tmp_path / "a.npz", **dict(zip(names, (features, labels), strict=True)))
        for path in ("a.parquet", "a.npz"):
            assert_agree(measure_file(tmp_path / path, **options), expected)


def test_a_column_called_weight_in_a_table_is_no_head(arrays, tmp_path):
    table = table_of(arrays["features"][:50], arrays["labels"][:50])
    pq.write_table(table.append_column("weight", pa.array(np.ones(50))), tmp_path / "a.parquet")
    assert measure_file(tmp_path / "a.parquet").measured.weight is None


def test_heads_are_found_by_the_names_checkpoints_give_them(arrays, tmp_path):
    weight, bias = arrays["weight"], arrays["bias"]
    save_file({"model.norm.weight": np.ones(D), "lm_head.weight": weight, "embed.weight": weight + 1,
               "classifier.weight": weight + 2, "classifier.bias": bias}, tmp_path / "model.safetensors")
    np.save(tmp_path / "w.npy", weight)
    np.savez(tmp_path / "odd:name.npz", weight=weight, bias=bias)
    model = f"{tmp_path}/model.safetensors"
    for source, shift, has_bias in ((f"{model}:lm_head", 0, False), (f"{model}:embed.weight", 1, False),
                                    (f"{model}:classifier", 2, True), (f"{tmp_path}/w.npy", 0, False),
                                    (f"{tmp_path}/odd:name.npz", 0, True)):
        found, offset = load_head(source)
        np.testing.assert_array_equal(found, weight + shift)
        assert (offset is not None) == has_bias
        if has_bias:
            np.testing.assert_array_equal(offset, bias)
    with pytest.raises(InvalidInput, match=r"^'model.safetensors' holds no head 'lm_heat.weight': did you mean "
                                           r"'lm_head.weight'\? known: classifier.bias, "):
        load_head(f"{model}:lm_heat")


# -- several files ------------------------------------------------------------------------------------


@pytest.fixture
def epochs(arrays, tmp_path):
    """Three epochs of the same samples, ever more collapsed."""
    labels = arrays["labels"]
    centres = np.stack([arrays["features"][labels == c].mean(0) for c in range(K)])
    parts = []
    for epoch, spread in enumerate((1.0, 0.5, 0.1)):
        features = centres[labels] + spread * (arrays["features"] - centres[labels])
        parts.append(arrays | {"features": features, "weight": centres - centres.mean(0) + spread * arrays["weight"]})
        np.savez(tmp_path / f"epoch-{epoch}.npz", **parts[-1])
    return [tmp_path / f"epoch-{epoch}.npz" for epoch in range(3)], parts


def test_several_files_are_each_measured_in_the_order_given(epochs):
    paths, parts = epochs
    for order in ((0, 1, 2), (2, 0, 1)):
        for found, place in zip(measure_files([paths[i] for i in order]), order, strict=True):
            assert_agree(found, measure(**parts[place]))


def test_means_of_the_file_before_serve_nc4_in_one_pass(epochs):
    paths, parts = epochs
    seen = []
    found = measure_files(paths, nc4="previous", on_rows=seen.append)
    assert found[0].to_dict()["nc4"] is None
    assert {reading.total for reading in seen} == {N}
    for before, after, part in zip(found, found[1:], parts[1:], strict=False):
        means = before.measured.means
        nearest = ((part["features"][:, None] - means) ** 2).sum(2).argmin(1)
        decided = (part["features"] @ part["weight"].T + part["bias"]).argmax(1)
        assert after.to_dict()["nc4"] == pytest.approx((nearest != decided).mean(), abs=1e-12)
        assert 0 < after.to_dict()["nc4"] < 1
        assert after.to_dict()["nc4_means"] == "previous"
    assert [each.to_dict()["nc4"] for each in measure_files(paths, nc4="none")] == [None] * 3


def test_progress_is_told_of_every_file_and_pass(epochs):
    paths, _ = epochs
    seen = []
    measure_files(paths, on_rows=seen.append)
    assert [(reading.file, reading.name) for reading in seen if reading.done == reading.total] == [
        (i, path.name) for i, path in enumerate(paths)]
    assert {(reading.files, reading.total) for reading in seen} == {(3, 2 * N)}
    for _, group in itertools.groupby(seen, key=lambda reading: reading.file):
        done = [reading.done for reading in group]
        assert done == sorted(set(done))
    assert isinstance(seen[0], Reading)


def test_a_message_about_one_of_several_files_names_it_once(epochs, tmp_path):
    paths, parts = epochs
    np.savez(tmp_path / "bad.npz", **parts[0] | {"labels": parts[0]["labels"] + 1})
    (tmp_path / "cut.npz").write_bytes(paths[0].read_bytes()[:-1000])
    with pytest.raises(InvalidInput, match=r"^bad.npz: labels must be in 0 … 3, got 4 at position \d+$"):
        measure_files([paths[0], tmp_path / "bad.npz"])
    with pytest.raises(InvalidInput, match=r"^'cut.npz' cannot be read as .npz arrays: File is not a zip file$"):
        measure_files([paths[0], tmp_path / "cut.npz"])
    np.savez(tmp_path / "narrow.npz", **parts[0] | {"features": parts[0]["features"][:, :5],
                                                    "weight": parts[0]["weight"][:, :5]})
    with pytest.raises(InvalidInput, match=r"^narrow.npz: nc4 must be a measurement with class means of shape "
                                           r"\(4, 5\), got one of shape \(4, 7\)$"):
        measure_files([paths[0], tmp_path / "narrow.npz"], nc4="previous")


# -- memory -------------------------------------------------------------------------------------------

MEGABYTES = 300
PEAK = dedent("""
    import re, sys
    from pathlib import Path
    from neuralcollapse.measure import measure_file

    def peak():  # of this process alone: rusage carries over what the one that started it had
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

    small, large, head = sys.argv[1:]
    measure_file(small, head=head)
    before = peak()
    counts = measure_file(large, head=head).to_dict()["counts"]
    print(sum(counts), peak() - before)
""")


def write_large(path, features, labels):
    if path.suffix == ".npz":
        np.savez(path, features=features, labels=labels)
    elif path.suffix == ".safetensors":
        save_file({"features": features, "labels": labels}, path)
    else:  # one row group: only the reader's own buffers bound what is read at once
        pq.write_table(table_of(features, labels), path, compression="none", use_dictionary=False)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".parquet"])
def test_a_large_file_takes_memory_for_a_block_alone(tmp_path, suffix):
    d = 512
    n = MEGABYTES * 2**20 // (4 * d)
    rng = np.random.default_rng(0)
    features = np.tile(rng.standard_normal((n // 50, d), dtype=np.float32), (50, 1))
    labels = rng.integers(0, K, len(features))
    write_large(tmp_path / f"small{suffix}", features[:10_000], labels[:10_000])
    write_large(tmp_path / f"large{suffix}", features, labels)
    np.save(tmp_path / "w.npy", rng.standard_normal((K, d)))
    done = subprocess.run([sys.executable, "-c", PEAK, tmp_path / f"small{suffix}", tmp_path / f"large{suffix}",
                           tmp_path / "w.npy"], capture_output=True, text=True, check=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    samples, more = done.stdout.split()
    assert int(samples) == len(features)
    assert float(more) < 100, f"{more} MB above the peak of a file of 20 MB"


# -- what is refused ----------------------------------------------------------------------------------


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return os.mkdir, (str(self._path),)


def test_nothing_is_ever_unpickled(arrays, tmp_path):
    sprung = tmp_path / "sprung"
    trap = np.array([Trap(sprung)], dtype=object)
    with np.load(_saved(tmp_path / "proof.npz", labels=trap), allow_pickle=True) as proof:
        proof["labels"]
    assert sprung.exists(), "the trap works"
    sprung.rmdir()
    small = {name: array[:50] for name, array in arrays.items()}
    for name in ("features", "labels", "weight", "bias"):
        path = _saved(tmp_path / f"{name}.npz", **small | {name: trap})
        with pytest.raises(InvalidInput, match=rf"^'{name}.npz' cannot be read as .npz arrays: it must hold plain "
                                               "arrays, nothing pickled$"):
            measure_file(path)
    np.save(tmp_path / "lone.npy", trap, allow_pickle=True)
    (tmp_path / "raw.npz").write_bytes(pickle.dumps(trap))
    good = _saved(tmp_path / "good.npz", **small)
    for call in (lambda: measure_file(tmp_path / "lone.npy"), lambda: load_head(tmp_path / "lone.npy"),
                 lambda: measure_file(good, labels=tmp_path / "lone.npy"), lambda: measure_file(tmp_path / "raw.npz"),
                 lambda: Snapshot.load(tmp_path / "labels.npz")):
        with pytest.raises(InvalidInput, match=r"it must hold plain arrays, nothing pickled$"):
            call()
    assert not sprung.exists()


def _saved(path, **arrays):
    np.savez(path, allow_pickle=True, **arrays)
    return path


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_cut_anywhere_is_refused(arrays, tmp_path, name):
    WRITERS[name](tmp_path / name, {key: array[:200] for key, array in arrays.items()})
    whole = (tmp_path / name).read_bytes()
    for kept in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / name).write_bytes(whole[:kept])
        with pytest.raises(InvalidInput, match=rf"^'{re.escape(name)}' cannot be read as \{(tmp_path / name).suffix} "
                                               "arrays: "):
            measure_file(tmp_path / name)


def test_a_damaged_archive_is_refused(arrays, tmp_path):
    for name in ("stored.npz", "compressed.npz"):
        WRITERS[name](tmp_path / name, arrays)
        damaged = bytearray((tmp_path / name).read_bytes())
        damaged[len(damaged) // 2] ^= 0x10
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(InvalidInput, match=rf"^'{name}' cannot be read as .npz arrays: "):
            measure_file(tmp_path / name)


def test_a_header_that_promises_more_than_there_is_is_refused(arrays, tmp_path):
    np.savez(tmp_path / "features.npz", features=arrays["features"][:50])
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (10**15,)})
    with zipfile.ZipFile(tmp_path / "features.npz", "a") as archive:
        archive.writestr("labels.npy", header.getvalue() + bytes(8))
    with pytest.raises(InvalidInput, match=r"^'features.npz' cannot be read as .npz arrays: labels.npy has 136 bytes, "
                                           r"expected 8000000000000128$"):
        measure_file(tmp_path / "features.npz")


def test_a_file_that_shrinks_while_it_is_read_is_refused(arrays, tmp_path):
    path = tmp_path / "features.npy"
    np.save(path, arrays["features"])
    np.save(tmp_path / "labels.npy", arrays["labels"])

    def cut(done, total):
        os.truncate(path, 1000)

    with pytest.raises(InvalidInput, match=r"^'features.npy' cannot be read as .npy arrays: it ends within rows "):
        measure_file(path, labels=tmp_path / "labels.npy", on_rows=cut)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"")
    code = (f"import sys; sys.modules['pyarrow'] = None; from neuralcollapse.measure import measure_file; "
            f"measure_file({str(tmp_path / 'a.parquet')!r})")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == ("neuralcollapse.checks.InvalidInput: reading Parquet needs pyarrow: pip "
                                            "install 'neuralcollapse[parquet]'")


LISTS = [[1.0, 2.0], [0.0, 1.0], [3.0, 1.0], [0.0, 5.0]]


@pytest.mark.parametrize(("columns", "message"), [
    ({"features": [*LISTS[:2], [1.0, 2.0, 3.0], LISTS[3]]},
     "column 'features' of a.parquet must hold lists of 2 numbers each, got 3 numbers in row 2"),
    ({"features": [*LISTS[:3], []]},
     "column 'features' of a.parquet must hold lists of 2 numbers each, got 0 numbers in row 3"),
    ({"features": [LISTS[0], None, *LISTS[2:]]},
     "column 'features' of a.parquet must hold lists of 2 numbers each, got null in row 1"),
    ({"features": [None, *LISTS[1:]]}, "column 'features' of a.parquet must hold lists, got null in row 0"),
    ({"features": pa.array([LISTS[0], None, *LISTS[2:]], pa.list_(pa.float32(), 2))},
     "column 'features' of a.parquet must hold lists of 2 numbers each, got null in row 1"),
    ({"features": [*LISTS[:3], [1.0, None]]},
     "column 'features' of a.parquet must hold lists of 2 numbers each, got a null among them in row 3"),
    ({"features": [*LISTS[:3], [1.0, float("nan")]]},
     "features must be finite, got NaN or Inf in row 3 (1 of 4 rows)"),
    ({"features": ["a", "b", "c", "d"]},
     "column 'features' of a.parquet must hold lists of numbers, got string"),
    ({"features": [["a"]] * 4},
     "column 'features' of a.parquet must hold lists of numbers, got list<element: string>"),
    ({"features": [1.0, 2.0, 3.0, 4.0]}, "column 'features' of a.parquet must hold lists of numbers, got double"),
    ({"labels": [0, None, 1, 1]}, "column 'labels' of a.parquet must hold no nulls, got null in row 1"),
    ({"labels": [0, 0.5, 1, 1]}, "labels must be whole numbers 0 … k−1, got float64 ([0.0, 0.5, 1.0, 1.0])"),
    ({"labels": ["cat", "cat", "dog", "dog"]},
     "labels must be whole numbers 0 … k−1, got object (['cat', 'cat', 'dog', 'dog']): give "
     "class indices, such as np.unique(labels, return_inverse=True)[1]"),
    ({"labels": [0, 0, -1, 1]}, "labels must be in 0 … k−1, got -1 at position 2"),
    ({"labels": LISTS}, "labels must be whole numbers 0 … k−1, got object "),
    ({"labels": None}, "'a.parquet' must hold features (n, d), labels (n,) and, for a head, weight (k, d) and bias "
                       "(k,): labels missing, got features"),
    ({"features": None}, "'a.parquet' must hold features (n, d), labels (n,) and, for a head, weight (k, d) and bias "
                         "(k,): features missing, got labels"),
    ({"features": pa.array([], pa.list_(pa.float32())), "labels": pa.array([], pa.int64())},
     "labels must be a vector of at least one class index, got shape (0,)"),
])
def test_a_table_that_cannot_be_measured_says_where(tmp_path, columns, message):
    table = {"features": LISTS, "labels": [0, 0, 1, 1]} | columns
    pq.write_table(pa.table({name: column for name, column in table.items() if column is not None}),
                   tmp_path / "a.parquet")
    with pytest.raises(InvalidInput) as caught:
        measure_file(tmp_path / "a.parquet")
    assert str(caught.value).startswith(message) if message.endswith(" ") else str(caught.value) == message


def test_a_ragged_row_far_into_the_table_is_named(arrays, tmp_path):
    lists = [row.tolist() for row in arrays["features"]]
    lists[33_333] = [1.0]
    pq.write_table(pa.table({"features": lists, "labels": arrays["labels"]}), tmp_path / "a.parquet",
                   row_group_size=7_000)
    with pytest.raises(InvalidInput, match=r"must hold lists of 7 numbers each, got 1 numbers in row 33333$"):
        measure_file(tmp_path / "a.parquet")


# -- fitted classifiers -------------------------------------------------------------------------------


def classes_of(arrays, names, n=400):
    return arrays["features"][:n], np.array(names)[arrays["labels"][:n]]


def fitted(kind, *data, **options):
    from sklearn import linear_model, svm

    return getattr(linear_model if hasattr(linear_model, kind) else svm, kind)(**options).fit(*data)


@pytest.mark.parametrize(("kind", "options"), [
    ("LogisticRegression", {}), ("LogisticRegression", {"fit_intercept": False}), ("LinearSVC", {}),
    ("LinearSVC", {"fit_intercept": False}), ("RidgeClassifier", {}), ("SGDClassifier", {"random_state": 0})])
@pytest.mark.parametrize("names", [["ant", "bee", "cow", "dog"], ["no", "no", "no", "yes"], [7, 3, 9, 5]])
def test_a_fitted_classifier_is_measured_as_it_decides(arrays, kind, options, names):
    features, labels = classes_of(arrays, names)
    classifier = fitted(kind, features, labels, **options)
    found = measure(features, labels, classifier)
    assert found.measured.names == tuple(map(str, sorted(set(names))))
    values = found.to_dict()
    assert values["counts"] == np.unique(labels, return_counts=True)[1].tolist()
    assert values["accuracy"]["overall"] == pytest.approx(classifier.score(features, labels), abs=1e-12)
    scores = classifier.decision_function(features)
    own = np.searchsorted(classifier.classes_, labels)
    if scores.ndim == 1:
        margins = np.where(own == 1, scores, -scores)
    else:
        others = scores.copy()
        others[np.arange(len(own)), own] = -np.inf
        margins = scores[np.arange(len(own)), own] - others.max(1)
    np.testing.assert_allclose(found.measured.samples.margins, margins, rtol=1e-9, atol=1e-12)


def test_two_classes_have_the_probabilities_of_the_fitted_classifier(arrays):
    from neuralcollapse.measure.estimators import fitted_head

    features, labels = classes_of(arrays, ["no", "no", "no", "yes"])
    classifier = fitted("LogisticRegression", features, labels)
    head = fitted_head(classifier)
    z = features @ head.weight.T + head.bias
    softmax = np.exp(z - z.max(1, keepdims=True))
    np.testing.assert_allclose(softmax / softmax.sum(1, keepdims=True), classifier.predict_proba(features), rtol=1e-12,
                               atol=1e-15)
    np.testing.assert_allclose(head.weight.sum(0), 0, atol=1e-15)


def test_what_is_no_fitted_linear_classifier_is_refused(arrays):
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    features, labels = classes_of(arrays, ["ant", "bee", "cow", "cow"])
    good = LogisticRegression().fit(features, labels)
    cases = [
        (LogisticRegression(), labels, {}, "the classifier must be fitted first, got a LogisticRegression without "
                                           "classes_"),
        (KNeighborsClassifier().fit(features, labels), labels, {},
         "the classifier must be linear, with coef_, got a fitted KNeighborsClassifier without"),
        (SVC(kernel="linear").fit(features, labels), labels, {},
         "the classifier must have one row of coef_ per class, got a SVC with 3 rows of pairs of 3 classes"),
        (good, np.where(labels == "bee", "bear", labels), {},
         "labels must be among the classes of the fitted classifier (ant, bee, cow), got bear at position "
         f"{int(np.argmax(labels == 'bee'))}"),
        (good, labels, {"bias": np.zeros(3)},
         "bias was given beside a fitted classifier, which has its own: leave it out"),
        (good, labels[:-1], {}, "features and labels must have the same length, got 400 and 399"),
    ]
    for classifier, given, options, message in cases:
        with pytest.raises(InvalidInput) as caught:
            measure(features, given, classifier, **options)
        assert str(caught.value) == message
    json.dumps(measure(features, labels, good).to_dict(), allow_nan=False)


def test_a_file_of_many_arrays_is_refused_with_the_first_of_their_names(tmp_path):
    np.savez(tmp_path / "many.npz", **{f"layer_{i}": np.ones(1) for i in range(3000)})
    with pytest.raises(InvalidInput, match=r"features missing, got layer_0, .*layer_39, … \(2,960 more\)$"):
        measure_file(tmp_path / "many.npz")
