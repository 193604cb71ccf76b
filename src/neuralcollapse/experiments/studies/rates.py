"""How fast first-order methods near SELI under STEP imbalance: the decay of D_W, D_M, D_Z, and times to reach ε."""

from __future__ import annotations

from collections.abc import Iterator
import itertools
from typing import Any

import numpy as np

from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.studies.rates_figure import save_rates
from neuralcollapse.experiments.studies.study import STUDIES, Setting, markdown, named_seeds, reporter, write_rows
from neuralcollapse.simulate import Simulation, simulate
from neuralcollapse.simulate.quantities import PARTS
from neuralcollapse.simulate.rates import LAWS, Decay, decay, time_to

K = 10
RATIOS, QUICK_RATIOS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0), (1.0, 10.0, 100.0)
SEEDS, QUICK_SEEDS = tuple(range(5)), (0, 1)
STEPS, QUICK_STEPS = 30_000, 2_000
EPSILONS = (1e-1, 1e-2, 1e-3)
_SNAPSHOTS = 200
_LAST_DECADE, _FIRST_FITTED = 0.1, 100  # before step 100 the start still shows

# Steps that are given were chosen among three or four, a factor of three apart, on one seed at R = 10, 100, 1000.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "gd": ("gd", {}),
    "heavy-ball": ("heavy-ball", {}),
    "nesterov": ("nesterov", {}),
    "adam": ("adam", {"epsilon": 0.0, "step": 0.03, "schedule": "sqrt"}),
    "sign": ("sign", {"momentum": 0.9, "step": 0.03, "schedule": "sqrt"}),
    "muon": ("muon", {"step": 0.1, "schedule": "sqrt"}),
    "spectral": ("spectral", {"momentum": 0.9, "step": 0.1, "schedule": "sqrt"}),
    "ngd-loss": ("ngd-loss", {"step": 1.0, "schedule": "sqrt"}),
    "ngd": ("ngd", {"step": 3.0, "schedule": "sqrt"}),
    "ngd + momentum": ("ngd", {"momentum": 0.9, "step": 1.0, "schedule": "sqrt"}),
    "continuation": ("continuation", {"ridge": 1e-6, "ridge_start": 1.0, "half_life": 200.0}),
    "multipliers": ("multipliers", {}),
}
"""Label, method and what departs from its defaults. "sgd" is left out: it has no within-class-symmetric form."""


@STUDIES.register("rates", source="thrampoulidis2022", title="How fast first-order methods reach SELI")
def rates(setting: Setting) -> str:
    """Decay of the distances to SELI, and time to reach one, by method and imbalance ratio.

    k = 10 classes, (R, 1/2)-STEP counts with n_min = 1, d = 20, within-class-symmetric starts.
    """
    ratios = setting.pick("ratios", RATIOS, QUICK_RATIOS)
    seeds = setting.pick_seeds(SEEDS, QUICK_SEEDS)
    steps = setting.pick("steps", STEPS, QUICK_STEPS)
    profiles = [ClassCounts.step(K, ratio, n_min=1) for ratio in ratios]
    runs = {}
    for label, (method, options) in METHODS.items():
        runs[label] = simulate(profiles, method, steps=steps, seeds=list(seeds), symmetric=True, snapshots=_SNAPSHOTS,
                               progress=reporter(label, setting.progress), **options)
        runs[label].save(setting.out / f"{label.replace(' + ', '-with-')}.npz")
    fits = {(label, ratio, part): _fit(of, f"seli/{part}", _cells(of, place), steps)
            for label, of in runs.items() for place, ratio in enumerate(ratios) for part in PARTS}
    write_rows(setting.out / "decays.parquet", [_decay_row(*key, found) for key, found in fits.items()])
    write_rows(setting.out / "laws.parquet", list(_laws(runs, ratios, steps)))
    write_rows(setting.out / "times.parquet", list(_times(runs, ratios)))
    save_rates(runs, ratios, setting.out)
    return "\n\n".join([_heading(ratios, seeds, steps), *_tables(runs, ratios, fits)]) + "\n"


def largest(of: Simulation) -> np.ndarray:
    """(cells, s): the largest of D_W, D_M, D_Z to SELI."""
    return np.asarray(np.max([of[f"seli/{part}"] for part in PARTS], axis=0))


def _cells(of: Simulation, profile: int) -> list[int]:
    return [c for c, cell in enumerate(of.cells) if cell["profile"] == profile]


def _fit(of: Simulation, name: str, cells: list[int], steps: int) -> Decay | None:
    """Over the last decade of steps; from step 100 on where rounding was reached before that."""
    values = of[name][cells]
    late = decay(of.steps, values, since=max(_FIRST_FITTED, _LAST_DECADE * steps))
    return decay(of.steps, values, since=_FIRST_FITTED) if late is None else late


def _decay_row(label: str, ratio: float, part: str, found: Decay | None) -> dict[str, Any]:
    row: dict[str, Any] = {"method": label, "ratio": ratio, "distance": part}
    names = ("law", "rate", "low", "high", "residual", "other_residual", "runs")
    if found is None:
        return row | dict.fromkeys(names)
    values = (found.law, found.rate, *found.interval, found.residual, found.other, found.runs)
    return row | dict(zip(names, values, strict=True))


def _laws(runs: dict[str, Simulation], ratios: tuple[float, ...], steps: int) -> Iterator[dict[str, Any]]:
    """Every law fitted to every decay, the best or not: rates that can be compared across ratios and methods."""
    since = max(_FIRST_FITTED, _LAST_DECADE * steps)
    for label, of in runs.items():
        for (place, ratio), part, law in itertools.product(enumerate(ratios), PARTS, LAWS):
            found = decay(of.steps, of[f"seli/{part}"][_cells(of, place)], since=since, law=law)
            row: dict[str, Any] = {"method": label, "ratio": ratio, "distance": part, "law": law}
            names = ("rate", "low", "high", "residual")
            values = [None] * 4 if found is None else [found.rate, *found.interval, found.residual]
            yield row | dict(zip(names, values, strict=True))


def _times(runs: dict[str, Simulation], ratios: tuple[float, ...]) -> Iterator[dict[str, Any]]:
    for label, of in runs.items():
        for epsilon in EPSILONS:
            reached = time_to(of, [f"seli/{part}" for part in PARTS], epsilon)
            for cell, steps in zip(of.cells, reached.tolist(), strict=True):
                yield {"method": label, "ratio": ratios[cell["profile"]], "seed": cell["seed"], "epsilon": epsilon,
                       "steps": int(steps) if np.isfinite(steps) else None, "censored_at": int(of.steps[-1])}


def _heading(ratios: tuple[float, ...], seeds: tuple[int, ...], steps: int) -> str:
    return (f"k = {K}, (R, ½)-STEP, n_min = 1, d = {2 * K}, float64; {named_seeds(seeds)}, "
            f"{steps:,} gradients per run, {len(ratios)} ratios.")


def _tables(runs: dict[str, Simulation], ratios: tuple[float, ...],
            fits: dict[tuple[str, float, str], Decay | None]) -> Iterator[str]:
    columns = [f"R = {ratio:g}" for ratio in ratios]
    places = range(len(ratios))
    names = [f"seli/{part}" for part in PARTS]
    yield ("Largest of D_W, D_M, D_Z to SELI at the end: median over seeds (smallest – largest).\n\n"
           + markdown(["method", *columns], [[label, *(_spread(largest(of)[_cells(of, p), -1]) for p in places)]
                                             for label, of in runs.items()]))
    for epsilon in EPSILONS:
        rows = [[label, *(_median_time(time_to(of, names, epsilon)[_cells(of, p)], int(of.steps[-1])) for p in places)]
                for label, of in runs.items()]
        yield (f"Gradients until all three stay ≤ {epsilon:g}: median over seeds; in brackets how many seeds got there "
               "where not all did.\n\n" + markdown(["method", *columns], rows))
    for part, symbol in zip(PARTS, ("D_W", "D_M", "D_Z"), strict=True):
        rows = [[label, *(_rate(fits[label, ratio, part]) for ratio in ratios)] for label in runs]
        yield (f"Decay of {symbol} over the last decade of steps (from step {_FIRST_FITTED} on where rounding was "
               "reached before it): the law that fits best (p: t^−p, q: (ln t)^−q, r: e^−rt), its exponent ± half a "
               "95 % t interval over seeds, and in brackets the root mean square residual of ln D.\n\n"
               + markdown(["method", *columns], rows))


def _spread(values: np.ndarray) -> str:
    good = values[np.isfinite(values)]
    if not good.size:
        return "diverged"
    lost = f", {values.size - good.size} diverged" if good.size < values.size else ""
    return f"{np.median(good):.1e} ({good.min():.0e} – {good.max():.0e}{lost})"


def _median_time(times: np.ndarray, last: int) -> str:
    reached = int(np.isfinite(times).sum())
    # The order statistic, not a mean of two: one of them may be censored.
    middle = np.sort(times)[(times.size - 1) // 2]
    median = f"{middle:,.0f}" if np.isfinite(middle) else f"> {last:,}"
    return median if reached in (0, times.size) else f"{median} ({reached} of {times.size})"


def _rate(found: Decay | None) -> str:
    if found is None:
        return "–"
    letter = {"power": "p", "logarithmic": "q", "geometric": "r"}[found.law]
    half = (found.interval[1] - found.interval[0]) / 2
    uncertainty = "" if np.isnan(half) else f" ± {half:.1g}"
    return f"{letter} {found.rate:.2g}{uncertainty} ({found.residual:.2f})"
