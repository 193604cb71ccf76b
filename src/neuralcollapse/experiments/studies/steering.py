"""What each remedy is worth on real images: digits and MNIST, STEP and long tail, beside what people reach for first.

One small CNN per remedy, seed and setting, trained alike but for the remedy. `advise`'s recommendation is taken from
the class counts alone; a grid over the (γ, τ) of the vector-scaling loss says what a search would have found.
"""

from __future__ import annotations

from collections.abc import Iterator
import json
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed
import numpy as np

from neuralcollapse import __version__
from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.studies.steering_cells import cell
from neuralcollapse.experiments.studies.steering_figure import save_steering
from neuralcollapse.experiments.studies.study import STUDIES, Setting, markdown, write_rows
from neuralcollapse.experiments.workers import in_worker
from neuralcollapse.simulate.rates import mean_interval
from neuralcollapse.steer import REMEDIES

RECOMMENDED = "recommended"
CELLS = "cells.jsonl"
"""One line per finished cell: a study that was stopped goes on from there when it is run again."""
SETTINGS = tuple((dataset, profile) for dataset in ("mnist5k", "digits") for profile in ("step", "long-tail"))
RATIOS, QUICK_RATIOS = (10.0, 100.0), (10.0,)
SEEDS, QUICK_SEEDS = tuple(range(5)), (0,)
GAMMAS, TAUS = (0.0, 0.1, 0.2), (0.5, 0.75, 1.0, 1.5)  # γ = 0, τ = 1 is logit adjustment
_GRID_SEEDS = 3
_SAME = {(0.0, 1.0): RECOMMENDED, (0.2, 1.0): "vs"}  # cells that are a remedy's own settings: not trained twice
_SHARED: dict[str, Any] = {"model": "cnn", "head_bias": False, "batch_size": 64, "optimizer": "sgd", "momentum": 0.9,
                           "learning_rate": 0.05, "schedule": "cosine", "weight_decay": 5e-3, "threads": 1}
_OWN: dict[str, dict[str, Any]] = {
    # 500 images per class: 100 of each held out, 400 for a majority class.
    "mnist5k": {"epochs": 40, "model_options": {"width": 8, "features": 64}, "n_max": 400},
    # About 180 per class, of which 34 are held out.
    "digits": {"epochs": 60, "model_options": {"width": 8, "features": 64}, "n_max": 140}}

# Logit adjustment is in the grid; effective numbers at β = 0.9999 and n ≤ 400 are inverse counts to 2 %.
_LEFT_OUT = ("logit-adjusted", "effective-number")
REMEDY_SETTINGS: dict[str, dict[str, Any]] = {
    **{entry.name: {"loss": entry.name} for entry in REMEDIES
       if "frame" not in entry.options and entry.name not in _LEFT_OUT},
    "ldam": {"loss": "ldam", "loss_options": {"scale": 1.0}},  # the head is linear, not one of cosines
    "etf-head": {"head": "etf"},
    # On ReLU features of length 1, each batch bound; the head is trained beside them on what they are.
    "scl": {"loss": "scl", "sampling": "binding", "model_options": {"width": 8, "features": 64, "rectify": True}},
    "class weights": {"loss": "ce"},  # torch's weighted mean, put in by `steering_cells`
    "oversampling": {"sampling": "oversampled"},
    RECOMMENDED: {"loss": "auto"}}
SCORES = {"balanced": "balanced accuracy", "overall": "overall", "majority": "majority", "minority": "minority",
          "ece": "calibration error", "etf/classifiers": "D_W to simplex", "seli/classifiers": "D_W to SELI"}


@STUDIES.register("steering", source=("menon2021", "kini2021", "thrampoulidis2022"),
                  title="What each remedy against imbalance is worth")
def steering(setting: Setting) -> str:
    """Accuracy, calibration and geometry under every remedy, on digits and MNIST images, beside a (γ, τ) grid.

    STEP (half the classes minorities) and long-tail counts at R = 10 and 100; overall accuracy is over the training
    mix of classes, balanced accuracy over a balanced test part.
    """
    if setting.steps is not None:
        raise InvalidInput(f"study steering trains for epochs, not steps: leave steps out, got {setting.steps}")
    ratios = setting.pick("ratios", RATIOS, QUICK_RATIOS)
    seeds = setting.pick_seeds(SEEDS, QUICK_SEEDS)
    places = [(*place, ratio) for place in setting.own(SETTINGS, SETTINGS[2:]) for ratio in ratios]
    # Seed by seed: a study that is stopped early has whole seeds.
    todo = [job for number, seed in enumerate(seeds) for place in places
            for job in _jobs(place, seed, number < _GRID_SEEDS, setting.quick)]
    rows = list(_trained(todo, setting))
    trained = [row for row in rows if row["remedy"] != "grid"]
    grid = _with_same([row for row in rows if row["remedy"] == "grid"], trained)
    write_rows(setting.out / "steering.parquet", trained)
    write_rows(setting.out / "grid.parquet", grid)
    save_steering(trained, places, setting.out)
    return "\n\n".join([_heading(seeds), *_tables(trained, places), _grid_table(trained, grid, places)]) + "\n"


def _trained(todo: list[dict[str, Any]], setting: Setting) -> Iterator[dict[str, Any]]:
    """The rows of every cell, in order of `todo`; cells that an interrupted study finished are taken from its file."""
    known = _finished(setting.out / CELLS)
    missing = [job for job in todo if _key(job) not in known]
    with Parallel(n_jobs=setting.jobs, return_as="generator") as parallel, \
            (setting.out / CELLS).open("a", encoding="utf-8") as file:
        found = parallel(delayed(in_worker)(cell, **job) for job in missing)
        for number, (job, rows) in enumerate(zip(missing, found, strict=True), start=len(todo) - len(missing) + 1):
            known[_key(job)] = rows
            file.write(json.dumps({"key": _key(job), "rows": rows}) + "\n")
            file.flush()
            first = rows[0]
            setting.progress(f"{number} of {len(todo)}: {first['dataset']} {first['profile']} R = {first['ratio']:g}, "
                             f"{first['remedy']}, seed {first['seed']}: balanced "
                             + ("–, diverged" if first["balanced"] is None else f"{first['balanced']:.3f}"))
    for job in todo:
        yield from known[_key(job)]


def _key(job: dict[str, Any]) -> str:
    return json.dumps([__version__, job["name"], job["config"].model_dump()])


def _finished(path: Path) -> dict[str, list[dict[str, Any]]]:
    known = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # cut off when the study was killed
            continue
        known[record["key"]] = record["rows"]
    return known


def _jobs(place: tuple[str, str, float], seed: int, with_grid: bool, quick: bool) -> Iterator[dict[str, Any]]:
    dataset, profile, ratio = place
    own = _OWN[dataset] | ({"epochs": 2} if quick else {})
    shared = {"dataset": dataset, "imbalance": profile, "ratio": ratio, **_SHARED, **own, "seed": seed}
    for name, remedy in REMEDY_SETTINGS.items():
        yield {"name": name, "config": TrainConfig(**(shared | remedy))}
    cells = [(gamma, tau) for gamma in (GAMMAS[:2] if quick else GAMMAS) for tau in (TAUS[-2:] if quick else TAUS)]
    for gamma, tau in (at for at in cells if with_grid and at not in _SAME):
        yield {"name": "grid", "config": TrainConfig(**shared, loss="vs", loss_options={"gamma": gamma, "tau": tau})}


def _with_same(grid: list[dict[str, Any]], trained: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The grid with the cells that are trained as a remedy already."""
    tried, line = {row["seed"] for row in grid}, "VSLoss.logit_adjusted(counts, tau=1.0)"
    return grid + [row | {"remedy": "grid", "gamma": gamma, "tau": tau} for (gamma, tau), name in _SAME.items()
                   for row in trained if row["seed"] in tried and row["remedy"] == name
                   and (name != RECOMMENDED or row["line"] == line)]


def _heading(seeds: tuple[int, ...]) -> str:
    return (f"{len(seeds)} seeds ({seeds[0]} … {seeds[-1]}; of split, samples, weights and batches); mean ± half a "
            "95 % t interval over them. The lower part of each table needs no retraining: it is the network of `ce` or "
            "`scl`.")


def _shown(values: np.ndarray) -> str:
    good = values[np.isfinite(values)]
    if not good.size:
        return "–"
    low, high = mean_interval(good)
    return f"{good.mean():.3f}" + ("" if np.isnan(low) else f" ± {(high - low) / 2:.3f}")


def _at(rows: list[dict[str, Any]], place: tuple[str, str, float]) -> list[dict[str, Any]]:
    return [row for row in rows if (row["dataset"], row["profile"], row["ratio"]) == place]


def _values(rows: list[dict[str, Any]], key: str) -> np.ndarray:
    return np.array([np.nan if row[key] is None else row[key] for row in rows])


def _tables(rows: list[dict[str, Any]], places: list[tuple[str, str, float]]) -> Iterator[str]:
    for place in places:
        here = _at(rows, place)
        cells = []
        # Sorting is stable: what needs no retraining comes last.
        for name in sorted(dict.fromkeys(row["remedy"] for row in here), key=lambda name: ", then " in name):
            of = [row for row in here if row["remedy"] == name]
            label = f"{name}: {of[0]['line']}" if name == RECOMMENDED else name
            cells.append([label, *(_shown(_values(of, key)) for key in SCORES)])
        dataset, profile, ratio = place
        yield f"{dataset}, {profile}, R = {ratio:g}\n\n" + markdown(["remedy", *SCORES.values()], cells)


def _grid_table(rows: list[dict[str, Any]], grid: list[dict[str, Any]], places: list[tuple[str, str, float]]) -> str:
    """The recommendation beside the best cell, on the same seeds; their difference seed by seed."""
    cells = []
    tried = {row["seed"] for row in grid}
    for place in places:
        chosen = _values([row for row in _at(rows, place) if row["remedy"] == RECOMMENDED and row["seed"] in tried],
                         "balanced")
        found = {(row["gamma"], row["tau"]): _values([one for one in _at(grid, place) if
                                                      (one["gamma"], one["tau"]) == (row["gamma"], row["tau"])],
                                                     "balanced") for row in _at(grid, place)}
        found = {at: values for at, values in found.items() if np.isfinite(values).all()}  # not those that diverged
        best = max(found, key=lambda at: float(found[at].mean()))
        cells.append([f"{place[0]}, {place[1]}, R = {place[2]:g}", _shown(chosen), f"γ = {best[0]:g}, τ = {best[1]:g}",
                      _shown(found[best]), _shown(chosen - found[best])])
    return ("Balanced accuracy of the recommendation, taken without a search, beside the best cell of the grid γ ∈ "
            f"{{{', '.join(f'{g:g}' for g in GAMMAS)}}}, τ ∈ {{{', '.join(f'{t:g}' for t in TAUS)}}}, chosen on these "
            f"very {len(tried)} seeds.\n\n"
            + markdown(["setting", "recommended", "best cell", "its accuracy", "difference"], cells))

