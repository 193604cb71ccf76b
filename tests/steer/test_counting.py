"""Counts from whatever holds the labels: the same four numbers by every way in, and a question where it is unclear."""

from collections import Counter, UserDict

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.steer.counting import class_counts
from neuralcollapse.steer.losses import VSLoss

LABELS = [0, 2, 1, 0, 0, 2, 0]
TALLY = [4, 1, 2]
NAMES = ["ant", "bee", "cat"]
INPUTS = torch.zeros(7, 2)


class Folder(Dataset):
    """As torchvision's ImageFolder: labels and names beside items that are costly to load."""

    targets, classes = LABELS, NAMES

    def __getitem__(self, index):
        raise AssertionError("an image was loaded to learn its label")

    def __len__(self):
        return len(LABELS)


class Pairs(Folder):
    """A folder whose items are as cheap as their labels."""

    def __getitem__(self, index):
        return 0.0, LABELS[index]


class Items(Dataset):
    """Nothing but items, by index; it ends by its length alone."""

    def __init__(self, make):
        self.make = make

    def __getitem__(self, index):
        return self.make(LABELS[index % len(LABELS)])

    def __len__(self):
        return len(LABELS)


class Stream(IterableDataset):
    def __iter__(self):
        return iter((0.0, label) for label in LABELS)


class ClassLabel:
    names = NAMES


class Table:
    """As a Hugging Face data set: named columns, one of them with class names."""

    column_names = ("text", "label")
    num_rows = len(LABELS)

    def __init__(self, features):
        self.features = features

    def __getitem__(self, column):
        return {"label": LABELS, "text": list("abcdefg")}[column]


def pandas():
    return pytest.importorskip("pandas")


SOURCES = {
    "list": lambda: LABELS, "tuple": lambda: tuple(LABELS), "array": lambda: np.array(LABELS),
    "whole floats": lambda: np.array(LABELS, dtype=float), "tensor": lambda: torch.tensor(LABELS, dtype=torch.int32),
    "tokens": lambda: torch.tensor([*LABELS, -100]).reshape(2, 4),
    "tensors": lambda: TensorDataset(INPUTS, torch.tensor(LABELS)), "folder": Folder, "stream": Stream,
    "pairs": lambda: Items(lambda y: (0.0, y)),
    "mappings": lambda: Items(lambda y: {"x": 0.0, "labels": torch.tensor(y)}),
    "encodings": lambda: Items(lambda y: UserDict(input_ids=[1], label=y)),
    "subset": lambda: Subset(TensorDataset(torch.zeros(9, 1), torch.tensor([1, *LABELS, 1])), range(1, 8)),
    "subset of items": lambda: Subset(Items(lambda y: (0.0, y)), list(range(7))),
    "subset of a subset": lambda: Subset(Subset(Folder(), list(range(7))), [6, 5, 4, 3, 2, 1, 0]),
    "parts": lambda: ConcatDataset([Subset(Folder(), [0, 1, 2]),
                                    TensorDataset(torch.zeros(4), torch.tensor([0, 0, 2, 0]))]),
    "parts of items": lambda: Subset(ConcatDataset([Items(lambda y: (0.0, y))]), list(range(7))),
    "arrow": lambda: pytest.importorskip("pyarrow").table({"label": LABELS, "x": LABELS}),
    "table": lambda: Table({"label": ClassLabel()}), "plain table": lambda: Table({"label": object()}),
    "mapping": lambda: {"label": LABELS, "text": "abc"},
    "loader": lambda: DataLoader(TensorDataset(INPUTS, torch.tensor(LABELS)), batch_size=3),
    "loader of a folder": lambda: DataLoader(Pairs(), batch_size=4),
    "loader of mappings": lambda: DataLoader(Items(lambda y: {"x": 0.0, "label": y}), batch_size=3, shuffle=True),
    "series": lambda: pandas().Series(LABELS), "frame": lambda: pandas().DataFrame({"label": LABELS, "x": 0.0}),
    "categories": lambda: pandas().DataFrame({"label": [NAMES[y] for y in LABELS]}).astype("category"),
    "list of pairs": lambda: [(7, y) for y in LABELS],
    "list of mappings": lambda: [{"x": 7, "label": y} for y in LABELS],
    "list of lists": lambda: [[np.full(3, 7), y] for y in LABELS],
    "part of a list": lambda: Subset([("a.png", y) for y in [1, *LABELS]], list(range(1, 8))),
    "column": lambda: np.array(LABELS)[:, None], "tokens of texts": lambda: [[0, 2, 1], [0, -100], [0, 2, 0]],
    "items of tokens": lambda: [("a", [0, 2, 1]), ("b", [0]), ("c", [0, 2, 0])],
    "tokens of two classes beside others": lambda: [("a", [0, 1]), ("b", [0, 2, 0, 2, 0])],
    "iterator": lambda: ((0.0, y) for y in LABELS), "counts": lambda: ClassCounts(TALLY)}


@pytest.mark.parametrize("source", SOURCES)
def test_every_way_in_gives_the_same_counts(source):
    counts = class_counts(SOURCES[source]())
    assert counts.values.tolist() == TALLY
    named = source in ("folder", "table", "categories", "subset of a subset", "loader of a folder")
    assert counts.names == (tuple(NAMES) if named else ("0", "1", "2"))


@pytest.mark.parametrize(("source", "label"), [
    (lambda: Table({"label": ClassLabel()}), "label"), (lambda: {"y": LABELS}, "y"),
    (lambda: TensorDataset(INPUTS, torch.tensor(LABELS), INPUTS), 1),
    (lambda: Items(lambda y: (0.0, y, "id")), 1), (lambda: Items(lambda y: {"y": y, "label": 0}), "y"),
    (lambda: DataLoader(Items(lambda y: (0.0, 1.0, y)), batch_size=2), -1),
    (lambda: pandas().DataFrame({"label": 0, "species": LABELS}), "species")])
def test_the_place_of_the_labels_can_be_said(source, label):
    assert class_counts(source(), label=label).values.tolist() == TALLY


def test_text_is_counted_in_the_order_of_names():
    text = [NAMES[y] for y in LABELS]
    for source in (text, np.array(text), np.array(text, dtype=object), pandas().Series(text)):
        counts = class_counts(source, names=["cat", "ant", "bee"])
        assert counts.values.tolist() == [2, 4, 1]
        assert counts.names == ("cat", "ant", "bee")


def test_absent_classes_are_counted_as_asked():
    assert class_counts(LABELS, k=5, absent=0.5).values.tolist() == [*TALLY, 0.5, 0.5]
    assert class_counts([0, 0, 7, 1, 7], k=2, ignore_index=7).values.tolist() == [2, 1]


def test_a_loss_in_one_line():
    assert repr(VSLoss.vs(class_counts(Folder()), gamma=0.1, tau=1.0)) == (
        "VSLoss.vs(ClassCounts(4, 1, 2), gamma=0.1, tau=1.0)")


@pytest.mark.parametrize("order", [[1, 0, 2], [2, 1, 0]])
@pytest.mark.parametrize("kind", [int, np.int64, np.uint8, float, torch.tensor])
def test_keys_that_are_whole_numbers_are_class_indices_in_any_order(kind, order):
    assert ClassCounts.from_counts({kind(c): [90, 9, 1][c] for c in order}) == ClassCounts([90, 9, 1])


def test_a_counter_of_labels_does_not_swap_head_and_tail():
    labels = [1, 0, 0, 0, 0]  # a rare class is met first
    assert ClassCounts.from_counts(Counter(labels)).values.tolist() == [4, 1]
    assert ClassCounts.from_counts(Counter(label == 1 for label in labels)).values.tolist() == [4, 1]
    np.testing.assert_array_equal(VSLoss.weighted(Counter(labels)).vectors["weight"], [5 / 8, 5 / 2])
    assert VSLoss(Counter(labels), weight={np.int64(1): 3, 0: 1}).vectors["weight"].tolist() == [5 / 7, 15 / 7]


def test_text_keys_are_names_in_their_own_order_digits_too():
    assert ClassCounts.from_counts({"10": 5, "9": 1}).names == ("10", "9")
    assert ClassCounts.from_counts({"b": 5, "a": 1}).values.tolist() == [5, 1]


@pytest.mark.parametrize(("counts", "message"), [
    ({0: 5, 2: 1}, "every class 0 … 2 needs a count, got none for class 1: drop it from labels and head, or give it a "
     "small positive count"),
    ({1: 5, 2: 1}, "every class 0 … 2 needs a count, got none for class 0: drop it from labels and head, or give it a "
     "small positive count"),
    ({0: 5, -100: 1}, "class indices must be 0 … k−1, got -100 among the keys of counts: leave out labels that are "
     "ignored"),
    (Counter(torch.tensor([0, 1, 0])), "the keys of counts must differ, got 3 for 2 classes: a Counter takes every "
     "element of a tensor as another key, so count labels.tolist()"),
    ({"cat": 5, 0: 1}, "the keys of counts must be class names, or the class indices 0 … k−1, got both 'cat' and 0"),
    ({None: 5, 0: 1}, "the keys of counts must be class names, or the class indices 0 … k−1, got None"),
    ({0.5: 5, 0: 1}, "the keys of counts must be class names, or the class indices 0 … k−1, got 0.5"),
    ({0: 5, 1: 0}, "every class needs a sample, and class 1 has none: drop it from labels and head, or give it a small "
     "positive count (class_counts does with absent=1)"),
    ({}, "counts must name at least two classes, got 0 ([])")])
def test_keys_that_are_no_classes_are_refused_in_one_line(counts, message):
    with pytest.raises(InvalidInput) as error:
        ClassCounts.from_counts(counts)
    assert str(error.value) == message


class Both(Items):
    targets, labels = LABELS, LABELS


@pytest.mark.parametrize(("source", "options", "message"), [
    (lambda: LABELS, {"k": 4}, "every class needs a sample, and class 3 has none: drop it from labels and head, or "
     "give it a small positive count (class_counts does with absent=1)"),
    (lambda: LABELS, {"names": [*NAMES, "dog"]}, "every class needs a sample, and class 'dog' has none: drop it from "
     "labels and head, or give it a small positive count (class_counts does with absent=1)"),
    (lambda: LABELS, {"names": NAMES, "k": 4}, "names must be one per class, expected k = 4, got 3"),
    (lambda: LABELS, {"k": 2}, "labels must be in 0 … 1, got 2 at position 1"),
    (lambda: [0, -1], {}, "labels must be in 0 … k−1, got -1 at position 1"),
    (lambda: [0.5, 1], {}, "labels must be whole numbers 0 … k−1, got float64 ([0.5, 1.0])"),
    (lambda: ["cat", "ant"], {}, "labels are text, such as 'cat': pass names=[...] in the order of the head's outputs"),
    (lambda: ["cat", "cow"], {"names": NAMES}, "labels must be among names (ant, bee, cat), got 'cow'"),
    (list, {}, "the data set must hold at least one label, got none"),
    (lambda: LABELS, {"k": 4, "absent": 0}, "absent must be a positive number, got 0"),
    (lambda: TensorDataset(INPUTS, INPUTS, INPUTS), {}, "the data set has 3 tensors: say which holds the labels, such "
     "as label=2"),
    (lambda: Both(None), {}, "the data set has both targets and labels: say which with label='targets'"),
    (lambda: Items(lambda y: (0.0, 1.0, y)), {}, "items must be pairs (input, label) or dictionaries, got 3 parts: say "
     "where the labels are with label=, or pass the labels themselves"),
    (lambda: Items(lambda y: y), {}, "items must be pairs (input, label) or dictionaries, got int: say where the "
     "labels are with label=, or pass the labels themselves"),
    (lambda: Items(lambda y: {"x": 0, "y": y}), {}, "there is no key 'label' or 'labels' among x, y: say which key "
     "holds the labels with label="),
    (lambda: Items(lambda y: {"label": y, "labels": y}), {}, "there are both label and labels among label, labels: say "
     "which key holds the labels with label="),
    (lambda: Table({}), {"label": "species"}, "there is no column 'species', got text, label"),
    (lambda: {"train": Table({}), "test": Table({})}, {}, "a data set's splits are counted one at a time, got train, "
     "test: pass one, such as dataset['train']"),
    (lambda: pandas().DataFrame({"x": [1, 2]}), {}, "there is no column 'label' or 'labels' among x: say which column "
     "holds the labels with label="),
    (lambda: pandas().Series(["a", None], dtype="category"), {}, "labels must not be missing, got none at position 1"),
    (lambda: np.eye(3, dtype=int)[LABELS], {}, "labels must be class indices, got what looks like one-hot rows: pass "
     "labels.argmax(-1)"),
    (lambda: torch.eye(3)[LABELS], {}, "labels must be class indices, one per sample or token, got float32 of shape "
     "(7, 3): of one-hot rows or probabilities pass labels.argmax(-1)"),
    (lambda: TensorDataset(INPUTS, torch.eye(3, dtype=torch.bool)[LABELS]), {}, "labels must be class indices, one per "
     "sample or token, got bool of shape (7, 3): of one-hot rows or probabilities pass labels.argmax(-1)"),
    (lambda: Items(lambda y: (0.0, torch.eye(3, dtype=torch.int64)[y])), {}, "labels must be class indices, got what "
     "looks like one-hot rows: pass labels.argmax(-1)"),
    (lambda: DataLoader(TensorDataset(INPUTS, torch.eye(3, dtype=torch.int64)[LABELS]), batch_size=3), {},
     "labels must be class indices, got what looks like one-hot rows: pass labels.argmax(-1)"),
    (lambda: (np.zeros((7, 2)), np.array(LABELS)), {}, "labels must be one array or list, or lists of tokens, got "
     "parts of shapes [(7, 2), (7,)]: pass the labels themselves"),
    (lambda: [(0, 1, 2)], {}, "items must be pairs (input, label) or dictionaries, got 3 parts: say where the labels "
     "are with label=, or pass the labels themselves"),
    (lambda: TensorDataset(INPUTS, torch.tensor(LABELS)), {"label": "y"}, "label must be the place of one of the data "
     "set's 2 tensors, got 'y'"),
    (lambda: LABELS, {"names": "abc"}, "names must be a list of class names, got abc"),
    (lambda: 5, {}, "labels must come from an array, a column, a data set or a DataLoader, got int: pass the labels "
     "themselves"),
    (lambda: "labels.csv", {}, "labels must come from an array, a column, a data set or a DataLoader, got str: pass "
     "the labels themselves"),
])
def test_what_is_unclear_is_asked_in_one_line(source, options, message):
    with pytest.raises(InvalidInput) as error:
        class_counts(source(), **options)
    assert str(error.value) == message
