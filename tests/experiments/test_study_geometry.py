"""The study of norms and angles against R on a tiny setting: its lines by formula, its marks on the lines."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from neuralcollapse.experiments.studies import run_study
from neuralcollapse.experiments.studies.geometry_vs_ratio import CURVE, closed_form, right_angle

PAIRS = ("majority", "across", "minority")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    table = run_study("geometry-vs-ratio", out, quick=True, ratios=[1, 7, 100], seeds=1, seed=3, steps=800)
    return out, table.read_text(encoding="utf-8")


def rows(path):
    return pq.read_table(path).to_pylist()


def classifiers_by_formula(k, ratio):
    """theory.md §2 at ρ = 1/2 and n_min = 1, entry by entry."""
    a = b = k / 2
    tau = np.sqrt((1 + ratio) / 2)
    majority, minority = np.sqrt(ratio) * (1 - 1 / a) + tau * b / (a * k), 1 - 1 / b + tau * a / (b * k)
    inner = {"majority": (-np.sqrt(ratio) / a + tau * b / (a * k)) / majority,
             "minority": (-1 / b + tau * a / (b * k)) / minority, "across": -tau / k / np.sqrt(majority * minority)}
    return np.sqrt(majority / minority), {name: np.degrees(np.arccos(value)) for name, value in inner.items()}


def embeddings_densely(k, ratio):
    """D^{-1/2} (D − ssᵀ/k)^{1/2} D^{-1/2} by an eigendecomposition."""
    n = np.repeat([ratio, 1.0], k // 2)
    values, vectors = np.linalg.eigh(np.diag(n) - np.sqrt(np.multiply.outer(n, n)) / k)
    gram = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T / np.sqrt(np.multiply.outer(n, n))
    norms = np.sqrt(gram.diagonal())
    cosines = gram / np.multiply.outer(norms, norms)
    inner = {"majority": cosines[0, 1], "across": cosines[0, -1], "minority": cosines[-1, -2]}
    return norms[0] / norms[-1], {name: np.degrees(np.arccos(value)) for name, value in inner.items()}


def test_it_leaves_readable_data_pictures_a_table_and_a_section(study):
    out, table = study
    assert {path.name for path in out.iterdir()} == {
        "curves.parquet", "dots.parquet", "geometry-vs-ratio.png", "geometry-vs-ratio.pdf", "gallery.md", "table.md",
        "study.json"}
    assert (out / "geometry-vs-ratio.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "geometry-vs-ratio.pdf").read_bytes().startswith(b"%PDF")
    assert len(rows(out / "curves.parquet")) == 2 * 2 * CURVE.size
    assert len(rows(out / "dots.parquet")) == 2 * 2 * 3
    assert "multipliers, 1 seed (3), 800 gradients per run" in table


def test_its_lines_are_the_formulas(study):
    for row in rows(study[0] / "curves.parquet")[::7]:
        by_hand = classifiers_by_formula if row["part"] == "classifiers" else embeddings_densely
        norm_ratio, angles = by_hand(row["k"], row["ratio"])
        np.testing.assert_allclose(row["norm_ratio"], norm_ratio, rtol=1e-6, atol=0)
        for pair in PAIRS:
            np.testing.assert_allclose(row[pair], angles[pair], rtol=0, atol=1e-4)


def test_what_was_trained_lies_on_the_lines(study):
    for row in rows(study[0] / "dots.parquet"):
        line, = (one for one in closed_form(row["k"], row["ratio"]) if one["part"] == row["part"])
        assert row["norm_ratio"] == pytest.approx(line["norm_ratio"], rel=1e-2)
        assert [row[pair] for pair in PAIRS] == pytest.approx([line[pair] for pair in PAIRS], rel=1e-2)
        assert row["seli"] < 1e-2


def test_minority_classifiers_close_up_and_minority_embeddings_do_not(study):
    curves = rows(study[0] / "curves.parquet")
    for k in (4, 10):
        angles = {part: np.array([row["minority"] for row in curves if (row["k"], row["part"]) == (k, part)])
                  for part in ("classifiers", "embeddings")}
        assert (np.diff(angles["classifiers"]) < 0).all()
        assert angles["classifiers"][-1] < 30
        assert (np.diff(angles["embeddings"]) > 0).all()
    angle = [next(closed_form(10, ratio))["minority"] for ratio in (1e8, 1e12)]
    assert angle[1] < 0.5
    assert angle[1] / angle[0] == pytest.approx(0.1, rel=0.02)  # R^(−1/4)


@pytest.mark.parametrize("k", [4, 10, 100])
def test_landmarks_in_closed_form(k):
    assert right_angle(k) == pytest.approx(7, rel=1e-9)
    assert next(closed_form(k, 1e14))["norm_ratio"] == pytest.approx(np.sqrt(1 + np.sqrt(2) * (k - 2)), rel=1e-3)
