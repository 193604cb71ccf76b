"""The head of a next-token model against its token counts: classes with Zipf's imbalance that no network can separate.

The text is the language reference that ships with Python (`pydoc_data.topics`). A small causal transformer is trained
on the theory's own objective (`theory.md` §1): λ_W on the head, λ_H on the features at every position, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed
import numpy as np

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.run import Run
from neuralcollapse.experiments.studies.study import (
    STUDIES,
    Setting,
    markdown,
    named_seeds,
    spread,
    trained,
    write_rows,
)
from neuralcollapse.experiments.studies.vocabulary_figure import save_vocabulary
from neuralcollapse.experiments.workers import in_worker
from neuralcollapse.files import write_text
from neuralcollapse.predict import Geometry, predict

TEXT = "text.txt"
SEEDS, QUICK_SEEDS = tuple(range(2)), (0,)
PARTS = ("classifiers", "embeddings")
BUCKETS = 4
"""Groups of as many tokens each, from the most to the least frequent, that accuracy is told by."""
# d ≥ k − 1, as theory asks, so that the head is not the bottleneck that it is in large language models.
_FULL: dict[str, Any] = {"data_options": {"length": 32, "vocabulary": 400}, "epochs": 40,
                         "model_options": {"width": 64, "depth": 2, "features": 512}}
_QUICK: dict[str, Any] = {"data_options": {"length": 32, "vocabulary": 60}, "epochs": 4,
                          "model_options": {"width": 32, "depth": 1, "features": 64}}


@STUDIES.register("vocabulary", source=("thrampoulidis2022", "fang2021"),
                  title="The head of a next-token model and its token counts")
def vocabulary(setting: Setting) -> str:
    """Norms of classifiers and class means against token counts, beside SELI and the geometry at the model's own λ.

    A causal transformer on the words of Python's language reference; runs lie in `runs/`.
    """
    if setting.steps is not None or setting.ratios is not None:
        name, given = ("steps", setting.steps) if setting.steps is not None else ("ratios", setting.ratios)
        raise InvalidInput("study vocabulary takes its counts from a text and trains for epochs: leave "
                           f"{name} out, got {given}")
    seeds = setting.pick_seeds(SEEDS, QUICK_SEEDS)
    text = setting.out / TEXT
    write_text(text, reference_text())
    configs = [config_of(text, seed, setting.quick) for seed in seeds]
    folders = [setting.out / "runs" / f"seed-{seed}" for seed in seeds]
    Parallel(n_jobs=setting.jobs)(delayed(in_worker)(trained, config, folder) for config, folder in
                                  zip(configs, folders, strict=True))
    runs = [Run.open(folder) for folder in folders]
    rows: list[dict[str, Any]] = []
    for seed, run in zip(seeds, runs, strict=True):
        rows.extend({"seed": seed, **row} for row in token_rows(run))
        setting.progress(f"seed {seed}: training accuracy {run.history[-1]['train']['accuracy']:.3f}")
    write_rows(setting.out / "tokens.parquet", rows)
    save_vocabulary([row for row in rows if row["seed"] == seeds[0]], setting.out)
    return "\n\n".join([_heading(runs, seeds), *_tables(rows, runs, seeds)]) + "\n"


def reference_text() -> str:
    """Python's language reference by topic, as `help("topics")` shows it."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def config_of(text: Path, seed: int, quick: bool) -> TrainConfig:
    """The settings of one run: n times the decays are λ_W and λ_H with the loss SUMMED over n tokens."""
    return TrainConfig(dataset=f"text:{text}", imbalance="natural", model="transformer", optimizer="adam",
                       learning_rate=3e-3, schedule="cosine", weight_decay=0.0, head_weight_decay=1e-4,
                       feature_penalty=1e-6, batch_size=64, threads=1, seed=seed, **(_QUICK if quick else _FULL))


def token_rows(run: Run) -> list[dict[str, Any]]:
    """A row per token, the most frequent first: its count, and lengths over their root mean square.

    Parameters
    ----------
    run : Run
        A finished one.
    """
    last, counts = run.history[-1], run.counts
    norms: dict[str, np.ndarray] = {}
    for part in PARTS:
        norms[part] = _relative(np.array(last["measurement"]["norms"][part]))
        for name, geometry in predictions(run).items():
            norms[f"{name}/{part}"] = _relative(getattr(geometry.centred("classes"), part).norms)
    recall = last["test"]["per_class_accuracy"]
    return [{"token": counts.names[c], "count": float(counts.values[c]), "recall": recall[c],
             **{name: float(values[c]) for name, values in norms.items()}}
            for c in np.argsort(-counts.values, kind="stable")]


def predictions(run: Run) -> dict[str, Geometry]:
    """SELI, and the geometry at the λ of the run's penalties, for its token counts."""
    ridges = run.data["ridges"]
    own = float(np.sqrt(ridges["classifiers"] * ridges["embeddings"]))
    return {"seli": predict(run.counts), "ridge": predict(run.counts, ridge=own, tolerance=1e-6)}


def slope(counts: Any, lengths: Any) -> float:
    """The exponent b of ‖v_c‖ ∝ n_c^b: least squares in logarithms, every token weighing alike; zeros left out.

    Examples
    --------
    >>> round(slope([1, 10, 100], [2.0, 2.0 * 10**0.25, 2.0 * 10**0.5]), 12)
    0.25
    """
    x, y = np.asarray(counts, dtype=float), np.asarray(lengths, dtype=float)
    kept = y > 0
    return float(np.polyfit(np.log(x[kept]), np.log(y[kept]), 1)[0])


def _relative(lengths: np.ndarray) -> np.ndarray:
    return lengths / np.sqrt(np.mean(lengths**2))


def _heading(runs: Sequence[Run], seeds: tuple[int, ...]) -> str:
    counts, ridges = runs[0].counts, runs[0].data["ridges"]
    own = np.sqrt(ridges["classifiers"] * ridges["embeddings"])
    return (f"{named_seeds(seeds)}: median (smallest – largest). {counts.k} tokens, n = {counts.n:,.0f}, counts "
            f"{counts.n_min:.0f} to {counts.n_max:,.0f} (exponent of count against rank "
            f"{slope(np.arange(1, counts.k + 1), np.sort(counts.values)[::-1]):.2f}); λ = {own:.2g}, the loss summed.")


def _tables(rows: list[dict[str, Any]], runs: Sequence[Run], seeds: tuple[int, ...]) -> list[str]:
    of = [[row for row in rows if row["seed"] == seed] for seed in seeds]
    slopes = [[part, *(spread(np.array([slope([row["count"] for row in each], [row[key] for row in each])
                                        for each in of])) for key in (part, f"seli/{part}", f"ridge/{part}"))]
              for part in PARTS]
    last = [run.history[-1]["measurement"] for run in runs]
    distances = [[target, *(spread(np.array([one["distances"][target][part] for one in last], dtype=float))
                            for part in ("classifiers", "embeddings", "logits"))] for target in ("seli", "etf")]
    recall = []
    for number, each in enumerate(np.array_split(np.arange(len(of[0])), BUCKETS), start=1):
        part = [[one[c] for c in each] for one in of]
        recall.append([f"{number} of {BUCKETS}", f"{part[0][0]['count']:,.0f} – {part[0][-1]['count']:,.0f}", spread(
            np.array([np.mean([row["recall"] for row in one if row["recall"] is not None]) for one in part]))])
    whole = [[name, spread(np.array([read(run.history[-1]) for run in runs], dtype=float))] for name, read in (
        ("training accuracy", lambda record: record["train"]["accuracy"]),
        ("test accuracy", lambda record: record["test"]["accuracy"]),
        ("NC1", lambda record: record["measurement"]["nc1"]["pinv"]),
        ("cosine, two frequent classifiers", lambda record: record["measurement"]["cosines"]["classifiers"][
            "majority_majority"]),
        ("cosine, two rare classifiers", lambda record: record["measurement"]["cosines"]["classifiers"][
            "minority_minority"]))]
    return ["Exponent b of ‖v_c‖ ∝ n_c^b over tokens.\n\n"
            + markdown(["", "measured", "SELI", "at the model's λ"], slopes),
            "Distance to predictions.\n\n" + markdown(["", "D_W", "D_M", "D_Z"], distances),
            "Next-token accuracy by frequency.\n\n" + markdown(["tokens", "counts", "mean recall"], recall),
            "The whole.\n\n" + markdown(["", "value"], whole)]
