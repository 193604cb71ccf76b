"""The study of losses on a tiny setting: each ends at its own prediction, on free features and, less, in networks."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from neuralcollapse import ClassCounts, predict
from neuralcollapse.experiments.data import load_data
from neuralcollapse.experiments.studies import loss_geometries, run_study
from neuralcollapse.experiments.studies.loss_geometries import LOSSES, free_rows
from neuralcollapse.experiments.studies.loss_geometries_networks import RIDGE, network_config
from neuralcollapse.experiments.studies.study import Setting

PARTS = ("classifiers", "embeddings", "logits")
FEW = ("LA", "LDT")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:  # a smaller question: fewer losses, the same code
        patch.setattr(loss_geometries, "LOSSES", {name: LOSSES[name] for name in FEW})
        table = run_study("loss-geometries", out, quick=True, ratios=[10], seeds=1, seed=1, steps=1500)
    return out, table.read_text(encoding="utf-8")


def rows(out, where):
    return {row["loss"]: row for row in pq.read_table(out / "distances.parquet").to_pylist() if row["where"] == where}


def test_it_leaves_readable_data_pictures_a_table_and_a_section(study):
    out, table = study
    assert {path.name for path in out.iterdir()} == {
        "distances.parquet", "loss-geometries.png", "loss-geometries.pdf", "gallery.md", "table.md", "study.json"}
    assert (out / "loss-geometries.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "loss-geometries.pdf").read_bytes().startswith(b"%PDF")
    assert all(list(rows(out, where)) == list(FEW) for where in ("limit", "held", "network"))
    assert "1 seed (1): median" in table


@pytest.mark.parametrize("label", list(LOSSES))
@pytest.mark.parametrize("where", ["limit", "held"])
def test_free_features_end_at_the_loss_s_own_prediction(label, where):
    row, = free_rows(label, where, (10.0,), (0,), 1500, Setting(Path("unused")))
    assert max(row[f"own/{part}"] for part in PARTS) < 1e-2
    # Weights and offsets leave the vanishing limit at SELI and move every ridge; temperatures move both.
    at_seli = where == "limit" and label in ("CE", "weighted", "LA")
    assert (max(row[f"seli/{part}"] for part in PARTS) < 1e-2) == at_seli
    assert (row["limit/classifiers"] == row["seli/classifiers"]) == (label in ("CE", "weighted", "LA"))


def test_label_temperatures_by_the_root_of_the_counts_lead_to_simplex_classifiers(study):
    counts = ClassCounts.step(10, 10, n_min=5)
    simplex, seli = predict(counts, "etf").classifiers, predict(counts).classifiers
    assert rows(study[0], "limit")["LDT"]["seli/classifiers"] == pytest.approx(simplex.distance_to(seli), abs=1e-3)


def test_networks_are_nearer_to_their_loss_s_own_prediction_than_to_seli(study):
    found = rows(study[0], "network")
    for part in ("embeddings", "logits"):
        assert found["LA"][f"own/{part}"] < 0.7 * found["LA"][f"seli/{part}"]
    assert found["LDT"]["own/embeddings"] < found["LDT"]["seli/embeddings"]
    assert all(row["training_accuracy"] == 1 for row in found.values())
    assert all(row["ridge"] == pytest.approx(RIDGE) for row in found.values())


def test_a_network_s_penalties_are_the_ridge_it_is_predicted_at():
    config = network_config("ldt", {"gamma": 0.5}, 10.0, 0, 5)
    n = load_data(config).counts.n
    assert np.sqrt(np.prod(config.ridges(float(n)))) == pytest.approx(0.3, rel=1e-12)
    assert (config.weight_decay, config.head_bias, config.batch_size) == (0, False, None)
