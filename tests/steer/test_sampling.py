"""Samplers by exact counting and under those who share draws out; binding in batches and in the geometry."""

from collections import Counter
import itertools
import math

from accelerate.data_loader import BatchSamplerShard, prepare_data_loader
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, TensorDataset

from neuralcollapse.checks import InvalidInput
from neuralcollapse.steer.binding import BatchBinding, BindingBatchSampler, binding_examples
from neuralcollapse.steer.contrastive import SupConLoss
from neuralcollapse.steer.sampling import BalancedBatchSampler, ClassAwareSampler

LABELS = [0] * 40 + [1] * 12 + [2] * 3 + [3]
SHUFFLED = torch.tensor(LABELS)[torch.randperm(56, generator=torch.Generator().manual_seed(0))]


def by_class(indices, labels=SHUFFLED):
    """How often each class is drawn."""
    drawn = Counter(int(labels[i]) for i in indices)
    return [drawn[c] for c in range(int(max(labels)) + 1)]


def assert_in_passes(indices, labels):
    """No sample again before every other of its class: counts within a class differ by at most one at any time."""
    seen = Counter(dict.fromkeys(range(len(labels)), 0))
    for i in indices:
        seen[i] += 1
        least = min(seen[j] for j in range(len(labels)) if labels[j] == labels[i])
        assert seen[i] <= least + 1


# -- class-aware sampling --------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(0, 30), min_size=2, max_size=6).filter(any), balance=st.sampled_from([0, 0.5, 1, 2]),
       draws=st.integers(1, 90), seed=st.integers(0, 5))
def test_every_epoch_holds_its_share_of_each_class(counts, balance, draws, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    sampler = ClassAwareSampler(labels, balance=balance, num_samples=draws, seed=seed, rank=0, world_size=1)
    weights = [n ** (1 - balance) if n else 0.0 for n in counts]
    drawn = []
    for _ in range(4):
        epoch = list(sampler)
        assert len(epoch) == len(sampler) == draws
        for c, found in enumerate(by_class(epoch, [*labels, len(counts) - 1])):
            assert abs(found - draws * weights[c] / sum(weights)) < 1 - 1e-9  # the whole number below, or above
        drawn += epoch
    assert_in_passes(drawn, labels.tolist())  # passes go on across epochs


def test_the_shares_are_exact_on_average():
    """Of 7 draws uniform over 4 classes each class has 1 or 2; over many epochs 7/4."""
    sampler = ClassAwareSampler(SHUFFLED, num_samples=7)
    drawn = np.array([by_class(sampler) for _ in range(2000)])
    assert set(np.unique(drawn)) == {1, 2}
    np.testing.assert_allclose(drawn.mean(0), 7 / 4, rtol=0, atol=4 * math.sqrt(3 / 16 / 2000))  # four standard errors


def test_uniform_and_by_frequency():
    uniform = ClassAwareSampler(SHUFFLED, num_samples=400)
    plain = ClassAwareSampler(SHUFFLED, balance=0)
    for _ in range(3):
        assert by_class(uniform) == [100, 100, 100, 100]
        assert sorted(plain) == list(range(56))
    drawn = Counter(ClassAwareSampler(SHUFFLED, num_samples=400))
    assert {drawn[i] for i in range(56) if SHUFFLED[i] == 0} == {2, 3}
    assert {drawn[i] for i in range(56) if SHUFFLED[i] == 2} == {33, 34}


def test_classes_without_a_sample_are_passed_over():
    assert by_class(ClassAwareSampler([0, 0, 2, 5], num_samples=30), [0, 0, 2, 5]) == [10, 0, 10, 0, 0, 10]


def test_orders_differ_between_epochs_and_seeds_and_not_otherwise():
    first, again, other = (ClassAwareSampler(SHUFFLED, seed=seed) for seed in (3, 3, 4))
    epochs = [list(first) for _ in range(3)]
    assert [list(again) for _ in range(3)] == epochs
    assert epochs[0] != epochs[1] != epochs[2]
    assert list(other) != epochs[0]
    again.set_epoch(1)
    assert list(again) == epochs[1]
    assert first.sequence(2).tolist() == epochs[2]


def test_every_order_of_a_class_is_as_likely():
    sampler = ClassAwareSampler([0, 0, 0, 1], balance=0)
    orders = Counter(tuple(i for i in sampler if i < 3) for _ in range(3000))
    assert len(orders) == 6
    np.testing.assert_allclose(list(orders.values()), 500, rtol=0, atol=5 * math.sqrt(500))  # five standard deviations


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_processes_share_one_sequence_in_equal_parts(world):
    parts = [list(ClassAwareSampler(SHUFFLED, num_samples=56, seed=1, rank=rank, world_size=world))
             for rank in range(world)]
    assert {len(part) for part in parts} == {math.ceil(56 / world)}
    together = [index for step in zip(*parts, strict=True) for index in step]
    assert together == ClassAwareSampler(SHUFFLED, num_samples=len(together), seed=1).sequence(0).tolist()
    assert_in_passes(together, SHUFFLED.tolist())


def test_it_resumes_where_it_stopped():
    whole, stopped = (ClassAwareSampler(SHUFFLED, seed=2) for _ in range(2))
    expected = [list(whole) for _ in range(3)]
    list(stopped)
    part = list(itertools.islice(stopped, 20))
    state = stopped.state_dict()
    assert state == {"epoch": 1, "position": 20}
    resumed = ClassAwareSampler(SHUFFLED, seed=2)
    resumed.load_state_dict(state)
    resumed.set_epoch(1)  # a training loop says the epoch again
    assert resumed.state_dict() == state
    assert part + list(resumed) == expected[1]
    assert list(resumed) == expected[2]
    resumed.load_state_dict(state)
    resumed.set_epoch(0)
    assert list(resumed) == expected[0]


def test_it_resumes_under_a_loader():
    data = TensorDataset(torch.arange(56))
    sampler = ClassAwareSampler(SHUFFLED, seed=2)
    batches = [batch[0].tolist() for batch in DataLoader(data, batch_size=8, sampler=sampler)]
    sampler.load_state_dict({"epoch": 0, "position": 3 * 8})
    rest = [batch[0].tolist() for batch in DataLoader(data, batch_size=8, sampler=sampler)]
    assert rest == batches[3:]


# -- under those who share draws out by themselves -------------------------------------------------------------------


def test_accelerate_deals_the_batches_of_the_common_sequence():
    expected = [ClassAwareSampler(SHUFFLED, seed=1).sequence(epoch).tolist() for epoch in range(2)]
    loaders = [prepare_data_loader(DataLoader(TensorDataset(torch.arange(56)), batch_size=7, sampler=ClassAwareSampler(
        SHUFFLED, seed=1, rank=0, world_size=1)), num_processes=2, process_index=process) for process in range(2)]
    for epoch in range(2):
        dealt = [[batch[0].tolist() for batch in loader] for loader in loaders]
        assert [i for step in zip(*dealt, strict=True) for batch in step for i in batch] == expected[epoch]


def test_accelerate_chooses_the_epoch_of_batch_samplers():
    def batches(process):
        inner = BalancedBatchSampler(SHUFFLED, classes_per_batch=2, samples_per_class=3, rank=0, world_size=1)
        bound = BindingBatchSampler(inner, SHUFFLED)
        return prepare_data_loader(DataLoader(TensorDataset(torch.arange(56)), batch_sampler=bound), num_processes=2,
                                   process_index=process, even_batches=False)
    loaders = [batches(process) for process in range(2)]
    direct = BindingBatchSampler(BalancedBatchSampler(SHUFFLED, classes_per_batch=2, samples_per_class=3), SHUFFLED)
    for epoch in (0, 1, 5):  # the first two by themselves
        if epoch == 5:
            for part in (direct, *loaders):
                part.set_epoch(5)
        dealt = [[batch[0].tolist() for batch in loader] for loader in loaders]
        assert [b for step in zip(*dealt, strict=True) for b in step] == list(direct)


def test_lightning_wraps_it_and_chooses_its_epoch():
    wrapped = [DistributedSamplerWrapper(ClassAwareSampler(SHUFFLED, rank=0, world_size=1), num_replicas=2, rank=rank,
                                         shuffle=False) for rank in range(2)]
    for epoch in (0, 1, 4):
        for part in wrapped:
            part.set_epoch(epoch)
        together = [i for step in zip(*wrapped, strict=True) for i in step]
        assert together == ClassAwareSampler(SHUFFLED).sequence(epoch).tolist()


@pytest.mark.parametrize("bound", [False, True])
def test_lightning_finds_the_epoch_of_a_batch_sampler(bound):
    def made():
        inner = BalancedBatchSampler(SHUFFLED, classes_per_batch=2, samples_per_class=3)
        return BindingBatchSampler(inner, SHUFFLED) if bound else inner
    loader, expected = DataLoader(TensorDataset(torch.arange(56)), batch_sampler=made()), made()
    _set_sampler_epoch(loader, 3)
    expected.set_epoch(3)
    assert [batch[0].tolist() for batch in loader] == list(expected)


# -- balanced batches ------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(k=st.integers(2, 9), m=st.integers(1, 9), p=st.integers(1, 5), batches=st.integers(1, 20),
       seed=st.integers(0, 5))
def test_batches_hold_m_classes_of_p_samples(k, m, p, batches, seed):
    m = min(m, k)
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(k), np.arange(5, 5 + k)))
    sampler = BalancedBatchSampler(labels, classes_per_batch=m, samples_per_class=p, batches=batches, seed=seed)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == batches
    for batch in drawn:
        assert Counter(Counter(labels[batch].tolist()).values()) == {p: m}
        assert max(Counter(batch).values()) == 1  # every class has p samples
    of_class = Counter(labels[np.concatenate(drawn)].tolist())
    assert max(of_class[c] for c in range(k)) - min(of_class[c] for c in range(k)) <= p
    assert_in_passes(np.concatenate(drawn).tolist(), labels.tolist())
    assert list(sampler) != drawn or len(drawn) * m * p < 4  # another epoch
    sampler.set_epoch(0)
    assert list(sampler) == drawn


def test_a_sample_repeats_in_a_batch_only_where_its_class_has_too_few():
    labels = np.repeat(np.arange(6), [2, 3, 4, 5, 6, 9])
    sampler = BalancedBatchSampler(labels, classes_per_batch=3, samples_per_class=4, batches=400, seed=1)
    first = Counter()
    for batch in sampler:
        drawn = Counter(batch)
        assert all(times == 1 or labels[i] < 2 for i, times in drawn.items())
        first.update(batch[:4])
    for c in range(2, 6):  # and no sample is preferred by it
        times = [first[i] for i in np.flatnonzero(labels == c)]
        assert max(times) - min(times) < 6 * math.sqrt(np.mean(times))


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_whole_batches(world):
    made = {"classes_per_batch": 3, "samples_per_class": 4, "batches": 7, "seed": 1}
    parts = [list(BalancedBatchSampler(SHUFFLED, rank=rank, world_size=world, **made)) for rank in range(world)]
    assert {len(part) for part in parts} == {math.ceil(7 / world)}
    whole = BalancedBatchSampler(SHUFFLED, **{**made, "batches": world * len(parts[0])})
    assert [batch for step in zip(*parts, strict=True) for batch in step] == list(whole)


def test_every_anchor_of_a_balanced_batch_has_positives():
    rows = torch.randn(56, 4, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(rows, SHUFFLED), batch_sampler=BalancedBatchSampler(
        SHUFFLED, classes_per_batch=4, samples_per_class=2))
    for x, y in loader:
        assert (SupConLoss(reduction="none")(x, y) > 0).all()


# -- batch-binding ---------------------------------------------------------------------------------------------------


def test_binding_examples_are_one_of_each_class_and_fixed():
    examples = binding_examples(SHUFFLED, seed=1)
    assert SHUFFLED[examples].tolist() == [0, 1, 2, 3]
    assert examples == binding_examples(SHUFFLED.numpy(), seed=1)
    assert len({tuple(binding_examples(SHUFFLED, seed=seed)) for seed in range(9)}) > 1


def test_every_batch_is_bound_and_holds_no_sample_twice():
    examples = binding_examples(SHUFFLED, seed=1)
    plain = BatchSampler(SequentialSampler(range(56)), 8, drop_last=False)
    bound = BindingBatchSampler(plain, SHUFFLED, seed=1)
    assert len(bound) == len(plain) == 7
    for batch, more in zip(plain, bound, strict=True):
        assert more[:8] == batch
        assert sorted(more) == sorted(set(batch) | set(examples))
    loader = DataLoader(TensorDataset(torch.arange(56), SHUFFLED), batch_sampler=bound)
    assert all(set(y.tolist()) == {0, 1, 2, 3} for _, y in loader)
    shards = [list(BatchSamplerShard(bound, 2, process, even_batches=False)) for process in range(2)]
    assert sorted(map(len, shards)) == [3, 4]
    assert all(set(examples) <= set(batch) for shard in shards for batch in shard)


def test_collating_binds_the_batches_of_any_loader():
    data = TensorDataset(torch.arange(56), SHUFFLED)
    binding = BatchBinding(data, SHUFFLED, seed=1)
    for x, y in DataLoader(data, batch_size=8, collate_fn=binding):
        assert len(x) == 12
        assert x[8:].tolist() == binding_examples(SHUFFLED, seed=1)
        assert y[8:].tolist() == [0, 1, 2, 3]
    chosen = [SHUFFLED.tolist().index(c) for c in (3, 1, 0, 2)]
    listed = BatchBinding(data, SHUFFLED, examples=chosen, collate=list)
    assert [int(x) for x, _ in listed([data[0]])] == [0, *chosen]


def test_binding_makes_separate_batches_reach_one_orthogonal_frame():
    """Fixed batches in which classes 0 and 3 never meet, and class 0 is in two that share none of its samples."""
    labels = torch.arange(4).repeat_interleave(torch.tensor([8, 8, 4, 4]))
    batches = [[*range(4), *range(8, 12)], [*range(4, 8), *range(16, 20)], [*range(12, 16), *range(20, 24)]]
    same = (labels[:, None] == labels).double()

    def furthest(batches):
        """The largest entry of HᵀH less that of an orthogonal frame, after training on the batches."""
        rows = torch.rand(24, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
        loss = SupConLoss(0.5, nonnegative=True)
        optimiser = torch.optim.Adam([rows], lr=0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 400)
        for _ in range(400):
            optimiser.zero_grad()
            sum(loss(rows[batch], labels[batch]) for batch in batches).backward()
            optimiser.step()
            schedule.step()
        unit = F.normalize(rows.detach().relu())
        return (unit @ unit.T - same).abs().max()
    assert furthest(batches) > 0.3
    assert furthest(list(BindingBatchSampler(batches, labels))) < 1e-3


# -- bad input -------------------------------------------------------------------------------------------------------

FOUR, DATA = [0, 0, 1, 1], TensorDataset(torch.arange(3))
BAD = [
    (lambda: ClassAwareSampler([]), "labels must be a vector of at least one class index, got shape (0,)"),
    (lambda: ClassAwareSampler([0, -1]), "labels must be in 0 … k−1, got -1 at position 1"),
    (lambda: ClassAwareSampler([0.5, 1]), "labels must be whole numbers 0 … k−1, got float64 ([0.5, 1.0])"),
    (lambda: ClassAwareSampler(FOUR, balance=3.0),
     "balance must be a number from 0 (as it comes) to 2, 1 being uniform over classes, got 3.0"),
    (lambda: ClassAwareSampler(FOUR, num_samples=0), "num_samples must be a whole number ≥ 1, got 0"),
    (lambda: ClassAwareSampler(FOUR, seed=-1), "seed must be a whole number ≥ 0, got -1"),
    (lambda: ClassAwareSampler(FOUR, rank=2, world_size=2), "rank must be in 0 … 1 for world_size=2, got 2"),
    (lambda: ClassAwareSampler(FOUR, rank=-1, world_size=2), "rank must be a whole number ≥ 0, got -1"),
    (lambda: ClassAwareSampler(FOUR, rank=0, world_size=0), "world_size must be a whole number ≥ 1, got 0"),
    (lambda: ClassAwareSampler(FOUR, rank=1), "rank and world_size go together, got rank=1, world_size=None"),
    (lambda: ClassAwareSampler(FOUR).set_epoch(-1), "epoch must be a whole number ≥ 0, got -1"),
    (lambda: BalancedBatchSampler(FOUR, classes_per_batch=3, samples_per_class=1),
     "classes_per_batch must be at most 2, the classes that have a sample, got 3"),
    (lambda: BalancedBatchSampler(FOUR, classes_per_batch=2, samples_per_class=0),
     "samples_per_class must be a whole number ≥ 1, got 0"),
    (lambda: BalancedBatchSampler(FOUR, classes_per_batch=2, samples_per_class=1, batches=0),
     "batches must be a whole number ≥ 1, got 0"),
    (lambda: binding_examples([0, 2]),
     "every class needs an example to bind batches with, and class 1 has none: pass the labels of the whole data set, "
     "numbered 0 … k−1 without gaps"),
    (lambda: binding_examples([0, 1], k=1), "labels must be in 0 … 0, got 1 at position 1"),
    (lambda: BindingBatchSampler([[0]], FOUR, examples=[0, 1]),
     "examples must be one of each class 0 … 1, got classes [0, 0]"),
    (lambda: BatchBinding(DATA, [0, 0, 1], examples=[0]), "examples must be one of each class 0 … 1, got classes [0]"),
    (lambda: BindingBatchSampler([[0]], FOUR, examples=[0, 4]),
     "examples must be indices below 4, the number of labels, got 4"),
    (lambda: BindingBatchSampler(iter([[0]]), FOUR),
     "batches must be a batch sampler or a sequence of lists of indices, got list_iterator"),
    (lambda: BatchBinding(DATA, FOUR), "labels must be one per sample of the data set, expected 3, got 4"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message[:50] for _, message in BAD])
def test_bad_input_is_one_line(call, message):
    with pytest.raises(InvalidInput) as error:
        call()
    assert str(error.value) == message
