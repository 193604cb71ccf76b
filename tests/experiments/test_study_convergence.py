"""The study of deep networks on a tiny setting: files, numbers that agree with its run folders, resuming, bad input."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from neuralcollapse import InvalidInput, predict
from neuralcollapse.experiments.run import Run
from neuralcollapse.experiments.studies import convergence, run_study
from neuralcollapse.experiments.studies.convergence import ACCELERATED, NETWORKS, PLAIN, PRESET, config_of
from neuralcollapse.experiments.studies.convergence_reading import arrangement, read
from neuralcollapse.experiments.train import train

TINY = {"digits, mlp": {**NETWORKS["digits, mlp"], "model_options": {"width": 32, "depth": 1, "features": 16},
                        "n_max": 24, "epochs": 300, "milestones": [100, 200]}}
PARTS = ("classifiers", "embeddings", "logits")
SHORT = "digits-mlp-terminal-phase-R6-seed2"


def run_tiny(out, **options):
    return run_study("deepnet-convergence", out, **({"ratios": [1, 6], "seeds": 1, "seed": 2} | options))


@pytest.fixture(scope="module")
def tiny():
    with pytest.MonkeyPatch.context() as patch:  # a smaller question, the same code
        patch.setattr(convergence, "NETWORKS", TINY)
        patch.setattr(convergence, "ACCELERATED", {})
        yield


@pytest.fixture(scope="module")
def study(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    return out, run_tiny(out).read_text(encoding="utf-8")


def rows(path):
    return pq.read_table(path).to_pylist()


def numbers(row, *names):
    return np.array([float(row[name]) for name in names])


def test_it_leaves_runs_data_a_figure_a_table_and_where_they_come_from(study):
    out, table = study
    assert {path.name for path in out.iterdir()} == {
        "runs", "epochs.parquet", "runs.parquet", "deepnet-convergence.png", "deepnet-convergence.pdf",
        "gallery.md", "table.md", "study.json"}
    assert {path.name for path in (out / "runs").iterdir()} == {
        f"digits-mlp-{recipe}-R{ratio}-seed2" for recipe in ("terminal-phase", "plain-SGD") for ratio in (1, 6)}
    assert json.loads((out / "study.json").read_text())["seeds"] == [2]
    assert "4 runs, seeds 2." in table
    found = rows(out / "runs.parquet")
    assert [(row["recipe"], row["ratio"]) for row in found] == [
        (PRESET, 1.0), (PRESET, 6.0), (PLAIN, 1.0), (PLAIN, 6.0)]
    epochs = Run.open(out / "runs" / SHORT).measured_epochs
    assert [int(row["epoch"]) for row in rows(out / "epochs.parquet")] == epochs * 4


def test_its_rows_are_the_histories_of_its_runs(study):
    out, _ = study
    history = Run.open(out / "runs" / SHORT).history
    found = [row for row in rows(out / "epochs.parquet") if (row["recipe"], row["ratio"]) == (PRESET, 6.0)]
    for row, record in zip(found, history, strict=True):
        measured = record["measurement"]
        assert float(row["nc1"]) == pytest.approx(measured["nc1"]["pinv"])
        for target in ("seli", "etf"):
            np.testing.assert_allclose(numbers(row, *(f"{target}/{part}" for part in PARTS)),
                                       [measured["distances"][target][part] for part in PARTS], atol=1e-6)
        for pair, cosine in measured["cosines"]["classifiers"].items():
            assert float(row[f"classifiers/{pair}"]) == pytest.approx(cosine, abs=1e-6)
        norms = np.array(measured["norms"]["embeddings"])
        assert float(row["embeddings/norm_ratio"]) == pytest.approx(norms[:5].mean() / norms[5:].mean(), rel=1e-5)


def test_lambda_eff_fits_best_and_the_given_ridge_is_the_penalties(study):
    out, table = study
    row = next(row for row in rows(out / "runs.parquet") if (row["recipe"], row["ratio"]) == (PRESET, 6.0))
    run = Run.open(out / "runs" / SHORT)
    n = int(run.counts.n)
    assert (n, float(row["lambda_given"])) == (5 * 24 + 5 * 4, pytest.approx(n * np.sqrt(1.3e-3 * 1.3e-5)))
    last = run.grams(300)

    def distances(ridge):
        geometry = predict(run.counts, ridge=ridge)
        centre = np.eye(10) - 0.1
        pairs = ((geometry.classifiers.dense(), "classifiers"), (centre @ geometry.embeddings.dense() @ centre,
                 "embeddings"), (geometry.logits.dense() @ centre, "logits"))
        return np.array([np.linalg.norm(last[part] - gram / np.linalg.norm(gram)) for gram, part in pairs])

    best = distances(float(row["lambda_eff"]))
    np.testing.assert_allclose(numbers(row, *(f"ridge/{part}" for part in PARTS)), best, atol=1e-6)
    np.testing.assert_allclose(numbers(row, *(f"balance/{part}" for part in PARTS)),
                               distances(float(row["lambda_balance"])), atol=1e-6)
    for other in float(row["lambda_eff"]) * np.array([0.2, 0.8, 0.99, 1.01, 1.2]):
        assert np.linalg.norm(distances(other)[:2]) > np.linalg.norm(best[:2])
    assert " / ".join(f"{value:.3f}" for value in best) in table


def test_its_claims_follow_from_the_numbers_beside_them(study):
    for row in rows(study[0] / "runs.parquet"):
        seli, etf, ridge = (numbers(row, *(f"{target}/{part}" for part in PARTS))
                            for target in ("seli", "etf", "ridge"))
        accurate = float(row["training_accuracy"]) >= 0.99
        expected = {"collapse": float(row["nc1_last"]) <= float(row["nc1_first"]) / 10, "seli": seli[0] < etf[0],
                    "ridge": bool((ridge < seli).all() and (ridge < etf).all())}
        if row["ratio"] == 1.0:
            expected |= {"seli": None, "ridge": None}
            np.testing.assert_allclose(seli, etf, atol=1e-9)
        for name, value in expected.items():
            assert row[f"claim/{name}"] == (value if accurate else None)
    assert any(row["claim/collapse"] is True for row in rows(study[0] / "runs.parquet"))


def test_a_study_that_was_stopped_trains_only_what_is_missing(study, tiny, tmp_path):
    out, table = study
    shutil.copytree(out / "runs", tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs" / "digits-mlp-plain-SGD-R1-seed2")
    kept = tmp_path / "runs" / SHORT
    before = (kept / "checkpoint" / "state.pt").stat().st_mtime_ns
    # Stopped between state and history at the last epoch: the line is missing, the checkpoint is there.
    cut = tmp_path / "runs" / "digits-mlp-plain-SGD-R6-seed2" / "history.jsonl"
    cut.write_text("".join(cut.read_text().splitlines(keepends=True)[:-1]))
    told = []
    assert run_tiny(tmp_path, progress=told.append).read_text(encoding="utf-8") == table
    assert told[0] == "1 of 4: digits-mlp-terminal-phase-R1-seed2: 300 epochs"
    assert (kept / "checkpoint" / "state.pt").stat().st_mtime_ns == before


def test_a_network_that_does_not_fit_its_training_part_is_not_read(tmp_path):
    folder = tmp_path / "run"
    config = config_of(TINY["digits, mlp"] | {"epochs": 1, "milestones": None}, PLAIN, 6, 0)
    train(config, folder)
    one = read(Run.open(folder))
    assert one.accuracy < 0.99
    assert set(one.claims.values()) == {None}


@pytest.mark.parametrize("name", list(ACCELERATED))
def test_the_networks_of_an_accelerator_run_small_on_the_cpu(name, tmp_path):
    # On the digits: images as well, and read ten times sooner.
    network = ACCELERATED[name] | {"dataset": "digits", "model_options": {"width": 1}, "n_max": 4, "epochs": 1,
                                   "milestones": None}
    for recipe in (PRESET, PLAIN):
        config = config_of(network, recipe, 2, 0)
        run = train(config, tmp_path / recipe)
        one = read(run)
        assert run.data["features"] == 8
        assert np.isfinite(np.stack(list(one.distances.values()))).all()
        assert (one.given is None) == (recipe == PLAIN)


def test_the_plain_recipe_is_the_papers():
    config = config_of(ACCELERATED["mnist5k, vgg13"], PLAIN, 10, 1)
    assert (config.optimizer, config.learning_rate, config.momentum, config.weight_decay) == ("sgd", 0.1, 0.9, 5e-4)
    assert (config.epochs, config.batch_size, config.head_bias, config.feature_penalty) == (350, 128, False, 0)
    rates = [config.learning_rate_at(epoch) for epoch in (116, 117, 232, 233, 350)]
    assert rates == pytest.approx([0.1, 0.01, 0.01, 0.001, 0.001])
    small = config_of(NETWORKS["mnist5k, cnn"], PLAIN, 10, 1, quick=True)
    assert (small.n_max, small.learning_rate) == (config.n_max // 2, 0.05)


def test_cosines_of_a_lone_minority_class_do_not_exist():
    found = arrangement(np.diag([4.0, 4.0, 1.0]), np.array([False, False, True]))
    assert (found["norm_ratio"], found["majority_majority"], found["majority_minority"]) == (2, 0, 0)
    assert np.isnan(found["minority_minority"])
    assert np.isnan(arrangement(np.eye(3), np.zeros(3, dtype=bool))["norm_ratio"])


def test_steps_are_refused(study, tiny):
    with pytest.raises(InvalidInput) as error:
        run_tiny(study[0], steps=3)
    assert str(error.value) == "study deepnet-convergence trains for epochs, not steps: leave steps out, got 3"


def test_runs_with_other_settings_are_refused_and_stay(study, monkeypatch):
    monkeypatch.setattr(convergence, "NETWORKS", {"digits, mlp": TINY["digits, mlp"] | {"n_max": 12}})
    folder = study[0] / "runs" / SHORT
    with pytest.raises(InvalidInput) as error:
        run_tiny(study[0], ratios=[6])
    assert str(error.value) == f"cannot resume '{folder}' with other settings: n_max is 24 there and 12 here"
