"""Where each loss of the vector-scaling family leads: predicted beside trained, on free features and small networks.

Weighted cross-entropy, logit adjustment (LA), label and class temperatures (LDT, CDT) and vector scaling (VS), all with
the numbers that class counts give (`steer`). λ = √(λ_W λ_H) with the loss SUMMED over samples (`theory.md` §3–4).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from joblib import Parallel, delayed
import numpy as np

from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.studies.loss_geometries_figure import save_losses
from neuralcollapse.experiments.studies.loss_geometries_networks import network, network_config
from neuralcollapse.experiments.studies.study import (
    STUDIES,
    Setting,
    markdown,
    named_seeds,
    reporter,
    spread,
    write_rows,
)
from neuralcollapse.experiments.workers import in_worker
from neuralcollapse.simulate import simulate
from neuralcollapse.simulate.quantities import PARTS
from neuralcollapse.steer import Remedy, VSLoss

K, N_MIN = 10, 5
RATIOS, QUICK_RATIOS = (10.0, 100.0), (10.0,)
NETWORK_RATIOS = (10.0,)
_NETWORKS_UP_TO = 20.0  # 140 digits in a majority class leave a minority few beyond
SEEDS, QUICK_SEEDS = tuple(range(3)), (0,)
STEPS, QUICK_STEPS = 10_000, 3_000
EPOCHS, QUICK_EPOCHS = 1_500, 300

LOSSES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "CE": ("ce", "ce", {}),
    "weighted": ("weighted", "weighted", {}),
    "LA": ("la", "logit-adjusted", {"tau": 1.0}),
    "LDT": ("ldt", "ldt", {"gamma": 0.5}),
    "CDT": ("cdt", "cdt", {"gamma": 0.2}),
    "VS": ("vs", "vs", {"gamma": 0.2, "tau": 1.0}),
}
"""Label, the loss of `predict` and `simulate`, and the remedy with its parameters."""
_WHERE = {"limit": "Free features in the vanishing limit (multipliers)",
          "held": "Free features at a held ridge, λ = 0.3 min_c ω_cδ_c√n_c",
          "network": "Multilayer perceptrons on the digits under the theory's penalties, λ = 0.3"}


@STUDIES.register("loss-geometries", source=("behnia2023", "kini2021", "thrampoulidis2022"),
                  title="Where each loss leads")
def loss_geometries(setting: Setting) -> str:
    """D_W, D_M, D_Z to each loss's own prediction beside those to plain SELI: free features and small networks.

    Cross-entropy, inverse weights, LA, LDT (γ = ½), CDT (γ = 0.2) and VS (γ = 0.2, τ = 1), STEP counts with half the
    classes minorities. Free features are trained in the vanishing limit and at a held ridge, multilayer perceptrons on
    the digits under penalties on head and features.
    """
    ratios = setting.pick("ratios", RATIOS, QUICK_RATIOS)
    seeds = setting.pick_seeds(SEEDS, QUICK_SEEDS)
    steps = setting.pick("steps", STEPS, QUICK_STEPS)
    levels = tuple(ratio for ratio in setting.ratios or () if ratio <= _NETWORKS_UP_TO) or NETWORK_RATIOS
    epochs = min(steps, setting.own(EPOCHS, QUICK_EPOCHS))
    rows = [row for label in LOSSES for where in ("limit", "held")
            for row in free_rows(label, where, ratios, seeds, steps, setting)]
    rows.extend(_network_rows(levels, seeds, epochs, setting))
    write_rows(setting.out / "distances.parquet", rows)
    save_losses(rows, list(LOSSES), setting.out)
    heading = (f"k = {K}, (R, ½)-STEP; free features: n_min = {N_MIN}, d = {2 * K}, float64, {steps:,} gradients; "
               f"networks: {epochs:,} full-batch epochs of Adam. {named_seeds(seeds)}: "
               "median (smallest – largest).")
    return "\n\n".join([heading, *_tables(rows)]) + "\n"


def free_rows(label: str, where: str, ratios: tuple[float, ...], seeds: tuple[int, ...], steps: int, setting: Setting
              ) -> Iterator[dict[str, Any]]:
    """A row per ratio and seed of free features under one loss.

    Parameters
    ----------
    label : str
        A key of LOSSES.
    where : str
        "limit": margins are raised until they are the max-margin solution's. "held": no raises, so that the ridge's own
        geometry is the end.
    """
    name, recipe, options = LOSSES[label]
    for ratio in ratios:
        counts = ClassCounts.step(K, ratio, n_min=N_MIN)
        loss = Remedy(recipe, counts, options).loss()
        assert isinstance(loss, VSLoss)
        given: dict[str, Any] = {key: vector for key, vector in loss.vectors.items() if vector is not None}
        given |= {} if where == "limit" else {"every": 0}
        runs = simulate(counts, "multipliers", loss=name, steps=steps, seeds=list(seeds), symmetric=True,
                        snapshots=[steps], progress=reporter(f"{label}, R = {ratio:g}, {where}", setting.progress),
                        **given)
        limit = "limit" if "limit/logits" in runs.values else "seli"  # plain cross-entropy's limit is SELI
        own = limit if where == "limit" else "ridge"
        for cell, at in enumerate(runs.cells):
            yield {"where": where, "loss": label, "ratio": ratio, "seed": at["seed"], "ridge": at["ridge"],
                   **{f"{target}/{part}": float(runs[f"{key}/{part}"][cell, -1])
                      for target, key in (("own", own), ("limit", limit), ("seli", "seli")) for part in PARTS},
                   "training_accuracy": float(runs["balanced_accuracy"][cell, -1]), "balance": None}


def _network_rows(ratios: tuple[float, ...], seeds: tuple[int, ...], epochs: int, setting: Setting
                  ) -> Iterator[dict[str, Any]]:
    jobs = [(label, ratio, seed) for seed in seeds for ratio in ratios for label in LOSSES]
    with Parallel(n_jobs=setting.jobs, return_as="generator") as parallel:
        found = parallel(delayed(in_worker)(network, network_config(*LOSSES[label][1:], ratio, seed, epochs))
                         for label, ratio, seed in jobs)
        for number, ((label, ratio, seed), row) in enumerate(zip(jobs, found, strict=True), start=1):
            setting.progress(f"network {number} of {len(jobs)}: {label}, R = {ratio:g}, seed {seed}: D_W to its own "
                             f"prediction {row['own/classifiers']:.3f}, to SELI {row['seli/classifiers']:.3f}")
            yield {"where": "network", "loss": label, "ratio": ratio, "seed": seed, **row}


def _tables(rows: list[dict[str, Any]]) -> Iterator[str]:
    headings = ["loss", *(f"{symbol} to {target}" for target in ("its own", "SELI")
                          for symbol in ("D_W", "D_M", "D_Z"))]
    places = dict.fromkeys((row["where"], row["ratio"]) for row in rows)
    for where, ratio in sorted(places, key=lambda place: (list(_WHERE).index(place[0]), place[1])):
        here = [row for row in rows if (row["where"], row["ratio"]) == (where, ratio)]
        cells = [[label, *(spread(np.array([row[f"{target}/{part}"] for row in here if row["loss"] == label]))
                           for target in ("own", "seli") for part in PARTS)] for label in LOSSES]
        yield f"{_WHERE[where]}, R = {ratio:g}.\n\n" + markdown(headings, cells)
    networks = [row for row in rows if row["where"] == "network"]
    cells = [[label, *(spread(np.array([row[key] for row in networks if row["loss"] == label]))
                       for key in (*(f"limit/{part}" for part in PARTS), "balance", "training_accuracy"))]
             for label in LOSSES]
    yield ("The same networks: distances to the loss's vanishing-ridge limit; λ_W‖W‖²/(λ_H‖H‖²), 1 at a stationary "
           "point of the model; training accuracy.\n\n"
           + markdown(["loss", "D_W to limit", "D_M to limit", "D_Z to limit", "balance", "accuracy"], cells))
