"""Settings: defaults, overrides, schedules, and every bad value with its message."""

from itertools import pairwise

import pytest
import yaml

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.presets import PRESETS

KNOWN = ", ".join(sorted(TrainConfig.model_fields))

BAD = [
    ({"epoch": 1}, f"unknown setting 'epoch': did you mean 'epochs'? known: {KNOWN}"),
    ({"zzz": 1}, f"unknown setting 'zzz': known: {KNOWN}"),
    ({"epochs": 0}, "epochs must be at least 1, got 0"),
    ({"epochs": "many"}, "epochs must be a whole number, got 'many'"),
    ({"epochs": 1.5}, "epochs must be a whole number, got 1.5"),
    ({"imbalance": "stp"}, "imbalance must be 'step', 'long-tail', 'none' or 'natural', got 'stp'"),
    ({"ratio": 0.5}, "ratio must be at least 1, got 0.5"),
    ({"ratio": "nan"}, "ratio must be a finite number, got 'nan'"),
    ({"minority": 2}, "minority must be at most 1, got 2"),
    ({"n_max": 0}, "n_max must be at least 1, got 0"),
    ({"test_size": 1}, "test_size must be less than 1, got 1"),
    ({"dataset": None}, "dataset must be text, got None"),
    ({"model_options": 3}, "model_options must be a mapping, got 3"),
    ({"head_bias": "maybe"}, "head_bias must be true or false, got 'maybe'"),
    ({"head": "fixed"}, "head must be 'learned', 'etf' or 'seli', got 'fixed'"),
    ({"batch_size": "a"}, "batch_size must be a whole number, got 'a'"),
    ({"learning_rate": 0}, "learning_rate must be greater than 0, got 0"),
    ({"weight_decay": float("inf")}, "weight_decay must be a finite number, got inf"),
    ({"head_weight_decay": "a"}, "head_weight_decay must be a number, got 'a'"),
    ({"feature_penalty": -1}, "feature_penalty must be at least 0, got -1"),
    ({"milestones": ["a"]}, "milestones[0] must be a whole number, got 'a'"),
    ({"milestones": [300]}, "milestones must lie within the 200 epochs of the run, got 300: set milestones=[…] too"),
    ({"milestones": [116], "epochs": 1}, "milestones must lie within the 1 epoch of the run, got 116: set "
     "milestones=[…] too"),
    ({"seed": -1}, "seed must be at least 0, got -1"),
    ({"measure": "evry 3"}, "measure must be 'log', 'every N' or a list of epochs, got evry 3"),
    ({"measure": "every 0"}, "measure must be 'log', 'every N' or a list of epochs, got every 0"),
    ({"measure": [0]}, "measure must be 'log', 'every N' or a list of epochs, got [0]"),
    ({"measure": [5, 201]}, "measure must lie within the 200 epochs of the run, got 201: set measure=[…] too"),
    ({"label_noise": 1}, "label_noise must be less than 1, got 1"),
    ({"terminal_epochs": -1}, "terminal_epochs must be at least 0, got -1"),
    ({"checkpoint_every": -1}, "checkpoint_every must be at least 0, got -1"),
    ({"precision": "fp8"}, "precision must be 'float32', 'bf16' or 'fp16', got 'fp8'"),
    ({"center": None}, "center must be 'classes', 'samples' or 'none', got None"),
]


@pytest.mark.parametrize(("settings", "message"), BAD, ids=lambda value: str(value)[:30])
def test_bad_setting(settings, message):
    with pytest.raises(InvalidInput) as error:
        TrainConfig(**settings)
    assert str(error.value) == message


FILES = [
    ("epochs: [", "the configuration '{path}' must be YAML, got expected the node content, but found '<stream end>' "
                  "at line 1, column 10"),
    ("- epochs", "the configuration '{path}' must map settings to values, got ['epochs']"),
    ("1: 2", "the configuration '{path}' must map settings to values, got {1: 2}"),
    ("lr: 0.1", "unknown setting 'lr': known: " + KNOWN),
]


@pytest.mark.parametrize(("text", "message"), FILES)
def test_bad_file(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as error:
        TrainConfig.from_yaml(path)
    assert str(error.value) == message.replace("{path}", str(path))


def test_missing_file(tmp_path):
    with pytest.raises(InvalidInput) as error:
        TrainConfig.from_yaml(tmp_path / "none.yaml")
    assert str(error.value) == f"cannot read the configuration '{tmp_path}/none.yaml': No such file or directory"


def test_overrides_win_over_the_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("epochs: 7\nlearning_rate: 1e-3\n")  # YAML 1.1 reads 1e-3 as text
    config = TrainConfig.from_yaml(path, epochs=9)
    assert (config.epochs, config.learning_rate, config.seed) == (9, 1e-3, 0)
    path.write_text("")
    assert TrainConfig.from_yaml(path) == TrainConfig()


def test_yaml_round_trip():
    config = TrainConfig(measure=[3, 5], model_options={"width": 3}, milestones=[2], head_weight_decay=0.0)
    assert TrainConfig(**yaml.safe_load(config.to_yaml())) == config


def test_replace_validates():
    assert TrainConfig().replace(epochs=3).epochs == 3
    with pytest.raises(InvalidInput, match="epochs must be at least 1, got 0"):
        TrainConfig().replace(epochs=0)


@pytest.mark.parametrize(("measure", "epochs", "expected"), [
    ("log", 1, [1]), ("log", 4, [1, 2, 3, 4]), ("every 4", 10, [1, 4, 8, 10]), ([3], 5, [1, 3, 5]),
    ("2,3", 9, [1, 2, 3, 9]), ("every 50", 10, [1, 10])])
def test_measured_epochs(measure, epochs, expected):
    assert TrainConfig(measure=measure, epochs=epochs).measured_epochs == expected


def test_log_spaced_epochs_grow_geometrically():
    epochs = TrainConfig(epochs=10_000).measured_epochs
    late = [b / a for a, b in pairwise(epochs) if a > 100]
    assert max(late) < 1.4
    assert len(epochs) <= 30


@pytest.mark.parametrize(("epochs", "most"), [(40, 5), (100, 8), (200, 16), (350, 29)])
def test_log_spaced_epochs_are_a_twelfth_at_most(epochs, most):
    assert 0.8 * most <= len(TrainConfig(epochs=epochs).measured_epochs) <= most


def test_learning_rates():
    rates = {schedule: [TrainConfig(epochs=6, learning_rate=1.0, schedule=schedule).learning_rate_at(epoch)
                        for epoch in range(1, 7)] for schedule in ("constant", "cosine", "step")}
    assert rates["constant"] == [1.0] * 6
    assert rates["step"] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert rates["cosine"][0] == 1.0
    assert rates["cosine"][3] == pytest.approx(0.5)
    chosen = TrainConfig(epochs=6, learning_rate=1.0, milestones=[1], decay=0.5)
    assert [chosen.learning_rate_at(epoch) for epoch in (1, 2, 6)] == [1.0, 0.5, 0.5]


def test_head_decay_defaults_to_weight_decay():
    assert TrainConfig(weight_decay=0.01).ridges(100) == (1.0, 0.0)
    assert TrainConfig(weight_decay=0.01, head_weight_decay=0.0, feature_penalty=0.1).ridges(10) == (0.0, 1.0)


def test_presets_are_valid_and_the_demo_is_the_theorys_objective():
    assert all(isinstance(entry.function(), TrainConfig) and entry.summary for entry in PRESETS)
    classifiers, embeddings = PRESETS["demo"].function().ridges(770)
    assert (classifiers * embeddings) ** 0.5 == pytest.approx(0.01, rel=0.01)
    assert PRESETS["demo"].function().weight_decay == 0
