"""Class counts: profiles, groups, subsampling, and every way to get them wrong."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.groups import group_equal
from neuralcollapse.label_files import counts_from_file


def test_step_and_long_tail_are_the_papers_profiles():
    assert ClassCounts.step(10, 100, 0.5, n_max=5000).values.tolist() == [5000] * 5 + [50] * 5
    assert ClassCounts.step(10, 10, 0.3, n_min=7).values.tolist() == [70] * 7 + [7] * 3
    # CIFAR-10-LT at ratio 100, as published with Cui et al.'s code.
    assert ClassCounts.long_tail(10, 100, 5000).values.tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


@pytest.mark.parametrize("ratio", [2, 10, 50, 100, 1000, 1e6])
@pytest.mark.parametrize("classes", [2, 7, 100])
def test_a_long_tail_ends_at_exactly_n_max_over_ratio(classes, ratio):
    assert ClassCounts.long_tail(classes, ratio, 5 * ratio).values[-1] == 5


@given(st.lists(st.sampled_from([1, 2, 2.5, 7, 10**9]), min_size=2, max_size=30))
def test_groups_partition_by_value(values):
    counts = ClassCounts(values)
    groups = counts.groups
    assert groups.sizes.sum() == counts.k
    np.testing.assert_array_equal(counts.values[groups.first][groups.index], counts.values)
    assert groups.sizes.size == len(set(values))
    assert all(np.flatnonzero(groups.index == g)[0] == c for g, c in enumerate(groups.first))


def test_grouping_by_several_columns_refines():
    a, b = np.array([1, 1, 2, 2, 1.0]), np.array([5, 6, 5, 5, 5.0])
    groups = group_equal(a, b)
    pairs = list(zip(a, b, strict=True))
    same = np.equal.outer(groups.index, groups.index)
    assert all(same[i, j] == (pairs[i] == pairs[j]) for i in range(5) for j in range(5))


def test_minorities_are_below_the_geometric_mean():
    assert ClassCounts([100, 100, 1, 1]).minority.tolist() == [False, False, True, True]
    assert not ClassCounts([5, 5, 5]).minority.any()
    assert ClassCounts([500, 107, 23, 5]).minority.tolist() == [False, False, True, True]


def test_equal_counts_hash_alike():
    plain, named = ClassCounts([1, 2]), ClassCounts([1, 2], ["0", "1"])
    assert plain == named
    assert len({plain, named}) == 1
    assert plain != ClassCounts([1, 2], ["a", "b"])


@given(st.lists(st.integers(1, 20), min_size=2, max_size=8), st.integers(0, 2**32 - 1))
def test_subsample_realises_the_counts_without_replacement(wanted, seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(wanted)), 20))
    kept = ClassCounts(wanted).subsample(labels, np.random.default_rng(seed))
    assert np.bincount(labels[kept], minlength=len(wanted)).tolist() == wanted
    assert np.all(np.diff(kept) > 0)
    np.testing.assert_array_equal(kept, ClassCounts(wanted).subsample(labels, np.random.default_rng(seed)))


def test_subsample_is_uniform_within_a_class():
    labels = np.zeros(10, dtype=int)
    labels[-1] = 1
    chosen = sum(np.isin(np.arange(10), ClassCounts([3, 1]).subsample(labels, np.random.default_rng(s)))
                 for s in range(3000))
    np.testing.assert_allclose(chosen[:9], 1000, atol=120)  # 4.6 standard deviations of binomial(3000, 1/3)


class Series:
    """As pandas' `value_counts` gives them: sorted by size, classes in the index."""

    def __init__(self, values):
        self.index, self.values = list(values), list(values.values())

    def items(self):
        return zip(self.index, self.values, strict=True)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype=dtype)


@pytest.mark.parametrize("make", [ClassCounts, ClassCounts.from_counts])
def test_counts_by_class_are_read_by_their_keys(make):
    labels = [2, 2, 0, 1, 1, 1]
    for counts in (Counter(labels), Series({1: 3, 2: 2, 0: 1}), {np.int64(1): 3, 0: 1.0, 2: 2}):
        assert make(counts) == ClassCounts([1, 3, 2])
    named = make(Series({"dog": 3, "cat": 2}))
    assert (named.names, named.values.tolist()) == (("dog", "cat"), [3, 2])
    assert make(Counter(labels), ["a", "b", "c"]) == ClassCounts([1, 3, 2], ["a", "b", "c"])


@pytest.mark.parametrize("make", [ClassCounts, ClassCounts.from_counts])
def test_value_counts_of_pandas(make):
    pandas = pytest.importorskip("pandas")
    assert make(pandas.Series([2, 2, 0, 1, 1, 1]).value_counts()) == ClassCounts([1, 3, 2])
    assert make(pandas.Series(["b", "a", "b"]).value_counts()) == ClassCounts([2, 1], ["b", "a"])
    with pytest.raises(InvalidInput, match="the keys of counts must differ, got 2 for 1 classes"):
        make(pandas.Series([3, 2], index=[0, 0]))


BAD = [
    (lambda: ClassCounts([5, 0, 0]), "every class needs a sample, and class 1 has none (nor have 1 more): drop it from "
     "labels and head, or give it a small positive count (class_counts does with absent=1)"),
    (lambda: ClassCounts([5, -1]), "counts must be at least two positive numbers, got -1 for class 1: drop empty "
                                   "classes first"),
    (lambda: ClassCounts([5, float("nan")]), "counts must be finite, got nan at position 1 (1 of 2 values)"),
    (lambda: ClassCounts([5]), "counts must name at least two classes, got 1 ([5])"),
    (lambda: ClassCounts.from_counts("10,x"), "counts must be numbers separated by commas, such as 10,10,1,1, "
                                              "got '10,x'"),
    (lambda: ClassCounts([5, 5], ["a"]), "names must be one per class, expected 2, got 1"),
    (lambda: ClassCounts.step(10, 0.5, n_min=1), "ratio must be a number ≥ 1 (largest count over smallest), got 0.5"),
    (lambda: ClassCounts.step(1, 2, n_min=1), "classes must be a whole number ≥ 2, got 1"),
    (lambda: ClassCounts.step(10, 2), "step needs exactly one of n_min and n_max, got n_min=None, n_max=None"),
    (lambda: ClassCounts.step(10, 2, 0.25, n_min=1), "minority × classes must be a whole number, got 0.25 × 10 = 2.5: "
                                                     "the nearest share is 0.2"),
    (lambda: ClassCounts.step(10, 2, 1.5, n_min=1), "minority must be a share between 0 and 1, got 1.5"),
    (lambda: ClassCounts.long_tail(10, 100, 50), "n_max / ratio must leave the last class at least 1 sample, got "
                                                 "50 / 100 = 0.5"),
    (lambda: ClassCounts.from_labels([0, 1, -1]), "labels must be in 0 … k−1, got -1 at position 2"),
    (lambda: ClassCounts.from_labels([1, 2, 2, 3]), "every class needs a sample, and class 0 has none: labels count "
                                                    "from 0, and the smallest one here is 1"),
    (lambda: ClassCounts.from_labels(["a"]), "labels must be whole numbers 0 … k−1, got <U1 (['a']): give class "
                                             "indices, such as np.unique(labels, return_inverse=True)[1]"),
    (lambda: ClassCounts.from_labels([0, 3], classes=3), "labels must be in 0 … 2, got 3 at position 1"),
    (lambda: ClassCounts.from_labels([0.5, 1]), "labels must be whole numbers 0 … k−1, got float64 ([0.5, 1.0])"),
    (lambda: ClassCounts([2, 9]).subsample([0, 0, 1], np.random.default_rng(0)),
     "the data set is too small for these counts: class 1 has 1 of 9"),
    (lambda: ClassCounts([2.5, 1]).subsample([0, 0, 0, 1], np.random.default_rng(0)),
     "counts must be whole numbers to draw samples, got ClassCounts(2.5, 1): round them first with .rounded()"),
    (lambda: counts_from_file("absent.txt"), "no such file of labels: 'absent.txt'"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_input_gets_its_one_line(call, message):
    with pytest.raises(InvalidInput) as caught:
        call()
    assert str(caught.value) == message


def test_label_files(tmp_path):
    (tmp_path / "a.txt").write_text("0\n1\n0\n\n")
    np.save(tmp_path / "b.npy", np.array([0, 1, 0]))
    np.savez(tmp_path / "c.npz", labels=np.array([0, 1, 0]))
    (tmp_path / "d.csv").write_text("red fox\nbadger\nred fox\n")
    for name in ("a.txt", "b.npy", "c.npz"):
        assert counts_from_file(tmp_path / name).values.tolist() == [2, 1]
    named = counts_from_file(tmp_path / "d.csv")
    assert (named.names, named.values.tolist()) == (("badger", "red fox"), [1, 2])
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidInput, match="cannot be read as labels"):
        counts_from_file(tmp_path / "pickled.npy")
