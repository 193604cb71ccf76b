"""Simulations as a user runs them: certified minima, snapshots, resuming, cells that diverge, budgets, bad input."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from neuralcollapse import ClassCounts, measure, predict
from neuralcollapse.checks import InvalidInput
from neuralcollapse.simulate import METHODS, Simulation, simulate
from neuralcollapse.simulate.quantities import PARTS, SCALARS, TARGETS
from references import limit_dense, unit_distance

# Descent from free starts against the certified convex optimum: objectives agree to rounding; Grams to 1e-6 of unit
# norm, since the certificate (relative gap 1e-12) bounds them by the square root of the gap only.
OBJECTIVE = {"rtol": 1e-8, "atol": 0}
GRAM = {"rtol": 0, "atol": 1e-6}
LOSSES = {
    "ce": {}, "weighted": {"weight": [0.5, 1.0, 1.0, 2.0]}, "la": {"iota": [0.5, 0.0, -0.3, -1.0]},
    "ldt": {"delta": [1.5, 1.2, 1.0, 0.8]}, "cdt": {"delta": [1.4, 1.2, 0.9, 0.8]},
    "vs": {"delta": [0.8, 0.9, 1.1, 1.3], "iota": [0.5, 0.0, -0.3, -1.0]},
}


def grams(runs, cell):
    W, H, labels = runs.samples(cell)
    M = np.stack([H[labels == c].mean(0) for c in range(W.shape[0])])
    return W, H, M, labels, [W @ W.T, M @ M.T, W @ M.T]


def check_minimum(runs, geometry, cells=None):
    """Objective, both Grams and logits, balance, and no within-class variability, of every cell."""
    for cell in range(len(runs)) if cells is None else cells:
        W, H, M, labels, products = grams(runs, cell)
        objective = np.exp(runs["log_objective"][cell, -1])
        np.testing.assert_allclose(objective, geometry.objective, **OBJECTIVE)
        balance = runs.cells[cell]["balance"]
        np.testing.assert_allclose(np.sum(W**2), balance * np.sum(H**2), rtol=1e-6, atol=1e-12)
        predicted = [geometry.classifiers, geometry.embeddings, geometry.logits]
        for product, expected in zip(products, predicted, strict=True):
            np.testing.assert_allclose(product / np.linalg.norm(product), expected.dense() / expected.frobenius, **GRAM)
        np.testing.assert_allclose(H, M[labels], atol=1e-7)
        assert runs["nc1"][cell, -1] < 1e-14


@pytest.mark.parametrize("seed", range(6))
def test_trained_minima_are_the_certified_ones(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 15, rng.integers(3, 6)).tolist()
    ridge = float(predict(counts).total_collapse * rng.uniform(0.05, 0.6))
    runs = simulate(counts, "nesterov", ridge=ridge, steps=4000, momentum=0.95, seeds=[seed, seed + 100],
                    scale=[0.3, 1.5], d=len(counts) + seed % 3)
    check_minimum(runs, predict(counts, ridge=ridge, tolerance=1e-12))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_minima_of_every_loss(loss, bias):
    counts, ridge = [9, 6, 6, 2], 0.6
    runs = simulate(counts, "heavy-ball", loss=loss, ridge=ridge, bias=bias, steps=6000, seeds=2, balance=[1.0, 4.0],
                    step=0.05, **LOSSES[loss])
    geometry = predict(counts, loss, ridge=ridge, bias=bias, tolerance=1e-12, **LOSSES[loss])
    check_minimum(runs, geometry)
    np.testing.assert_array_less(runs["ridge/classifiers"][:, -1], 1e-6)
    if bias:  # up to what its direction leaves free
        slope = 1 / np.asarray(LOSSES[loss].get("delta", [1.0] * 4)) if loss != "ldt" else np.ones(4)
        for found in runs.bias:
            off = found - geometry.bias_values
            np.testing.assert_allclose(off, slope * (off @ slope) / (slope @ slope), atol=1e-5)


def test_the_minima_of_the_square_loss():
    runs = simulate([9, 6, 4, 2], "nesterov", loss="mse", ridge=0.4, steps=4000, momentum=0.95, seeds=2, d=6)
    check_minimum(runs, predict([9, 6, 4, 2], "mse", ridge=0.4))


@pytest.mark.parametrize(("loss", "relu"), [("ce", True), ("relu-ce", False)])
def test_the_minima_on_non_negative_features(loss, relu):
    """There are other minima here: none may lie below the global one, and many starts must reach it."""
    runs = simulate([9, 6, 4, 2], "nesterov", loss=loss, relu=relu, ridge=0.4, steps=6000, momentum=0.95, seeds=8,
                    d=6, scale=2.0, step=0.05, snapshots=5)
    geometry = predict([9, 6, 4, 2], "relu-ce", ridge=0.4)
    excess = np.exp(runs["log_objective"][:, -1]) / geometry.objective - 1
    assert excess.min() > -1e-12
    reached = np.flatnonzero(excess < 1e-6).tolist()
    assert len(reached) >= 4
    check_minimum(runs, geometry, reached)
    assert runs.features.min() >= 0


def test_beyond_total_collapse_everything_vanishes():
    runs = simulate([4, 4, 1], "heavy-ball", ridge=2.5, steps=3000, symmetric=True)
    assert predict([4, 4, 1]).total_collapse < 2.5
    np.testing.assert_allclose(runs.classifiers, 0, atol=1e-12)
    np.testing.assert_allclose(np.exp(runs["log_objective"][0, -1]), 9 * np.log(3), rtol=1e-12, atol=0)
    assert "ridge/classifiers" not in runs.values  # the prediction has no direction


def test_continuation_ends_at_the_certified_minimum():
    runs = simulate([10, 10, 1, 1], "continuation", ridge=0.2, steps=6000, half_life=100, ridge_start=3.0)
    check_minimum(runs, predict([10, 10, 1, 1], ridge=0.2, tolerance=1e-12))


@pytest.mark.parametrize("symmetric", [False, True])
def test_snapshots_are_what_measure_says(symmetric):
    counts = [6, 5, 2, 2]
    runs = simulate(counts, "adam", ridge=0.3, steps=40, seeds=2, snapshots=[40], d=6, symmetric=symmetric)
    for cell in range(2):
        W, H, _, labels, products = grams(runs, cell)
        found = measure(H, labels, W, targets=("seli", "etf", "ridge:0.3"), center="none").to_dict()
        ours = {name: values[cell, 0] for name, values in runs.values.items()}
        for target in ("seli", "etf", "ridge:0.3"):
            for part, value in found["distances"][target].items():
                name = f"{target.partition(':')[0]}/{part}"
                np.testing.assert_allclose(ours[name], value, rtol=1e-10, atol=1e-13, err_msg=name)
        for side in ("classifiers", "embeddings"):
            norms = np.array(found["norms"][side])
            np.testing.assert_allclose(ours[f"norm_ratio/{side}"], norms[:2].mean() / norms[2:].mean(), rtol=1e-12,
                                       atol=0)
            np.testing.assert_allclose(ours[f"minority_cosine/{side}"], found["cosines"][side]["minority_minority"],
                                       rtol=1e-11, atol=1e-13)
        size = np.linalg.norm(W) * np.linalg.norm(H)
        np.testing.assert_allclose(ours["margin"], found["margins"]["min"] / size, rtol=1e-11, atol=1e-14)
        nc1 = measure(H, labels, W, center="classes").to_dict()["nc1"]["trace"]
        np.testing.assert_allclose(ours["nc1"], nc1, rtol=1e-11, atol=1e-28)
        recall = [np.mean((H[labels == c] @ W.T).argmax(1) == c) for c in range(4)]
        np.testing.assert_allclose(ours["balanced_accuracy"], np.mean(recall), rtol=1e-14, atol=0)
        z = H @ W.T
        loss = np.sum(np.log(np.exp(z - z[np.arange(15), labels][:, None]).sum(1)))
        np.testing.assert_allclose(np.exp(ours["log_loss"]), loss, rtol=1e-12, atol=0)
        total = loss + 0.15 * (np.sum(W**2) + np.sum(H**2))
        np.testing.assert_allclose(np.exp(ours["log_objective"]), total, rtol=1e-12, atol=0)
        np.testing.assert_allclose(ours["seli/classifiers"], unit_distance(products[0], limit_dense(counts)[0]),
                                   rtol=1e-9, atol=1e-12)


def test_the_margin_of_seli_is_one_over_its_nuclear_norm():
    counts = np.array([10, 10, 1, 1])
    W, M = predict(counts).factors(4)
    runs = simulate(counts, start=(W, M), steps=1, snapshots=[0])
    nuclear = np.linalg.norm((np.eye(4) - 1 / 4) * np.sqrt(counts), "nuc")
    np.testing.assert_allclose(runs["margin"][0, 0], 1 / nuclear, rtol=1e-12, atol=0)
    np.testing.assert_allclose([runs[f"seli/{part}"][0, 0] for part in ("classifiers", "embeddings", "logits")], 0,
                               atol=1e-12)


def test_other_limits_and_what_no_theorem_covers():
    runs = simulate([6, 3, 2], loss="ldt", delta=[2.0, 1.0, 1.0], steps=3, ridge=[0.0, 0.5], snapshots=[3])
    W = runs.classifiers[0]
    expected = limit_dense([6, 3, 2], [2.0, 1.0, 1.0], "label")[0]
    np.testing.assert_allclose(runs["limit/classifiers"][0, 0], unit_distance(W @ W.T, expected), rtol=1e-9, atol=0)
    assert np.isnan(runs["ridge/logits"][0, 0])
    assert np.isfinite(runs["ridge/logits"][1, 0])
    assert "limit/logits" not in simulate([6, 3, 2], steps=3, bias=True).values
    assert "ridge/logits" not in simulate([6, 3, 2], steps=3, ridge=0.1, loss="mse", bias=True).values
    balanced = simulate([5, 5, 5], steps=3)
    assert np.isnan(balanced["norm_ratio/classifiers"]).all()
    one = simulate([5, 5, 1], steps=3)
    assert np.isnan(one["minority_cosine/embeddings"]).all()


@pytest.mark.parametrize("method", [entry.name for entry in METHODS])
def test_a_resumed_run_has_the_same_numbers_to_the_bit(method, tmp_path):
    given = {"ridge": [0.02, 0.1], "steps": 350, "seeds": 2, "schedule": 0.25, "snapshots": 12, "bias": True}
    given |= {"batch": 4} if method == "sgd" else {}
    whole = simulate([[5, 4, 2], [3, 3, 1]], method, **given)

    def interrupt(at):
        if at.step >= 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate([[5, 4, 2], [3, 3, 1]], method, folder=tmp_path / "run", progress=interrupt, **given)
    seen = []
    resumed = simulate([[5, 4, 2], [3, 3, 1]], method, folder=tmp_path / "run", resume=True,
                       progress=lambda at: seen.append(at.step), **given)
    assert min(seen) > 200
    for name in whole.values:
        np.testing.assert_array_equal(resumed[name], whole[name], err_msg=name)
    np.testing.assert_array_equal(resumed.classifiers, whole.classifiers)
    np.testing.assert_array_equal(resumed.features, whole.features)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["simulation.npz", "state.npz"]
    again = simulate([[5, 4, 2], [3, 3, 1]], method, folder=tmp_path / "run", resume=True, **given)
    np.testing.assert_array_equal(again.classifiers, whole.classifiers)


def test_a_folder_of_another_simulation_is_refused(tmp_path):
    simulate([2, 1], steps=5, folder=tmp_path, ridge=0.1)
    cases = [({"ridge": 0.1}, f"'{tmp_path}' holds a simulation already: resume it, or give another folder"),
             ({"ridge": 0.1, "resume": True, "relu": True},
              f"the simulation in '{tmp_path}' has another relu: expected False, got True")]
    for options, message in cases:
        with pytest.raises(InvalidInput) as error:
            simulate([2, 1], steps=5, folder=tmp_path, **options)
        assert str(error.value) == message
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    with pytest.raises(InvalidInput) as error:
        simulate([2, 1], steps=5, folder=tmp_path / "thesis")
    assert str(error.value) == (f"a simulation needs a new or empty folder, got '{tmp_path / 'thesis'}' that holds "
                                "thesis.tex")
    (tmp_path / "state.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(InvalidInput, match=r"^'state\.npz' cannot be read as a simulation: [^\n]*$"):
        simulate([2, 1], steps=5, folder=tmp_path, resume=True)


@pytest.mark.parametrize(("method", "loss", "step"), [("gd", "mse", 5.0), ("heavy-ball", "mse", 1e200),
                                                      ("nesterov", "ce", 1e300), ("spectral", "mse", 1e200),
                                                      ("muon", "mse", 1e160), ("ngd", "mse", 1e9), ("sgd", "mse", 5.0)])
def test_a_diverging_cell_stops_alone_and_is_named(method, loss, step):
    seen = []
    given = {"loss": loss, "steps": 300, "ridge": 0.1}
    runs = simulate([6, 3, 1], method, step=[0.01, step, 0.02], progress=seen.append, **given)
    assert list(runs.diverged) == [1]
    assert runs.diverged[1] <= 300
    assert list(seen[-1].diverged) == [f"cell 1 (step={step:g})"]
    assert (seen[-1].running, seen[-1].step, seen[-1].steps) == (2, 300, 300)
    assert np.isnan(runs.classifiers[1]).all()
    assert np.isnan(runs["log_loss"][1, -1])
    alone = simulate([6, 3, 1], method, step=[0.01, 0.02], **given)
    assert not alone.diverged
    np.testing.assert_allclose(runs.classifiers[[0, 2]], alone.classifiers, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(runs["log_loss"][[0, 2]], alone["log_loss"], rtol=1e-9, atol=1e-12)
    assert "1 diverged" in repr(runs)
    assert runs.to_rows()[-1]["diverged"] is None
    json.dumps(runs.to_rows(), allow_nan=False)


def test_a_start_deep_in_the_terminal_phase_does_not_count_as_diverging():
    runs = simulate([2, 2], "ngd", start=(50 * np.eye(2), 50 * np.eye(2)), steps=200, step=0.5)
    assert not runs.diverged


def test_what_is_saved_is_what_is_loaded(tmp_path):
    runs = simulate([[4, 2, 1], [3, 3, 3]], "ngd", steps=20, seeds=2, bias=True, step=[0.1, 1e-3])
    runs.save(tmp_path / "a.npz")
    loaded = Simulation.load(tmp_path / "a.npz")
    assert loaded.cells == runs.cells
    assert loaded.profiles == runs.profiles
    assert repr(loaded) == repr(runs)
    for name in runs.values:
        np.testing.assert_array_equal(loaded[name], runs[name])
    np.testing.assert_array_equal(loaded.bias, runs.bias)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    rows = runs.to_rows()
    assert len(rows) == 8 * runs.steps.size
    assert rows[0] | {"cell": 0, "ratio": 4.0, "seed": 0, "at": 0} == rows[0]
    messages = [(lambda: runs.save(tmp_path / "a.txt"), "a simulation's name must end in .npz, got 'a.txt'"),
                (lambda: Simulation.load(tmp_path / "b.npz"), f"no such file: '{tmp_path / 'b.npz'}'"),
                (lambda: runs["lofs"], "unknown quantity 'lofs': did you mean")]
    for call, message in messages:
        with pytest.raises(InvalidInput) as error:
            call()
        assert str(error.value).startswith(message)


def test_the_grid_is_the_product_and_a_run_depends_on_its_cell_alone():
    runs = simulate([[4, 2], [3, 3]], "nesterov", ridge=[0.0, 0.1], momentum=[0.5, 0.9], seeds=[3, 8], steps=10)
    assert len(runs) == 16
    assert runs.cells[5] == {"profile": 0, "ratio": 2.0, "ridge": 0.1, "balance": 1.0, "step": 0.05, "decay": 0.0,
                             "scale": 1.0, "momentum": 0.5, "seed": 8}
    alone = simulate([4, 2], "nesterov", ridge=0.1, momentum=0.5, seeds=[8], steps=10)
    np.testing.assert_allclose(alone.classifiers[0], runs.classifiers[5], rtol=1e-12, atol=1e-14)


def test_float32_follows_float64():
    given = {"method": "heavy-ball", "ridge": 0.2, "steps": 200, "seeds": 2}
    single, double = (simulate([6, 4, 1], dtype=dtype, **given) for dtype in ("float32", torch.float64))
    assert single.classifiers.dtype == np.float32
    np.testing.assert_allclose(single.classifiers, double.classifiers, rtol=1e-3, atol=1e-4)
    tail = simulate([6, 4, 1], "ngd", steps=800, step=0.5, dtype="float32")
    assert -5e4 < tail["log_loss"][0, -1] < -150  # far below the smallest float32


def test_fractional_counts_in_the_symmetric_form():
    runs = simulate([2.5, 1.5, 0.5], "nesterov", ridge=0.1, steps=3000, momentum=0.95, symmetric=True)
    geometry = predict([2.5, 1.5, 0.5], ridge=0.1, tolerance=1e-12)
    np.testing.assert_allclose(np.exp(runs["log_objective"][0, -1]), geometry.objective, **OBJECTIVE)


def test_the_room_is_its_verb():
    code = ("import neuralcollapse.simulate, neuralcollapse as nc;"
            "assert 'torch' in __import__('sys').modules;"
            "print(len(nc.simulate([2, 1], steps=2)))")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("1\n", "")


@pytest.mark.parametrize(("arguments", "message"), [
    ({"method": "nestorov"}, "unknown method 'nestorov': did you mean 'nesterov'? known: adam, continuation, gd, "
     "heavy-ball, multipliers, muon, nesterov, ngd, ngd-loss, sgd, sign, spectral"),
    ({"step": 0}, "step must be a positive number, got 0"),
    ({"step": -0.1}, "step must be a positive number, got -0.1"),
    ({"step": [0.1, "big"]}, "step must be a positive number, got 'big'"),
    ({"step": []}, "step must hold at least one number, got an empty list"),
    ({"steps": 0}, "steps must be a whole number ≥ 1, got 0"),
    ({"steps": -5}, "steps must be a whole number ≥ 1, got -5"),
    ({"steps": 2.5}, "steps must be a whole number ≥ 1, got 2.5"),
    ({"d": 0}, "d must be a whole number ≥ 1, got 0"),
    ({"ridge": -1.0}, "ridge must be a number ≥ 0, got -1.0"),
    ({"ridge": float("nan")}, "ridge must be a finite number, got 'nan'"),
    ({"balance": 0}, "balance must be a positive number, got 0"),
    ({"scale": 0}, "scale must be a positive number, got 0"),
    ({"method": "heavy-ball", "momentum": 1.0}, "momentum must be in [0, 1), got 1.0"),
    ({"momentum": 0.9}, "method 'gd' takes no momentum: heavy-ball, nesterov, adam, ngd, ngd-loss, sign, spectral, "
     "muon, continuation, multipliers do"),
    ({"method": "ngd", "momemtum": 0.9},
     "method 'ngd' takes no momemtum: did you mean 'momentum'? known: delta, iota, momentum, temperature, weight"),
    ({"method": "sgd", "batch": 0}, "batch must be a whole number ≥ 1, got 0"),
    ({"method": "sgd", "batch": [1, 2]}, "batch must be one number for all runs, got [1, 2]"),
    ({"method": "sgd", "symmetric": True}, "method 'sgd' draws samples, which a symmetric run does not have: leave "
     "symmetric out"),
    ({"seeds": 0}, "seeds must be a whole number ≥ 1, got 0"),
    ({"seeds": [0, -1]}, "seeds must be how many runs to make, or a list of whole numbers ≥ 0, got [0, -1]"),
    ({"schedule": "cosine"}, "schedule must be an exponent, or one of constant, sqrt, got 'cosine'"),
    ({"loss": "scl"}, "loss must be one of logits, which free features can be trained with, got 'scl': known: cdt, "
     "ce, la, ldt, mse, relu-ce, vs, weighted"),
    ({"loss": "ldt"}, "loss 'ldt' needs delta, one positive number per class"),
    ({"loss": "ldt", "delta": [1.0]}, "delta must be 2 numbers, one per class, got 1 ([1.0])"),
    ({"loss": "mse", "weight": [1.0, 2.0]}, "loss 'mse' takes no weight: it takes none"),
    ({"counts": [[2, 1], [1, 1, 1]]}, "counts of one simulation must have the same number of classes, got 2, 3"),
    ({"counts": [2, 0]}, "every class needs a sample, and class 1 has none: drop it from labels and head, or "
     "give it a small positive "
     "count (class_counts does with absent=1)"),
    ({"counts": [2.5, 1]}, "counts must be whole numbers where every sample is free, got ClassCounts(2.5, 1): round "
     "them with .rounded(), or start within-class symmetric (symmetric=True)"),
    ({"snapshots": [0, 2000]}, "snapshots must be how many to take, or a list of steps in 0 … 1000, got [0, 2000]"),
    ({"dtype": "float16"}, "dtype must be float64 or float32, got 'float16'"),
    ({"memory": "lots"}, "memory must be a size such as 500MB or 2GB, got 'lots'"),
    ({"resume": True}, "resume needs the folder to resume from, got none"),
    ({"start": (1.0, "two")}, "start must be two arrays of numbers, W (k, d) and H (n, d), got (1.0, 'two')"),
    ({"start": (np.ones((2, 3)), np.ones((3, 2)))},
     "start must be W of shape (2, 3) and H of shape (3, 3), got (2, 3) and (3, 2)"),
])
def test_bad_input_is_refused_in_one_line(arguments, message):
    with pytest.raises(InvalidInput) as error:
        simulate(**({"counts": [2, 1]} | arguments))
    assert str(error.value) == message


def test_a_device_that_is_not_there():
    with pytest.raises(InvalidInput, match=r"^device must be one that torch can use, such as cpu or cuda, got 'tpu9': "
                                           r"[^\n]*$"):
        simulate([2, 1], device="tpu9")


def test_memory_beyond_the_budget_is_refused_before_anything_is_made():
    with pytest.raises(InvalidInput) as error:
        simulate(ClassCounts.step(10, 100, n_min=500), seeds=4096, memory="2 GB")
    needed = int(str(error.value).split("about ")[1].split(" MB")[0].replace(",", ""))
    assert str(error.value) == (f"this grid of 4,096 runs needs about {needed:,} MB, more than the memory of 2,000 MB: "
                                "raise memory, or ask for fewer runs, or start within-class symmetric "
                                "(symmetric=True)")
    # W, H, Z and R alone hold 4096 · 252,500 · 40 numbers of 8 bytes.
    assert 300_000 < needed < 3_000_000


def test_the_memory_estimate_bounds_what_is_used():
    """The growth of a process from 3 runs to 63, whose fixed costs are the same."""
    counts = ClassCounts.step(10, 10, n_min=100)
    code = ("import re, sys; from neuralcollapse.simulate import simulate;"
            f"simulate({counts.values.tolist()}, 'adam', seeds=int(sys.argv[1]), steps=3);"
            "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1e3)")
    used = [float(subprocess.run([sys.executable, "-c", code, runs], capture_output=True, text=True, check=True).stdout)
            for runs in ("3", "63")]
    with pytest.raises(InvalidInput) as error:
        simulate(counts, "adam", seeds=60, steps=3, memory="1MB")
    estimate = float(str(error.value).split("about ")[1].split(" MB")[0])
    assert used[1] - used[0] < 1.1 * estimate
    assert estimate < 4 * (used[1] - used[0])


@pytest.mark.parametrize("axis", ["step", "schedule"])
def test_an_axis_may_be_an_array(axis):
    given = np.array([0.1, 0.5])
    arrays, lists = (simulate([4, 3], steps=5, **{axis: values}) for values in (given, given.tolist()))
    np.testing.assert_array_equal(arrays["log_loss"], lists["log_loss"])
    assert len(arrays) == 2


@pytest.mark.parametrize("profiles", [[{"a": 4, "b": 3}, {"a": 2, "b": 1}],
                                      [torch.tensor([4, 3]), torch.tensor([2, 1])], ["4,3", np.array([2, 1])]])
def test_several_profiles_in_any_form_of_counts(profiles):
    assert [counts.values.tolist() for counts in simulate(profiles, steps=1).profiles] == [[4, 3], [2, 1]]


@pytest.mark.parametrize("counts", [[torch.tensor(4), torch.tensor(3)], [np.int64(4), np.array(3)]])
def test_numbers_of_other_libraries_are_one_profile(counts):
    assert [one.values.tolist() for one in simulate(counts, steps=1).profiles] == [[4, 3]]


def test_a_given_start_is_projected_on_non_negative_features():
    W, H = np.eye(2), np.array([[-1.0, 0.5], [2.0, -3.0]])
    start = simulate([1, 1], steps=1, snapshots=[0], step=1e-300, relu=True, start=(W, H)).features[0]
    np.testing.assert_allclose(start, np.maximum(H, 0), atol=1e-299)


def test_memory_is_budgeted_for_every_quantity_of_a_run():
    runs = simulate([4, 3], loss="cdt", delta=[1, 2], ridge=0.1, steps=1)
    assert len(runs.values) == len(SCALARS) + len(TARGETS) * len(PARTS)


def test_fractions_of_samples_are_refused_not_rounded():
    runs = simulate([2.5, 1.5], steps=1, symmetric=True)
    with pytest.raises(InvalidInput, match=r"^counts must be whole numbers to have samples, got ClassCounts\(2\.5"):
        runs.samples(0)
