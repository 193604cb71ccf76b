"""The study of the ridge on a tiny setting: certificates, thresholds, and descents that end on the certified path."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from neuralcollapse import predict
from neuralcollapse.experiments.studies import run_study

ROOT = np.sqrt(5)
PARTS = ("classifiers", "embeddings", "logits")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    table = run_study("ridge-path", out, quick=True, ratios=[1, 10], seeds=1, seed=2, steps=3000)
    return out, table.read_text(encoding="utf-8")


def rows(path, ratio):
    return [row for row in pq.read_table(path).to_pylist() if row["ratio"] == ratio]


def test_it_leaves_readable_data_pictures_a_table_and_a_section(study):
    out, table = study
    assert {path.name for path in out.iterdir()} == {
        "path.parquet", "descents.parquet", "thresholds.parquet", "ridge-path.png", "ridge-path.pdf", "gallery.md",
        "table.md", "study.json"}
    assert (out / "ridge-path.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "ridge-path.pdf").read_bytes().startswith(b"%PDF")
    assert len(rows(out / "path.parquet", 10)) == 60
    assert "1 seed (2), 3,000 gradients" in table


def test_every_point_is_certified(study):
    for ratio in (1, 10):
        gaps = [row["gap"] for row in rows(study[0] / "path.parquet", ratio)]
        assert max(gaps) <= 1e-9
        limits, = rows(study[0] / "thresholds.parquet", ratio)
        assert limits["largest_gap"] == max(gaps)
        assert limits["confirmed"]


def test_minorities_merge_at_the_root_of_their_count_and_everything_vanishes_at_that_of_the_largest(study):
    limits, = rows(study[0] / "thresholds.parquet", 10)
    assert limits["merging"] == pytest.approx(ROOT, rel=1e-6)
    assert limits["total_collapse"] == pytest.approx(np.sqrt(50), rel=1e-9)
    assert limits["merging"] < limits["vanishing"] < limits["total_collapse"]
    for share, alive in ((0.999, True), (1.001, False)):
        gram = predict([50] * 5 + [5] * 5, ridge=share * limits["vanishing"]).classifiers.dense()
        assert (gram[-1, -1] > 1e-9 * gram[0, 0]) == alive
    for row in rows(study[0] / "path.parquet", 10):
        cosine = row["minority_cosine/classifiers"]
        if row["ridge"] < ROOT:
            assert cosine < 1 - 1e-9
        elif row["ridge"] < 0.99 * limits["vanishing"]:
            assert cosine == pytest.approx(1, abs=1e-9)


def test_seli_is_neared_slowly_under_imbalance_and_balance_is_a_simplex_throughout(study):
    below = [row for row in rows(study[0] / "path.parquet", 10) if row["ridge"] < ROOT]
    distances = np.array([row["seli/classifiers"] for row in below])
    assert (np.diff(distances) > 0).all()
    assert 0.03 < distances[0] < 0.1  # five decades below the threshold
    for row in rows(study[0] / "path.parquet", 1):
        if row["ridge"] < ROOT:
            assert row["etf/classifiers"] < 1e-7


def test_descents_end_on_the_certified_path(study):
    found = [row for ratio in (1, 10) for row in rows(study[0] / "descents.parquet", ratio)]
    assert len(found) == 3 + 4
    for row in found:
        assert max(row[f"ridge/{part}"] for part in PARTS) < 1e-3
        assert abs(row["above_certified"]) < 1e-8
    merged = max(found, key=lambda row: row["ridge"])
    assert merged["ridge"] > ROOT
    assert merged["minority_cosine/classifiers"] == pytest.approx(1, abs=1e-4)
