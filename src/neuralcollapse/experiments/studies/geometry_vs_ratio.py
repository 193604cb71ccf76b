"""Norms and angles of SELI against the imbalance ratio: the closed form, and free features that were trained to it.

Everything is a function of k, R and ρ alone (`theory.md` §2): counts scale all vectors alike, which ratios and angles
do not see.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.optimize import brentq

from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.studies.geometry_vs_ratio_figure import save_geometry
from neuralcollapse.experiments.studies.study import STUDIES, Setting, markdown, named_seeds, reporter, write_rows
from neuralcollapse.gram import Gram
from neuralcollapse.measure.arrangement import mean_cosines
from neuralcollapse.predict import predict
from neuralcollapse.simulate import Simulation, simulate
from neuralcollapse.simulate.quantities import PARTS

CLASSES, QUICK_CLASSES = (4, 10, 20, 100), (4, 10)
RATIOS, QUICK_RATIOS = (1.0, 2.0, 5.0, 10.0, 30.0, 100.0, 300.0, 1000.0), (1.0, 10.0, 100.0)
SEEDS, QUICK_SEEDS = (0, 1), (0,)
STEPS, QUICK_STEPS = 6_000, 2_000
CURVE = np.geomspace(1, 1e4, 121)
VECTORS = ("classifiers", "embeddings")
ANGLES = {"majority": "majority_majority", "across": "majority_minority", "minority": "minority_minority"}
"""Pairs of classes here, and as `mean_cosines` calls them."""


@STUDIES.register("geometry-vs-ratio", source="thrampoulidis2022",
                  title="Norms and angles against the imbalance ratio")
def geometry_vs_ratio(setting: Setting) -> str:
    """Norms and angles of classifiers and embeddings against R for k = 4 … 100: closed form, and trained on it.

    STEP counts, half the classes minorities. Lines are SELI in closed form; marks are free features trained by the
    method of multipliers from random starts. The angle between two minority classifiers goes to 0 as R grows (minority
    collapse), that between two minority embeddings does not.
    """
    classes = setting.own(CLASSES, QUICK_CLASSES)
    ratios = setting.pick("ratios", RATIOS, QUICK_RATIOS)
    seeds = setting.pick_seeds(SEEDS, QUICK_SEEDS)
    steps = setting.pick("steps", STEPS, QUICK_STEPS)
    curves = [row for k in classes for ratio in CURVE for row in closed_form(k, float(ratio))]
    dots = [row for k in classes for row in _trained(k, ratios, seeds, steps, setting)]
    write_rows(setting.out / "curves.parquet", curves)
    write_rows(setting.out / "dots.parquet", dots)
    save_geometry(curves, dots, setting.out)
    heading = (f"(R, ½)-STEP, n_min = 1, d = 2k, float64; multipliers, {named_seeds(seeds)}, {steps:,} gradients "
               "per run. Angles in degrees.")
    return "\n\n".join([heading, *_tables(classes, ratios, curves, dots)]) + "\n"


def closed_form(k: int, ratio: float) -> Iterator[dict[str, Any]]:
    """SELI's norm ratio (majority over minority) and angles, a row for classifiers and one for embeddings."""
    geometry = predict(ClassCounts.step(k, ratio, n_min=1))
    for part in VECTORS:
        gram: Gram = getattr(geometry, part)
        norms = gram.norms
        # Representatives: the first classes are majorities, the last minorities, also where R = 1 makes them alike.
        cosines = gram.cosines(np.array([0, 0, k - 2]), np.array([1, k - 1]))
        pairs = {"majority": cosines[0, 0], "across": cosines[1, 1], "minority": cosines[2, 1]}
        yield {"k": k, "ratio": ratio, "part": part, "norm_ratio": float(norms[0] / norms[-1]),
               **{name: degrees(float(value)) for name, value in pairs.items()}}


def degrees(cosine: float | None) -> float | None:
    """The angle of a cosine."""
    return None if cosine is None else float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def right_angle(k: int) -> float:
    """R at which two minority classifiers are at 90°."""
    return float(brentq(lambda ratio: next(closed_form(k, ratio))["minority"] - 90, 1, 1e4, xtol=1e-10))


def _trained(k: int, ratios: tuple[float, ...], seeds: tuple[int, ...], steps: int, setting: Setting
             ) -> Iterator[dict[str, Any]]:
    """Rows like `closed_form`'s of every run's end, with its distances to SELI."""
    runs = simulate([ClassCounts.step(k, ratio, n_min=1) for ratio in ratios], "multipliers", steps=steps,
                    seeds=list(seeds), symmetric=True, snapshots=[steps],
                    progress=reporter(f"k = {k}", setting.progress))
    for cell, at in enumerate(runs.cells):
        for part, vectors in zip(VECTORS, (runs.classifiers[cell], runs.features[cell]), strict=True):
            yield {"k": k, "ratio": ratios[at["profile"]], "seed": at["seed"], "part": part, **_arranged(vectors),
                   "seli": _largest(runs, cell)}


def _arranged(vectors: np.ndarray) -> dict[str, Any]:
    few = np.arange(len(vectors)) >= len(vectors) // 2
    norms = np.linalg.norm(vectors, axis=1)
    cosines = mean_cosines(vectors, few)
    return {"norm_ratio": float(norms[~few].mean() / norms[few].mean()),
            **{name: degrees(cosines[pair]) for name, pair in ANGLES.items()}}


def _largest(runs: Simulation, cell: int) -> float:
    return float(max(runs[f"seli/{part}"][cell, -1] for part in PARTS))


def _tables(classes: tuple[int, ...], ratios: tuple[float, ...], curves: list[dict[str, Any]],
            dots: list[dict[str, Any]]) -> Iterator[str]:
    columns = [f"R = {ratio:g}" for ratio in ratios]
    exact = {(k, ratio, row["part"]): row for k in classes for ratio in ratios for row in closed_form(k, ratio)}
    for name, title in (("minority", "Angle between two minority {}"),
                        ("norm_ratio", "Norm of majority {} over that of minority ones")):
        for part in VECTORS:
            rows = [[f"k = {k}", *(f"{exact[k, ratio, part][name]:.3g}" for ratio in ratios)] for k in classes]
            yield f"{title.format(part)}, closed form.\n\n" + markdown(["", *columns], rows)
    rows = [[f"k = {k}", *(_off(dots, exact, k, ratio) for ratio in ratios)] for k in classes]
    yield ("What was trained, beside it: largest relative difference of the norm ratios / largest difference of the "
           "angles in degrees / largest of D_W, D_M, D_Z to SELI, over seeds.\n\n" + markdown(["", *columns], rows))
    rows = [[f"k = {k}", f"{right_angle(k):.6f}", f"{_slope(curves, k):.3f}", f"{_plateau(k):.2f}"] for k in classes]
    yield ("R at which two minority classifiers pass 90°; the exponent of R in their angle at the end of the curve, "
           f"R = {CURVE[-1]:,.0f}; the classifiers' norm ratio as R → ∞, √(1 + √2 (k − 2)).\n\n"
           + markdown(["", "90° at R", "exponent", "norm ratio"], rows))


def _off(dots: list[dict[str, Any]], exact: dict[tuple[int, float, str], dict[str, Any]], k: int, ratio: float) -> str:
    here = [(row, exact[k, ratio, row["part"]]) for row in dots if (row["k"], row["ratio"]) == (k, ratio)]
    norms = max(abs(row["norm_ratio"] / line["norm_ratio"] - 1) for row, line in here)
    angles = max(abs(row[name] - line[name]) for row, line in here for name in ANGLES)
    return f"{norms:.0e} / {angles:.0e} / {max(row['seli'] for row, _ in here):.0e}"


def _slope(curves: list[dict[str, Any]], k: int) -> float:
    last, end = ([row for row in curves if (row["k"], row["part"]) == (k, "classifiers")])[-2:]
    return float(np.log(end["minority"] / last["minority"]) / np.log(end["ratio"] / last["ratio"]))


def _plateau(k: int) -> float:
    # Of theory.md §2 with a = b: ‖w_maj‖² ~ √R (1 − 2/k + 1/(√2 k)) and ‖w_min‖² ~ √R/(√2 k).
    return float(np.sqrt(1 + np.sqrt(2) * (k - 2)))
