"""Every method against a loopy NumPy reference, in both forms, with padding, ReLU, bias and schedules."""

import loops
import numpy as np
import pytest
import torch

from neuralcollapse.simulate import METHODS, simulate
from neuralcollapse.simulate.orthogonal import newton_schulz, polar_factor

COUNTS = [4, 3, 1]
LABELS = np.repeat(np.arange(3), COUNTS)
HYPER = {"heavy-ball": {"momentum": 0.8}, "nesterov": {"momentum": 0.8}, "ngd": {"momentum": 0.7},
         "ngd-loss": {"momentum": 0.6}, "adam": {"momentum": 0.8, "beta2": 0.95, "epsilon": 1e-3},
         "sign": {"momentum": 0.5}, "spectral": {"momentum": 0.6}, "muon": {"momentum": 0.9}}
# Newton–Schulz amplifies rounding in directions of small singular values, 3.4^5-fold at most.
RTOL = {"muon": 1e-9, "spectral": 1e-9}
FULL_BATCH = [entry.name for entry in METHODS if entry.name not in ("sgd", "continuation", "multipliers")]


def draw(seed, rows=8, k=3, d=4):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((k, d)), rng.standard_normal((rows, d))


def reference(method, W, H, steps, ridge=0.0, bias=False, square=False, labels=LABELS, **options):
    b = np.zeros(W.shape[0]) if bias else None

    def of(x, t):
        return loops.gradient(x[0], x[1], x[2] if bias else None, labels, square=square, ridge_w=ridge, ridge_h=ridge)

    return loops.run(method, [W, H] + ([b] if bias else []), of, steps, **options)


@pytest.mark.parametrize("method", FULL_BATCH)
@pytest.mark.parametrize(("ridge", "options"), [(0.0, {}), (0.2, {"bias": True}), (0.1, {"relu": True})],
                         ids=["plain", "ridge-bias", "relu"])
@pytest.mark.parametrize("steps", [1, 7])
def test_a_method_is_its_reference(method, ridge, options, steps):
    W, H = draw(0)
    H = np.abs(H) if options.get("relu") else H
    hyper = HYPER.get(method, {})
    runs = simulate(COUNTS, method, start=(W, H), ridge=ridge, steps=steps, step=[0.05, 0.02], d=4, schedule="sqrt",
                    **options, **hyper)
    for cell, step in enumerate((0.05, 0.02)):
        x = reference(method, W, H, steps, ridge, step=step, decay=0.5, **options, **hyper)
        found = [runs.classifiers[cell], runs.features[cell]]
        found += [runs.bias[cell]] if options.get("bias") else []
        for mine, theirs in zip(found, x, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=RTOL.get(method, 1e-11), atol=1e-11)


@pytest.mark.parametrize("method", FULL_BATCH)
def test_the_square_loss_too(method):
    W, H = draw(1)
    hyper = HYPER.get(method, {})
    runs = simulate(COUNTS, method, loss="mse", start=(W, H), ridge=0.1, steps=5, step=0.02, d=4, **hyper)
    x = reference(method, W, H, 5, 0.1, square=True, step=0.02, **hyper)
    for mine, theirs in zip((runs.classifiers[0], runs.features[0]), x, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=RTOL.get(method, 1e-11), atol=1e-11)


@pytest.mark.parametrize("method", [*FULL_BATCH, "continuation"])
@pytest.mark.parametrize("options", [{}, {"ridge": 0.1, "bias": True, "balance": 3.0}, {"loss": "mse"},
                                     {"loss": "ldt", "delta": [2.0, 1.5, 0.7]}], ids=lambda o: "-".join(o) or "plain")
def test_a_symmetric_start_is_advanced_exactly(method, options):
    W, M = draw(2, rows=3)
    given = {"steps": 30, "step": 0.02, "start": (W, M), "d": 4, "seeds": 2} | options
    small, full = simulate(COUNTS, method, symmetric=True, **given), simulate(COUNTS, method, **given)
    # Rounding differs between the two sums over samples; muon's iteration multiplies it by up to 3.4⁵ a step.
    rtol = 1e-9 if method == "muon" else 1e-12
    np.testing.assert_allclose(small.classifiers, full.classifiers, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(small.features[:, LABELS], full.features, rtol=rtol, atol=rtol)
    for name in small.values:
        np.testing.assert_allclose(small[name], full[name], rtol=1e3 * rtol, atol=1e3 * rtol, err_msg=name)


@pytest.mark.parametrize("entry", list(METHODS), ids=lambda e: e.name)
def test_a_batch_is_its_runs_one_by_one(entry):
    given = {"steps": 25, "ridge": 0.05, "d": 4, "loss": "vs", "delta": [1.5, 1.0, 0.5], "iota": [0.1, 0.0, -0.5]}
    if entry.name == "sgd":
        given["batch"] = 3
    profiles = [[4, 3, 1], [2, 2, 2]]
    together = simulate(profiles, entry.name, step=[0.03, 0.01], seeds=2, **given)
    assert len(together) == 8
    for c, cell in enumerate(together.cells):
        alone = simulate(profiles[cell["profile"]], entry.name, step=cell["step"], seeds=[cell["seed"]], **given)
        n = sum(profiles[cell["profile"]])
        np.testing.assert_allclose(together.classifiers[c], alone.classifiers[0], rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(together.features[c][:n], alone.features[0], rtol=1e-9, atol=1e-11)
        assert not together.features[c][n:].any()
        for name in alone.values:
            np.testing.assert_allclose(together[name][c], alone[name][0], rtol=1e-8, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("relu", [False, True])
def test_sgd_moves_by_its_batch_and_sees_every_sample_in_an_epoch(relu):
    W, H = draw(3)
    H = np.abs(H)
    step, ridge = 0.05, 0.1
    runs = simulate(COUNTS, "sgd", start=(W, H), seeds=[5], steps=8, step=step, batch=2, ridge=ridge, d=4, relu=relu,
                    bias=True)
    b = np.zeros(3)
    for t in range(8):
        order = np.random.default_rng([5, t // 4]).permutation(8)
        batch = order[2 * (t % 4): 2 * (t % 4) + 2]
        _, (G_W, G_H, G_b) = loops.gradient(W, H[batch], b, LABELS[batch])
        W, b = W - step * (4 * G_W + ridge * W), b - step * 4 * G_b
        H = H.copy()
        H[batch] -= step * 4 * (G_H + ridge * H[batch])
        H = np.maximum(H, 0) if relu else H
    np.testing.assert_allclose(runs.classifiers[0], W, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(runs.features[0], H, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(runs.bias[0], b, rtol=1e-12, atol=1e-13)


def test_a_whole_batch_is_gradient_descent():
    W, H = draw(4)
    given = {"start": (W, H), "steps": 20, "step": 0.03, "d": 4}
    np.testing.assert_allclose(simulate(COUNTS, "sgd", batch=100, **given).features,
                               simulate(COUNTS, "gd", **given).features, rtol=1e-11, atol=1e-12)


def test_continuation_follows_its_schedule():
    W, H = draw(5)
    runs = simulate(COUNTS, "continuation", start=(W, H), steps=12, step=0.02, ridge=0.1, ridge_start=2.0, half_life=4,
                    momentum=0.7, d=4)

    def of(x, t):
        ridge = 0.1 + 1.9 * 2 ** (-t / 4)
        return loops.gradient(x[0], x[1], None, LABELS, ridge_w=ridge, ridge_h=ridge)

    x = loops.run("heavy-ball", [W, H], of, 12, step=0.02, momentum=0.7)
    np.testing.assert_allclose(runs.classifiers[0], x[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(runs.features[0], x[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", ["ngd", "ngd-loss", "sign", "spectral", "muon", "adam"])
def test_scale_free_methods_go_on_where_the_loss_underflows(method):
    """From gaps of about 2,000 the loss is 10⁻⁸⁶⁹: the step must still be of full size and raise the margin."""
    frame = 45.0 * np.eye(3, 4)
    hyper = {"epsilon": 0.0} if method == "adam" else {}
    step = 0.5 if method != "ngd-loss" else 0.05
    runs = simulate([1, 1, 1], method, start=(frame, frame), steps=20, step=step, d=4, snapshots=[0, 20], **hyper)
    assert runs["log_loss"][0, 0] < -2000
    assert runs["log_loss"][0, 1] < runs["log_loss"][0, 0] - 50
    assert np.linalg.norm(runs.classifiers[0] - frame) > 2


def test_a_margin_that_was_never_lost_to_rounding():
    """Normalised gradient descent to SELI, R = 10 (theory.md §5): with softmax − one-hot it ends at 1.4 instead."""
    runs = simulate([10, 10, 10, 1, 1, 1], "ngd", steps=4000, step=0.2, seeds=2, symmetric=True)
    assert runs["log_loss"][:, -1].max() < -745  # below the smallest float64
    for part in ("classifiers", "embeddings", "logits"):
        assert runs[f"seli/{part}"][:, -1].max() < 0.02, part


def test_polar_factors():
    rng = np.random.default_rng(0)
    full = torch.tensor(rng.standard_normal((3, 4, 7)))
    np.testing.assert_allclose(polar_factor(full) @ polar_factor(full).mT, np.broadcast_to(np.eye(4), (3, 4, 4)),
                               atol=1e-13)
    singular = full - full.mean(1, keepdim=True)  # rank 3: the null direction gets nothing
    projector = polar_factor(singular) @ polar_factor(singular).mT
    np.testing.assert_allclose(projector, np.broadcast_to(np.eye(4) - 1 / 4, (3, 4, 4)), atol=1e-12)
    values = torch.linalg.svdvals(newton_schulz(full.mT))
    assert values.min() > 0.6
    assert values.max() < 1.3
