"""How near gradient descent comes to SELI on free features in 6,000 full-batch epochs, with and without a ridge.

Every sample has an embedding of its own, so that within-class collapse is part of what is watched. λ = √(λ_W λ_H)
with the loss SUMMED over samples (`theory.md` §1); all arms take the same steps η = 1/(2√n_max) from the same starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.studies.study import (
    STUDIES,
    Setting,
    distances,
    markdown,
    named_seeds,
    reporter,
    spread,
    write_rows,
)
from neuralcollapse.experiments.studies.ufm_convergence_figure import save_convergence
from neuralcollapse.predict import Geometry, predict
from neuralcollapse.simulate import Simulation, simulate
from neuralcollapse.simulate.quantities import PARTS

K, D, N_MIN = 10, 20, 5
RATIOS, QUICK_RATIOS = (1.0, 5.0, 10.0, 100.0), (1.0, 10.0)
SEEDS, QUICK_SEEDS = tuple(range(5)), (0, 1)
EPOCHS, QUICK_EPOCHS = 6_000, 1_500
_SNAPSHOTS = 80
_STEP = 0.5  # over √n_max
_ROOT = float(np.sqrt(N_MIN))
HELD = {"λ = √n_min/10": 0.1 * _ROOT, "λ = √n_min/100": 0.01 * _ROOT}
_START, _HALVINGS = 0.3 * _ROOT, 10  # of the vanishing ridge: where it begins, how often it halves
ARMS = ("no ridge", *HELD, "vanishing ridge")


@STUDIES.register("ufm-convergence", source="thrampoulidis2022", title="Gradient descent on free features")
def ufm_convergence(setting: Setting) -> str:
    """D_W, D_M, D_Z over full-batch epochs of gradient descent on free features: no ridge, held and vanishing ones.

    k = 10 classes, d = 20, STEP counts with half the classes minorities of n_min = 5 samples, every
    sample with an embedding of its own. A held ridge has its own certified geometry, which is not SELI unless classes
    are balanced; the vanishing one halves ten times on the way.
    """
    ratios = setting.pick("ratios", RATIOS, QUICK_RATIOS)
    seeds = setting.pick_seeds(SEEDS, QUICK_SEEDS)
    epochs = setting.pick("steps", EPOCHS, QUICK_EPOCHS)
    history: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    for ratio in ratios:
        for arm in ARMS:
            runs = _run(arm, ratio, seeds, epochs, setting)
            history.extend(_history(arm, ratio, runs))
            ends.extend(_ends(arm, ratio, runs, last_ridge(arm)))
    write_rows(setting.out / "history.parquet", history)
    write_rows(setting.out / "ends.parquet", ends)
    save_convergence(history, setting.out)
    heading = (f"k = {K}, d = {D}, (R, ½)-STEP, n_min = {N_MIN}, float64; gradient descent, η = 1/(2√n_max) for the "
               f"summed loss; {named_seeds(seeds)}, {epochs:,} full-batch epochs. The "
               f"vanishing ridge falls from {_START:.2g} to {last_ridge('vanishing ridge'):.1e} in {_HALVINGS} "
               "halvings.")
    return "\n\n".join([heading, *_tables(ratios, history, ends)]) + "\n"


def last_ridge(arm: str) -> float:
    """λ of an arm's last epoch; 0 without one."""
    return HELD.get(arm, _START * 2.0**-_HALVINGS if arm == "vanishing ridge" else 0.0)


def _run(arm: str, ratio: float, seeds: tuple[int, ...], epochs: int, setting: Setting) -> Simulation:
    counts = ClassCounts.step(K, ratio, n_min=N_MIN)
    options: dict[str, Any] = {"ridge": HELD.get(arm, 0.0)}
    if arm == "vanishing ridge":
        # Without momentum, continuation is gradient descent under a ridge that halves. It falls towards a ridge that
        # is nothing beside the last one.
        options = {"ridge": 1e-9, "ridge_start": _START, "half_life": epochs / _HALVINGS, "momentum": 0.0}
    return simulate(counts, "continuation" if arm == "vanishing ridge" else "gd", steps=epochs, seeds=list(seeds), d=D,
                    step=_STEP / np.sqrt(counts.n_max), snapshots=_SNAPSHOTS,
                    progress=reporter(f"R = {ratio:g}, {arm}", setting.progress), **options)


def _history(arm: str, ratio: float, runs: Simulation) -> Iterator[dict[str, Any]]:
    """A row per seed and snapshot; distances to the ridge's own geometry where a ridge is held."""
    targets = ("seli", "etf", "ridge") if arm in HELD else ("seli", "etf")
    for cell, at in enumerate(runs.cells):
        for place, epoch in enumerate(runs.steps.tolist()):
            row: dict[str, Any] = {"ratio": ratio, "arm": arm, "seed": at["seed"], "epoch": epoch}
            row |= {f"{target}/{part}": float(runs[f"{target}/{part}"][cell, place]) if target in targets else None
                    for target in ("seli", "etf", "ridge") for part in PARTS}
            yield row | {name: float(runs[name][cell, place]) for name in ("nc1", "log_loss", "balanced_accuracy")}


def _ends(arm: str, ratio: float, runs: Simulation, ridge: float) -> Iterator[dict[str, Any]]:
    """A row per seed: where it ended, from SELI and from the geometry at its last ridge, and how far that is itself."""
    counts = runs.profiles[0]
    own = predict(counts, ridge=ridge) if ridge else None
    limit = predict(counts)
    for cell, at in enumerate(runs.cells):
        weight, features, labels = runs.samples(cell)
        means = np.stack([features[labels == c].mean(0) for c in range(K)])
        near = {} if own is None else distances(own, weight, means)
        row = {"ratio": ratio, "arm": arm, "seed": at["seed"], "ridge": ridge, "nc1": float(runs["nc1"][cell, -1])}
        for part in PARTS:
            row |= {f"seli/{part}": float(runs[f"seli/{part}"][cell, -1]),
                    f"etf/{part}": float(runs[f"etf/{part}"][cell, -1]),
                    f"own/{part}": near.get(part),
                    f"own to seli/{part}": None if own is None else _between(own, limit, part)}
        yield row


def _between(one: Geometry, other: Geometry, part: str) -> float:
    return float(getattr(one, part).distance_to(getattr(other, part)))


def _tables(ratios: tuple[float, ...], history: list[dict[str, Any]], ends: list[dict[str, Any]]) -> Iterator[str]:
    columns = [f"R = {ratio:g}" for ratio in ratios]

    def values(rows: list[dict[str, Any]], arm: str, ratio: float, key: str) -> np.ndarray:
        return np.array([row[key] for row in rows if (row["arm"], row["ratio"]) == (arm, ratio)], dtype=np.float64)

    for part, symbol in zip(PARTS, ("D_W", "D_M", "D_Z"), strict=True):
        rows = [[arm, *(spread(values(ends, arm, ratio, f"seli/{part}")) for ratio in ratios)] for arm in ARMS]
        yield (f"{symbol} to SELI after the last epoch: median over seeds (smallest – largest).\n\n"
               + markdown(["", *columns], rows))
    last = max(row["epoch"] for row in history)
    early = min((row["epoch"] for row in history), key=lambda epoch: abs(epoch - last / 10))
    tenth = [row for row in history if row["epoch"] == early]
    rows = [[arm, *(" / ".join(f"{np.median(values(tenth, arm, ratio, f'seli/{part}')):.2g}" for part in PARTS)
                    for ratio in ratios)] for arm in ARMS]
    yield f"D_W / D_M / D_Z to SELI after {early:,} epochs: medians.\n\n" + markdown(["", *columns], rows)
    for key, title in (("own", "D_W / D_M / D_Z to the certified geometry at the last epoch's ridge: medians"),
                       ("own to seli", "D_W / D_M / D_Z of that geometry itself to SELI, the nearest that its ridge "
                                       "leads")):
        rows = [[arm, *(" / ".join(f"{np.median(values(ends, arm, ratio, f'{key}/{part}')):.2g}" for part in PARTS)
                        for ratio in ratios)] for arm in ARMS[1:]]
        yield f"{title}.\n\n" + markdown(["", *columns], rows)
    rows = [[arm, *(spread(values(ends, arm, ratio, "nc1")) for ratio in ratios)] for arm in ARMS]
    yield ("Within-class variability tr Σ_W / tr Σ_B after the last epoch: median over seeds (smallest – largest)."
           "\n\n" + markdown(["", *columns], rows))
