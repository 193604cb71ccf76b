"""Runs side by side: one row each, whatever state they are in, and one page that stands alone."""

from __future__ import annotations

import json
import math
import shutil

from hostile import HOSTILE
import numpy as np
import pyarrow.parquet as pq
import pytest
from test_report import Parsed

from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.comparison import read_runs, runs_table
from neuralcollapse.experiments.run import RunFolder
from neuralcollapse.show.comparison import render_comparison, write_comparison
from neuralcollapse.show.figures import curves

STEP = ClassCounts.step(4, 10, 0.5, n_min=5)


@pytest.fixture
def sweep_folder(make_run, save_run, tmp_path):
    """A finished run, one in training, one that has measured nothing, a broken one, and a cell that failed."""
    folder = tmp_path / "sweep"
    finished = make_run(STEP, epochs=(1, 2, 4), seed=0)
    training = make_run(STEP, epochs=(1, 3), seed=1, planned=100)
    training.history[-1]["measurement"]["distances"]["ridge:0.25"] = {"classifiers": 0.125}
    training.history[-1]["measurement"]["nc1"]["pinv"] = None
    for run, name in ((finished, "a"), (training, "b"), (make_run(STEP, epochs=(), seed=2), "c"), (finished, "broken"),
                      (finished, "half")):
        save_run(run, folder / name)
    (folder / "broken/config.yaml").write_text("[1")
    (folder / "half/data.json").write_text('{"names": []}')
    with (folder / "b/history.jsonl").open("a") as file:
        file.write('{"epoch": 10, "tra')
    (folder / "failed").mkdir()
    (folder / "failed/d.json").write_text('{"type": "InvalidInput", "message": "the loss must stay finite"}')
    return folder


def test_a_row_per_run_and_nothing_hidden_by_what_is_broken(sweep_folder, tmp_path, cli):
    result = cli("compare", sweep_folder, tmp_path / "none", "--out", tmp_path / "out", "--json")
    assert result.code == 0
    problems = [f"'{sweep_folder}/d' failed: the loss must stay finite", f"'{tmp_path}/none' is no folder",
                f"'{sweep_folder}/broken' is not a run folder: its config.yaml is not a mapping",
                f"'{sweep_folder}/half' is not a run folder: its data.json names no classes and their counts"]
    assert result.err.splitlines() == [f"neuralcollapse: left out: {problem}" for problem in problems]
    assert json.loads(result.out) == {"runs": 3, "problems": problems, "differing": ["epochs", "seed"],
                                      "table": f"{tmp_path}/out/runs.parquet", "report": f"{tmp_path}/out/report.html"}
    table = pq.read_table(tmp_path / "out/runs.parquet")
    assert json.loads(table.schema.metadata[b"differing"]) == ["epochs", "seed"]
    a, b, c = table.to_pylist()
    assert [(row["run"], row["finished"], row["seed"], row["epochs"], row["epoch"]) for row in (a, b, c)] == [
        ("a", True, 0, 4, 4), ("b", False, 1, 100, 3), ("c", False, 2, 10, None)]
    last = json.loads((sweep_folder / "a/history.jsonl").read_text().splitlines()[-1])
    assert a["test.balanced_accuracy"] == last["test"]["balanced_accuracy"]
    assert a["nc1.pinv"] == last["measurement"]["nc1"]["pinv"]
    assert (b["nc1.pinv"], b["distances.ridge.classifiers"], b["distances.ridge.lambda"]) == (None, 0.125, 0.25)
    assert (a["model"], a["model_options.width"], a["data.classes"], a["data.samples"]) == ("mlp", 64, 4, STEP.n)
    assert not [value for row in (a, b, c) for value in row.values() if isinstance(value, float)
                and not math.isfinite(value)]
    assert table.column_names[:5] == ["run", "folder", "finished", "epochs", "seed"]
    text = Parsed((tmp_path / "out/report.html").read_text()).text
    assert all(problem in text for problem in problems)


def test_columns_have_one_type_whatever_the_runs_hold(make_run, save_run, tmp_path):
    runs = [make_run(STEP, epochs=(1,)) for _ in range(3)]
    for run, (measure, n_max, bias) in zip(runs, [("log", 5, True), ([1, 2], None, False), ("log", 2.5, True)],
                                           strict=True):
        run.config |= {"measure": measure, "n_max": n_max, "head_bias": bias, "never": None}
        save_run(run, tmp_path / "runs" / str(len(list(tmp_path.glob("runs/*")))))
    table = runs_table([tmp_path / "runs", tmp_path / "runs" / "0"])
    assert table.num_rows == 3
    assert [str(table.schema.field(name).type) for name in ("measure", "n_max", "head_bias", "never", "seed")] == [
        "string", "double", "bool", "double", "int64"]
    assert table["measure"].to_pylist() == ["log", "[1, 2]", "log"]
    assert table["n_max"].to_pylist() == [5.0, None, 2.5]


def test_runs_of_one_name_are_told_apart(make_run, save_run, tmp_path):
    run = make_run(STEP, epochs=(1,))
    folders = [save_run(run, tmp_path / place / "run") for place in ("x", "y")]
    assert [one.name for one in read_runs(folders).runs] == ["x/run", "y/run"]
    assert len(read_runs([folders[0], folders[0]]).runs) == 1


def test_curves_stand_on_the_epochs_of_all_runs_and_are_drawn_through_their_own(sweep_folder):
    chart = curves(read_runs([sweep_folder]))
    assert chart.x.tolist() == [1, 2, 3, 4]
    accuracy = next(panel for panel in chart.panels if panel.title == "Test accuracy, balanced")
    assert [np.isfinite(curve.y).tolist() for curve in accuracy.curves] == [
        [True, True, False, True], [True, False, True, False]]
    assert [curve.name for curve in accuracy.curves] == ["epochs 4", "epochs 100"]
    drawn = chart.plotly().data[0]
    assert list(drawn.x) == [1, 2, 4]
    axes = chart.matplotlib().axes[0]
    assert axes.lines[1].get_xdata().tolist() == [1, 3]


def test_seeds_are_averaged_where_nothing_else_differs(make_run, save_run, tmp_path):
    accuracies = {}
    for width in (8, 64):
        for seed in (0, 1):
            run = make_run(STEP, epochs=(1, 2), seed=seed)
            run.config["model_options"] = {"width": width}
            run.history[-1]["test"]["balanced_accuracy"] = accuracies[width, seed] = 0.5 + 0.1 * seed + 0.001 * width
            save_run(run, tmp_path / f"runs/{width}-{seed}")
    text = Parsed(render_comparison(read_runs([tmp_path / "runs"]))).text
    assert "means over seeds ± standard deviation" in text
    assert "55.8 % ± 7.1 %" in text  # (50.8 + 60.8)/2, 10/√2
    assert "61.4 % ± 7.1 %" in text


def test_nothing_measured_or_hundreds_of_runs_are_still_a_page(make_run, save_run, tmp_path):
    one = save_run(make_run(STEP, epochs=()), tmp_path / "empty/one")
    save_run(make_run(STEP, epochs=(1,), planned=9), tmp_path / "empty/two")
    with RunFolder(one).held():
        text = Parsed(render_comparison(read_runs([tmp_path / "empty"]))).text
    assert "1 of 2 still training, 1 of 2 stopped or unfinished." in text
    assert "stopped after epoch 1" in text
    first = save_run(make_run(STEP, epochs=(1,)), tmp_path / "many/0000")
    for number in range(1, 401):
        shutil.copytree(first, tmp_path / f"many/{number:04d}")
        config = first / "config.yaml"
        (tmp_path / f"many/{number:04d}/config.yaml").write_text(config.read_text() + f"\nratio: {number}\n")
    many = read_runs([tmp_path / "many"])
    chart = curves(many)
    assert (len(many.runs), len(chart.panels[0].curves)) == (401, 134)
    assert {curve.name for curve in chart.panels[0].curves} == {"every run"}
    assert "Of 401 runs one in 3 is drawn; the table has all." in chart.caption


def test_names_stay_text_and_nothing_is_loaded(make_run, save_run, tmp_path):
    for number, name in enumerate(HOSTILE):
        run = make_run(ClassCounts([50, 40, 30, 5, 5], HOSTILE), epochs=(1, 2))
        run.config["model"] = name
        save_run(run, tmp_path / "runs" / str(number))
    path = write_comparison(read_runs([tmp_path / "runs"]), tmp_path / "report.html")
    page = Parsed(path.read_text())
    assert len(page.scripts) == 3
    assert not {"img", "b", "link", "iframe", "base", "form"} & {tag for tag, _ in page.tags}
    plots = {attributes["id"] for _, attributes in page.tags if attributes.get("role") == "img"}
    assert plots == set(page.data["figures"])
    assert len(plots) == 9


@pytest.mark.parametrize(("given", "reason"), [(["none"], "'none' is no folder"), (["empty"], "'empty' holds no runs"),
                                               (["none", "empty"], "'none' is no folder; 'empty' holds no runs")])
def test_nothing_to_compare_is_one_line(cli, tmp_path, monkeypatch, given, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert cli("compare", *given) == (2, "", f"neuralcollapse: compare needs at least one run: {reason}\n")
    assert not (tmp_path / "compare").exists()


def test_the_report_of_a_run_is_not_replaced_by_one_of_several(make_run, save_run, tmp_path, cli):
    run = save_run(make_run(STEP, epochs=(1,)), tmp_path / "run")
    (run / "report.html").write_text("of one run")
    assert cli("compare", run, "--out", run) == (
        2, "", f"neuralcollapse: '{run}' holds a report.html of something else: give another --out\n")
    assert (run / "report.html").read_text() == "of one run"
    for _ in range(2):  # its own it replaces
        assert cli("compare", run, "--out", tmp_path / "out").code == 0
