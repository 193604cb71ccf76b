"""CollapseMetric as a torchmetrics citizen: life cycle, collections, merging, and several real processes."""

from datetime import timedelta
import io
import pickle
import socket

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing, nn
from torchmetrics import MetricCollection

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.measure import CollapseMetric, measure

K = 5


def sample(d=12, n=400, spread=0.3, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    rest = rng.choice(K, n - 4 * K, p=[.5, .2, .15, .1, .05])
    labels = rng.permutation(np.concatenate([np.arange(K).repeat(4), rest]))
    features = rng.standard_normal((K, d))[labels] + offset + spread * rng.standard_normal((n, d))
    return torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels)


def head(d=12):
    torch.manual_seed(3)
    return nn.Linear(d, K)


def metric(d=12, **options):
    return CollapseMetric(K, d, head(d), **options)


def assert_same(one, two, rtol=1e-10, atol=0):
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value.item(), two[name].item(), rtol=rtol, atol=atol, err_msg=name)


def of_batches(watched, features, labels, size=64):
    for x, y in zip(features.split(size), labels.split(size), strict=True):
        watched.update(x, y)
    return watched


# -- several processes ---------------------------------------------------------------------------------------------

SHARDS = {2: {"uneven": [0, 137, 400], "one empty": [0, 0, 400]},
          4: {"uneven": [0, 10, 137, 390, 400], "two empty": [0, 0, 250, 250, 400]}}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def worker(rank, world, port, failures):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world,
                                   timeout=timedelta(seconds=60))
    try:
        for shard, cuts in SHARDS[world].items():
            for d, spread, offset, rtol in ((12, 0.3, 0.0, 1e-10), (12, 1e-6, 0.0, 1e-10), (12, 1e-3, 1.0, 1e-10),
                                            (200, 1e-6, 0.0, 1e-6)):  # above 128 features: products in float32
                features, labels = sample(d, spread=spread, offset=offset)
                mine = slice(cuts[rank], cuts[rank + 1])
                watched = metric(d, nc4="previous")
                alone = metric(d, nc4="previous", sync_on_compute=False)
                for repetition in range(2):  # the second has means to take NC4 from
                    if cuts[rank] < cuts[rank + 1]:
                        of_batches(watched, features[mine], labels[mine], 50)
                    of_batches(alone, features, labels, 50)
                    together, whole = watched.compute(), alone.compute()
                    try:
                        assert_same(together, whole, rtol)
                        assert whole["nc/nearest_mean_disagreement"].isnan() == (repetition == 0)
                        local = int(watched.counts.sum())  # the sync is undone: accumulation goes on from here
                        assert local == cuts[rank + 1] - cuts[rank], local
                    except AssertionError as error:
                        failures.put(f"{shard}, d = {d}, spread {spread}, rank {rank}: {error}")
                    watched.reset()
                    alone.reset()
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize("world", [2, 4])
def test_several_processes_give_what_one_gives(world):
    failures = multiprocessing.get_context("spawn").SimpleQueue()
    multiprocessing.spawn(worker, (world, free_port(), failures), nprocs=world)
    assert failures.empty(), failures.get()


# -- life cycle ----------------------------------------------------------------------------------------------------


def test_forward_gives_the_batch_and_accumulates_the_rest():
    features, labels = sample()
    watched, expected = metric(), of_batches(metric(), features, labels, 100)
    for x, y in zip(features.split(100), labels.split(100), strict=True):
        assert_same(watched(x, y), of_batches(metric(), x, y).compute())
    assert_same(watched.compute(), expected.compute())


def test_reset_forgets_and_clone_pickle_and_state_dict_keep():
    features, labels = sample()
    watched = of_batches(metric(), features[:150], labels[:150])  # 150 rows are still buffered
    watched.persistent(True)
    # Pickled here and read back here: how a metric reaches the processes that a launcher spawns.
    copies = [watched.clone(), pickle.loads(pickle.dumps(watched))]
    restored = metric()
    restored.persistent(True)
    restored.load_state_dict(watched.state_dict())
    saved = io.BytesIO()
    torch.save(watched.state_dict(), saved)
    for copy in (watched, *copies, restored):
        assert_same(of_batches(copy, features[150:], labels[150:]).compute(),
                    of_batches(metric(), features, labels).compute())
    watched.reset()
    assert_same(of_batches(watched, features[:99], labels[:99]).compute(),
                of_batches(metric(), features[:99], labels[:99]).compute())


@pytest.mark.parametrize("spread", [0.3, 1e-6])
def test_merge_state_with_a_metric_or_its_states(spread):
    features, labels = sample(spread=spread)
    whole = of_batches(metric(), features, labels).compute()
    one, two = of_batches(metric(), features[:230], labels[:230]), of_batches(metric(), features[230:], labels[230:])
    one.merge_state(two)
    assert_same(one.compute(), whole)
    again = of_batches(metric(), features[:230], labels[:230])
    again.merge_state(two.metric_state)
    assert_same(again.compute(), whole)
    three = metric()
    three.merge_state(of_batches(metric(), features[:77], labels[:77]))
    assert_same(of_batches(three, features[77:], labels[77:]).compute(), whole)  # goes on after merging


def test_a_collection_keeps_its_metrics_apart():
    features, labels = sample()
    collection = MetricCollection({"seli": metric(), "samples": metric(center="samples"),
                                   "traces": metric(scatter=False), "few": metric(ignore_index=0)})
    for x, y in zip(features.split(64), labels.split(64), strict=True):
        collection.update(x, y)
    values = collection.compute()
    for name, options in (("seli", {}), ("samples", {"center": "samples"}), ("traces", {"scatter": False}),
                          ("few", {"ignore_index": 0})):
        alone = of_batches(metric(**options), features, labels).compute()
        for key, value in alone.items():
            found = values[next(full for full in values if full in (f"{name}_{key}", f"{key}_{name}", key))] \
                if f"{name}_{key}" not in values else values[f"{name}_{key}"]
            np.testing.assert_allclose(found.item(), value.item(), rtol=1e-12, err_msg=f"{name} {key}")


def test_states_stay_float64_whatever_precision_is_asked_for():
    features, labels = sample()
    watched = of_batches(metric().half().set_dtype(torch.float16).to(torch.bfloat16).to("cpu"), features, labels)
    assert {state.dtype for state in watched.metric_state.values()} == {torch.float64, torch.int64}
    assert_same(watched.compute(), of_batches(metric(), features, labels).compute())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_float_precision_is_measured_as_the_numbers_it_holds(dtype):
    features, labels = sample()
    watched = CollapseMetric(K, 12)
    values = of_batches(watched, features.to(dtype), labels).compute()
    exact = of_batches(CollapseMetric(K, 12), features.to(dtype).double(), labels).compute()
    assert_same(values, exact)


def test_logits_at_hand_spare_the_product_and_sequences_are_flattened():
    features, labels = sample()
    layer = head().double()  # logits of full precision, so that margins are the same digits
    reference = CollapseMetric(K, 12, layer)
    reference.update(features, labels)
    given = CollapseMetric(K, 12, layer)
    given.update(features.view(4, 100, 12), labels.view(4, 100), layer(features.double()).view(4, 100, K))
    assert_same(given.compute(), reference.compute())


def test_logits_in_half_precision_are_formed_anew():
    features, labels = sample(spread=0.01)
    layer = head()
    close = CollapseMetric(K, 12, layer)
    close.update(features, labels, layer(features).bfloat16())
    assert_same(close.compute(), of_batches(CollapseMetric(K, 12, layer), features, labels, 400).compute())


def test_ignored_labels_leave_no_trace():
    features, labels = sample()
    padded = torch.cat([features, torch.full((30, 12), 1e4)])
    watched = metric(ignore_index=-100)
    watched.update(padded, torch.cat([labels, torch.full((30,), -100)]))
    assert_same(watched.compute(), of_batches(metric(), features, labels).compute())


def test_nc4_is_taken_from_the_means_before():
    features, labels = sample(spread=1.5)
    watched = metric(nc4="previous")
    first = of_batches(watched, features, labels).measurement()
    watched.compute()
    watched.reset()
    later = features + 0.1
    second = of_batches(watched, later, labels).measurement()
    expected = measure(later, labels, head().weight, head().bias, nc4=first)
    assert second.to_dict()["nc4"] == pytest.approx(expected.to_dict()["nc4"], abs=1e-12)
    assert (first.to_dict()["nc4_means"], second.to_dict()["nc4_means"]) == (None, "previous")


def test_a_class_never_seen_is_nan_and_never_zero():
    features, labels = sample()
    present = labels != 3
    values = metric(counts=ClassCounts([200, 80, 60, 40, 20], names=list("abcde"))) \
        .forward(features[present], labels[present])
    assert values["nc/class/d/accuracy"].isnan()
    assert values["nc/class/d/mean_norm"].isnan()
    assert values["nc/within"].isnan()
    assert values["nc/seli/embeddings"].isnan()
    assert values["nc/class/a/accuracy"] > 0
    assert values["nc/class/d/norm"] > 0  # its classifier is there all the same
    assert values["nc/seli/classifiers"] > 0


def test_plot_draws_one_value_and_several():
    features, labels = sample()
    watched = metric()
    values = [watched(x, y) for x, y in zip(features.split(200), labels.split(200), strict=True)]
    for given in (None, values[0], values):
        figure, axes = watched.plot(given)
        names = {text.get_text() for text in axes.get_legend().get_texts()}
        assert {"nc/seli/classifiers", "nc/etf/embeddings", "nc/duality"} <= names
        figure.clear()


def test_the_head_is_read_when_updating_and_is_no_parameter_of_the_metric():
    features, labels = sample()
    layer = head()
    watched = CollapseMetric(K, 12, layer)
    assert not list(watched.parameters())
    watched.update(features, labels)
    margin = watched.measurement().to_dict()["margins"]["min"]
    with torch.no_grad():
        layer.weight.mul_(2)
        layer.bias.mul_(2)
    watched.reset()
    watched.update(features, labels)
    assert watched.measurement().to_dict()["margins"]["min"] == pytest.approx(2 * margin, rel=1e-6)


def test_a_refused_batch_leaves_no_trace():
    features, labels = sample()
    watched = metric()
    for bad in (torch.ones(399, K), torch.ones(400, K + 1), torch.ones(400, K, dtype=torch.int64)):
        with pytest.raises(InvalidInput, match=r"logits must be floats of shape \(400, 5\), got "):
            watched.update(features, labels, bad)
    assert_same(of_batches(watched, features, labels).compute(), of_batches(metric(), features, labels).compute())


BAD = {
    "one-hot": (lambda: metric().update(torch.ones(2, 12), torch.eye(2, 5)),
                "labels must be one number per sample, shape (n,), got (2, 5)"),
    "target": (lambda: metric(targets="ridge:x"),
               "target must name a geometry, got 'ridge:x': the λ of ridge:λ must be a positive number, got 'x'"),
    "center": (lambda: metric(center="middle"), "center must be one of classes, samples, none, got 'middle'"),
    "counts": (lambda: metric(counts=[1, 2, 3]), "counts must be one per class, expected 5, got 3"),
    "unseen": (lambda: metric().measurement(), "nothing to measure yet: call update(features, labels) first"),
    "label": (lambda: metric().update(torch.ones(2, 12), torch.tensor([0, 7])),
              "labels must be in 0 … 4, got 7 in batch 1"),
    "negative": (lambda: metric().update(torch.ones(2, 12), torch.tensor([0, -100])),
                 "labels must be in 0 … 4, got -100 in batch 1"),
    "float labels": (lambda: metric().update(torch.ones(2, 12), torch.tensor([0.5, 1.0])),
                     "labels must be whole numbers, got torch.float32 ([0.5, 1.0])"),
    "nan": (lambda: metric().update(torch.full((2, 12), torch.nan), torch.tensor([0, 1])),
            "features must be finite, got NaN or Inf in batch 1"),
    "width": (lambda: metric().update(torch.ones(2, 13), torch.tensor([0, 1])),
              "features must have shape (n, 12), got (2, 13)"),
    "device": (lambda: metric().update(torch.ones(2, 12, device="meta"), torch.tensor([0, 1])),
               "features must be on the device of this metric, cpu, got meta: move them, or the metric with "
               ".to('meta')"),
    "head": (lambda: CollapseMetric(4, 12, head()),
             "head must map 12 features to 4 classes, got a weight of shape (5, 12)"),
    "nc4": (lambda: metric(nc4="second-pass"), "nc4 must be 'previous' or None, got 'second-pass'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_in_one_line(name):
    call, message = BAD[name]
    with pytest.raises(InvalidInput) as caught:
        call()
    assert str(caught.value) == message
