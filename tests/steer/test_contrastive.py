"""Supervised contrastive loss against loops in float64, finite differences and the geometries it names."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from neuralcollapse.checks import InvalidInput, OutsideTheory
from neuralcollapse.predict import predict
from neuralcollapse.registry import references
from neuralcollapse.steer.contrastive import SupConLoss

LABELS = [0, 1, 0, 2, 2, 0, 1, 3, -100, 0]  # class 3 has one sample, and one sample is ignored
FRAME = [[1.0, 0.2, 0.0, 0.0, 0.1], [0.3, 2.0, 0.0, 0.4, 0.0], [0.0, 0.0, 0.5, 0.0, 0.0], [0.0, 0.7, 0.7, 1.5, 0.0]]
ETF = torch.eye(4, dtype=torch.float64) - 0.25


def features(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def gradient(loss, rows, labels):
    leaf = rows.detach().clone().requires_grad_()
    value = loss(leaf, torch.as_tensor(labels))
    value.sum().backward()
    return value.detach(), leaf.grad


# -- the value, by loops ---------------------------------------------------------------------------------------------


def scaled(vector):
    length = math.sqrt(sum(v * v for v in vector))
    return [v / length for v in vector] if length else vector


def by_loops(rows, labels, tau, relu=False, frame=None, copies=1, anchored=True, normalize=True):
    """ℓ of every anchor, None without a positive: the samples, then the prototypes, written into the batch."""
    batch = []
    for views, label in zip(rows, labels, strict=True):
        for view in views:
            view = [max(v, 0.0) for v in view] if relu else list(view)
            batch.append((scaled(view) if normalize else view, label, True))
    for c, row in enumerate(frame or []):
        batch += [(scaled(row) if normalize else row, c, anchored)] * copies
    losses = []
    for i, (h, label, anchor) in enumerate(batch):
        if not anchor:
            continue
        if label == -100:
            losses.append(None)
            continue
        others = [(sum(a * b for a, b in zip(h, other, strict=True)) / tau, theirs)
                  for j, (other, theirs, _) in enumerate(batch) if j != i and theirs != -100]
        total = sum(math.exp(s) for s, _ in others)
        terms = [-math.log(math.exp(s) / total) for s, theirs in others if theirs == label]
        losses.append(sum(terms) / len(terms) if terms else None)
    return losses


@pytest.mark.parametrize("views", [None, 1, 2])
@pytest.mark.parametrize("options", [
    {}, {"relu": True}, {"normalize": False}, {"frame": FRAME}, {"frame": FRAME, "copies": 3},
    {"frame": FRAME, "copies": 3, "anchored": False}, {"frame": FRAME, "copies": 2, "relu": True},
    {"frame": FRAME, "normalize": False, "copies": 2}], ids=str)
def test_the_loss_is_that_of_loops(views, options):
    rows = features(10, *([views] if views else []), 5)
    expected = by_loops(rows.tolist() if views else [[row] for row in rows.tolist()], LABELS, 0.7, **options)
    own = expected[:10 * (views or 1)]
    frame = torch.tensor(options["frame"], dtype=torch.float64) if "frame" in options else None
    made = {"nonnegative": options.get("relu", False), "normalize": options.get("normalize", True), "prototypes": frame,
            "prototype_copies": options.get("copies", 1), "prototype_anchors": options.get("anchored", True)}
    found = {reduction: SupConLoss(0.7, reduction=reduction, **made)(rows, torch.tensor(LABELS))
             for reduction in ("mean", "sum", "none")}
    counted = [value for value in expected if value is not None]
    np.testing.assert_allclose(found["sum"].item(), sum(counted), rtol=1e-12, atol=0)
    np.testing.assert_allclose(found["mean"].item(), sum(counted) / len(counted), rtol=1e-12, atol=0)
    assert found["none"].shape == rows.shape[:-1]
    np.testing.assert_allclose(found["none"].flatten(), [value or 0.0 for value in own], rtol=1e-12, atol=0)


def test_prototypes_are_samples_put_into_the_batch():
    rows, labels = features(9, 4), torch.tensor([0, 0, 1, 1, 1, 2, 2, 3, 3])
    whole, ours = gradient(SupConLoss(0.3), torch.cat([rows, ETF.repeat(5, 1)]),
                           torch.cat([labels, torch.arange(4).repeat(5)]))
    value, gradients = gradient(SupConLoss(0.3, prototypes=ETF, prototype_copies=5), rows, labels)
    torch.testing.assert_close(value, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients, ours[:9], rtol=1e-10, atol=1e-14)


def test_many_prototypes_make_it_cross_entropy_with_fixed_classifiers():
    rows, labels = features(12, 4), torch.arange(12) % 4
    loss = SupConLoss(0.5, prototypes=ETF, prototype_copies=10**9, prototype_anchors=False)
    value, gradients = gradient(loss, rows, labels)
    leaf = rows.clone().requires_grad_()
    logits = F.normalize(leaf) @ F.normalize(ETF).T / 0.5
    expected = F.cross_entropy(logits, labels)
    expected.backward()
    torch.testing.assert_close(value - math.log(10**9), expected.detach(), rtol=0, atol=1e-7)  # the rest is O(n/m)
    torch.testing.assert_close(gradients, leaf.grad, rtol=0, atol=1e-7)


@pytest.mark.parametrize("options", [{}, {"nonnegative": True}, {"normalize": False}], ids=str)
@pytest.mark.parametrize("prototypes", [False, True])
def test_gradients_are_finite_differences(options, prototypes):
    frame = nn.Parameter(torch.tensor(FRAME, dtype=torch.float64)) if prototypes else None
    loss = SupConLoss(0.6, prototypes=frame, prototype_copies=2, **options)
    rows = features(10, 2, 5, seed=1).requires_grad_()
    inputs = (rows, frame) if prototypes else (rows,)

    def value(rows, *_):
        return loss(rows, torch.tensor(LABELS))
    assert torch.autograd.gradcheck(value, inputs, eps=1e-6, rtol=1e-5, atol=1e-8)


def test_rotating_scaling_and_permuting_change_nothing():
    rows, labels, loss = features(10, 6), torch.tensor(LABELS), SupConLoss(0.2, reduction="none")
    expected = loss(rows, labels)
    turn = torch.linalg.qr(features(6, 6, seed=2)).Q
    length = torch.logspace(-3, 3, 10, dtype=torch.float64)[:, None]
    order = torch.randperm(10, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(loss(length * rows @ turn, labels), expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(loss(rows[order], labels[order]), expected[order], rtol=1e-11, atol=1e-12)


# -- batches that leave something out --------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("labels", [[2], [0, 1, 2], [-100, -100], []], ids=str)
def test_without_positives_the_loss_and_its_gradients_are_zero(labels, reduction):
    loss = SupConLoss(reduction=reduction)
    value, gradients = gradient(loss, features(len(labels), 3), torch.tensor(labels, dtype=torch.int64))
    assert value.abs().sum() == 0
    assert gradients.abs().sum() == 0


def test_an_ignored_sample_may_hold_anything():
    rows = features(10, 5)
    expected = gradient(SupConLoss(), rows, LABELS)
    spoilt = rows.clone()
    spoilt[8] = math.nan
    for found, wanted in zip(gradient(SupConLoss(), spoilt, LABELS), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_features_of_zero_have_a_gradient(nonnegative):
    rows = features(6, 4)
    rows[0] = -1.0 if nonnegative else 0.0
    rows[3] = rows[0]
    value, gradients = gradient(SupConLoss(nonnegative=nonnegative), rows, [0, 0, 1, 1, 2, 2])
    assert value.isfinite()
    assert gradients.isfinite().all()
    assert gradients.abs().max() < 1e3
    assert (gradients[0].abs().sum() == 0) == nonnegative  # ReLU passes nothing to what it has cut off


def test_a_small_temperature_stays_finite():
    value, gradients = gradient(SupConLoss(1e-4), features(10, 5, dtype=torch.float32), LABELS)
    assert value.isfinite()
    assert gradients.isfinite().all()


def test_a_prototype_is_the_positive_of_a_class_that_has_one_sample():
    loss = SupConLoss(prototypes=ETF, reduction="none")
    assert (loss(features(3, 4), torch.tensor([0, 1, 2])) > 0).all()


# -- precision, compilers, state -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precisions_compute_in_float32(dtype):
    rows = (100 * features(10, 5)).to(dtype)
    loss = SupConLoss(0.05, prototypes=FRAME)
    expected, wanted = gradient(loss, rows.float(), LABELS)
    value, gradients = gradient(loss, rows, LABELS)
    assert value.dtype == gradients.dtype == dtype
    torch.testing.assert_close(value, expected.to(dtype), rtol=0, atol=0)
    torch.testing.assert_close(gradients, wanted.to(dtype), rtol=0, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss(rows, torch.tensor(LABELS)), expected, rtol=0, atol=0)  # float32


@pytest.mark.parametrize("options", [{}, {"nonnegative": True, "prototypes": FRAME}], ids=["plain", "prototypes"])
def test_it_compiles_in_one_graph(options):
    loss = SupConLoss(**options).double()
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    for n in (10, 8):
        found, expected = (gradient(f, features(n, 5), LABELS[:n]) for f in (compiled, loss))
        torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=0)
        torch.testing.assert_close(found[1], expected[1], rtol=1e-12, atol=1e-15)


def test_fixed_prototypes_are_state_and_trained_ones_parameters():
    fixed, trained = SupConLoss(prototypes=ETF), SupConLoss(prototypes=nn.Parameter(ETF.clone()))
    assert not list(fixed.parameters())
    assert next(iter(trained.parameters())) is trained.prototypes
    for loss in (fixed, trained):
        torch.testing.assert_close(loss.state_dict()["prototypes"], ETF)
        assert copy.deepcopy(loss).float().prototypes.dtype == torch.float32
    other = SupConLoss(prototypes=torch.eye(4, dtype=torch.float64))
    other.load_state_dict(fixed.state_dict())
    torch.testing.assert_close(other.prototypes, ETF)
    assert not SupConLoss().state_dict()
    assert repr(fixed) == "SupConLoss(temperature=0.1, prototypes=(4, 4), prototype_copies=1, reduction='mean')"


# -- where it leads --------------------------------------------------------------------------------------------------


def trained_means(loss, counts, d, steps=700, seed=0):
    """Class means of free features trained to the end, and how far features are from their class mean at most."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    rows = features(len(labels), d, seed=seed)
    rows = (rows.abs() if loss.nonnegative else rows).requires_grad_()
    optimiser = torch.optim.Adam([rows], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(rows, labels).backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        unit = F.normalize(rows.relu() if loss.nonnegative else rows)
        means = torch.stack([unit[labels == c].mean(0) for c in range(len(counts))])
        return means, (unit - means[labels]).norm(dim=1).max().item()


@pytest.mark.parametrize(("counts", "d"), [([8, 8, 2, 2], 16), ([20, 5, 5], 12)])
def test_relu_features_reach_an_orthogonal_frame_at_any_imbalance(counts, d):
    loss = SupConLoss(0.5, nonnegative=True)
    means, spread = trained_means(loss, counts, d)
    gram = (means @ means.T).numpy()
    for geometry in (loss.geometry(counts), predict(counts, "scl")):
        expected = geometry.embeddings.dense()
        np.testing.assert_allclose(gram / np.linalg.norm(gram), expected / np.linalg.norm(expected), rtol=0, atol=1e-6)
    assert spread < 1e-3


def test_balanced_classes_reach_the_simplex_etf():
    loss = SupConLoss(1.0)
    means, _ = trained_means(loss, [5, 5, 5, 5], 6, steps=1000)
    gram, expected = (means @ means.T).numpy(), loss.geometry([5, 5, 5, 5]).embeddings.dense()
    np.testing.assert_allclose(gram / np.linalg.norm(gram), expected / np.linalg.norm(expected), rtol=0, atol=1e-6)


def test_features_align_with_prototypes_under_step_imbalance():
    counts = [50, 50, 5, 5]
    few, many = (trained_means(SupConLoss(0.5, prototypes=ETF, prototype_copies=copies), counts, 4, steps=300)[0]
                 for copies in (1, 20))
    assert F.cosine_similarity(many, ETF).min() > 0.99
    assert F.cosine_similarity(few, ETF).min() < 0.9  # one copy is outvoted by fifty samples


@pytest.mark.parametrize(("made", "counts", "message"), [
    ({}, [10, 1], "the contrastive geometry of imbalanced classes is known for ReLU features: use nonnegative=True, "
                  "which leads to an orthogonal frame"),
    ({"prototypes": torch.eye(2)}, [1, 1], "where prototypes lead is known from experiments (features align with "
                                           "them): leave them out, or compare class means with the prototypes "
                                           "themselves"),
    ({"normalize": False}, [1, 1], "the contrastive geometry is known for normalised features: use normalize=True")])
def test_geometries_that_no_theorem_covers_are_refused(made, counts, message):
    with pytest.raises(OutsideTheory) as error:
        SupConLoss(**made).geometry(counts)
    assert str(error.value) == message


def test_sources_exist():
    assert {"khosla2020", "kini2023", "gill2023", "graf2021", "shen2016", "kang2020"} <= references().keys()


# -- bad input -------------------------------------------------------------------------------------------------------

ROWS, FOUR = torch.ones(4, 3), torch.tensor([0, 0, 1, 1])
BAD = [
    (lambda: SupConLoss(0), "temperature must be a positive number, got 0"),
    (lambda: SupConLoss(-0.1), "temperature must be a positive number, got -0.1"),
    (lambda: SupConLoss(reduction="max"), "reduction must be one of mean, sum, none, got 'max'"),
    (lambda: SupConLoss(prototypes=FRAME, prototype_copies=0), "prototype_copies must be a whole number ≥ 1, got 0"),
    (lambda: SupConLoss(prototypes="etf"), "prototypes must be a (k, d) array of numbers, one row per class, got etf"),
    (lambda: SupConLoss(prototypes=[1.0, 2.0]),
     "prototypes must be a (k, d) float array, one row per class, got torch.float32 of shape (2,)"),
    (lambda: SupConLoss(prototypes=torch.eye(2, dtype=torch.int64)),
     "prototypes must be a (k, d) float array, one row per class, got torch.int64 of shape (2, 2)"),
    (lambda: SupConLoss(prototypes=[[1.0, math.nan]]), "prototypes must be finite, got NaN or Inf"),
    (lambda: SupConLoss(prototypes=[[1.0, 0.0], [0.0, 0.0]]),
     "prototypes must have a direction, got zero for class 1: pass normalize=False, or a geometry in which no class "
     "vanishes"),
    (lambda: SupConLoss(prototypes=ETF, nonnegative=True),
     "prototypes must be non-negative where features are (nonnegative=True), got -0.25: pass an orthogonal frame such "
     "as torch.eye(k, d)"),
    (lambda: SupConLoss()(ROWS, None),
     "labels must be given, one per sample, got none: for two views of unlabelled samples pass torch.arange(n)"),
    (lambda: SupConLoss()(torch.ones(4), FOUR),
     "features must be a float tensor of shape (n, d) or (n, views, d), got torch.float32 of shape (4,)"),
    (lambda: SupConLoss()(torch.ones(4, 2, dtype=torch.int64), FOUR),
     "features must be a float tensor of shape (n, d) or (n, views, d), got torch.int64 of shape (4, 2)"),
    (lambda: SupConLoss()(torch.ones(4, 0), FOUR),
     "features must be a float tensor of shape (n, d) or (n, views, d), got torch.float32 of shape (4, 0)"),
    (lambda: SupConLoss()(ROWS, FOUR[:3]),
     "labels must have shape (4,) for features of shape (4, 3), got (3,)"),
    (lambda: SupConLoss()(ROWS, FOUR.float()), "labels must be class indices, got torch.float32"),
    (lambda: SupConLoss()(ROWS, torch.tensor([0, 0, 1, -1])), "labels must be in 0 … k−1 or -100, got -1"),
    (lambda: SupConLoss(prototypes=torch.eye(2, 3))(ROWS, torch.tensor([0, 0, 1, 2])),
     "labels must be in 0 … 1, one per prototype, or -100, got 2"),
    (lambda: SupConLoss(prototypes=torch.eye(2))(ROWS, FOUR),
     "features must have the 2 dimensions of the prototypes, got 3"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message[:50] for _, message in BAD])
def test_bad_input_is_one_line(call, message):
    with pytest.raises(InvalidInput) as error:
        call()
    assert str(error.value) == message
