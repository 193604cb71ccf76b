"""Presets: what they set, and that a shortened run of the recipe goes where the page says."""

import numpy as np
import pytest

from neuralcollapse.experiments import PRESETS, train
from neuralcollapse.experiments.data import load_data


@pytest.mark.parametrize(("ratio", "n", "ridge"), [(1, 1400, 0.182), (5, 840, 0.1092), (10, 770, 0.1001),
                                                   (100, 505, 0.06565)])
def test_the_terminal_phase_preset_stays_below_minority_collapse(ratio, n, ridge):
    config = PRESETS["terminal-phase"].function().replace(ratio=ratio)
    counts = load_data(config).counts
    classifiers, embeddings = config.ridges(counts.n)
    assert counts.n == n
    assert np.sqrt(classifiers * embeddings) == pytest.approx(ridge, rel=1e-9)
    assert ridge < np.sqrt(counts.n_min) / 5
    assert classifiers / embeddings == pytest.approx(100)
    assert (config.weight_decay, config.optimizer, config.batch_size, config.epochs) == (0, "adam", None, 2000)


def test_a_shortened_run_of_it_ends_at_its_own_prediction_and_not_at_the_simplex(tmp_path):
    # Fewer epochs need larger steps, which the smaller network allows.
    config = PRESETS["terminal-phase"].function().replace(
        epochs=800, learning_rate=2e-2, model_options={"width": 64, "depth": 1, "features": 32}, measure=[1])
    first, last = (record["measurement"] for record in train(config, tmp_path / "run").history)
    near, far, start = (one["distances"][target] for one, target in
                        ((last, "ridge:0.1001"), (last, "etf"), (first, "ridge:0.1001")))
    for part in ("classifiers", "embeddings", "logits"):
        assert near[part] < 0.1
        assert near[part] < min(far[part], start[part]) / 2
    assert last["nc1"]["pinv"] < first["nc1"]["pinv"] / 10
