"""Runs made from a predicted geometry plus noise that fades with the epochs: every number is consistent."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hostile import HOSTILE
import numpy as np
import pytest
import yaml

from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.run import RunFolder
from neuralcollapse.predict import predict


@dataclass
class MadeRun:
    """The attributes of `neuralcollapse.experiments.Run`, in memory."""

    counts: ClassCounts
    path: Path = Path("runs/made")
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    kept: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    rescue: list[dict[str, Any]] | None = None
    state: str = "still training"  # where it is not finished

    def grams(self, epoch: int) -> dict[str, np.ndarray] | None:
        return self.kept.get(epoch)


def build_run(counts: ClassCounts, epochs=(0, 1, 2, 4, 8, 16, 32, 64, 128), *, noise=1.0, keep=True, seed=0,
              planned=None) -> MadeRun:
    """A run that approaches SELI as 1/√(epoch + 1)."""
    rng = np.random.default_rng(seed)
    geometries = {"seli": predict(counts), "etf": predict(counts, "etf")}
    run = MadeRun(counts, config={"dataset": "digits", "model": "mlp", "loss": "ce", "seed": seed,
                                  "epochs": planned or max(epochs, default=10), "optimizer": "sgd",
                                  "model_options": {"width": 64}},
                  environment={"neuralcollapse": "0.1.0", "python": "3.11.2", "torch": "2.13.0", "device": "cpu"},
                  data={"dataset": "digits", "classes": counts.k, "names": list(counts.names),
                        "counts": counts.values.tolist(), "minority": counts.minority.tolist(),
                        "test_counts": [40] * counts.k, "input_shape": [1, 8, 8], "features": 32})
    clean = geometries["seli"].factors()
    shake = [rng.standard_normal(factor.shape) * np.abs(factor).mean() for factor in clean]
    for epoch in epochs:
        size = noise / np.sqrt(epoch + 1)
        w, m = (factor + size * part for factor, part in zip(clean, shake, strict=True))
        run.history.append(record(counts, epoch, w, m, geometries, size))
        if keep and counts.k <= 200:
            products = {"classifiers": w @ w.T, "embeddings": m @ m.T, "logits": w @ m.T}
            run.kept[epoch] = {name: (p / np.linalg.norm(p)).astype(np.float32) for name, p in products.items()}
    return run


def record(counts, epoch, w, m, geometries, size) -> dict[str, Any]:
    few = np.asarray(counts.minority)
    right = np.clip(0.99 - 0.5 * size / (size + 1) - 0.12 * few, 0, 1)

    def mean(values, members):
        return float(values[members].mean()) if members.any() else None

    def cosines(factor):
        unit = factor / np.linalg.norm(factor, axis=1, keepdims=True)
        table, off = unit @ unit.T, ~np.eye(counts.k, dtype=bool)
        pairs = {"majority_majority": (~few, ~few), "majority_minority": (~few, few), "minority_minority": (few, few)}
        return {name: mean(table, np.outer(a, b) & off) for name, (a, b) in pairs.items()}

    distances = {name: {"classifiers": g.classifiers.distance(w), "embeddings": g.embeddings.distance(m),
                        "logits": g.logits.distance_between(w, m)} for name, g in geometries.items()}
    nc2 = {part: {"norm_cv": float(np.linalg.norm(f, axis=1).std() / np.linalg.norm(f, axis=1).mean()),
                  "angle": 0.1 + 0.2 * size, "etf_distance": distances["etf"][part]}
           for part, f in (("classifiers", w), ("embeddings", m))}
    return {
        "epoch": epoch, "learning_rate": 0.1, "seconds": {"train": 0.5 * epoch + 0.1, "measure": 0.01 * epoch + 0.01},
        "train": {"loss": float(2.3 * size**2 + 1e-4), "accuracy": float(min(1.0, 1.1 - 0.5 * size))},
        "test": {"loss": 0.3 + size, "accuracy": float(right.mean()), "balanced_accuracy": float(right.mean()),
                 "majority_accuracy": mean(right, ~few), "minority_accuracy": mean(right, few),
                 "per_class_accuracy": right.tolist()},
        "measurement": {
            "counts": counts.values.tolist(), "center": "classes",
            "nc1": {"pinv": 3 * size**2, "trace": 2 * size**2, "per_class": [size**2] * counts.k}, "cdnv": size**2,
            "nc2": nc2, "nc3": 0.2 + size / 2, "nc4": min(0.5, size**2 / 4),
            "distance": {"target": "seli", **distances["seli"]}, "distances": distances,
            "norms": {"classifiers": np.linalg.norm(w, axis=1).tolist(),
                      "embeddings": np.linalg.norm(m, axis=1).tolist()},
            "cosines": {"classifiers": cosines(w), "embeddings": cosines(m)},
            "margins": {"min": 0.1}, "accuracy": {"overall": 1.0, "per_class": [1.0] * counts.k}, "lambda_eff": None,
        },
    }


@pytest.fixture
def make_run():
    return build_run


@pytest.fixture
def without_numbers():
    """Replaces every number of every record by None, epochs excepted."""
    def emptied(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: part if name in ("epoch", "target", "center") else emptied(part)
                    for name, part in value.items()}
        return [emptied(part) for part in value] if isinstance(value, list) else None

    def empty(run: MadeRun) -> MadeRun:
        return replace(run, history=[emptied(record) for record in run.history], kept={})
    return empty


@pytest.fixture(params=["step", "balanced", "single", "grouped", "empty", "hostile", "no grams", "no numbers"])
def any_run(request, make_run, without_numbers):
    step = ClassCounts.step(6, 10, 0.5, n_min=5)
    return {
        "step": lambda: make_run(step),
        "balanced": lambda: make_run(ClassCounts([30, 30, 30])),
        "single": lambda: make_run(step, epochs=(7,), planned=100),
        "grouped": lambda: make_run(ClassCounts.long_tail(300, 100, 500), epochs=(1, 10)),
        "empty": lambda: make_run(step, epochs=()),
        "hostile": lambda: make_run(ClassCounts([50, 40, 30, 5, 5], HOSTILE)),
        "no grams": lambda: make_run(step, keep=False),
        "no numbers": lambda: without_numbers(make_run(step)),
    }[request.param]()


@pytest.fixture
def save_run():
    """Writes a made run as a run folder."""
    def save(run: MadeRun, path: Path) -> Path:
        folder = RunFolder.create(path, yaml.safe_dump(run.config), run.environment, run.data,
                                  {"train": np.arange(3), "test": np.arange(3)})
        for record_ in run.history:
            folder.add_grams(record_["epoch"], run.kept.get(record_["epoch"], {}))
            folder.append(record_)
        return path
    return save
