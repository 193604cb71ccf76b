"""Does collapse survive on perturbed inputs, and what does training on them change? PGD, noise and blur.

Networks are trained on the theory's own objective (`theory.md` §1, λ = 0.3, loss SUMMED) with clean batches or with
each batch replaced by its perturbation. The theory's features are free: it does not ask where they come from, and
SELI is its answer for perturbed samples too, wherever all of them are fitted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from joblib import Parallel, delayed
import numpy as np

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.studies.robustness_figure import save_robustness
from neuralcollapse.experiments.studies.robustness_networks import (
    BLUR,
    EPS,
    MEASURING_STEPS,
    PERTURBATIONS,
    RIDGE,
    TRAINING_STEPS,
    TRAININGS,
    network,
    network_config,
)
from neuralcollapse.experiments.studies.study import STUDIES, Setting, markdown, named_seeds, spread, write_rows
from neuralcollapse.experiments.workers import in_worker

DATASETS, QUICK_DATASETS = ("digits", "mnist5k"), ("digits",)
RATIOS = (1.0, 10.0)
SEEDS, QUICK_SEEDS = tuple(range(3)), (0,)
_GEOMETRY = {"nc1": "NC1", "variability/majority": "spread, majority", "variability/minority": "minority",
             "seli/embeddings": "D_M to SELI", "etf/embeddings": "D_M to simplex", "ridge/embeddings": "D_M to λ = 0.3",
             "alignment/majority": "alignment, majority", "alignment/minority": "minority", "leap": "leap"}
_ACCURACY = {"training/majority": "training, majority", "training/minority": "minority",
             "test/majority": "test, majority", "test/minority": "minority"}


@STUDIES.register("robustness", source=("su2023", "madry2018", "hendrycks2019", "thrampoulidis2022"),
                  title="Collapse on perturbed inputs")
def robustness(setting: Setting) -> str:
    """NC1, D_W, D_M, margins and accuracy on PGD, noisy and blurred inputs, in standard and adversarial training.

    STEP counts at R = 1 and 10, half the classes minorities; a multilayer perceptron on the digits and a small CNN on
    MNIST images. Adversarial training replaces each batch by its ℓ∞ perturbation; noise is as long as the strongest
    attack.
    """
    if setting.steps is not None:
        raise InvalidInput(f"study robustness trains for epochs, not steps: leave steps out, got {setting.steps}")
    ratios = setting.pick("ratios", RATIOS, RATIOS)
    seeds = setting.pick_seeds(SEEDS, QUICK_SEEDS)
    places = [(dataset, ratio) for dataset in setting.own(DATASETS, QUICK_DATASETS) for ratio in ratios]
    rows = list(_rows(places, seeds, setting))
    write_rows(setting.out / "robustness.parquet", rows)
    save_robustness(rows, max(ratios), setting.out)
    return "\n\n".join([_heading(seeds), *(table for place in places for table in _tables(rows, place))]) + "\n"


def _rows(places: list[tuple[str, float]], seeds: tuple[int, ...], setting: Setting) -> Iterator[dict[str, Any]]:
    jobs = [(training, dataset, ratio, seed) for seed in seeds for dataset, ratio in places for training in TRAININGS]
    with Parallel(n_jobs=setting.jobs, return_as="generator") as parallel:
        found = parallel(
            delayed(in_worker)(network, training, network_config(dataset, ratio, seed, setting.quick), setting.quick)
            for training, dataset, ratio, seed in jobs)
        for number, ((training, dataset, ratio, seed), rows) in enumerate(zip(jobs, found, strict=True), start=1):
            last = rows[-1]  # the strongest attack, after the last epoch
            setting.progress(f"network {number} of {len(jobs)}: {dataset}, R = {ratio:g}, {training}, seed {seed}: "
                             f"test accuracy under {last['inputs']} {last['test/majority']:.3f} of majorities, "
                             f"{last['test/minority']:.3f} of minorities")
            yield from rows


def _heading(seeds: tuple[int, ...]) -> str:
    return (f"{named_seeds(seeds)}: median (smallest – largest), after the last epoch. ε = {EPS:g} of the pixel range; "
            f"PGD with {TRAINING_STEPS} steps in training and {MEASURING_STEPS} where measured, from a random start; "
            f"noise with standard deviation ε; blur over {BLUR}×{BLUR} pixels. Geometry on the training part, λ = "
            f"{RIDGE:g}; at R = 1 \"minority\" is the same half of the classes with as many samples.")


def _tables(rows: list[dict[str, Any]], place: tuple[str, float]) -> Iterator[str]:
    dataset, ratio = place
    here = [row for row in rows if (row["dataset"], row["ratio"]) == place]
    here = [row for row in here if row["epoch"] == max(row["epoch"] for row in here)]
    name = f"{dataset}, R = {ratio:g}"
    of = {(training, inputs): [row for row in here if (row["training"], row["inputs"]) == (training, inputs)]
          for training in TRAININGS for inputs in PERTURBATIONS}
    cells = [[training, *(_shown(of[training, "clean"], f"{target}/classifiers") for target in
                          ("seli", "etf", "ridge"))] for training in TRAININGS]
    yield (f"{name}: the classifiers, which no input changes.\n\n"
           + markdown(["training", "D_W to SELI", "D_W to simplex", f"D_W to λ = {RIDGE:g}"], cells))
    cells = [[*at, *(_shown(found, key) for key in _GEOMETRY)] for at, found in of.items()]
    yield (f"{name}: geometry of the training part. Spread: mean squared distance to the class mean over tr Σ_B. "
           "Alignment: cosine of centred class means with the clean ones. Leap: distance of misjudged samples to the "
           "clean mean of the class they are taken for, that of their own class's mean being 1.\n\n"
           + markdown(["training", "inputs", *_GEOMETRY.values()], cells))
    cells = [[*at, *(spread(kept(found, of[at[0], "clean"], half)) for half in ("majority", "minority")),
              *(_shown(found, key) for key in _ACCURACY)] for at, found in of.items()]
    yield (f"{name}: margins as shares of the network's own on clean inputs, and accuracy.\n\n"
           + markdown(["training", "inputs", "margin kept, majority", "minority", *_ACCURACY.values()], cells))


def kept(found: list[dict[str, Any]], clean: list[dict[str, Any]], half: str) -> np.ndarray:
    """What is left of the mean margin, seed by seed.

    Parameters
    ----------
    found, clean : lists of dict
        Rows of the same seeds in the same order.
    half : str
        "majority" or "minority".
    """
    return np.array([one[f"margin/{half}"] / two[f"margin/{half}"] for one, two in zip(found, clean, strict=True)])


def _shown(rows: list[dict[str, Any]], key: str) -> str:
    return spread(np.array([np.nan if row[key] is None else row[key] for row in rows], dtype=float))
