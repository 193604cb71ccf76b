"""The tables and short texts of the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
import json
import shlex
from typing import Any

import numpy as np

from neuralcollapse.experiments.records import look
from neuralcollapse.show.facts import (
    accuracy_gap,
    comparable_norms,
    lengths,
    measured_cosine,
    norm_ratio,
    norm_spread,
    predicted_cosine,
)
from neuralcollapse.show.markup import Table
from neuralcollapse.show.palette import in_a_sentence, target_name
from neuralcollapse.show.reading import PARTS, Reading, RunLike
from neuralcollapse.show.wording import cosine, degrees, number, percent, plain

_MOST_CLASSES = 1_000
_MOST_TEXT = 300
_PAIRS = {"majority_majority": "among majority", "majority_minority": "majority to minority",
          "minority_minority": "among minority"}
_SETTINGS = ("model", "loss", "optimizer", "learning_rate", "weight_decay", "epochs", "seed")


@dataclass(frozen=True)
class Tile:
    """One key number, with what to hold it against."""

    value: str
    label: str
    beside: str


def tiles(reading: Reading) -> list[Tile]:
    """The handful of numbers a run comes down to."""
    if not reading.measured:
        return []
    found = []
    for part in ("classifiers", "embeddings"):
        near = [reading.last_distance(part, target) for target in reading.targets[:2]]
        if near[0] is not None:
            beside = f"to {in_a_sentence(reading.targets[1])}: {number(near[1], 2)}" if len(near) > 1 else "of 1.41"
            found.append(Tile(number(near[0], 2), f"distance to {target_name(reading.target)}, {part}", beside))
    size = lengths(reading, "classifiers")
    if size.measured is not None and np.isfinite(size.measured):
        beside = f"{target_name(reading.target)} predicts {_times(size.predicted[reading.target])}"
        found.append(Tile(_times(size.measured), "norm of classifiers, majority : minority", beside))
    gap = accuracy_gap(reading)
    if gap is not None and not reading.counts.balanced:
        found.append(Tile(percent(gap.minority), "test accuracy, minority classes",
                          f"majority: {percent(gap.majority)}"))
    elif (overall := reading.last("test", "accuracy")) is not None:
        found.append(Tile(percent(overall), "test accuracy", f"training: {percent(reading.last('train', 'accuracy'))}"))
    return found


def norms(reading: Reading) -> Table:
    """Mean norms of majority and minority classes and their ratio, measured beside predicted."""
    rows: list[list[str]] = []
    scale = ""
    for part, title, _ in PARTS[:2]:
        found = comparable_norms(reading, part)
        scale = found.scale
        rows += [[title], *_norm_rows([found.measured, *found.predicted.values()], reading)]
    return Table(f"Mean norms ({scale})", _header(reading), rows)


def _norm_rows(columns: list[np.ndarray], reading: Reading) -> list[list[str]]:
    few = reading.minority
    if reading.counts.balanced:
        return [["all classes", *(number(_mean(values)) for values in columns)],
                ["largest : smallest", *(_times(norm_spread(values)) for values in columns)]]
    return [["majority classes", *(number(_mean(values[~few])) for values in columns)],
            ["minority classes", *(number(_mean(values[few])) for values in columns)],
            ["majority : minority", *(_times(norm_ratio(values, few)) for values in columns)]]


def _mean(values: np.ndarray) -> float | None:
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def _times(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.2f}"


def angles(reading: Reading) -> Table:
    """Mean cosines and angles between classes of the two groups, measured beside predicted."""
    rows: list[list[str]] = []
    for part, title, _ in PARTS[:2]:
        rows.append([title])
        for pair, text in _PAIRS.items():
            values = [measured_cosine(reading, part, pair),
                      *(predicted_cosine(reading, target, part, pair) for target in reading.targets)]
            if any(value is not None for value in values):
                rows.append(["two classes" if reading.counts.balanced else text, *(_angle(value) for value in values)])
    return Table("Mean cosines and the angles they stand for", _header(reading), rows)


def _header(reading: Reading) -> list[str]:
    return ["", "measured", *(target_name(target) for target in reading.targets)]


def _angle(value: float | None) -> str:
    return "–" if value is None else f"{cosine(value)} ({degrees(value)})"


def trained(reading: Reading) -> Table:
    """What was trained on, in a few lines."""
    counts, data, config = reading.counts, reading.run.data, reading.run.config
    few = int(reading.minority.sum())
    shape = data.get("input_shape")
    spread = "balanced" if counts.balanced else \
        f"{_count(counts.n_min)} to {_count(counts.n_max)} per class, ratio {plain(counts.ratio)}"
    tested = data.get("test_counts")
    rows = [
        ("Data", _text(data.get("dataset"))),
        ("Shape of a sample", " × ".join(map(str, shape)) if isinstance(shape, list) else _text(shape)),
        ("Classes", f"{counts.k:,}" + (f", of which {few:,} minority" if few else "")),
        ("Training samples", f"{_count(counts.n)}: {spread}"),
        ("Test samples", _count(sum(tested)) if isinstance(tested, (list, tuple)) and tested else "–"),
        ("Feature dimension", _text(data.get("features"))),
        *((name.replace("_", " ").capitalize(), _text(config.get(name))) for name in _SETTINGS),
        ("Terminal phase", _terminal(reading)),
        ("Label noise", _noise(reading)),
        ("Precision", _unless(config.get("precision"), "float32")),
        ("Processes", _unless(reading.run.environment.get("processes"), 1)),
        ("Time", _time(reading)),
    ]
    return Table("The run", ["", ""], [row for row in rows if row[1] != "–"])


def _terminal(reading: Reading) -> str:
    phase = reading.terminal_phase
    if phase is None:
        return "–"
    return f"{phase.wanted:,} epochs after zero training error, " + (
        f"which came after epoch {phase.zero_error:,}" if phase.zero_error is not None else
        "which was not reached" if reading.finished else "which has not come yet")


def _noise(reading: Reading) -> str:
    noise = reading.noisy_labels
    return "–" if noise is None else \
        f"{noise.replaced:,} of {noise.labels:,} training labels replaced; test labels are clean"


def _unless(value: Any, usual: Any) -> str:
    return "–" if value == usual else _text(value)


def _time(reading: Reading) -> str:
    train, measure = reading.last("seconds", "train"), reading.last("seconds", "measure")
    if train is None:
        return "–"
    return f"{train:,.1f} s of training" + ("" if measure is None else f", {measure:,.1f} s of measuring")


def configuration(reading: Reading) -> Table:
    """Every configured value."""
    return Table("Configuration", ["setting", "value"], [list(row) for row in _flat(reading.run.config)])


def environment(reading: Reading) -> Table:
    """Versions and the machine."""
    return Table("Environment", ["", ""], [list(row) for row in _flat(reading.run.environment)])


def listed(reading: Reading) -> bool:
    """Whether there are few enough classes to list each."""
    return reading.counts.k <= _MOST_CLASSES


def classes(reading: Reading) -> Table:
    """Every class under its full name."""
    counts = reading.counts
    right = reading.last_per_class("test", "per_class_accuracy")
    tested = look(dict(reading.run.data), "test_counts")
    known = isinstance(tested, (list, tuple)) and len(tested) == counts.k
    header = ["class", "group", "training samples", "test samples", "test accuracy"]
    rows = [[counts.names[c], "minority" if reading.minority[c] else "majority", _count(counts.values[c]),
             _count(tested[c]) if known and isinstance(tested, (list, tuple)) else "–",
             "–" if right is None else percent(float(right[c]))]
            for c in np.argsort(-counts.values, kind="stable")]
    return Table("Classes", header, rows)


def rescue(verdicts: Sequence[Mapping[str, Any]]) -> Table:
    """Every class: its numbers, measured beside predicted, and the verdict."""
    def paired(one: Mapping[str, Any], name: str) -> str:
        return " / ".join("–" if value is None else f"{value:.3g}" for value in (one[name]["measured"],
                                                                                 one[name]["predicted"]))

    header = ["class", "samples", "classifier length", "angle to nearest", "margin", "recall", "probe",
              "most confused with", "verdict"]
    rows = [[one["name"], _count(one["count"]), paired(one, "classifier_norm"), paired(one, "classifier_angle"),
             paired(one, "margin"), percent(one["recall"]), "–" if one["probe"] is None else percent(one["probe"]),
             one["confused_with"] or "–", one["kind"]] for one in verdicts]
    return Table("Every class on the test part; lengths, angles and margins measured / predicted", header, rows)


def run_name(run: RunLike) -> str:
    """The name of the run's folder."""
    return run.path.resolve().name or "run"


def subtitle(reading: Reading) -> str:
    """One line under the title."""
    config, counts = reading.run.config, reading.counts
    model, data = config.get("model"), reading.run.data.get("dataset")
    parts = [_text(model) if isinstance(model, str) else "", f"on {data}" if isinstance(data, str) else ""]
    named = " ".join(part for part in parts if part)
    spread = "balanced" if counts.balanced else f"imbalance ratio {plain(counts.ratio)}"
    epochs = f"epoch {reading.last_epoch}" + ("" if reading.finished else f" of {planned(reading)}") \
        if reading.measured else ""
    return " · ".join(part for part in (named, f"{counts.k:,} classes", spread, epochs) if part)


def planned(reading: Reading) -> str:
    """How many epochs a run will have: at most so many while zero training error may still end it earlier."""
    phase = reading.terminal_phase
    return f"{'at most ' if phase is not None and phase.zero_error is None else ''}{reading.planned_epochs}"


def command(run: RunLike) -> str:
    """The command that repeats the run."""
    config, again = shlex.quote(f"{run.path}/config.yaml"), shlex.quote(f"{run.path}-again")
    return f"neuralcollapse train --config {config} --out {again}"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(value)


def _text(value: Any) -> str:
    if value is None or value == "":
        return "–"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT - 1]}…"


def _count(value: Any) -> str:
    return plain(float(value)) if isinstance(value, (int, float)) else "–"
