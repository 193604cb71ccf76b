"""What a ridge does to the geometry: certified solutions along λ, where classes merge, and descents that end on them.

The loss is SUMMED over samples and λ = √(λ_W λ_H) (`theory.md` §4). There is no closed form: each point is a convex
solution with a duality gap. Free features that descend at a held λ are an independent route to the same geometry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.studies.ridge_path_figure import save_ridge_path
from neuralcollapse.experiments.studies.study import STUDIES, Setting, markdown, named_seeds, reporter, write_rows
from neuralcollapse.predict import Geometry, RidgePath, predict, ridge_path
from neuralcollapse.simulate import simulate
from neuralcollapse.simulate.quantities import PARTS

K, N_MIN = 10, 5
RATIOS = (1.0, 5.0, 10.0, 100.0)
SEEDS, QUICK_SEEDS = tuple(range(3)), (0,)
STEPS, QUICK_STEPS = 20_000, 5_000
POINTS, QUICK_POINTS = 300, 60
VECTORS = ("classifiers", "embeddings")
_LOWEST, _HIGHEST = 1e-5, 1.25  # times √n_min, and times √n_max
_HELD = (0.03, 0.3, 0.9, 1.2)  # times √n_min: what descends at a held ridge; in the last, minorities have merged
_ZERO = 1e-6  # of the longest classifier
_SMALL = 0.01  # times √n_min
_PAIR = np.array([K - 2, K - 1])  # two minority classes


@STUDIES.register("ridge-path", source=("thrampoulidis2022", "fang2021"), title="What a ridge does to the geometry")
def along_ridge(setting: Setting) -> str:
    """Distances to SELI and to the simplex, norm ratio and minority cosine against λ, every point certified.

    k = 10 classes, STEP counts with half of them minorities of n_min = 5 samples. Minority classifiers merge at
    λ = √n_min whatever R is, everything vanishes at √n_max, and SELI is neared only logarithmically as λ → 0. Marks
    are free features that descended at a held λ, an independent route.
    """
    ratios = setting.pick("ratios", RATIOS, RATIOS)
    seeds = setting.pick_seeds(SEEDS, QUICK_SEEDS)
    steps = setting.pick("steps", STEPS, QUICK_STEPS)
    points = setting.own(POINTS, QUICK_POINTS)
    paths = {ratio: _path(ratio, points, setting.progress) for ratio in ratios}
    rows = [row for ratio, path in paths.items() for row in _rows(ratio, path)]
    descents = [row for ratio in ratios for row in _descents(ratio, seeds, steps, setting)]
    write_rows(setting.out / "path.parquet", rows)
    write_rows(setting.out / "descents.parquet", descents)
    thresholds = [_thresholds(ratio, path) for ratio, path in paths.items()]
    write_rows(setting.out / "thresholds.parquet", thresholds)
    save_ridge_path(rows, descents, float(np.sqrt(N_MIN)), setting.out)
    heading = (f"k = {K}, (R, ½)-STEP, n_min = {N_MIN}; {points} ridges from {_LOWEST:g}·√n_min to "
               f"{_HIGHEST:g}·√n_max for each R; descents: {named_seeds(seeds)}, {steps:,} gradients, d = {2 * K}.")
    return "\n\n".join([heading, *_tables(paths, thresholds, descents)]) + "\n"


def counts_at(ratio: float) -> ClassCounts:
    """The study's class counts."""
    return ClassCounts.step(K, ratio, n_min=N_MIN)


def threshold(at: Callable[..., Geometry], holds: Callable[[Geometry], bool], low: float, high: float,
              precision: float = 1e-9) -> float:
    """The λ up to which something holds, by bisection of certified solutions.

    Parameters
    ----------
    at : callable
        Ridge to Geometry.
    holds : callable
        Of the geometry; true at `low`, not at `high`.
    low, high : float
    precision : float
        Relative.
    """
    while high > low * (1 + precision):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if holds(at(middle)) else (low, middle)
    return high


def minorities_apart(geometry: Geometry) -> bool:
    """Whether two minority classifiers differ."""
    block = geometry.classifiers.block(_PAIR, _PAIR)
    return bool(block[0, 0] + block[1, 1] - 2 * block[0, 1] > 1e-12 * geometry.classifiers.frobenius)


def minorities_alive(geometry: Geometry) -> bool:
    """Whether minority classifiers are not zero."""
    return bool(geometry.classifiers.norms[-1] > _ZERO * geometry.classifiers.norms[0])


def _path(ratio: float, points: int, tell: Callable[[str], None]) -> RidgePath:
    root = np.sqrt(N_MIN)
    path = ridge_path(counts_at(ratio), _LOWEST * root, _HIGHEST * root * np.sqrt(ratio), points)
    tell(f"path: R = {ratio:g}, {points} ridges, largest gap {path.worst_gap:.1e}")
    return path


def _rows(ratio: float, path: RidgePath) -> Iterator[dict[str, Any]]:
    for number, geometry in enumerate(path.geometries):
        row: dict[str, Any] = {"ratio": ratio, "ridge": float(path.ridges[number]), "gap": geometry.gap,
                               "objective": geometry.objective, "rank": int(path.ranks[number])}
        for part in VECTORS:
            gram = getattr(geometry, part)
            norms = gram.norms
            row |= {f"seli/{part}": float(path.to_limit[part][number]), f"etf/{part}": float(path.to_etf[part][number]),
                    f"norm_ratio/{part}": float(norms[0] / norms[-1]) if minorities_alive(geometry) else np.nan,
                    f"minority_cosine/{part}": float(gram.cosines(_PAIR, _PAIR)[0, 1])}
        yield row


def _descents(ratio: float, seeds: tuple[int, ...], steps: int, setting: Setting) -> Iterator[dict[str, Any]]:
    """Nesterov's momentum at held ridges, three below minority collapse and one above: no solver, no convexity."""
    held = [share * float(np.sqrt(N_MIN)) for share in _HELD if share < np.sqrt(ratio)]
    runs = simulate(counts_at(ratio), "nesterov", ridge=held, momentum=0.97, steps=steps, seeds=list(seeds),
                    symmetric=True, snapshots=[steps], progress=reporter(f"descent: R = {ratio:g}", setting.progress))
    objectives = {ridge: predict(counts_at(ratio), ridge=ridge).objective or np.nan for ridge in held}
    for cell, at in enumerate(runs.cells):
        names = [f"{target}/{part}" for target in ("ridge", "seli", "etf") for part in PARTS]
        names += [f"{name}/{part}" for name in ("norm_ratio", "minority_cosine") for part in VECTORS]
        objective = float(np.exp(runs["log_objective"][cell, -1]))
        yield {"ratio": ratio, "ridge": at["ridge"], "seed": at["seed"],
               **{name: float(runs[name][cell, -1]) for name in names},
               "objective": objective, "above_certified": objective / objectives[at["ridge"]] - 1}


def _thresholds(ratio: float, path: RidgePath) -> dict[str, Any]:
    root, top = float(np.sqrt(N_MIN)), path.geometries[0].total_collapse
    return {"ratio": ratio, "largest_gap": path.worst_gap, "points": len(path.geometries),
            "root_n_min": root, "merging": threshold(path.at, minorities_apart, 0.5 * root, 1.5 * root),
            "vanishing": threshold(path.at, minorities_alive, 0.5 * root, 1.01 * top, 1e-4), "total_collapse": top,
            "confirmed": all(event.confirmed for event in path.events)}


def _tables(paths: dict[float, RidgePath], thresholds: list[dict[str, Any]], descents: list[dict[str, Any]]
            ) -> Iterator[str]:
    rows = [[f"R = {one['ratio']:g}", f"{one['largest_gap']:.1e}", f"{one['merging']:.8f}",
             f"{one['merging'] / one['root_n_min'] - 1:.0e}", f"{one['vanishing']:.3f}",
             f"{one['total_collapse']:.5f}", "yes" if one["confirmed"] else "no"] for one in thresholds]
    yield ("Certificates and thresholds: largest relative duality gap on the path; λ from which two minority "
           f"classifiers are one, by bisection, and its relative difference to √n_min = {np.sqrt(N_MIN):.8f}; λ from "
           "which minority classifiers are zero, by bisection to 1e-4; λ of total collapse; whether all solutions "
           "lie on the right sides of √n_min, √n_max and total collapse.\n\n"
           + markdown(["", "gap", "merging λ", "to √n_min", "minorities zero", "total collapse", "sides"], rows))
    shares = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 0.9)
    for target, title in (("seli", "SELI"), ("etf", "the simplex")):
        rows = []
        for ratio, path in paths.items():
            near = [int(np.abs(np.log(path.ridges / (share * np.sqrt(N_MIN)))).argmin()) for share in shares]
            to = path.to_limit if target == "seli" else path.to_etf
            rows.append([f"R = {ratio:g}", *(f"{to['classifiers'][n]:.3f} / {to['embeddings'][n]:.3f}" for n in near)])
        yield (f"D_W / D_M of the certified geometry to {title} at the path's ridge nearest to each λ/√n_min.\n\n"
               + markdown(["", *(f"{share:g}" for share in shares)], rows))
    rows = [[f"R = {ratio:g}", part, *_logarithm(path, part)] for ratio, path in paths.items() if ratio > 1
            for part in VECTORS]
    yield (f"How slowly: 1/D to SELI = a + b ln(√n_min/λ), fitted over λ ≤ {_SMALL:g}·√n_min; the largest relative "
           "residual of D; log₁₀ of the λ/√n_min at which the fit has D = 0.01.\n\n"
           + markdown(["", "", "a", "b", "residual", "log₁₀ for 0.01"], rows))
    yield from _descent_table(list(paths), descents)


def _logarithm(path: RidgePath, part: str) -> list[str]:
    far = np.log(np.sqrt(N_MIN) / path.ridges)
    small = far > -np.log(_SMALL)
    distance = path.to_limit[part][small]
    b, a = np.polyfit(far[small], 1 / distance, 1)
    residual = np.abs(1 / (a + b * far[small]) / distance - 1).max()
    return [f"{a:.2f}", f"{b:.3f}", f"{residual:.1%}", f"{-(100 - a) / b / np.log(10):.0f}"]


def _descent_table(ratios: list[float], descents: list[dict[str, Any]]) -> Iterator[str]:
    rows: list[list[str]] = []
    for ratio in ratios:
        here = [row for row in descents if row["ratio"] == ratio]
        rows.extend([f"R = {ratio:g}", f"{ridge / np.sqrt(N_MIN):.2f}",
                     *(f"{max(row[f'ridge/{part}'] for row in here if row['ridge'] == ridge):.0e}" for part in PARTS),
                     f"{max(abs(row['above_certified']) for row in here if row['ridge'] == ridge):.0e}"]
                    for ridge in dict.fromkeys(row["ridge"] for row in here))
    yield ("Descents at a held ridge beside the certified geometry: D_W, D_M, D_Z and the relative difference of the "
           "objective, the largest over seeds.\n\n"
           + markdown(["", "λ/√n_min", "D_W", "D_M", "D_Z", "objective"], rows))
