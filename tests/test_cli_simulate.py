"""`simulate` and `study` as a user runs them: streams, files, exit codes and each bad input with its one line."""

import json

import numpy as np
import pytest

from neuralcollapse import simulate
from neuralcollapse.simulate import Simulation


def test_simulate_prints_a_table_of_its_runs(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    code, out, err = cli("simulate", "--step", "k=4,ratio=10,n_min=1", "--method", "multipliers", "--steps", 600,
                         "--symmetric", "--seeds", 2)
    assert (code, err) == (0, "")
    assert out.startswith("Simulated: multipliers on ce, 2 runs of 600 gradients, 4 classes; distances to seli\n")
    table = [line.split() for line in out.splitlines()[1:4]]
    assert table[0] == ["run", "seed", "D_W", "D_M", "D_Z", "margin", "D_W", "along", "log", "step"]
    runs = simulate([10, 10, 1, 1], "multipliers", steps=600, symmetric=True, seeds=2)
    for row, cell in zip(table[1:], range(2), strict=True):
        shown = [float(value) for value in row[2:5]]
        np.testing.assert_allclose(shown, [runs[f"seli/{part}"][cell, -1] for part in
                                           ("classifiers", "embeddings", "logits")], rtol=0.06, atol=0)


def test_simulate_json_is_every_snapshot_of_a_grid(cli):
    code, out, err = cli("simulate", "--counts", "6,3,1", "--method", "nesterov", "--ridge", "0.1,0.5", "--momentum",
                         "0.8", "--step-size", "0.05", "--schedule", "0.25", "--steps", 50, "--d", 4, "--scale", "0.5",
                         "--bias", "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    document = json.loads(out, parse_constant=pytest.fail)
    runs = simulate([6, 3, 1], "nesterov", ridge=[0.1, 0.5], momentum=0.8, step=0.05, schedule=0.25, steps=50, d=4,
                    scale=0.5, bias=True)
    assert (document["method"], document["loss"]) == ("nesterov", "ce")
    assert document["rows"] == json.loads(json.dumps(runs.to_rows()))


def test_simulate_writes_a_file_or_a_folder_that_is_not_overwritten_but_resumed(cli, tmp_path):
    given = ("simulate", "--counts", "4,2", "--steps", 20)
    assert cli(*given, "--out", tmp_path / "runs.npz")[0] == 0
    assert Simulation.load(tmp_path / "runs.npz").steps[-1] == 20
    folder = tmp_path / "runs"
    code, out, _ = cli(*given, "--out", folder)
    assert code == 0
    assert out.endswith(f"\nWritten to {folder / 'simulation.npz'}\n")
    assert cli(*given, "--out", folder) == (
        2, "", f"neuralcollapse: '{folder}' holds a simulation already: resume it, or give another folder\n")
    assert cli(*given, "--resume", folder)[0] == 0
    assert cli(*given, "--resume", folder, "--relu") == (
        2, "", f"neuralcollapse: the simulation in '{folder}' has another relu: expected False, got True\n")


def test_a_diverging_run_is_named_and_the_others_go_on(cli):
    code, out, err = cli("simulate", "--counts", "6,3,1", "--loss", "mse", "--step-size", "0.01,5", "--steps", 200)
    assert (code, err) == (0, "cell 1 (step=5) diverged: stopped (found after step 2)\n")
    assert "diverged" in out


def test_study_writes_its_table_and_says_where(cli, tmp_path):
    given = ("study", "rates", "--out", tmp_path, "--quick", "--ratios", "2,4", "--seeds", 1, "--steps", 30)
    code, out, err = cli(*given)
    assert code == 0
    assert out.endswith(f"Written to {tmp_path}\n")
    assert out.startswith((tmp_path / "table.md").read_text())
    assert "multipliers: step 30 of 30, 2 runs" in err.splitlines()
    code, out, _ = cli(*given, "--json")
    assert json.loads(out)["ratios"] == [2, 4]


@pytest.mark.parametrize(("arguments", "message"), [
    (("simulate",), "give exactly one of --counts, --step, --long-tail, --labels, got none"),
    (("simulate", "--counts", "4,2", "--method", "adm"), "unknown method 'adm': did you mean 'adam'? known: adam, "
     "continuation, gd, heavy-ball, multipliers, muon, nesterov, ngd, ngd-loss, sgd, sign, spectral"),
    (("simulate", "--counts", "4,2", "--step-size", "0"), "--step-size must be a positive number, got 0.0"),
    (("simulate", "--counts", "5000000,5"),
     "this grid of 1 run needs about 1,120 MB, more than the memory of 1,000 MB: ask for fewer runs, or start "
     "within-class symmetric (--symmetric)"),
    (("simulate", "--counts", "5.5,5"), "counts must be whole numbers where every sample is free, got ClassCounts(5.5, "
     "5): give whole ones, or start within-class symmetric (--symmetric)"),
    (("simulate", "--counts", "4,2", "--step-size", "big"),
     "--step-size must be numbers separated by commas, such as 10,10,1,1, got 'big'"),
    (("simulate", "--counts", "4,2", "--steps", "0"), "steps must be a whole number ≥ 1, got 0"),
    (("simulate", "--counts", "4,2", "--d", "0"), "d must be a whole number ≥ 1, got 0"),
    (("simulate", "--counts", "4,2", "--momentum", "0.9"),
     "method 'gd' takes no momentum: heavy-ball, nesterov, adam, ngd, ngd-loss, sign, spectral, muon, continuation, "
     "multipliers do"),
    (("simulate", "--counts", "4,2", "--schedule", "cosine"),
     "schedule must be an exponent, or one of constant, sqrt, got 'cosine'"),
    (("simulate", "--counts", "4,2", "--method", "multipliers", "--ridge", "0"), "method 'multipliers' holds a ridge, "
     "which must be positive and below the one at which a class merges, min ω·δ·√n = 1.414, got 0: leave it out for "
     "0.3 of it"),
    (("simulate", "--counts", "4,2", "--seeds", "0"), "seeds must be a whole number ≥ 1, got 0"),
    (("simulate", "--counts", "4,2", "--out", "a", "--resume", "b"),
     "give an --out for a new simulation or a --resume to continue one, not both"),
    (("study", "rate", "--out", "x"), "unknown study 'rate': did you mean 'rates'? known: "
     "deepnet-convergence, geometry-vs-ratio, loss-geometries, optimisers, rates, ridge-path, robustness, steering, "
     "ufm-convergence, vocabulary"),
    (("study", "rates", "--out", "x", "--ratios", "0.5"), "ratios must be at least 1, got 0.5"),
    (("study", "rates", "--out", "x", "--seeds", "0"), "seeds must be a whole number ≥ 1, got 0"),
], ids=lambda case: " ".join(case) if isinstance(case, tuple) else "")
def test_bad_input_is_one_line_and_exit_code_2(cli, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert cli(*arguments) == (2, "", f"neuralcollapse: {message}\n")
    assert list(tmp_path.iterdir()) == []
