"""The exact residual against 60-digit arithmetic, in every dtype, from noise to losses of 10⁻⁴³⁴²⁹."""

import mpmath
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from neuralcollapse.checks import InvalidInput
from neuralcollapse.simulate import exact_cross_entropy
from neuralcollapse.simulate.residual import log_softplus, residual_, scaled_residual_

# Mantissa bits of each dtype, and how many units in the last place a gradient entry may be off: one rounding for
# bfloat16 (computed in float32), a handful of operations of 1–2 ulp each for the others.
DTYPES = {torch.float64: (2.0**-52, 6), torch.float32: (2.0**-23, 6), torch.bfloat16: (2.0**-7, 1)}


def exact(logits, label, weight=1):
    """(loss, gradient) of one sample in 60-digit arithmetic, from the logits as they are represented."""
    with mpmath.workdps(60):
        z = [mpmath.mpf(float(x)) for x in logits]
        odds = [mpmath.exp(x - z[label]) for x in z]
        others = mpmath.fsum(odds[:label] + odds[label + 1:])
        p = [x / (1 + others) for x in odds]
        p[label] = -others / (1 + others)
        return weight * mpmath.log1p(others), [weight * x for x in p]


def ulps(ours, theirs, unit):
    with mpmath.workdps(60):
        return float(abs(mpmath.mpf(float(ours)) - theirs) / (abs(theirs) * unit))


def gradient(logits, label, dtype):
    leaf = torch.tensor(np.asarray(logits)[None], dtype=dtype, requires_grad=True)
    loss = exact_cross_entropy(leaf, torch.tensor([label]))
    loss.backward()
    return leaf.detach()[0], loss.detach(), leaf.grad[0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("gap", [-60.0, -3.0, 0.0, 1.0, 10.0, 16.63, 17.0, 30.0, 60.0, 80.0])
def test_every_entry_of_the_gradient_is_right_to_a_few_ulps(dtype, gap):
    unit, allowed = DTYPES[dtype]
    rng = np.random.default_rng(int(10 * abs(gap)) + 1)
    for _ in range(20):
        logits = rng.normal(scale=2.0, size=7)
        logits[3] = gap + logits.max()
        z, loss, grad = gradient(logits, 3, dtype)
        true_loss, true_grad = exact(z, 3)
        # Below the smallest normal number there is an absolute precision only.
        normal = [ulps(g, t, unit) for g, t in zip(grad, true_grad, strict=True) if abs(t) > torch.finfo(dtype).tiny]
        assert len(normal) >= 4
        assert max(normal) <= allowed
        assert ulps(loss, true_loss, unit) <= allowed


def test_the_label_entry_is_right_where_the_usual_one_is_zero():
    logits = torch.tensor([[17.0, 0.0, -1.0]], requires_grad=True)  # 1 − p_y = 5.7e-8 < 6e-8
    usual, = torch.autograd.grad(F.cross_entropy(logits, torch.tensor([0])), logits)
    ours, = torch.autograd.grad(exact_cross_entropy(logits, torch.tensor([0])), logits)
    assert usual[0, 0] == 0
    assert ulps(ours[0, 0], exact(logits.detach()[0], 0)[1][0], 2.0**-23) <= 6


@pytest.mark.parametrize("gap", [500.0, 690.7755278982137, 700.0])
def test_float64_at_ten_to_the_minus_three_hundred(gap):
    rng = np.random.default_rng(7)
    for _ in range(50):
        logits = rng.normal(scale=1.5, size=6)
        logits[0] = gap + logits[1:].max()
        z, loss, grad = gradient(logits, 0, torch.float64)
        true_loss, true_grad = exact(z, 0)
        # Entries below 2.2e-308 are denormal: they have an absolute precision only.
        normal = [(g, t) for g, t in zip([*grad, loss], [*true_grad, true_loss], strict=True) if abs(t) > 2.3e-308]
        assert len(normal) >= 3
        assert max(ulps(g, t, 2.0**-52) for g, t in normal) <= 6


def test_the_noise_of_large_logits_is_not_amplified():
    # z_c − z_y is not representable here: its rounding alone would cost some 200 ulps of the exponential.
    logits = [1000.123456789, 345.678901234, 310.2468013579]
    z, _, grad = gradient(logits, 0, torch.float64)
    assert max(ulps(g, t, 2.0**-52) for g, t in zip(grad, exact(z, 0)[1], strict=True)) <= 6


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(9, 5), (4, 5, 3), (2, 5, 3, 2), (5,)])
def test_it_takes_the_place_of_cross_entropy(reduction, weighted, shape):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 5, () if len(shape) == 1 else (shape[0], *shape[2:]), generator=generator)
    if labels.ndim:
        labels.view(-1)[1] = -100
    weight = torch.rand(5, generator=generator, dtype=torch.float64) if weighted else None
    ours = exact_cross_entropy(logits, labels, weight, reduction)
    usual = F.cross_entropy(logits, labels, weight, reduction=reduction)
    torch.testing.assert_close(ours, usual, rtol=1e-13, atol=1e-13)
    upstream = torch.rand(ours.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits, upstream)[0] for loss in (ours, usual)),
                               rtol=1e-12, atol=1e-14)


def test_masked_classes_and_ignored_samples():
    logits = torch.tensor([[1.0, -torch.inf, 0.0], [torch.nan, torch.inf, 0.0]], requires_grad=True)
    loss = exact_cross_entropy(logits, torch.tensor([0, 7]), ignore_index=7, reduction="sum")
    grad, = torch.autograd.grad(loss, logits)
    p = 1 / (1 + np.e)
    np.testing.assert_allclose(grad, [[-p, 0, p], [0, 0, 0]], rtol=1e-6, atol=0)
    np.testing.assert_allclose(loss.item(), np.log1p(np.exp(-1)), rtol=1e-6, atol=0)
    all_ignored = exact_cross_entropy(logits, torch.tensor([7, 7]), ignore_index=7)
    assert torch.isnan(all_ignored) == torch.isnan(F.cross_entropy(logits, torch.tensor([7, 7]), ignore_index=7))
    assert exact_cross_entropy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), reduction="sum") == 0


def test_it_trains_under_autocast_and_refuses_a_double_backward():
    layer = torch.nn.Linear(4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        loss = exact_cross_entropy(layer(torch.ones(2, 4)), torch.tensor([0, 2]))
    assert loss.dtype == torch.float32
    grad, = torch.autograd.grad(loss, layer.bias, retain_graph=True)
    np.testing.assert_allclose(grad.sum(), 0, atol=1e-2)  # residuals sum to zero, in bfloat16's precision
    with pytest.raises(InvalidInput, match=r"^exact_cross_entropy can be differentiated once"):
        torch.autograd.grad(loss, layer.weight, create_graph=True)


@pytest.mark.parametrize(("logits", "labels", "options", "message"), [
    (torch.zeros(2, 3), torch.tensor([0, 3]), {}, "labels must be in 0 … 2 or -100, got 3"),
    (torch.zeros(2, 3), torch.tensor([-1, 0]), {}, "labels must be in 0 … 2 or -100, got -1"),
    (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), {}, "labels must be class indices, got torch.float32"),
    (torch.zeros(2, 3), torch.tensor([0]), {},
     "labels must have shape (2,) for logits of shape (2, 3), got (1,)"),
    (torch.zeros(2, 3, dtype=torch.int64), torch.tensor([0, 1]), {},
     "logits must be a float tensor of shape (k,), (n, k) or (n, k, …), got torch.int64 of shape (2, 3)"),
    (torch.zeros(2, 3), torch.tensor([0, 1]), {"weight": torch.ones(2)},
     "weight must have one number per class, (3,), got (2,)"),
    (torch.zeros(2, 3), torch.tensor([0, 1]), {"reduction": "avg"},
     "reduction must be one of mean, sum, none, got 'avg'"),
])
def test_bad_input_is_refused_in_one_line(logits, labels, options, message):
    with pytest.raises(InvalidInput) as error:
        exact_cross_entropy(logits, labels, **options)
    assert str(error.value) == message


# -- many runs at once -------------------------------------------------------------------------------------------


def batch(rng, gap):
    """(2, 4, 6) logits, labels and log-weights, one sample left out."""
    logits = rng.normal(size=(2, 4, 6))
    labels = rng.integers(0, 4, size=(2, 1, 6))
    np.put_along_axis(logits, labels, np.take_along_axis(logits, labels, 1) + gap, 1)
    weight = rng.uniform(0.5, 2, size=(2, 1, 6))
    weight[:, :, 5] = 0
    return logits, labels, weight


@pytest.mark.parametrize("gap", [-1e5, -30.0, 0.0, 30.0, 700.0, 1e3, 1e5])
def test_the_scaled_residual_is_right_at_any_size(gap):
    logits, labels, weight = batch(np.random.default_rng(3), gap)
    with np.errstate(divide="ignore"):
        log_weight = torch.tensor(np.log(weight))
    found = scaled_residual_(torch.tensor(logits), torch.tensor(labels), log_weight)
    # The exponents are differences of numbers of size |gap|, each rounded once.
    rtol = 1e-13 + 4e-16 * abs(gap)
    for run in range(2):
        scale = mpmath.mpf(found.log_scale[run].item())
        for i in range(5):
            loss, residual = exact(logits[run, :, i], labels[run, 0, i], mpmath.mpf(weight[run, 0, i]))
            with mpmath.workdps(60):
                theirs = [float(value * mpmath.exp(-scale)) for value in residual]
                log_loss = float(mpmath.log(loss))
            np.testing.assert_allclose(found.values[run, :, i], theirs, rtol=rtol, atol=1e-300)
            np.testing.assert_allclose(found.log_losses[run, 0, i], log_loss, rtol=1e-14, atol=1e-13)
        assert not found.values[run, :, 5].any()
        assert found.log_losses[run, 0, 5] == -torch.inf
        assert abs(float(found.values[run].abs().max()) - 1) < 1e-12


@pytest.mark.parametrize("gap", [-30.0, 0.0, 30.0, 600.0])
def test_the_plain_residual_is_the_scaled_one_times_its_scale(gap):
    logits, labels, weight = batch(np.random.default_rng(4), gap)
    off = torch.tensor(np.repeat(weight, 4, 1)).scatter_(1, torch.tensor(labels), 0)
    plain = residual_(torch.tensor(logits), torch.tensor(labels), off, torch.empty(2, 4, 6, dtype=torch.float64),
                      torch.empty(2, 1, 6, dtype=torch.float64))
    for run in range(2):
        for i in range(6):
            theirs = exact(logits[run, :, i], labels[run, 0, i], mpmath.mpf(weight[run, 0, i]))[1]
            np.testing.assert_allclose(plain[run, :, i], [float(x) for x in theirs], rtol=1e-12, atol=1e-307)


def test_log_softplus_far_and_near():
    odds = [-1e5, -800.0, -41.0, -40.0, -39.0, -1.0, 0.0, 1.0, 50.0, 1e5]
    with mpmath.workdps(60):
        theirs = [float(mpmath.log(mpmath.log1p(mpmath.exp(x)))) if x > -2000 else x for x in odds]
    np.testing.assert_allclose(log_softplus(torch.tensor(odds, dtype=torch.float64)), theirs, rtol=1e-14, atol=1e-15)
