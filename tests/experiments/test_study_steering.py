"""The study of steering end to end on a tiny setting: files, rows that agree with runs of their own, and resuming."""

import json

import pyarrow.parquet as pq
import pytest

from neuralcollapse import ClassCounts, InvalidInput, TrainConfig
from neuralcollapse.experiments.studies import run_study, steering
from neuralcollapse.experiments.studies.steering import REMEDY_SETTINGS
from neuralcollapse.experiments.studies.steering_cells import cell
from neuralcollapse.steer import POSTHOC, advise

FEW = ("ce", "ldt", "oversampling", "recommended")


@pytest.fixture(scope="module")
def few():
    with pytest.MonkeyPatch.context() as patch:  # a smaller question: fewer remedies, the same code
        patch.setattr(steering, "REMEDY_SETTINGS", {name: REMEDY_SETTINGS[name] for name in FEW})
        yield


@pytest.fixture(scope="module")
def study(few, tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    table = run_study("steering", out, quick=True, ratios=[5], seeds=1, seed=4)
    return out, table.read_text(encoding="utf-8")


def rows(path):
    return pq.read_table(path).to_pylist()


def test_it_leaves_data_figures_a_table_and_where_they_come_from(study):
    out, table = study
    assert {path.name for path in out.iterdir()} == {"steering.parquet", "grid.parquet", "steering.png", "steering.pdf",
                                                     "cells.jsonl", "gallery.md", "table.md", "study.json"}
    found = rows(out / "steering.parquet")
    assert len(found) == 2 * (len(FEW) + len(list(POSTHOC)))
    line = advise(ClassCounts.step(10, 5, n_max=140)).recommended.line
    assert f"recommended: {line}" in table
    tried = {(row["gamma"], row["tau"]) for row in rows(out / "grid.parquet")}
    assert tried == {(0, 1), (0, 1.5), (0.1, 1), (0.1, 1.5)}


def test_a_row_is_a_training_run_s(study):
    row, = (row for row in rows(study[0] / "steering.parquet") if (row["remedy"], row["profile"]) == ("ldt", "step"))
    config = TrainConfig(dataset="digits", ratio=5, n_max=140, epochs=2, model="cnn", loss="ldt", seed=4, batch_size=64,
                         model_options={"width": 8, "features": 64}, learning_rate=0.05, schedule="cosine",
                         weight_decay=5e-3, threads=1)
    again, = cell("ldt", config)
    for key in ("balanced", "overall", "minority", "ece", "etf/classifiers"):
        assert row[key] == pytest.approx(again[key], rel=1e-6, abs=1e-9)
    majority, minority = row["majority"], row["minority"]
    assert row["balanced"] == pytest.approx((majority + minority) / 2)
    assert row["overall"] == pytest.approx((5 * majority + minority) / 6)


def test_a_study_that_was_stopped_goes_on_from_its_cells(study, few):
    out, table = study
    lines = (out / "cells.jsonl").read_text().splitlines()
    (out / "cells.jsonl").write_text("\n".join([*lines[:-1], lines[-1][:40]]))
    told = []
    again = run_study("steering", out, quick=True, ratios=[5], seeds=1, seed=4, progress=told.append)
    assert again.read_text(encoding="utf-8") == table
    assert len(told) == 1
    assert told[0].startswith(f"{len(lines)} of {len(lines)}: ")


def test_a_network_that_diverges_is_a_row_without_numbers():
    config = TrainConfig(dataset="digits", ratio=5, n_max=40, epochs=3, learning_rate=1e6, threads=1,
                         model_options={"width": 16})
    row, = cell("ldt", config)
    assert row["balanced"] is None
    assert json.dumps(row)


def test_steps_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="study steering trains for epochs, not steps"):
        run_study("steering", tmp_path, steps=3)
