"""Studies end to end on a tiny setting: files, numbers that agree with the runs beside them, and bad input."""

import csv
import json

import numpy as np
import pytest

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.studies import STUDIES, run_study
from neuralcollapse.experiments.studies.rates import EPSILONS, METHODS, largest
from neuralcollapse.simulate.simulation import Simulation


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    lines = []
    out = tmp_path_factory.mktemp("study") / "new" / "rates"
    table = run_study("rates", out, quick=True, ratios=[1, 30], seeds=3, seed=7, steps=700, progress=lines.append)
    return out, table, lines


def rows(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_study_leaves_data_figures_a_table_and_where_they_come_from(study):
    out, table, lines = study
    runs = {f"{label.replace(' + ', '-with-')}.npz" for label in METHODS}
    assert {path.name for path in out.iterdir()} == runs | {
        "decays.csv", "laws.csv", "times.csv", "rates.png", "rates.pdf", "table.md", "study.json"}
    assert (out / "rates.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "rates.pdf").read_bytes().startswith(b"%PDF")
    record = json.loads((out / "study.json").read_text())
    assert (record["study"], record["seeds"], record["ratios"], record["steps"]) == ("rates", [7, 8, 9], [1, 30], 700)
    assert {line.partition(":")[0] for line in lines} == set(METHODS)
    assert all(f"{label}: step 700 of 700, 6 runs" in lines for label in METHODS)
    assert "k = 10, (R, ½)-STEP, n_min = 1, d = 20, float64; 3 seeds (7 … 9), 700 gradients per run, 2 ratios." \
        in table.read_text()


def test_its_times_and_table_are_those_of_its_runs(study):
    out, table, _ = study
    times = rows(out / "times.csv")
    assert len(times) == len(METHODS) * len(EPSILONS) * 6
    runs = Simulation.load(out / "multipliers.npz")
    worst = largest(runs)
    for row in times:
        if row["method"] != "multipliers":
            continue
        cell, = (c for c, one in enumerate(runs.cells)
                 if (one["seed"], one["ratio"]) == (int(row["seed"]), float(row["ratio"])))
        at = next(s for s in range(runs.steps.size) if (worst[cell, s:] <= float(row["epsilon"])).all())
        assert int(row["steps"]) == runs.steps[at]
        assert row["censored_at"] == "700"
    gd = [row["steps"] for row in times if row["method"] == "gd" and row["epsilon"] == "0.001"]
    assert gd == [""] * 6
    line, = (line for line in table.read_text().split("Largest of")[1].split("Gradients")[0].splitlines()
             if line.startswith("| gd |"))
    last = largest(Simulation.load(out / "gd.npz"))[:3, -1]
    assert line.split("|")[2].strip() == f"{np.median(last):.1e} ({last.min():.0e} – {last.max():.0e})"
    assert "| > 700 |" in table.read_text()


def test_its_decays_name_a_law_and_its_uncertainty(study):
    decays = rows(study[0] / "decays.csv")
    assert len(decays) == len(METHODS) * 2 * 3
    for row in decays:
        assert row["law"] in ("power", "logarithmic", "geometric")
        assert float(row["low"]) <= float(row["rate"]) <= float(row["high"])
        assert float(row["residual"]) <= float(row["other_residual"])
        assert row["runs"] == "3"
    # What the study is about: with raises the decay is geometric, at about every imbalance alike.
    raised = [row for row in decays if row["method"] == "multipliers" and row["ratio"] == "30.0"]
    assert {row["law"] for row in raised} == {"geometric"}
    assert all(0.003 < float(row["rate"]) < 0.1 for row in raised)


def test_every_study_is_registered_with_a_summary():
    assert [entry.name for entry in STUDIES] == ["deepnet-convergence", "optimisers", "rates", "steering"]


@pytest.mark.parametrize(("arguments", "message"), [
    ({"name": "rate"}, "unknown study 'rate': did you mean 'rates'? known: deepnet-convergence, optimisers, rates, "
                         "steering"),
    ({"ratios": [0.5]}, "ratios must be at least 1, got 0.5"),
    ({"ratios": []}, "ratios must hold at least one number, got an empty list"),
    ({"seeds": 0}, "seeds must be a whole number ≥ 1, got 0"),
    ({"seed": -1}, "seed must be a whole number ≥ 0, got -1"),
    ({"steps": 0}, "steps must be a whole number ≥ 1, got 0"),
])
def test_bad_input_is_refused_in_one_line_before_anything_is_made(tmp_path, arguments, message):
    with pytest.raises(InvalidInput) as error:
        run_study(**({"name": "rates", "out": tmp_path / "new"} | arguments))
    assert str(error.value) == message
    assert not (tmp_path / "new").exists()
