"""The pictures of a run: one function per picture, each returning the numbers to draw (`charts.py`).

Every function takes a run folder opened with `Run.open`, also one that is still being written, and leaves gaps
where a number is missing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from neuralcollapse.show.charts import (
    Chart,
    Curve,
    Heatmap,
    Heatmaps,
    Lines,
    Panel,
    colour_limit,
    shared_limits,
    widely_spread,
)
from neuralcollapse.show.class_axis import class_axis
from neuralcollapse.show.class_figures import accuracies, norms
from neuralcollapse.show.levels import predicted_levels
from neuralcollapse.show.palette import TARGET_MARKERS, in_a_sentence, target_colour, target_name
from neuralcollapse.show.reading import PARTS, Reading, RunLike
from neuralcollapse.show.ticks import log_spaced
from neuralcollapse.show.wording import number, trend

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def distances(run: RunLike | Reading) -> Lines:
    """How far classifiers, embeddings and logits are from each predicted geometry, over epochs.

    ‖Ĝ/‖Ĝ‖ − G/‖G‖‖_F with Ĝ measured and G predicted (thrampoulidis2022; theory.md §6).

    Parameters
    ----------
    run : RunLike

    Returns
    -------
    Lines
        Three panels on one scale.
    """
    reading = Reading.of(run)
    curves = {part: tuple(
        Curve(f"to {in_a_sentence(target)}", reading.distances(part, target),
              target_colour(target), marker, dashed=marker != TARGET_MARKERS[0])
        for target, marker in zip(reading.targets, TARGET_MARKERS, strict=False)) for part, _, _ in PARTS}
    log_y = widely_spread(np.concatenate([curve.y for part in curves.values() for curve in part]))
    panels = tuple(Panel(title, symbol, curves[part], log_y=log_y) for part, title, symbol in PARTS)
    described = [f"{title}, distance {curve.name}: {trend(reading.epochs, curve.y)}."
                 for (part, title, _) in PARTS for curve in curves[part]]
    return Lines(
        "Distance to the predicted geometry",
        "Frobenius distance between measured and predicted Gram matrices, each scaled to norm 1: 0 is a perfect "
        "match, √2 ≈ 1.41 no resemblance. The logits of SELI are those of the simplex ETF.",
        " ".join(described), panels, 3, reading.epochs, log_spaced(reading.epochs), shared_limits(panels))


def collapse(run: RunLike | Reading) -> Lines:
    """The neural-collapse measures NC1–NC4 and CDNV over epochs, with the level predicted where it is not 0.

    Papyan 2020; theory.md §6.

    Parameters
    ----------
    run : RunLike

    Returns
    -------
    Lines
        Six panels.
    """
    reading = Reading.of(run)

    def curve(name: str, colour: str, marker: str, *path: str, dashed: bool = False) -> Curve:
        return Curve(name, reading.series("measurement", *path), colour, marker, dashed)

    def both(key: str) -> tuple[Curve, Curve]:
        return (curve("classifiers", "green", "circle", "nc2", "classifiers", key),
                curve("embeddings", "purple", "square", "nc2", "embeddings", key, dashed=True))

    levels = predicted_levels(reading)
    panels = [
        Panel("NC1 · spread within classes", "NC1", (
            curve("tr(Σ_W Σ_B⁺)/k", "ink", "circle", "nc1", "pinv"),
            curve("tr Σ_W / tr Σ_B", "orange", "triangle", "nc1", "trace", dashed=True))),
        Panel("CDNV · overlap of pairs", "CDNV", (curve("CDNV", "ink", "diamond", "cdnv"),)),
        Panel("NC2 · unequal norms", "std / mean of norms", both("norm_cv"), levels.norms),
        Panel("NC2 · unequal angles", "mean |cos + 1/(k−1)|", both("angle"), levels.angles),
        Panel("NC3 · classifiers against means", "‖W/‖W‖ − M/‖M‖‖", (curve("NC3", "ink", "diamond", "nc3"),),
              levels.duality),
        Panel("NC4 · nearest mean disagrees", "share of samples", (curve("NC4", "ink", "diamond", "nc4"),),
              percent=True),
    ]
    panels = [panel if panel.percent else _with_scale(panel) for panel in panels]
    described = [f"{panel.title}, {part.name}: {trend(reading.epochs, part.y)}."
                 for panel in panels for part in panel.curves]
    return Lines(
        "Neural collapse, measure by measure",
        "All of these go to 0 in balanced neural collapse. " + ("" if reading.counts.balanced else
        "Under imbalance NC1, CDNV and NC4 still do, while norms, angles and duality settle elsewhere: the dotted "
        f"lines are the levels of {target_name(reading.target)}."),
        " ".join(described), tuple(panels), 3, reading.epochs, log_spaced(reading.epochs))


def training(run: RunLike | Reading) -> Lines:
    """Loss and accuracy over the measured epochs, test accuracy also for majority and minority classes.

    Parameters
    ----------
    run : RunLike

    Returns
    -------
    Lines
        Two panels.
    """
    reading = Reading.of(run)
    loss = [Curve("train", reading.series("train", "loss"), "ink", "circle"),
            Curve("test", reading.series("test", "loss"), "blue", "square", dashed=True)]
    accuracy = [Curve("train", reading.series("train", "accuracy"), "ink", "circle"),
                Curve("test", reading.series("test", "accuracy"), "blue", "square", dashed=True)]
    if not reading.counts.balanced:
        accuracy += [Curve("test, majority", reading.series("test", "majority_accuracy"), "green", "triangle"),
                     Curve("test, minority", reading.series("test", "minority_accuracy"), "purple", "diamond",
                           dashed=True)]
    panels = (_with_scale(Panel("Loss", "mean loss", tuple(loss))),
              Panel("Accuracy", "share correct", tuple(accuracy), percent=True))
    described = [f"{panel.title}, {part.name}: {trend(reading.epochs, part.y)}."
                 for panel in panels for part in panel.curves]
    return Lines("Training", "Loss and accuracy at the measured epochs.", " ".join(described), panels, 2,
                 reading.epochs, log_spaced(reading.epochs))


def grams(run: RunLike | Reading, epoch: int | None = None) -> Heatmaps | None:
    """Measured Gram matrices beside predicted ones, on one colour scale centred at 0.

    Parameters
    ----------
    run : RunLike
    epoch : int, optional
        A measured epoch; the last one when left out.

    Returns
    -------
    Heatmaps or None
        None when the run kept no Grams of that epoch.
    """
    reading = Reading.of(run).up_to(epoch)
    axis, measured = class_axis(reading.counts), reading.grams(reading.last_epoch)
    if not measured or axis.grouped:
        return None
    name = target_name(reading.target)
    parts = [(part, title) for part, title, _ in PARTS if part in measured]
    panels = [panel for part, title in parts for panel in (
        Heatmap(f"{title}, measured", axis.reorder(measured[part])),
        Heatmap(f"{title}, {name}", axis.dense(getattr(reading.predicted, part))))]
    far = [f"{part} {number(reading.last_distance(part, reading.target))}" for part, _ in parts]
    return Heatmaps(
        "Gram matrices, measured beside predicted",
        "Inner products between classifiers, between class means, and between the two (the logits), each matrix "
        "scaled to norm 1. Colour follows the square root, so that small entries can be told apart.",
        f"{len(panels)} heatmaps over {axis.size} classes, measured at epoch {reading.last_epoch} on the left and "
        f"{name} on the right. Their distances at that epoch: {', '.join(far)}.",
        tuple(panels), 2, axis.names, colour_limit(panels))


def summary_figure(run: RunLike) -> Figure:
    """A run in one picture: distances, classifiers measured beside predicted, their norms, accuracy per class.

    Parameters
    ----------
    run : RunLike

    Returns
    -------
    matplotlib.figure.Figure
        With fewer parts where the run has no Grams or no test accuracy.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from neuralcollapse import TrainConfig, train
    >>> with TemporaryDirectory() as folder:
    ...     run = train(TrainConfig(epochs=2, threads=1, model_options={"width": 8}), f"{folder}/run")
    ...     len(summary_figure(run).subfigs)
    4
    """
    from matplotlib.figure import Figure

    lines, bars, accuracy, heat = distances(run), norms(run), accuracies(run), grams(run)
    charts: list[Chart] = [replace(lines, panels=lines.panels[:2], columns=2)]
    if heat is not None:
        pair = list(heat.panels[:2])
        charts.append(replace(heat, panels=tuple(pair), limit=colour_limit(pair)))
    charts.append(bars if heat is None else bars.panel(0))
    charts.append(accuracy if accuracy is not None else training(run))
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    rows = int(np.ceil(len(charts) / 2))
    for place, chart in zip(figure.subfigures(rows, 2, squeeze=False).ravel(), charts, strict=False):
        chart.matplotlib(place)
    return figure


def _with_scale(panel: Panel) -> Panel:
    return replace(panel, log_y=widely_spread(panel.values()))
