"""The study of gradient descent on free features on a tiny setting: distances, floors, and numbers that agree."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from neuralcollapse import predict
from neuralcollapse.experiments.studies import run_study
from neuralcollapse.experiments.studies.ufm_convergence import ARMS, HELD, last_ridge

PARTS = ("classifiers", "embeddings", "logits")
SMALL_RIDGE, SMALLER_RIDGE = HELD


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    table = run_study("ufm-convergence", out, quick=True, ratios=[1, 10], seeds=1, seed=1, steps=500)
    return out, table.read_text(encoding="utf-8")


def rows(path, ratio, arm):
    return [row for row in pq.read_table(path).to_pylist() if (row["ratio"], row["arm"]) == (ratio, arm)]


def test_it_leaves_readable_data_pictures_a_table_and_a_section(study):
    out, table = study
    assert {path.name for path in out.iterdir()} == {
        "history.parquet", "ends.parquet", "ufm-convergence.png", "ufm-convergence.pdf", "gallery.md", "table.md",
        "study.json"}
    assert (out / "ufm-convergence.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "ufm-convergence.pdf").read_bytes().startswith(b"%PDF")
    assert "1 seed (1), 500 full-batch epochs" in table
    assert [len(rows(out / "ends.parquet", ratio, arm)) for ratio in (1, 10) for arm in ARMS] == [1] * 8


@pytest.mark.parametrize("arm", ARMS)
def test_distances_to_seli_fall(study, arm):
    for ratio in (1, 10):
        first, *_, last = rows(study[0] / "history.parquet", ratio, arm)
        assert (first["epoch"], last["epoch"]) == (0, 500)
        for part in PARTS:
            assert last[f"seli/{part}"] < first[f"seli/{part}"]
        assert last["balanced_accuracy"] == 1


def test_a_held_ridge_leads_to_its_own_geometry_and_no_nearer_to_seli(study):
    end, = rows(study[0] / "ends.parquet", 10, SMALL_RIDGE)
    last = rows(study[0] / "history.parquet", 10, SMALL_RIDGE)[-1]
    own, seli = predict([50] * 5 + [5] * 5, ridge=HELD[SMALL_RIDGE]), predict([50] * 5 + [5] * 5)
    for part in PARTS:
        assert end[f"own/{part}"] < 1e-3
        assert end[f"own/{part}"] == pytest.approx(last[f"ridge/{part}"], rel=1e-6, abs=1e-12)
        one, two = (getattr(geometry, part).dense() for geometry in (own, seli))
        floor = np.linalg.norm(one / np.linalg.norm(one) - two / np.linalg.norm(two))
        assert end[f"own to seli/{part}"] == pytest.approx(floor, rel=1e-9)
        assert end[f"seli/{part}"] == pytest.approx(floor, abs=2e-3)
    assert end["nc1"] < 1e-6


def test_balanced_classes_reach_the_simplex_with_a_ridge_and_not_without(study):
    (with_ridge,), (without,) = (rows(study[0] / "ends.parquet", 1, arm) for arm in (SMALL_RIDGE, "no ridge"))
    assert with_ridge["etf/classifiers"] < 1e-6
    assert without["etf/classifiers"] > 0.1


def test_the_vanishing_ridge_ends_below_a_held_one(study):
    vanishing, held = (rows(study[0] / "ends.parquet", 10, arm)[0] for arm in ("vanishing ridge", SMALL_RIDGE))
    assert vanishing["ridge"] == last_ridge("vanishing ridge") < HELD[SMALLER_RIDGE]
    for part in PARTS:
        assert vanishing[f"own to seli/{part}"] < vanishing[f"seli/{part}"] < held[f"seli/{part}"]
