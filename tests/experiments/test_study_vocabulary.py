"""The study of a vocabulary on a tiny setting: counts of the text itself, files, exponents, bad input."""

from collections import Counter
import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from neuralcollapse import InvalidInput, Run, predict
from neuralcollapse.experiments.studies import run_study, vocabulary
from neuralcollapse.experiments.studies.vocabulary import reference_text, slope

TINY = {"data_options": {"length": 16, "vocabulary": 12}, "epochs": 1,
        "model_options": {"width": 8, "depth": 1, "heads": 2, "features": 16}}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:  # a smaller question, the same code
        patch.setattr(vocabulary, "_FULL", TINY)
        patch.setattr(vocabulary, "reference_text", lambda: reference_text()[:60_000])
        table = run_study("vocabulary", out, seeds=1, seed=3).read_text(encoding="utf-8")
    return out, table


def test_it_leaves_a_text_runs_data_a_figure_and_a_table(study):
    out, table = study
    assert {path.name for path in out.iterdir()} == {"text.txt", "runs", "tokens.parquet", "vocabulary.png",
                                                     "vocabulary.pdf", "gallery.md", "table.md", "study.json"}
    assert table.startswith("1 seed (3)")
    assert "Exponent b of ‖v_c‖ ∝ n_c^b" in table


def test_its_counts_are_those_of_the_text(study):
    out, _ = study
    rows, counts = pq.read_table(out / "tokens.parquet").to_pylist(), Run.open(out / "runs" / "seed-3").counts
    assert [row["count"] for row in rows] == sorted(counts.values, reverse=True)
    words = Counter(re.findall(r"\w+(?:['’]\w+)*|[^\w\s]", (out / "text.txt").read_text().lower()))
    for row in rows:
        # The training part is a share of the text, the same for all words but for chance.
        assert 0.5 * words[row["token"]] < row["count"] <= words[row["token"]]
    assert slope(range(1, len(rows) + 1), [row["count"] for row in rows]) < -0.3


def test_its_lengths_are_those_measured_and_predicted(study):
    out, _ = study
    rows, run = pq.read_table(out / "tokens.parquet").to_pylist(), Run.open(out / "runs" / "seed-3")
    place = {name: c for c, name in enumerate(run.counts.names)}
    measured = np.array(run.history[-1]["measurement"]["norms"]["classifiers"])
    predicted = predict(run.counts).classifiers.norms
    for row in rows:
        c = place[row["token"]]
        assert row["classifiers"] == pytest.approx(measured[c] / np.sqrt(np.mean(measured**2)))
        assert row["seli/classifiers"] == pytest.approx(predicted[c] / np.sqrt(np.mean(predicted**2)))


def test_the_text_ships_with_python_and_is_long_enough():
    assert reference_text() == reference_text()
    assert len(reference_text()) > 300_000


def test_an_exponent_ignores_tokens_without_a_vector():
    counts = np.array([1.0, 4.0, 9.0, 100.0])
    assert slope(counts, [1.0, 2.0, 3.0, 0.0]) == pytest.approx(0.5)


@pytest.mark.parametrize(("given", "message"), [
    ({"steps": 5}, "study vocabulary takes its counts from a text and trains for epochs: leave steps out, got 5"),
    ({"ratios": [2]},
     "study vocabulary takes its counts from a text and trains for epochs: leave ratios out, got (2.0,)"),
])
def test_what_it_does_not_take_is_refused(given, message, tmp_path):
    with pytest.raises(InvalidInput) as raised:
        run_study("vocabulary", tmp_path, **given)
    assert str(raised.value) == message
