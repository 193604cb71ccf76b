"""Dot-regression against a loop written from the paper, and where it leads."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from neuralcollapse import InvalidInput
from neuralcollapse.steer.dot_regression import DotRegressionLoss
from neuralcollapse.steer.heads import etf_head, seli_head

DOUBLE = torch.float64


def by_sample(weight, features, labels, energy, ignore_index=-100):
    """(w_yᵀh − √(E_W E_H))²/(2√(E_W E_H)) with h scaled to √E_H, sample by sample; 0 where ignored."""
    losses = []
    for h, y in zip(features, labels, strict=True):
        if y == ignore_index:
            losses.append(0.0)
            continue
        w = weight[y]
        largest = np.sqrt(float(w @ w) * energy)
        scaled = h * np.sqrt(energy / float(h @ h))
        losses.append((float(w @ scaled) - largest) ** 2 / (2 * largest))
    return np.array(losses)


@pytest.mark.parametrize("head", [etf_head(4, 5, scale=2.0, dtype=DOUBLE), seli_head([9, 4, 1, 1], 5, dtype=DOUBLE),
                                  nn.Linear(5, 4, dtype=DOUBLE)], ids=["etf", "seli", "linear"])
@pytest.mark.parametrize("energy", [1.0, 9.0])
def test_the_loss_and_its_reductions_against_a_loop(head, energy):
    rng = np.random.default_rng(0)
    features, labels = rng.standard_normal((7, 5)), np.array([0, 3, -100, 1, 2, -100, 3])
    expected = by_sample(head.weight.detach().numpy(), features, labels, energy)
    for given in (head, head.weight.detach()):
        found = {how: DotRegressionLoss(given, energy, how)(torch.from_numpy(features), torch.from_numpy(labels))
                 for how in ("none", "sum", "mean")}
        # (1 − cos)² by two routes, each right to 1e-15 of the largest value.
        np.testing.assert_allclose(found["none"].detach().numpy(), expected, rtol=1e-12, atol=1e-14)
        assert found["sum"].item() == pytest.approx(expected.sum(), rel=1e-12)
        assert found["mean"].item() == pytest.approx(expected.sum() / 5, rel=1e-12)


def test_positions_and_another_ignored_label():
    head, rng = etf_head(3, 4, dtype=DOUBLE), np.random.default_rng(1)
    features, labels = rng.standard_normal((2, 3, 4)), np.array([[0, 1, 9], [2, 9, 0]])
    loss = DotRegressionLoss(head, reduction="none", ignore_index=9)(torch.from_numpy(features),
                                                                     torch.from_numpy(labels))
    expected = by_sample(head.weight.numpy(), features.reshape(6, 4), labels.ravel(), 1.0, ignore_index=9)
    np.testing.assert_allclose(loss.numpy(), expected.reshape(2, 3), rtol=1e-12, atol=1e-14)
    nothing = DotRegressionLoss(head)(torch.ones(2, 4, dtype=DOUBLE), torch.full((2,), -100))
    assert nothing.isnan()  # the mean of nothing, as in torch


def test_the_gradient_only_pulls_towards_the_own_classifier():
    head, rng = etf_head(4, 6, scale=3.0, dtype=DOUBLE), np.random.default_rng(2)
    features = torch.from_numpy(rng.standard_normal((5, 6))).requires_grad_()
    labels = torch.tensor([0, 1, 2, 3, 0])
    loss = DotRegressionLoss(head, 4.0, "sum")
    assert torch.autograd.gradcheck(lambda h: loss(h, labels), features)
    loss(features, labels).backward()
    for h, y, found in zip(features.detach(), labels, features.grad, strict=True):
        w, length = head.weight[y], torch.linalg.vector_norm(h)
        cosine = (w @ h) / (length * torch.linalg.vector_norm(w))
        pull = -(1 - cosine) * w * 2 / length  # through the scaling to √E_H = 2, which drops what is along h
        torch.testing.assert_close(found, pull - (pull @ h) * h / length**2, rtol=1e-11, atol=1e-12)
    assert head.weight.grad is None


def test_it_stays_exact_when_features_are_nearly_aligned():
    head = etf_head(3, 4)
    away = F.normalize(torch.linalg.svd(head.weight)[2][-1], dim=0)  # orthogonal to every classifier
    for angle in (1e-2, 1e-3, 1e-4):
        features = (head.weight + np.tan(angle) * away).requires_grad_()
        loss = DotRegressionLoss(head)(features, torch.arange(3))
        # (1 − cos)²/2 = angle⁴/8 to angle²/6; float32 has 1e-7 of the features, hence 1e-7/angle of their difference.
        assert loss.item() == pytest.approx((1 - np.cos(angle)) ** 2 / 2, rel=5e-3)
        loss.backward()
        assert features.grad.isfinite().all()


def test_free_features_go_to_the_classifiers_whatever_the_counts():
    head = etf_head(4, 5, dtype=DOUBLE)
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor([20, 5, 2, 1]))
    torch.manual_seed(0)
    features = torch.randn(28, 5, dtype=DOUBLE, requires_grad=True)
    optimiser = torch.optim.LBFGS([features], max_iter=500, tolerance_grad=1e-14, tolerance_change=0,
                                  line_search_fn="strong_wolfe")
    loss = DotRegressionLoss(head, reduction="sum")

    def objective():
        optimiser.zero_grad()
        value = loss(features, labels)
        value.backward()
        return value

    optimiser.step(objective)
    # The loss is of fourth order in the angle: L-BFGS comes within 1e-3 of it, and cosines within 1e-6.
    cosines = F.cosine_similarity(features.detach(), head.weight[labels], dim=1)
    torch.testing.assert_close(cosines, torch.ones_like(cosines), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zero_features_have_a_finite_loss_and_no_gradient(dtype):
    features = torch.zeros(3, 4, dtype=dtype, requires_grad=True)
    loss = DotRegressionLoss(etf_head(3, 4, dtype=dtype))(features, torch.arange(3))
    loss.backward()
    assert loss.isfinite()
    assert features.grad.eq(0).all()


def test_the_head_is_read_at_every_call_and_is_no_part_of_the_loss():
    head = nn.Linear(4, 3)
    loss = DotRegressionLoss(head)
    assert not list(loss.parameters())
    assert not loss.state_dict()
    features, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    before = loss(features, labels).item()
    with torch.no_grad():
        head.weight.copy_(-head.weight)
    assert loss(features, labels).item() != before
    # A tensor moves with the loss and is not saved.
    fixed = DotRegressionLoss(torch.eye(3, 4)).to(DOUBLE)
    assert fixed.classifiers().dtype == DOUBLE
    assert not fixed.state_dict()


HEAD = etf_head(3, 4)
INVALID = [
    (lambda: DotRegressionLoss(HEAD, reduction="avg"), "reduction must be one of mean, sum, none, got 'avg'"),
    (lambda: DotRegressionLoss(HEAD, 0.0), "feature_energy must be a positive number, got 0.0"),
    (lambda: DotRegressionLoss(nn.ReLU()), "head must have a weight of one row per class, got none in ReLU"),
    (lambda: DotRegressionLoss(torch.ones(3)),
     "head must have a weight of one row per class, none of them zero, got shape (3,)"),
    (lambda: DotRegressionLoss(torch.diag(torch.tensor([1.0, 0.0]))),
     "head must have a weight of one row per class, none of them zero, got length 0 for class 1"),
    (lambda: DotRegressionLoss(HEAD)(torch.ones(2, 5), torch.tensor([0, 1])),
     "features must be floats of shape (…, 4), got torch.float32 of shape (2, 5)"),
    (lambda: DotRegressionLoss(HEAD)(torch.ones(2, 4, dtype=torch.int64), torch.tensor([0, 1])),
     "features must be floats of shape (…, 4), got torch.int64 of shape (2, 4)"),
    (lambda: DotRegressionLoss(HEAD)(torch.ones(2, 4), torch.tensor([0.0, 1.0])),
     "labels must be class indices, got torch.float32"),
    (lambda: DotRegressionLoss(HEAD)(torch.ones(2, 4), torch.tensor([0, 1, 2])),
     "labels must have shape (2,), one per feature, got (3,)"),
    (lambda: DotRegressionLoss(HEAD)(torch.ones(2, 4), torch.tensor([0, 3])),
     "labels must be in 0 … 2 or -100, got 3"),
]


@pytest.mark.parametrize(("call", "message"), INVALID, ids=[message[:50] for _, message in INVALID])
def test_bad_input_is_told_in_one_line(call, message):
    with pytest.raises(InvalidInput) as caught:
        call()
    assert str(caught.value) == message
