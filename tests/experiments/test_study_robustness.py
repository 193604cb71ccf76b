"""The study of robustness on a tiny setting: its files, rows that agree with a run of their own, and what it asks."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from neuralcollapse import InvalidInput
from neuralcollapse.experiments.data import load_data
from neuralcollapse.experiments.session import Session, reproducible
from neuralcollapse.experiments.studies import run_study
from neuralcollapse.experiments.studies.robustness_networks import (
    PERTURBATIONS,
    RIDGE,
    TRAININGS,
    alignment,
    leap,
    measured_at,
    network_config,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out, told = tmp_path_factory.mktemp("study"), []
    table = run_study("robustness", out, quick=True, ratios=[5], seeds=1, seed=2, progress=told.append)
    return out, table.read_text(encoding="utf-8"), told


@pytest.fixture(scope="module")
def rows(study):
    return pq.read_table(study[0] / "robustness.parquet").to_pylist()


@pytest.fixture(scope="module")
def last(rows):
    return {(row["training"], row["inputs"]): row for row in rows if row["epoch"] == 150}


def test_it_leaves_data_pictures_a_table_and_a_section(study, rows):
    out, table, told = study
    assert {path.name for path in out.iterdir()} == {"robustness.parquet", "robustness.png", "robustness.pdf",
                                                     "gallery.md", "table.md", "study.json"}
    assert (out / "robustness.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "robustness.pdf").read_bytes().startswith(b"%PDF")
    at = [(row["training"], row["epoch"], row["inputs"]) for row in rows]
    assert at == [(training, epoch, inputs) for training in TRAININGS for epoch in measured_at(150, quick=True)
                  for inputs in PERTURBATIONS]
    assert [line.partition(":")[0] for line in told] == ["network 1 of 2", "network 2 of 2"]
    assert "digits, R = 5: geometry of the training part." in table
    assert "## Collapse on perturbed inputs" in (out / "gallery.md").read_text(encoding="utf-8")


def test_clean_rows_are_a_session_s_own_measurement(last):
    config = network_config("digits", 5.0, 2, quick=True)
    data = load_data(config)
    with reproducible(1):
        session = Session(config, data)
        for epoch in range(1, config.epochs + 1):
            session.run_epoch(epoch)
        values, measurement = session.measure(config.epochs)
    row, found = last["standard", "clean"], measurement.to_dict()
    assert row["nc1"] == pytest.approx(found["nc1"]["pinv"], rel=1e-4)
    for target in ("seli", "etf"):
        for part in ("classifiers", "embeddings"):
            assert row[f"{target}/{part}"] == pytest.approx(found["distances"][target][part], rel=1e-4)
    assert row["test/majority"] == pytest.approx(values["test"]["majority_accuracy"])
    assert row["test/minority"] == pytest.approx(values["test"]["minority_accuracy"])
    means = found["margins"]["per_class"]["mean"]
    assert row["margin/minority"] == pytest.approx(np.mean(np.array(means)[data.counts.minority]), rel=1e-4)
    assert np.sqrt(np.prod(config.ridges(float(data.counts.n)))) == pytest.approx(RIDGE, rel=1e-12)


def test_the_table_holds_the_rows(study, last):
    row, clean = last["adversarial", "PGD ε"], last["adversarial", "clean"]
    shares = (row[f"margin/{half}"] / clean[f"margin/{half}"] for half in ("majority", "minority"))
    values = [*shares, *(row[f"{part}/{half}"] for part in ("training", "test") for half in ("majority", "minority"))]
    assert f"| adversarial | PGD ε | {' | '.join(f'{value:.2g}' for value in values)} |" in study[1]
    assert f"| standard | {last['standard', 'clean']['seli/classifiers']:.2g} |" in study[1]


def test_inputs_change_features_and_never_classifiers(last):
    for training in TRAININGS:
        here = [last[training, inputs] for inputs in PERTURBATIONS]
        assert len({row["seli/classifiers"] for row in here}) == 1
        assert len({row["seli/embeddings"] for row in here}) == len(here)
        assert last[training, "clean"]["alignment/minority"] == pytest.approx(1, abs=1e-6)
        assert last[training, "PGD ε"]["alignment/minority"] < 1 - 1e-4


def test_attacks_undo_the_collapse_of_standard_training_and_not_of_adversarial_training(last):
    for training in TRAININGS:
        assert last[training, "clean"]["nc1"] < 0.1
        assert last[training, "clean"]["training/minority"] == 1
    assert last["standard", "PGD ε"]["nc1"] > 10 * last["standard", "clean"]["nc1"]
    assert last["adversarial", "PGD ε"]["nc1"] < 0.1
    for half in ("majority", "minority"):
        left = [last[training, "PGD ε"][f"margin/{half}"] / last[training, "clean"][f"margin/{half}"]
                for training in TRAININGS]
        assert left[1] > left[0] + 0.1
    # Noise as long as the attack is nearly harmless: it is the direction that counts.
    assert last["standard", "noise"]["test/majority"] > last["standard", "PGD ε"]["test/majority"] + 0.1


def test_alignment_is_a_cosine_of_centred_means():
    clean = torch.tensor([[1.0, 0.0], [3.0, 0.0], [-2.0, 0.0]])
    labels = torch.tensor([0, 0, 1])
    assert alignment(clean, 5 * clean + 7, labels) == pytest.approx([1, 1])
    assert alignment(clean, -clean, labels) == pytest.approx([-1, -1])
    assert alignment(clean, clean.flip(1), labels) == pytest.approx([0, 0], abs=1e-7)


def test_a_leap_is_complete_on_the_other_class_s_mean():
    clean, labels, weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 1]), torch.tensor(
        [[1.0, 0.0], [-1.0, 0.0]])
    assert leap(clean, torch.tensor([[-1.0, 0.0], [-1.0, 0.0]]), labels, weight) == 0
    assert leap(clean, torch.tensor([[-0.5, 0.0], [-1.0, 0.0]]), labels, weight) == pytest.approx(0.25)
    assert np.isnan(leap(clean, clean, labels, weight))


@pytest.mark.parametrize(("given", "message"), [
    ({"steps": 3}, "study robustness trains for epochs, not steps: leave steps out, got 3"),
    ({"ratios": [1000], "quick": True}, "the data set is too small for ratio 1000: with 40 samples in the largest "
     "class the smallest would keep 0.04; use a ratio of at most 40")])
def test_what_cannot_be_asked_is_refused(tmp_path, given, message):
    with pytest.raises(InvalidInput) as error:
        run_study("robustness", tmp_path, seeds=1, **given)
    assert str(error.value) == message
