"""The loss family against loops in float64 and F.cross_entropy: value, gradient, normalisation, stability."""

import math
import shutil
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from neuralcollapse.counts import ClassCounts
from neuralcollapse.simulate import exact_cross_entropy
from neuralcollapse.steer.losses import VSLoss

COUNTS = ClassCounts([40, 9, 3, 3, 1], names=["ant", "bee", "cat", "dog", "eel"])
K, N = COUNTS.k, COUNTS.values
MADE = {"ce": VSLoss.ce(COUNTS), "weighted": VSLoss.weighted(COUNTS),
        "effective": VSLoss.weighted(COUNTS, "effective-number", beta=0.9),
        "logit_adjusted": VSLoss.logit_adjusted(COUNTS, tau=1.5), "balanced_softmax": VSLoss.balanced_softmax(COUNTS),
        "ldt": VSLoss.ldt(COUNTS, gamma=0.3), "cdt": VSLoss.cdt(COUNTS, gamma=0.3),
        "vs": VSLoss.vs(COUNTS, gamma=0.2, tau=1.25), "ldam": VSLoss.ldam(COUNTS, max_margin=0.4, scale=3),
        "focal": VSLoss.focal(COUNTS, gamma=1.5)}
GENERAL = {"weight": [1, 2, 3, 4, 5], "delta": [1, 0.5, 2, 1.5, 0.7], "iota": [0, -1, 1, 0.3, -0.4]}


def fresh(name):
    """A loss in float64, and its parameters as its paper writes them, from counts alone."""
    return MADE[name].double()


def by_the_paper(name, z, y):
    """The loss of one sample, as its paper writes it, by a loop in Python floats."""
    n, total, top = [float(v) for v in N], float(N.sum()), float(N.max())
    z = [float(v) for v in z]
    if name == "logit_adjusted":
        a = [v + 1.5 * math.log(m / total) for v, m in zip(z, n, strict=True)]
    elif name == "balanced_softmax":
        odds = [m * math.exp(v - max(z)) for v, m in zip(z, n, strict=True)]
        return -math.log(odds[y] / sum(odds))
    elif name == "ldt":
        a = [(n[y] / top) ** 0.3 * v for v in z]
    elif name == "cdt":
        a = [v / (top / m) ** 0.3 for v, m in zip(z, n, strict=True)]
    elif name == "vs":
        a = [(m / top) ** 0.2 * v + 1.25 * math.log(m / total) for v, m in zip(z, n, strict=True)]
    elif name == "ldam":
        margins = [m**-0.25 for m in n]
        a = [3 * (v - (0.4 * margins[c] / max(margins) if c == y else 0)) for c, v in enumerate(z)]
    else:
        a = z
    shift = max(a)
    p = math.exp(a[y] - shift) / sum(math.exp(v - shift) for v in a)
    if name == "weighted":
        w = [1 / m for m in n]
    elif name == "effective":
        w = [(1 - 0.9) / (1 - 0.9**m) for m in n]
    else:
        w = [1.0] * K
    scale = total / sum(m * v for m, v in zip(n, w, strict=True))
    focus = (1 - p) ** 1.5 if name == "focal" else 1.0
    return -w[y] * scale * focus * math.log(p)


def batch(n=12, spread=2.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(n, K, generator=generator, dtype=torch.float64)
    return logits.to(dtype), torch.randint(0, K, (n,), generator=generator)


def gradient(loss, logits, target, **options):
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, target, **options)
    value.sum().backward()
    return value.detach(), leaf.grad


# -- the value -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MADE)
def test_each_loss_is_what_its_paper_writes(name):
    logits, labels = batch()
    losses = VSLoss.forward(fresh(name), logits, labels)
    expected = [by_the_paper(name, z, int(y)) for z, y in zip(logits, labels, strict=True)]
    # Twelve samples of a few operations each, all in float64.
    np.testing.assert_allclose(losses.item(), np.mean(expected), rtol=1e-12)


def test_every_constructor_is_listed_and_tried():
    assert set(VSLoss.constructors) == set(MADE) - {"effective"}
    for name in VSLoss.constructors:
        assert callable(getattr(VSLoss, name))


@pytest.mark.parametrize("temperature", ["class", "label"])
@pytest.mark.parametrize("focal", [0, 0.5, 2])
@pytest.mark.parametrize("shape", [(), (7,), (3, 4), (2, 3, 2)])
def test_all_parameters_together_in_every_shape(temperature, focal, shape):
    loss = VSLoss(COUNTS, temperature=temperature, focal=focal, margin=[0.1, 0, 0.2, 0.3, 0.5], reduction="none",
                  **GENERAL).double()
    generator = torch.Generator().manual_seed(1)
    classes_first = (*shape[:1], K, *shape[1:])
    logits = torch.randn(classes_first, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, K, shape, generator=generator)
    found = loss(logits, labels)
    assert found.shape == shape
    weight = np.array(GENERAL["weight"]) * N.sum() / (N @ GENERAL["weight"])
    delta, iota, margin = GENERAL["delta"], GENERAL["iota"], [0.1, 0, 0.2, 0.3, 0.5]
    for at in np.ndindex(shape):
        y = int(labels[at])
        z = [float(logits[(*at[:1], c, *at[1:])]) for c in range(K)]
        a = [(delta[c] if temperature == "class" else delta[y]) * z[c] + iota[c] - margin[y] * (c == y)
             for c in range(K)]
        ce = math.log(sum(math.exp(v) for v in a)) - a[y]
        expected = weight[y] * (1 - math.exp(-ce)) ** focal * ce
        np.testing.assert_allclose(found[at].item(), expected, rtol=1e-11)


@pytest.mark.parametrize("name", MADE)
def test_the_gradient_is_that_of_finite_differences(name):
    logits, labels = batch(4)
    loss = fresh(name)
    assert torch.autograd.gradcheck(lambda z: loss(z, labels), logits.requires_grad_(), atol=1e-7, rtol=1e-5)


def test_mixed_labels_are_the_mixture_of_the_losses_of_each_label():
    loss = VSLoss(COUNTS, **GENERAL).double()
    logits, _ = batch(6)
    mixture = torch.softmax(torch.randn(6, K, generator=torch.Generator().manual_seed(3), dtype=torch.float64), 1)
    each = VSLoss(COUNTS, reduction="none", **GENERAL).double()
    expected = sum(mixture[:, c] * each(logits, torch.full((6,), c)) for c in range(K)).mean()
    np.testing.assert_allclose(loss(logits, mixture).item(), expected.item(), rtol=1e-12)
    images = logits.reshape(2, 3, K).movedim(-1, 1)
    found = loss(images, mixture.reshape(2, 3, K).movedim(-1, 1))
    np.testing.assert_allclose(found.item(), expected.item(), rtol=1e-12)


def test_smoothed_labels_are_a_mixture_with_every_class():
    logits, labels = batch(6)
    mixture = 0.8 * F.one_hot(labels, K).double() + 0.2 / K
    smooth = VSLoss(COUNTS, label_smoothing=0.2, **GENERAL).double()
    np.testing.assert_allclose(smooth(logits, labels).item(),
                               VSLoss(COUNTS, **GENERAL).double()(logits, mixture).item(), rtol=1e-12)


def test_neutral_parameters_are_plain_cross_entropy_to_the_bit():
    logits, labels = batch(dtype=torch.float32)
    for smoothing in (0.0, 0.1):
        assert torch.equal(VSLoss.ce(COUNTS, label_smoothing=smoothing)(logits, labels),
                           F.cross_entropy(logits, labels, label_smoothing=smoothing))
    neutral = VSLoss(COUNTS, weight=np.ones(K), delta=np.ones(K), iota=np.zeros(K), margin=np.zeros(K))
    torch.testing.assert_close(neutral(logits, labels), F.cross_entropy(logits, labels), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", MADE)
def test_permuting_classes_changes_nothing(name):
    order = np.array([3, 0, 4, 1, 2])
    permuted = {"effective": lambda c: VSLoss.weighted(c, "effective-number", beta=0.9),
                "logit_adjusted": lambda c: VSLoss.logit_adjusted(c, tau=1.5), "ldt": lambda c: VSLoss.ldt(c, 0.3),
                "cdt": lambda c: VSLoss.cdt(c, 0.3), "vs": lambda c: VSLoss.vs(c, 0.2, 1.25),
                "ldam": lambda c: VSLoss.ldam(c, 0.4, 3), "focal": lambda c: VSLoss.focal(c, 1.5)}
    make = permuted.get(name, lambda c: getattr(VSLoss, name)(c))
    logits, labels = batch()
    place = torch.tensor(np.argsort(order))
    torch.testing.assert_close(make(N[order]).double()(logits[:, order], place[labels]), fresh(name)(logits, labels),
                               rtol=1e-12, atol=0)


# -- normalisation -------------------------------------------------------------------------------------------------


def test_weights_sum_to_the_data_set():
    for loss in (*MADE.values(), VSLoss(COUNTS, **GENERAL), VSLoss.ldam(COUNTS).reweighted()):
        weight = loss.vectors["weight"]
        if weight is not None:
            np.testing.assert_allclose(N @ weight, N.sum(), rtol=1e-14)
    over_the_data_set = torch.arange(K).repeat_interleave(torch.tensor(N, dtype=torch.int64))
    logits = torch.randn(len(over_the_data_set), K, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = VSLoss.weighted(COUNTS).double()(logits, over_the_data_set)
    torch_own = F.cross_entropy(logits, over_the_data_set, weight=torch.tensor(1 / N))
    np.testing.assert_allclose(ours.item(), torch_own.item(), rtol=1e-13)


def accumulated(criterion, logits, labels, sizes):
    """The gradient that a loop with micro-batches of these sizes accumulates, each divided by their number."""
    leaf = logits.clone().requires_grad_()
    for rows in torch.arange(len(labels)).split(sizes):
        (criterion(leaf[rows], labels[rows]) / len(sizes)).backward()
    return leaf.grad


def test_accumulating_two_samples_is_one_batch_of_two_here_and_off_by_half_in_torch():
    logits, labels = torch.zeros(2, 2, dtype=torch.float64), torch.tensor([0, 1])
    ours = VSLoss.weighted([4, 1]).double()
    torch_own = nn.CrossEntropyLoss(weight=torch.tensor([0.25, 1.0], dtype=torch.float64))
    for criterion, error in ((ours, 0.0), (torch_own, 0.5145)):  # √2·0.3/√(0.8² + 0.2²)
        whole = accumulated(criterion, logits, labels, [2])
        parts = accumulated(criterion, logits, labels, [1, 1])
        assert abs(float((parts - whole).norm() / whole.norm()) - error) < 1e-4


@pytest.mark.parametrize("name", MADE)
def test_micro_batches_give_the_gradient_of_the_batch(name):
    logits, labels = batch(12)
    loss = fresh(name)
    _, whole = gradient(loss, logits, labels)
    torch.testing.assert_close(accumulated(loss, logits, labels, [4, 4, 4]), whole, rtol=1e-12, atol=1e-16)
    leaf = logits.clone().requires_grad_()
    labels[[1, 4, 11]] = -100
    _, whole = gradient(loss, logits, labels)
    for rows in torch.arange(12).split([1, 1, 7, 3]):  # of any sizes, one without a label, when the whole is told
        loss(leaf[rows], labels[rows], num_items_in_batch=torch.tensor(9)).backward()
    torch.testing.assert_close(leaf.grad, whole, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("name", ["ce", "vs", "ldam", "focal"])
def test_no_label_in_any_micro_batch_is_no_loss_where_nobody_can_look(name):
    """Compiled, as on a device, the number of labels is not looked at: 0/0 must not be what comes out."""
    logits, labels = batch(4, dtype=torch.float32)
    compiled = torch.compile(MADE[name].float(), backend="eager", fullgraph=True)
    value, slope = gradient(compiled, logits, torch.full_like(labels, -100), num_items_in_batch=torch.tensor(0))
    assert value == 0
    assert not slope.any()
    value, _ = gradient(compiled, logits, labels, num_items_in_batch=torch.tensor(8))
    torch.testing.assert_close(value, MADE[name](logits, labels) / 2)


@pytest.mark.parametrize("name", MADE)
def test_ignored_samples_count_for_nothing(name):
    logits, labels = batch(12)
    kept = labels.clone()
    kept[::3] = -100
    rows = kept != -100
    loss = fresh(name)
    value, slope = gradient(loss, logits, kept)
    expected, slope_of_kept = gradient(loss, logits[rows], labels[rows])
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(slope[rows], slope_of_kept, rtol=1e-12, atol=1e-18)
    assert not slope[~rows].any()
    assert loss(logits, torch.full((12,), -100)).isnan()  # a mean over nothing, as in torch


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("ignored", [255, 3])
def test_any_label_can_be_the_ignored_one(name, ignored):
    logits, labels = batch(12)
    options = {**MADE[name].vectors, "temperature": MADE[name].temperature, "focal": MADE[name].focus}
    labels = torch.where(labels == 3, ignored, labels)
    expected = fresh(name)(logits, torch.where(labels == ignored, -100, labels))
    found = VSLoss(COUNTS, ignore_index=ignored, **options).double()(logits, labels)
    np.testing.assert_allclose(found.item(), expected.item(), rtol=1e-12)


@pytest.mark.parametrize("name", MADE)
def test_reductions_agree(name):
    logits, labels = batch(7)
    labels[2] = -100
    options = {**MADE[name].vectors, "temperature": MADE[name].temperature, "focal": MADE[name].focus}
    none, total, mean = (VSLoss(COUNTS, reduction=kind, **options).double()(logits, labels)
                         for kind in ("none", "sum", "mean"))
    assert none.shape == (7,)
    assert none[2] == 0
    np.testing.assert_allclose([total.item(), mean.item()], [none.sum().item(), none.sum().item() / 6], rtol=1e-13)


# -- stability -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_extreme_and_masked_logits_in_every_dtype(name, dtype):
    logits = torch.tensor([[1e4, -1e4, 0, 3, -3], [-1e4, 1e4, 1e4, 0, 0], [1.0, -torch.inf, 2, 0, -torch.inf]],
                          dtype=dtype)
    labels = torch.tensor([0, 2, 3])
    loss = MADE[name].float() if dtype != torch.float64 else fresh(name)
    value, slope = gradient(loss, logits, labels)
    assert value.dtype == slope.dtype == dtype
    assert value.isfinite()
    assert slope.isfinite().all()
    assert not slope[2, [1, 4]].any()
    # One rounding of the result in its own dtype; adjusted logits of 3e4 are formed in float32 at least.
    reference = fresh(name)(logits.double(), labels)
    np.testing.assert_allclose(float(value), reference.item(), rtol=2 * torch.finfo(dtype).eps + 2e-6,
                               atol=0 if dtype == torch.float64 else 3e4 * 2**-23)
    MADE[name].float()


@pytest.mark.parametrize("name", MADE)
def test_autocast_gives_what_cross_entropy_gives(name):
    logits, labels = batch(6, dtype=torch.bfloat16)
    loss = MADE[name].float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(logits, labels)
        assert value.dtype == F.cross_entropy(logits, labels).dtype == torch.float32
    torch.testing.assert_close(value, loss(logits.float(), labels), rtol=1e-6, atol=0)


def test_exact_residuals_where_the_usual_ones_are_gone():
    logits = torch.tensor([[60.0, 0, 1, -1, 0]], requires_grad=True)
    labels = torch.tensor([0])
    usual, = torch.autograd.grad(VSLoss.vs(COUNTS, 0.1, 1.0)(logits, labels), logits)
    exact, = torch.autograd.grad(VSLoss.vs(COUNTS, 0.1, 1.0, exact=True)(logits, labels), logits)
    delta = torch.tensor((N / N.max()) ** 0.1)
    iota = torch.tensor(np.log(N / N.sum()))
    inner = (logits.detach().double() * delta + iota).requires_grad_()
    reference, = torch.autograd.grad(exact_cross_entropy(inner, labels), inner)
    assert usual[0, 0] == 0
    torch.testing.assert_close(exact.double(), reference * delta, rtol=1e-4, atol=0)  # float32 logits of size 60
    spread, labels = batch()
    for name in ("ce", "weighted", "ldt", "vs", "ldam", "focal"):
        loss = fresh(name)
        plain = loss(spread, labels)
        loss.exact = True
        torch.testing.assert_close(loss(spread, labels), plain, rtol=1e-12, atol=0)
        loss.exact = False


def test_focus_below_one_has_a_gradient_at_certainty():
    logits = torch.tensor([[200.0, 0, 0, 0, 0]], requires_grad=True)
    VSLoss.focal(COUNTS, gamma=0.5)(logits, torch.tensor([0])).backward()
    assert not logits.grad.any()


@pytest.mark.parametrize(("name", "backend"), [*[(name, "eager") for name in ("weighted", "vs", "ldam", "focal")],
                                               ("vs", "inductor")])
def test_compiled_whole(name, backend):
    # Inductor writes C++; where nothing compiles it there is nothing of ours to test.
    if backend == "inductor" and shutil.which("c++") is None:
        pytest.skip("inductor needs a compiler")
    logits, labels = batch(6, dtype=torch.float32)
    labels[1] = -100
    loss = MADE[name].float()
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(loss, backend=backend, fullgraph=True)
        for ours, theirs in zip(gradient(compiled, logits, labels), gradient(loss, logits, labels), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
