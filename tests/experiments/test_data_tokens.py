"""Token ids and text: classes, unknown tokens, windows, and every bad one with its message."""

from collections import Counter

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data import LazyInputs, load, load_data, load_samples

LENGTH = 6


def sentences(n=60, words=9, seed=0):
    return np.random.default_rng(seed).integers(0, words, (n, LENGTH)) * 1000 + 7  # ids far apart


def write_npz(folder, ids, labels):
    np.savez(folder / "a.npz", input_ids=ids, **({} if labels is None else {"labels": labels}))
    return f"tokens:{folder / 'a.npz'}"


def write_parquet(folder, ids, labels):
    columns = {"input_ids": pa.array(ids.tolist(), pa.list_(pa.int32()))}
    pq.write_table(pa.table(columns if labels is None else {**columns, "labels": labels}), folder / "a.parquet")
    return f"tokens:{folder / 'a.parquet'}"


def write_saved(folder, ids, labels):
    columns = {"input_ids": ids.tolist(), "attention_mask": np.ones_like(ids).tolist()}
    table = datasets.Dataset.from_dict(columns if labels is None else {**columns, "labels": labels.tolist()})
    table.save_to_disk(folder / "saved")
    return f"hf:{folder / 'saved'}"


WRITERS = (write_npz, write_parquet, write_saved)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_sequences_with_labels(write, tmp_path, monkeypatch):
    ids, labels = sentences(), np.arange(60) % 3
    ids[5, -2:] = -1  # padding
    given = TrainConfig(dataset=write(tmp_path, ids, labels), imbalance="long-tail", ratio=8)
    data = load_data(given)
    assert data.counts.values.tolist() == [16, 5, 2]
    train = ids[data.indices]
    known = np.unique(train[train >= 0])
    assert data.tokens == known.size + 1
    number = {int(token): place for place, token in enumerate(known)}
    for inputs, rows in ((data.inputs, train), (data.test_inputs, ids[data.test_indices])):
        assert inputs.tolist() == [[number.get(token, known.size) for token in row] for row in rows.tolist()]
    assert np.array_equal(labels[data.indices], data.labels.numpy())
    assert (data.mean.tolist(), data.spread.tolist()) == ([], [])
    monkeypatch.setattr(load, "IN_MEMORY", 0)
    lazy = load_data(given)
    assert isinstance(lazy.inputs, LazyInputs)
    assert lazy.inputs.element_size() == 8
    assert torch.equal(lazy.inputs[:], data.inputs)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
@pytest.mark.parametrize("bytes_in_memory", [2**30, 0])
def test_next_tokens(write, tmp_path, monkeypatch, bytes_in_memory):
    monkeypatch.setattr(load, "IN_MEMORY", bytes_in_memory)
    ids = sentences(words=12)
    data = load_data(TrainConfig(dataset=write(tmp_path, ids, None), imbalance="natural", seed=2))
    assert (len(data.indices), len(data.test_indices)) == (48, 12)
    assert sorted([*data.indices, *data.test_indices]) == list(range(60))
    times = Counter(ids[data.indices][:, 1:].ravel().tolist())
    assert dict(zip(map(int, data.counts.names), data.counts.values.tolist(), strict=True)) == times
    assert data.tokens == data.counts.k + 1
    number = {int(name): c for c, name in enumerate(data.counts.names)}
    for inputs, labels, rows in ((data.inputs, data.labels, ids[data.indices]),
                                 (data.test_inputs, data.test_labels, ids[data.test_indices])):
        assert inputs[:].tolist() == [[number.get(token, data.counts.k) for token in row[:-1]] for row in rows.tolist()]
        assert labels.tolist() == [[number.get(token, -100) for token in row[1:]] for row in rows.tolist()]
    assert data.test_counts.sum() == (data.test_labels >= 0).sum()


TEXT = "The cat saw the dog. The dog didn't see the cat!\n" * 30


def test_text_is_words_in_windows(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    samples = load_samples(f"text:{tmp_path / 'a.txt'}", {"length": 5})
    words = [samples.names[token] for window in samples.inputs[np.arange(3)] for token in window[:-1]]
    assert words == ["the", "cat", "saw", "the", "dog", ".", "the", "dog", "didn't", "see", "the", "cat", "!", "the",
                     "cat"]
    # The word after each window's last is the first of the next window.
    assert samples.inputs[np.array([0])][0, -1] == samples.inputs[np.array([1])][0, 0]
    assert len(samples.inputs) == (13 * 30 - 1) // 5


def test_a_vocabulary_keeps_the_most_frequent_words(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    data = load_data(TrainConfig(dataset=f"text:{tmp_path / 'a.txt'}", imbalance="natural",
                                 data_options={"length": 5, "vocabulary": 3}))
    assert sorted(data.counts.names) == ["cat", "dog", "the"]
    assert data.tokens == 4
    assert set(data.inputs.unique().tolist()) == {0, 1, 2, 3}
    assert set(data.labels.unique().tolist()) == {-100, 0, 1, 2}


@pytest.mark.parametrize("bytes_in_memory", [2**30, 0])
def test_bytes(tmp_path, monkeypatch, bytes_in_memory):
    monkeypatch.setattr(load, "IN_MEMORY", bytes_in_memory)
    (tmp_path / "a.txt").write_bytes(TEXT.encode())
    data = load_data(TrainConfig(dataset=f"text:{tmp_path / 'a.txt'}", imbalance="natural",
                                 data_options={"unit": "byte", "length": 10}))
    first = data.inputs[0]
    start = 10 * int(data.indices[0])
    names = [data.counts.names[token] for token in first.tolist()]
    assert [chr(int(n, 16)) if n.startswith("0x") else n for n in names] == list(TEXT[start : start + 10])
    assert {"0x0a", "0x20", "T"} < set(data.counts.names)


def test_too_rare_for_the_training_part_has_no_class(tmp_path):
    ids = np.tile([1, 2, 3, 1], (20, 1))
    seed = 0
    rare = load_data(TrainConfig(dataset=write_npz(tmp_path, ids, None), imbalance="natural", seed=seed))
    ids[rare.test_indices[0], 2] = 99
    data = load_data(TrainConfig(dataset=write_npz(tmp_path, ids, None), imbalance="natural", seed=seed))
    assert data.counts.names == ("1", "2", "3")
    assert data.test_labels[0].tolist() == [1, -100, 0]
    assert data.test_inputs[0].tolist() == [0, 1, 3]


BAD = [
    ({"imbalance": "step"}, "imbalance 'step' chooses samples by class, which next-token data do not allow, every "
                            "token of 'NAME' being a class: give imbalance natural, and neither n_max nor sampling"),
    ({"n_max": 5}, "n_max 5 chooses samples by class, which next-token data do not allow, every token of 'NAME' being "
                   "a class: give imbalance natural, and neither n_max nor sampling"),
    ({"sampling": "oversampled"}, "sampling 'oversampled' chooses samples by class, which next-token data do not "
                                  "allow, every token of 'NAME' being a class: give imbalance natural, and neither "
                                  "n_max nor sampling"),
    ({"augment": "standard"}, "augment 'standard' needs images, got samples of shape (11,)"),
    ({"data_options": {"unit": "letter"}}, "data option 'unit' must be word or byte, got letter"),
    ({"data_options": {"length": 500}}, "'PATH' must hold more than 500 words for one window, got 390"),
    ({"data_options": {"length": 300}}, "the data set is too small for a test part: 1 window of tokens, expected at "
                                        "least 2"),
    ({"data_options": {"length": 0}}, "data option 'length' must be a whole number ≥ 1, got 0"),
    ({"data_options": {"words": 3}}, "unknown option 'words' of data set 'text': known: length, unit, vocabulary"),
    ({"data_options": {"length": 10, "vocabulary": 1}},
     "counts must name at least two classes, got 1 ([VALUES])"),
]


@pytest.mark.parametrize(("settings", "message"), BAD, ids=lambda value: str(value)[:50])
def test_bad_text_setting(settings, message, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    with pytest.raises(InvalidInput) as error:
        load_data(TrainConfig(**{"dataset": f"text:{path}", "imbalance": "natural", "data_options": {"length": 10},
                                 **settings}))
    said = str(error.value)
    assert said.split("([")[0] == message.replace("NAME", f"text:{path}").replace("PATH", str(path)).split("([")[0]


@pytest.mark.parametrize(("content", "options", "message"), [
    (None, {}, "cannot read the data set 'PATH': No such file or directory"),
    (None, {"unit": "byte"}, "cannot read the data set 'PATH': No such file or directory"),
    (b"\xff\xfe\x00", {}, "cannot read the data set 'PATH': not UTF-8 text"),
    (b"", {"unit": "byte"}, "'PATH' must hold more than 64 bytes for one window, got 0")])
def test_bad_text(tmp_path, content, options, message):
    path = tmp_path / "a.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInput) as error:
        load_samples(f"text:{path}", options)
    assert str(error.value) == message.replace("PATH", str(path))


@pytest.mark.parametrize(("arrays", "message"), [
    ({"ids": sentences()}, "'PATH' must hold an array 'input_ids', got ids"),
    ({"input_ids": sentences() / 2}, "input_ids of 'PATH' must be whole numbers of shape (N, length), got float64 of "
                                     "shape (60, 6)"),
    ({"input_ids": sentences()[:, 0]}, "input_ids of 'PATH' must be whole numbers of shape (N, length), got int64 of "
                                       "shape (60,)"),
    ({"input_ids": sentences()[:, :1]}, "'PATH' must hold at least 2 token ids per row to predict the next, got 1"),
    ({"input_ids": sentences(), "labels": np.zeros(5)}, "'PATH' must hold one label per sample, expected 60, got shape "
                                                        "(5,)")])
def test_bad_token_arrays(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InvalidInput) as error:
        load_samples(f"tokens:{tmp_path / 'a.npz'}")
    assert str(error.value) == message.replace("PATH", str(tmp_path / "a.npz"))


def test_rows_of_several_lengths_are_named(tmp_path):
    rows = [[1, 2, 3]] * 20 + [[1, 2]] + [[1, 2, 3]] * 9
    pq.write_table(pa.table({"input_ids": rows, "labels": np.arange(30) % 2}), tmp_path / "a.parquet")
    with pytest.raises(InvalidInput) as error:
        load_data(TrainConfig(dataset=f"tokens:{tmp_path / 'a.parquet'}", imbalance="natural"))
    assert str(error.value) == (f"column 'input_ids' of '{tmp_path / 'a.parquet'}' must hold lists of 3 in every row, "
                                "but does not in row 20")


def test_a_test_part_without_any_known_label_is_refused(tmp_path):
    ids = np.tile([1, 2, 3, 1], (10, 1))
    given = TrainConfig(dataset=write_npz(tmp_path, ids, None), imbalance="natural")
    ids[load_data(given).test_indices] = 50
    write_npz(tmp_path, ids, None)
    with pytest.raises(InvalidInput, match=r"^no token of the test part of 'tokens:.*' is one that the training part "
                                           r"predicts$"):
        load_data(given)
