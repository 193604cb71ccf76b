"""What a loss cannot use is said in one line; what it is made of can be named, moved and shown."""

from copy import deepcopy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.steer.advise import GOALS, Choice, advise
from neuralcollapse.steer.losses import VSLoss

COUNTS = ClassCounts([40, 9, 3, 3, 1])
K, N = COUNTS.k, COUNTS.values


def test_parameters_move_with_the_loss_and_are_not_saved():
    loss = VSLoss.vs(COUNTS, 0.3, 1.0)
    assert not loss.state_dict()
    assert {name for name, _ in loss.named_buffers()} == {"delta", "iota"}
    assert loss.delta.dtype == torch.float32
    assert loss.half().delta.dtype == torch.float32  # never below
    np.testing.assert_array_equal(loss.double().delta.numpy(), (N / N.max()) ** 0.3)  # not what float32 left of it
    assert loss.to("meta").iota.device.type == "meta"
    logits, labels = torch.arange(2.0 * K).reshape(2, K), torch.tensor([1, 4])
    made = VSLoss.vs(COUNTS, 0.3, 1.0)
    # Spawned workers receive a loss pickled; these bytes are our own.
    for copy in (deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(copy(logits, labels), made(logits, labels))
    model = nn.Sequential(nn.Linear(3, K))
    keys = list(model.state_dict())
    model.criterion = VSLoss.weighted(COUNTS)
    assert list(model.state_dict()) == keys


def test_what_a_loss_says_it_is():
    few = ClassCounts([500, 5])
    shown = {VSLoss.ce(few): "VSLoss.ce(ClassCounts(500, 5))",
             VSLoss.weighted([500, 5]): "VSLoss.weighted(ClassCounts(500, 5), scheme='inverse')",
             VSLoss.weighted(few, "effective-number", 0.9):
                 "VSLoss.weighted(ClassCounts(500, 5), scheme='effective-number', beta=0.9)",
             VSLoss.ldam(few, reduction="sum").reweighted():
                 "VSLoss.ldam(ClassCounts(500, 5), max_margin=0.5, scale=30.0).reweighted('effective-number') with "
                 "reduction='sum'",
             VSLoss.focal(few): "VSLoss.focal(ClassCounts(500, 5), gamma=2.0)",
             VSLoss.ce(few, focal=1): "VSLoss.ce(ClassCounts(500, 5)) with focal=1.0",
             VSLoss.focal(few, weight=[1, 2]): "VSLoss.focal(ClassCounts(500, 5), gamma=2.0, weight=…)",
             VSLoss.vs(few, 0.1, 1.0, margin=[0, 1]): "VSLoss.vs(ClassCounts(500, 5), gamma=0.1, tau=1.0, margin=…)",
             VSLoss.ce(few, delta=[1, 2], temperature="label"):
                 "VSLoss.ce(ClassCounts(500, 5), delta=…, temperature='label')",
             VSLoss.ce(few).reweighted(beta=0.9):
                 "VSLoss.ce(ClassCounts(500, 5)).reweighted('effective-number', beta=0.9)",
             VSLoss(few, delta=[1, 2], temperature="label"):
                 "VSLoss(ClassCounts(500, 5), delta=…, temperature='label')"}
    for loss, text in shown.items():
        assert repr(loss) == text


@pytest.mark.parametrize("make", [VSLoss.ce, VSLoss.ldam, VSLoss.focal, VSLoss.ldt])
def test_reweighting_keeps_dtype_device_and_mode(make):
    logits, labels = torch.arange(2.0 * K, dtype=torch.float64).reshape(2, K), torch.tensor([1, 4])
    moved = make(COUNTS, reduction="none").double().eval().reweighted("inverse")
    assert moved.weight.dtype == torch.float64
    assert not moved.training
    plain = make(COUNTS, reduction="none").double()
    expected = plain(logits, labels) * torch.tensor(N.sum() / (K * N))[labels]
    torch.testing.assert_close(moved(logits, labels), expected, rtol=1e-14, atol=0)
    assert plain.weight is None  # the one reweighted stays as it is
    assert make(COUNTS).to("meta").reweighted().weight.device.type == "meta"
    inside = nn.ModuleList([make(COUNTS)]).to("meta", torch.float64)[0].reweighted()
    assert inside.weight.device.type == "meta"
    assert inside.weight.dtype == torch.float64


@pytest.mark.parametrize("counts", [[500, 40, 5], [7, 7]])
@pytest.mark.parametrize("goal", ["balanced accuracy", "symmetric geometry", "calibrated"])
def test_the_automatic_loss_is_the_recommended_one(counts, goal):
    chosen = advise(counts, goal=goal).recommended
    loss = VSLoss.auto(counts, goal)
    k = len(counts)
    logits = torch.randn(6, k, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(6) % k
    recommended = eval(chosen.line, {"VSLoss": VSLoss, "counts": counts})  # the line to paste
    assert repr(loss) == repr(recommended)
    assert repr(loss).replace(f"ClassCounts({', '.join(map(str, counts))})", "counts") == chosen.line
    assert torch.equal(loss(logits, labels), recommended(logits, labels))
    total = VSLoss.auto(counts, goal, reduction="sum")
    assert repr(total) == f"{recommended!r} with reduction='sum'"
    torch.testing.assert_close(total(logits, labels), 6 * recommended(logits, labels))


def test_a_recommended_head_is_no_automatic_loss(monkeypatch):
    monkeypatch.setitem(GOALS, "a fixed frame", (lambda *_: Choice("etf-head", {}), "Rule: none."))
    with pytest.raises(InvalidInput) as error:
        VSLoss.auto([500, 5], "a fixed frame")
    assert str(error.value) == ("for a fixed frame no loss of logits is recommended but etf_head(2, d): build that, or "
                                "name a constructor of VSLoss")


def test_counts_and_parameters_by_class_name():
    loss = VSLoss({"cat": 500, "dog": 5}, iota={"dog": -1.0, "cat": 0.5}, delta=torch.tensor([1.0, 2.0]))
    assert loss.counts.names == ("cat", "dog")
    assert loss.vectors["iota"].tolist() == [0.5, -1.0]
    assert loss.vectors["delta"].tolist() == [1.0, 2.0]
    assert VSLoss.vs(torch.tensor([500, 5]), 0.1, 1).counts.values.tolist() == [500, 5]
    assert VSLoss.ce("500,5").counts.k == 2


# -- bad input -----------------------------------------------------------------------------------------------------

FEW = ClassCounts([500, 5], names=["cat", "dog"])
LOGITS, LABELS = torch.zeros(3, 2), torch.tensor([0, 1, 0])


@pytest.mark.parametrize(("make", "message"), [
    (lambda: VSLoss([5]), "counts must name at least two classes, got 1 ([5])"),
    (lambda: VSLoss([500, 0, 0]), "every class needs a sample, and class 1 has none (nor have 1 more): drop it from "
     "labels and head, or give it a small positive count (class_counts does with absent=1)"),
    (lambda: VSLoss({"cat": 5, "dog": 0}), "every class needs a sample, and class 'dog' has none: drop it from labels "
     "and head, or give it a small positive count (class_counts does with absent=1)"),
    (lambda: VSLoss("many"), "counts must be numbers separated by commas, such as 10,10,1,1, got 'many'"),
    (lambda: VSLoss(FEW, weight=[1, 0]), "weight must be positive, got 0 for class 1"),
    (lambda: VSLoss(FEW, weight=[1, 2, 3]), "weight must be 2 numbers, one per class, got 3 ([1, 2, 3])"),
    (lambda: VSLoss(FEW, delta=[1, -1]), "delta must be positive, got -1 for class 1"),
    (lambda: VSLoss(FEW, delta=[1, 0], temperature="label"), "delta must be positive, got 0 for class 1"),
    (lambda: VSLoss(FEW, iota=[0, float("nan")]), "iota must be finite, got nan at position 1 (1 of 2 values)"),
    (lambda: VSLoss(FEW, margin=[0, -1]), "margin must be ≥ 0, got -1 for class 1"),
    (lambda: VSLoss(FEW, iota={"cat": 1, "dgo": 2}), "iota names 'dgo', which is no class: did you mean 'dog'? known: "
     "cat, dog"),
    (lambda: VSLoss(FEW, iota={"cat": 1}), "iota must name every class, got none for dog"),
    (lambda: VSLoss(FEW, temperature="sample"), "temperature must be one of class, label, got 'sample'"),
    (lambda: VSLoss(FEW, reduction="max"), "reduction must be one of mean, sum, none, got 'max'"),
    (lambda: VSLoss(FEW, label_smoothing=1.0), "label_smoothing must be a number in [0, 1), got 1.0"),
    (lambda: VSLoss.ldt(FEW, label_smoothing=0.1), "label_smoothing mixes labels, and label temperatures need one "
     "label a sample: leave label_smoothing at 0, or use class temperatures, weights and offsets alone"),
    (lambda: VSLoss.ldam(FEW, label_smoothing=0.1), "label_smoothing mixes labels, and margins need one label a "
     "sample: leave label_smoothing at 0, or use class temperatures, weights and offsets alone"),
    (lambda: VSLoss.focal(FEW, label_smoothing=0.1), "label_smoothing mixes labels, and the focal loss needs one label "
     "a sample: leave label_smoothing at 0, or use class temperatures, weights and offsets alone"),
    (lambda: VSLoss.cdt(FEW, gamma=-0.1), "gamma must be a number ≥ 0, got -0.1"),
    (lambda: VSLoss.vs(FEW, gamma=0.1, tau=-1), "tau must be a number ≥ 0, got -1"),
    (lambda: VSLoss.focal(FEW, gamma=-2), "gamma must be a number ≥ 0, got -2"),
    (lambda: VSLoss.ldam(FEW, max_margin=0), "max_margin must be a positive number, got 0"),
    (lambda: VSLoss.ldam(FEW, scale=-1), "scale must be a positive number, got -1"),
    (lambda: VSLoss.weighted(FEW, "inverse-root"), "unknown weighting scheme 'inverse-root': did you mean 'inverse'? "
     "known: effective-number, inverse"),
    (lambda: VSLoss.weighted(FEW, "effective-number", beta=1), "beta must be a number in [0, 1), got 1: 'inverse' is "
     "its limit at 1"),
    (lambda: VSLoss.ce(FEW, reduction="sum").for_trainer(), "the Trainer needs reduction='mean', got 'sum'"),
    (lambda: VSLoss.ce(FEW)(torch.zeros(3, 4), LABELS), "logits must have one column per class, expected 2 as there "
     "are counts, got 4 (shape (3, 4))"),
    (lambda: VSLoss.ce(FEW)(LABELS, LABELS), "logits must be a float tensor of shape (k,), (n, k) or (n, k, …), got "
     "torch.int64 of shape (3,)"),
    (lambda: VSLoss.ce(FEW)(LOGITS, LABELS[:2]), "labels must have shape (3,) for logits of shape (3, 2), got (2,)"),
    (lambda: VSLoss.ce(FEW)(LOGITS, LABELS.double()), "probabilities must have shape (3, 2) for logits of shape "
     "(3, 2), got (3,)"),
    (lambda: VSLoss.ce(FEW)(LOGITS, LABELS.bool()), "labels must be class indices or probabilities, got torch.bool"),
    *[(lambda make=make, bad=bad: make(LOGITS, torch.tensor([0, bad, 1])),
       f"labels must be in 0 … 1 or -100, got {bad}")
      for make in (VSLoss.ce(FEW), VSLoss.ldt(FEW), VSLoss.ldam(FEW), VSLoss.weighted(FEW), VSLoss.focal(FEW))
      for bad in (2, -1)],
    (lambda: VSLoss.ldt(FEW)(LOGITS, LOGITS), "labels must be class indices, got torch.float32: label temperatures "
     "need one label a sample"),
    (lambda: VSLoss.focal(FEW)(LOGITS, LOGITS), "labels must be class indices, got torch.float32: the focal loss needs "
     "one label a sample"),
    (lambda: VSLoss.vs(FEW, 0.1, 1).to("meta")(LOGITS, LABELS), "the loss is on meta and the logits on cpu: move it "
     "with loss.to('cpu')"),
    (lambda: VSLoss.ce(FEW)(LOGITS, LABELS, num_items_in_batch=0), "num_items_in_batch must be positive, got 0"),
    *[(lambda items=items: VSLoss.ce(FEW)(LOGITS, LABELS, num_items_in_batch=items),
       f"num_items_in_batch must be positive, got {shown}")
      for items, shown in ((torch.tensor(0), 0), (torch.tensor(-3), -3), (torch.tensor([2, 2]), "tensor([2, 2])"),
                           (float("nan"), "nan"), (True, True))],
    (lambda: VSLoss.vs(FEW, 0.1, 1.0, iota=[0, 1]), "VSLoss.vs sets iota itself: leave it out, or give all parameters "
     "to VSLoss(counts, ...)"),
    (lambda: VSLoss.auto(FEW, weight=[1, 2]), "VSLoss.auto sets weight itself: leave it out, or give all parameters to "
     "VSLoss(counts, ...)"),
    (lambda: VSLoss(FEW, weight={0: 1, "0": 2}), "weight must name each class once, got '0' twice"),
    (lambda: VSLoss.ce(FEW).for_trainer(shift=True)(torch.zeros(3, 5, 2), torch.zeros(3, 5, 2)),
     "shift=True needs labels that are class indices, got probabilities of shape (3, 5, 2), of which the last position "
     "cannot be ignored: shift them yourself and pass logits[:, :-1] to the loss"),
    (lambda: VSLoss.ce(FEW, reduction="sum")(LOGITS, LABELS, num_items_in_batch=3), "num_items_in_batch is what a mean "
     "divides by, got reduction='sum': leave it out"),
    (lambda: VSLoss.ce(FEW).for_trainer()({"scores": LOGITS}, LABELS), "the model's outputs must have logits, got "
     "dict: pass a model whose output has .logits"),
    (lambda: VSLoss.ce(FEW).for_trainer()(LOGITS, None), "the loss needs labels, got None: the Trainer takes them from "
     "the batch's 'labels'"),
])
def test_bad_input_is_refused_in_one_line(make, message):
    with pytest.raises(InvalidInput) as error:
        make()
    assert str(error.value) == message
