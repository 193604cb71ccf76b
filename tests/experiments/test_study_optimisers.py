"""The study of optimisers end to end on a tiny setting: files, and numbers that agree with the runs beside them."""

import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from neuralcollapse import ClassCounts, predict
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data import load_data
from neuralcollapse.experiments.models import build_model
from neuralcollapse.experiments.studies import run_study
from neuralcollapse.experiments.studies.optimisers import METHODS, WIDTHS, Share
from neuralcollapse.experiments.studies.optimisers_networks import (
    OPTIMISERS,
    log_cross_entropy,
    network_rows,
    observed,
)
from neuralcollapse.simulate.simulation import Simulation

NORMS = ("nuclear", "spectral", "max")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    table = run_study("optimisers", out, quick=True, ratios=[1, 20], seeds=2, seed=3, steps=120)
    return out, table.read_text(encoding="utf-8")


def rows(path):
    return pq.read_table(path).to_pylist()


def test_it_leaves_data_figures_a_table_and_where_they_come_from(study):
    out, table = study
    assert {path.name for path in out.iterdir() if path.suffix != ".npz"} == {
        "margins.parquet", "widths.parquet", "networks.parquet", "optimisers.png", "optimisers.pdf",
        "gallery.md", "table.md", "study.json"}
    assert len(list(out.glob("*.npz"))) == len(METHODS)
    assert json.loads((out / "study.json").read_text())["seeds"] == [3, 4]
    for norm in NORMS:
        assert f"Share of the best {norm} margin at the end" in table
    assert len(rows(out / "margins.parquet")) == len(METHODS) * 3 * 2  # STEP at both ratios, a long tail at the second
    assert len(rows(out / "widths.parquet")) == len(WIDTHS) * 2
    assert len(rows(out / "networks.parquet")) == len(OPTIMISERS) * 2 * 2


def test_shares_are_the_runs_margins_over_the_predicted_best(study):
    out, table = study
    runs = Simulation.load(out / "spectral.npz")
    counts = ClassCounts.long_tail(10, 20, n_max=100)
    cells = [c for c, cell in enumerate(runs.cells) if (runs.profiles[cell["profile"]].values == counts.values).all()]
    assert len(cells) == 2
    expected = runs["margin/spectral"][cells, -1] / predict(counts, norm="spectral").margin
    found = [row["spectral"] for row in rows(out / "margins.parquet")
             if (row["method"], row["profile"], row["ratio"]) == ("spectral", "long tail", 20)]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=0)
    assert str(Share.of(expected)) in table
    assert all(row[norm] <= 1 + 1e-9 for row in rows(out / "margins.parquet") for norm in NORMS)


def test_networks_are_trained_and_repeat():
    found, again = (next(iter(network_rows((5.0,), (0,), 150, lambda line: None))) for _ in range(2))
    assert found["training_accuracy"] > 0.5
    for key in ("nuclear", "spectral", "max", "seli/classifiers"):
        np.testing.assert_allclose(again[key], found[key], rtol=1e-9, atol=0)


def test_a_network_s_numbers_from_loops():
    data = load_data(TrainConfig(dataset="digits", ratio=3, n_max=20, seed=1))
    torch.manual_seed(0)
    model = build_model("mlp", data.shape, 10, width=16, depth=1, features=7).double()
    found = observed(model, data)
    W, H = model.head.weight.detach().numpy(), model.body(data.inputs.double()).detach().numpy()
    gaps, right = [], 0
    for h, label in zip(H, data.labels.tolist(), strict=True):
        logits = W @ h
        gaps.append(logits[label] - max(np.delete(logits, label)))
        right += logits.argmax() == label
    sizes = {"nuclear": np.linalg.norm(W) * np.linalg.norm(H), "spectral": np.linalg.norm(W, 2) * np.linalg.norm(H, 2),
             "max": 7 * np.abs(W).max() * np.abs(H).max()}
    for norm, size in sizes.items():
        np.testing.assert_allclose(found[norm], min(gaps) / size / predict(data.counts, norm=norm).margin, rtol=1e-9)
    assert found["training_accuracy"] == pytest.approx(right / len(H), abs=1e-12)
    seli = predict(data.counts).classifiers.dense()
    distance = np.linalg.norm(W @ W.T / np.linalg.norm(W @ W.T) - seli / np.linalg.norm(seli))
    np.testing.assert_allclose(found["seli/classifiers"], distance, rtol=1e-9)


def test_a_share_s_interval_is_student_s():
    values = np.array([0.5, 0.7, 0.9, np.nan])
    half = 4.302652729911275 * 0.2 / math.sqrt(3)  # t(0.975, 2)
    assert str(Share.of(values)) == f"0.700 ± {half:.3f}"
    assert (str(Share.of(values[:1])), str(Share.of(values[3:]))) == ("0.500", "–")


def test_the_logarithm_of_the_loss_has_its_direction_and_goes_on_below_it():
    random = torch.Generator().manual_seed(2)
    labels = torch.tensor([0, 2, 1, 1])
    logits = torch.randn(4, 3, generator=random, dtype=torch.float64, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    gradient, = torch.autograd.grad(loss, logits)
    value = log_cross_entropy(logits, labels)
    assert value.item() == pytest.approx(loss.log().item(), rel=1e-12)
    found, = torch.autograd.grad(value, logits)
    torch.testing.assert_close(found, gradient / loss.detach(), rtol=1e-12, atol=0)
    deep = torch.zeros(1, 3, dtype=torch.float64)
    deep[0, 1] = 5000.0
    deep.requires_grad_()
    found, = torch.autograd.grad(log_cross_entropy(deep, torch.tensor([1])), deep)
    torch.testing.assert_close(found, torch.tensor([[0.5, -1.0, 0.5]], dtype=torch.float64), rtol=1e-12, atol=0)
