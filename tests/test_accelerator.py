"""What runs on an accelerator gives what it gives on the CPU. Skipped where there is none: CI has none."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from neuralcollapse import ClassCounts, CollapseMetric, InvalidInput, Watch, measure, measure_model, predict, simulate
from neuralcollapse.experiments import Run, TrainConfig, train
from neuralcollapse.experiments.frozen import Frozen
from neuralcollapse.measure import ClassMoments, Probe, Snapshot
from neuralcollapse.predict import lambda_eff, ridge_path
from neuralcollapse.simulate import METHODS, exact_cross_entropy
from neuralcollapse.steer import (
    CosineHead,
    DotRegressionLoss,
    FeaturePenalty,
    Remedy,
    RidgeSchedule,
    SupConLoss,
    etf_head,
    evaluate_posthoc,
    geometry_head,
    parameter_groups,
    replace_head,
    scores,
    seli_head,
)
from neuralcollapse.steer.class_probe import rescue_features
from neuralcollapse.steer.trainer import TrainerLoss

DEVICE = "cuda"
# Every test here compares a device with the CPU: without one there is nothing to compare, on CI as on most machines.
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

COUNTS = ClassCounts([60, 60, 30, 8, 4, 4])
K, D = COUNTS.k, 12
BOTH = ("cpu", DEVICE)


def sample(dtype=torch.float32, spread=0.3, seed=0):
    """Features around class means, labels, and a head's weight and bias, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(K), torch.tensor(COUNTS.values.astype(np.int64)))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    means = torch.randn(K, D, generator=generator, dtype=torch.float64)
    features = means[labels] + spread * torch.randn(len(labels), D, generator=generator, dtype=torch.float64)
    bias = torch.randn(K, generator=generator, dtype=torch.float64)
    return features.to(dtype), labels, means.to(dtype), bias.to(dtype)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 16), nn.ReLU(), nn.Linear(16, K))


def numbers(value):
    """Every number of nested dictionaries and lists."""
    if isinstance(value, dict):
        return [one for inner in value.values() for one in numbers(inner)]
    if isinstance(value, list | tuple):
        return [one for inner in value for one in numbers(inner)]
    return [float(value)] if isinstance(value, int | float) else []


def assert_alike(call, rtol=1e-6, atol=1e-6):
    """`call(device)` on both devices."""
    one, other = (numbers(call(device)) for device in BOTH)
    assert len(one) > 0
    np.testing.assert_allclose(other, one, rtol=rtol, atol=atol)


def listed(*tensors):
    return [tensor.detach().double().cpu().flatten().tolist() for tensor in tensors]


# -- measure -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [{}, {"scatter": False}, {"center": "samples"}, {"nc4": None}, {"bias": False}],
                         ids=str)
def test_measuring_tensors(options):
    bias, options = options.get("bias", True), {name: value for name, value in options.items() if name != "bias"}

    def call(device):
        x, y, W, b = (part.to(device) for part in sample())
        found = measure(x, y, W, b if bias else None, targets=("seli", "etf"), **options)
        return [found.to_dict(), *(gram.tolist() for gram in found.grams().values())]

    assert_alike(call)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_metric_in_batches_and_merged(dtype):
    def call(device):
        head = nn.Linear(D, K).to(device)
        with torch.no_grad():
            head.weight.copy_(sample()[2])
            head.bias.copy_(sample()[3])
        parts = [CollapseMetric(K, D, head).to(device) for _ in range(2)]
        x, y = (part.to(device) for part in sample(dtype)[:2])
        for number, (a, b) in enumerate(zip(x.split(25), y.split(25), strict=True)):
            parts[number % 2].update(a, b)
        parts[0].merge_state(parts[1])
        values = {name: value.item() for name, value in parts[0].compute().items()}
        parts[0].reset()
        parts[0].update(x, y)
        return [values, parts[0].measurement().to_dict()]

    assert_alike(call, rtol=1e-5, atol=2e-3 if dtype in (torch.bfloat16, torch.float16) else 1e-5)


def test_moments_are_exact_there_too():
    def call(device):
        moments = ClassMoments(K, D, device=device)
        x, y = (part.to(device) for part in sample(torch.float64)[:2])
        for a, b in zip(x.split(25), y.split(25), strict=True):
            moments.update(a, b)
        found = moments.moments()
        return listed(found.counts, found.means, found.squares, found.scatter)

    assert_alike(call, rtol=1e-11, atol=1e-11)


def test_labels_that_no_class_has_are_one_line_after_the_pass():
    x, y = (part.to(DEVICE) for part in sample()[:2])
    metric = CollapseMetric(K, D).to(DEVICE)
    metric.update(x, y + 1)  # waits for nothing: the next line tells
    with pytest.raises(InvalidInput, match="label"):
        metric.compute()
    with pytest.raises(InvalidInput, match="label"):
        measure(x, y + 1, counts=COUNTS)
    broken = x.clone()
    broken[3, 2] = torch.nan
    with pytest.raises(InvalidInput, match="finite"):
        measure(broken, y)
    assert torch.ones(2, device=DEVICE).sum().item() == 2  # the device still answers: no assertion fired on it


def test_features_there_and_the_rest_here():
    x, y, W, b = sample()
    expected = numbers(measure(x, y, W, b).to_dict())
    np.testing.assert_allclose(numbers(measure(x.to(DEVICE), y, W, b).to_dict()), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("where", BOTH)
def test_measuring_a_model_with_batches_of_either_device(where):
    x, y, *_ = sample()

    def call(device):
        there = device if where == DEVICE else "cpu"
        batches = list(zip(x.to(there).split(25), y.to(there).split(25), strict=True))
        return measure_model(network().to(device), batches, counts=COUNTS).to_dict()

    assert_alike(call, rtol=1e-4, atol=1e-5)


def test_a_probe_and_a_snapshot(tmp_path):
    def call(device):
        model, (x, y) = network().to(device), (part.to(device) for part in sample()[:2])
        with Probe(model) as probe:
            model(x)
        file = tmp_path / f"{device}.safetensors"
        Snapshot(probe.features(), y, probe.head.weight, probe.head.bias).save(file)
        return [*listed(probe.features(), probe.logits()), Snapshot.load(file).measure().to_dict()]

    assert_alike(call, rtol=1e-4, atol=1e-5)


def test_a_watch_in_a_plain_loop():
    x, y, *_ = sample()

    def call(device):
        model = network().to(device)
        optimizer, found = torch.optim.SGD(model.parameters(), lr=0.05), []
        watch = Watch(model, COUNTS, log=lambda report: found.append(report.scalars()), every=1)
        for epoch in range(1, 4):
            watch.start_epoch(epoch)
            for a, b in zip(x.to(device).split(40), y.to(device).split(40), strict=True):
                optimizer.zero_grad()
                F.cross_entropy(model(a), b).backward()
                optimizer.step()
                watch.add(b)
            watch.end_epoch()
        watch.close()
        assert len(found) == 3
        return found

    assert_alike(call, rtol=1e-3, atol=1e-4)


# -- predict -------------------------------------------------------------------------------------------------------

def test_predictions_take_tensors_of_the_device():
    _, _, W, _ = sample()
    geometry, path = predict(COUNTS), ridge_path(COUNTS, points=12)
    layer = nn.Linear(D, K, bias=False)

    def call(device):
        layer.weight.data = W.to(device)
        fitted = lambda_eff(path, classifiers=layer.weight)
        return [geometry.classifiers.distance(layer.weight), fitted.ridge, fitted.distance]

    assert_alike(call)


# -- steer ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["ce", "weighted", "effective-number", "logit-adjusted", "ldt", "weighted-ldt", "cdt",
                                  "vs", "ldam", "focal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_and_their_gradients(name, dtype):
    x, y, W, _ = sample(dtype)

    def call(device):
        loss = Remedy(name, COUNTS, {}).loss().to(device)
        logits = (x @ W.T).to(device, copy=True).requires_grad_()
        value = loss(logits, y.to(device))
        value.backward()
        return listed(value, logits.grad)

    assert_alike(call, rtol=1e-5 if dtype == torch.float32 else 2e-2, atol=1e-6 if dtype == torch.float32 else 1e-4)


def test_losses_in_autocast():
    x, y, W, _ = sample()
    loss = Remedy("vs", COUNTS, {}).loss().to(DEVICE)
    exact = loss(x.to(DEVICE) @ W.to(DEVICE).T, y.to(DEVICE)).item()
    with torch.autocast(DEVICE, torch.bfloat16):
        assert loss(x.to(DEVICE) @ W.to(DEVICE).T, y.to(DEVICE)).item() == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_exact_cross_entropy(reduction):
    x, y, W, _ = sample(torch.float64)

    def call(device):
        logits = (300 * x @ W.T).to(device).requires_grad_()
        value = exact_cross_entropy(logits, y.to(device), reduction=reduction)
        value.sum().backward()
        return listed(value, logits.grad)

    assert_alike(call, rtol=1e-10, atol=1e-200)


def test_losses_of_features():
    x, y, W, _ = sample()

    def call(device):
        features = x.to(device, copy=True).requires_grad_()
        head = etf_head(K, D).to(device)
        contrast = [SupConLoss()(features, y.to(device)), SupConLoss(nonnegative=True)(features.relu(), y.to(device)),
                    SupConLoss(prototypes=W, prototype_copies=2).to(device)(features, y.to(device))]
        dots = DotRegressionLoss(head)(features, y.to(device))
        (sum(contrast) + dots).backward()
        return listed(*contrast, dots, features.grad)

    assert_alike(call, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("made", [lambda **o: etf_head(K, D, **o), lambda **o: seli_head(COUNTS, D, **o),
                                  lambda **o: geometry_head(predict(COUNTS, ridge=1.0), D, learn=True, **o),
                                  lambda **o: CosineHead(K, D, learn_scale=True, **o)],
                         ids=["etf", "seli", "geometry", "cosine"])
def test_heads_made_there_or_moved_there(made):
    x = sample()[0].to(DEVICE)
    torch.manual_seed(0)
    moved = made().to(DEVICE)
    torch.manual_seed(0)
    there = made(device=DEVICE)
    assert {one.device.type for one in (*there.parameters(), *there.buffers())} == {torch.device(DEVICE).type}
    assert moved(x).shape == there(x).shape == (len(x), K)
    if not isinstance(there, CosineHead):  # its start is drawn by the device
        torch.testing.assert_close(moved(x), there(x))
    moved(x.requires_grad_()).sum().backward()
    assert x.grad.device.type == DEVICE


def test_a_head_is_replaced_on_the_models_device():
    model = network().to(DEVICE)
    replace_head(model, etf_head(K, 16), head="2")
    x = sample()[0].to(DEVICE)
    assert model(x).shape == (len(x), K)


def test_a_network_is_steered_through_its_ridge():
    x, y, *_ = sample()

    def call(device):
        model = network().to(device)
        groups = parameter_groups(model, ridge=0.5, feature_penalty=1e-3, counts=COUNTS)
        optimizer = torch.optim.SGD(groups, lr=0.02)
        penalty = FeaturePenalty(model, 1e-3, len(x), head="2")
        schedule = RidgeSchedule(optimizer, penalty, start=0.5, end=0.05, steps=10)
        inputs, labels = x.to(device), y.to(device)
        for _ in range(10):
            optimizer.zero_grad()
            with penalty:
                loss = F.cross_entropy(model(inputs), labels) + penalty()
            loss.backward()
            optimizer.step()
            schedule.step()
        return [schedule.ridge, *listed(*model.parameters())]

    assert_alike(call, rtol=1e-3, atol=1e-5)


def test_remedies_after_training_and_rescue():
    x, y, W, b = sample()

    def call(device):
        samples = (x.to(device), y.to(device))
        rows = evaluate_posthoc(samples, samples, W.to(device), b.to(device), counts=COUNTS)
        verdicts = rescue_features(samples, samples, W.to(device), b.to(device), counts=COUNTS)
        return [[row.scores.to_dict() for row in rows if row.scores], [one.to_dict() for one in verdicts],
                scores(samples[0] @ W.to(device).T, samples[1], COUNTS).to_dict()]

    assert_alike(call, rtol=1e-4, atol=1e-5)


def test_a_trainers_loss():
    x, y, W, _ = sample()

    def call(device):
        loss = TrainerLoss(Remedy("logit-adjusted", COUNTS, {}).loss())
        return listed(loss({"logits": (x @ W.T).to(device)}, y.to(device), num_items_in_batch=len(y)))

    assert_alike(call)


# -- simulate ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("method", "symmetric"), [
    *((entry.name, False) for entry in METHODS),
    *((entry.name, True) for entry in METHODS if entry.name != "sgd")])  # it draws samples: classes do not stay alike
def test_simulations_from_one_start(method, symmetric):
    start = np.random.default_rng(0)
    W, H = start.standard_normal((3, 4)), start.standard_normal((3 if symmetric else 8, 4))

    def call(device):
        runs = simulate([4, 3, 1], method, start=(W, H), steps=30, step=0.02, d=4, symmetric=symmetric, device=device)
        assert not runs.diverged
        return [runs.classifiers.tolist(), runs.features.tolist(),
                [np.asarray(value).tolist() for value in runs.values.values()]]

    assert_alike(call, rtol=1e-6, atol=1e-8)  # Newton–Schulz multiplies rounding by up to 3.4⁵ a step


def test_a_grid_of_seeds_in_float32():
    runs = simulate(COUNTS, "gd", seeds=256, steps=200, step=0.01, d=K, dtype="float32", device=DEVICE)
    assert runs.classifiers.shape[0] == 256
    assert np.isfinite(runs.classifiers).all()


# -- train ---------------------------------------------------------------------------------------------------------

TINY = TrainConfig(epochs=4, measure=[2, 4], n_max=40, batch_size=33, feature_penalty=1e-4, learning_rate=0.05,
                   schedule="constant", threads=1, model_options={"width": 16, "features": 12})
NETWORKS = {"mlp": {}, "cnn": {"model": "cnn", "dataset": "mnist5k", "model_options": {"width": 4, "features": 12}},
            "resnet18": {"model": "resnet18", "dataset": "mnist5k", "model_options": {"width": 4},
                         "learning_rate": 0.005},  # at 0.05 rounding grows to a tenth within two epochs
            "noisy": {"label_noise": 0.1, "terminal_epochs": 2}, "drawn": {"sampling": "oversampled"},
            "bound": {"loss": "cdt"}, "steered": {"loss": "vs", "optimizer": "adam", "learning_rate": 0.005},
            "contrast": {"loss": "scl"}, "fixed head": {"head": "etf"}}


@pytest.mark.parametrize("name", NETWORKS)
def test_training_is_that_of_the_cpu(name, tmp_path):
    if name == "drawn":
        pytest.importorskip("imblearn")
    config = TINY.replace(**NETWORKS[name])
    here, there = train(config.replace(device="cpu"), tmp_path / "cpu"), train(config, tmp_path / "there")
    assert json.loads((tmp_path / "there" / "environment.json").read_text())["device"].startswith(DEVICE)
    assert here.measured_epochs == there.measured_epochs
    one, other = ([record["train"], record["measurement"]["distances"]] for record in
                  (here.history[0], there.history[0]))
    np.testing.assert_allclose(numbers(other), numbers(one), rtol=0.05, atol=0.02)
    frozen = Frozen.of_run(there)
    assert frozen.train[0].device.type == "cpu"
    assert len(frozen.posthoc(["tau-norm", "nearest-class-mean"])) == 3


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_resumed_run_is_the_run(precision, tmp_path):
    config = TINY.replace(precision=precision)

    def stop(report):
        if report.epoch == 2:
            raise KeyboardInterrupt

    whole = train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "parts", on_epoch=stop)
    parts = train(None, tmp_path / "parts", resume=True)
    assert Run.open(tmp_path / "parts").finished
    for one, other in zip(whole.history, parts.history, strict=True):
        assert {**one, "seconds": None} == {**other, "seconds": None}
