"""The closed-form gradient against autograd and against loops, for every loss, with ridges, bias, ReLU and symmetry."""

import loops
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.simulate.columns import make_columns
from neuralcollapse.simulate.loss import trained_loss
from neuralcollapse.simulate.model import FreeModel

COUNTS = ClassCounts([5, 3, 3, 1])
VECTORS = {"weight": [0.5, 1.0, 2.0, 3.0], "delta": [1.2, 0.7, 1.0, 0.4], "iota": [0.3, -1.0, 0.0, 0.8]}
LOSSES = {
    "ce": {}, "weighted": {"weight": VECTORS["weight"]}, "la": {"iota": VECTORS["iota"]},
    "ldt": {"delta": VECTORS["delta"]}, "cdt": {"delta": VECTORS["delta"]},
    "vs": {"delta": VECTORS["delta"], "iota": VECTORS["iota"]}, "mse": {},
}
EVERY = [*LOSSES.items(), ("ce", VECTORS), ("ce", VECTORS | {"temperature": "label"})]
RIDGE, BALANCE = [0.3, 0.0], [2.0, 1.0]


def make_model(loss, parameters, bias=False, symmetric=False, profiles=(COUNTS,), profile=(0, 0), d=5, **ridges):
    trained = trained_loss(loss, profiles[0].k, False, bias, parameters)
    columns = make_columns(profiles, profile, trained.parameters, symmetric, torch.float64, torch.device("cpu"))
    return FreeModel(columns, trained, d, **({"ridge": RIDGE, "balance": BALANCE} | ridges))


def randomise(model, seed=0, size=1.0):
    generator = torch.Generator().manual_seed(seed)
    for block in model.blocks:
        block.copy_(size * torch.randn(block.shape, generator=generator, dtype=torch.float64))


def autograd_gradient(model, run, loss, parameters, labels):
    """The same objective written with torch's own cross-entropy."""
    W, H, *b = (block[run].clone().requires_grad_() for block in model.blocks)
    z = (W @ H + (b[0] if b else 0)).T
    if loss == "mse":
        value = 0.5 * (z - F.one_hot(labels, z.shape[1])).square().sum()
    else:
        delta = torch.tensor(parameters.get("delta", [1.0] * 4), dtype=torch.float64)
        by_label = loss == "ldt" or parameters.get("temperature") == "label"
        z = z * (delta[labels][:, None] if by_label else delta)
        z = z + torch.tensor(parameters.get("iota", [0.0] * 4), dtype=torch.float64)
        weight = torch.tensor(parameters.get("weight", [1.0] * 4), dtype=torch.float64)
        value = (weight[labels] * F.cross_entropy(z, labels, reduction="none")).sum()
    ridge_w, ridge_h = RIDGE[run] / np.sqrt(BALANCE[run]), RIDGE[run] * np.sqrt(BALANCE[run])
    value = value + ridge_w / 2 * W.square().sum() + ridge_h / 2 * H.square().sum()
    return value.item(), torch.autograd.grad(value, [W, H, *b])


@pytest.mark.parametrize(("loss", "parameters"), EVERY, ids=lambda p: p if isinstance(p, str) else "-".join(p))
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_the_gradient_is_autograds(loss, parameters, bias, scaled):
    model = make_model(loss, parameters, bias)
    randomise(model)
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor([5, 3, 3, 1]))
    objective = (model.log_loss().exp() + model.penalty()).flatten()
    model.residual(scaled)
    found = [torch.zeros_like(block) for block in model.blocks]
    model.accumulate(found, 0, 1.0)
    scale = torch.ones(2, 1, 1) if model.log_scale is None else model.log_scale.exp()
    for run in range(2):
        value, theirs = autograd_gradient(model, run, loss, parameters, labels)
        np.testing.assert_allclose(objective[run], value, rtol=1e-13, atol=0)
        for mine, other in zip(found, theirs, strict=True):
            np.testing.assert_allclose(mine[run] * scale[run], other, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("loss", "parameters"), EVERY, ids=lambda p: p if isinstance(p, str) else "-".join(p))
def test_the_reference_of_the_methods_is_autograds_too(loss, parameters):
    model = make_model(loss, parameters, bias=True)
    randomise(model, seed=1)
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor([5, 3, 3, 1]))
    value, (W, H, b) = autograd_gradient(model, 0, loss, parameters, labels)
    given = {key: parameters[key] for key in ("weight", "delta", "iota") if key in parameters}
    by_label = loss == "ldt" or parameters.get("temperature") == "label"
    found, (G_W, G_H, G_b) = loops.gradient(
        model.W[0].numpy(), model.H[0].T.numpy(), model.b[0, :, 0].numpy(), labels.numpy(), square=loss == "mse",
        by_label=by_label, ridge_w=0.3 / np.sqrt(2), ridge_h=0.3 * np.sqrt(2), **given)
    np.testing.assert_allclose(found, value, rtol=1e-13, atol=0)
    for mine, theirs in ((G_W, W), (G_H.T, H), (G_b, b[:, 0])):
        np.testing.assert_allclose(mine, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("loss", "parameters"), EVERY, ids=lambda p: p if isinstance(p, str) else "-".join(p))
def test_a_column_per_class_gives_what_its_samples_give(loss, parameters):
    small, full = make_model(loss, parameters, True, symmetric=True), make_model(loss, parameters, True)
    randomise(small)
    labels = full.columns.labels[0, 0]
    full.W.copy_(small.W)
    full.H.copy_(small.H[:, :, labels])
    full.b.copy_(small.b)
    for model in (small, full):
        model.residual(scaled=True)
    gradients = []
    for model in (small, full):
        blocks = [torch.zeros_like(block) for block in model.blocks]
        model.accumulate(blocks, 0, 1.0)
        gradients.append(blocks)
        assert torch.equal(model.log_scale if model.log_scale is not None else torch.zeros(2, 1, 1),
                           small.log_scale if small.log_scale is not None else torch.zeros(2, 1, 1))
    (W, H, b), (full_W, full_H, full_b) = gradients
    for mine, theirs in ((W, full_W), (H[:, :, labels], full_H), (b, full_b)):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(small.norm(gradients[0]), full.norm(gradients[1]), rtol=1e-13, atol=0)
    np.testing.assert_allclose(small.log_loss(), full.log_loss(), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(small.penalty(), full.penalty(), rtol=1e-13, atol=0)


def test_padding_adds_nothing():
    other = ClassCounts([2, 2, 2, 2])
    padded = make_model("ce", {}, True, profiles=(COUNTS, other), profile=(0, 1))
    alone = make_model("ce", {}, True, profiles=(other,), profile=(0, 0), ridge=[0.0, 0.0])
    randomise(padded)
    padded.H[1, :, 8:] = 0
    for mine, theirs in zip(alone.blocks, padded.blocks, strict=True):
        mine[1] = theirs[1][..., :mine.shape[2]]
    for model in (padded, alone):
        model.residual(scaled=True)
    blocks = [[torch.zeros_like(block) for block in model.blocks] for model in (padded, alone)]
    for model, into in zip((padded, alone), blocks, strict=True):
        model.accumulate(into, 0, 1.0)
    for mine, theirs in zip(*blocks, strict=True):
        np.testing.assert_allclose(mine[1][..., :theirs.shape[2]], theirs[1], rtol=1e-13, atol=1e-14)
        assert not mine[1][..., theirs.shape[2]:].any()
    np.testing.assert_allclose(padded.log_loss()[1], alone.log_loss()[1], rtol=1e-14, atol=1e-14)


def test_the_gradient_beside_a_ridge_is_right_when_the_loss_underflows():
    """Gaps of 10⁴: the loss's part is 10⁻⁴³⁴³ and only the ridge is left, of one run; the other has no ridge."""
    model = make_model("ce", {}, ridge=[1e-3, 0.0], balance=[1.0, 1.0], d=4)
    model.W.copy_(100 * torch.eye(4))
    model.H.copy_(100 * torch.eye(4)[:, model.columns.labels[0, 0]])
    model.residual(scaled=True)
    found = [torch.zeros_like(block) for block in model.blocks]
    model.accumulate(found, 0, 1.0)
    log_scale = model.log_scale.flatten()
    np.testing.assert_allclose(found[0][0] * log_scale[0].exp(), 1e-3 * model.W[0], rtol=1e-12, atol=0)
    assert abs(float(log_scale[1]) + 1e4 - np.log(3)) < 1e-8  # the label's: three others at exp(−10⁴)
    np.testing.assert_allclose(found[1][1], (100 / 3 - 100 * (4 / 3) * np.eye(4))[:, model.columns.labels[1, 0]],
                               rtol=1e-10, atol=1e-10)


def test_samples_need_whole_counts():
    with pytest.raises(InvalidInput, match=r"^counts must be whole numbers where every sample is free, got "
                                           r"ClassCounts\(2\.5, 1\): round them with \.rounded\(\), or start "):
        make_model("ce", {}, profiles=(ClassCounts([2.5, 1]),))
