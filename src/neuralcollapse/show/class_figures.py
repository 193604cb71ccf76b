"""The pictures of a run with a place per class, or per group of classes when there are more than 200."""

from __future__ import annotations

from jaxtyping import Float
import numpy as np

from neuralcollapse.show.charts import Bars, ClassPanel, Curve
from neuralcollapse.show.class_axis import ClassAxis, class_axis
from neuralcollapse.show.facts import comparable_norms
from neuralcollapse.show.palette import TARGET_MARKERS, target_colour, target_name
from neuralcollapse.show.reading import PARTS, Reading, RunLike
from neuralcollapse.show.wording import number, percent


def norms(run: RunLike | Reading, epoch: int | None = None) -> Bars:
    """The length of each class's classifier and mean embedding, beside what is predicted.

    Parameters
    ----------
    run : RunLike
    epoch : int, optional
        A measured epoch; the last one when left out.

    Returns
    -------
    Bars
        Two panels; groups of classes when there are more than 200.
    """
    reading = Reading.of(run).up_to(epoch)
    axis = class_axis(reading.counts)
    panels = []
    for part, _, _ in PARTS[:2]:
        found = comparable_norms(reading, part)
        marks = tuple(Curve(target_name(target), axis.values(values), target_colour(target), marker)
                      for (target, values), marker in zip(found.predicted.items(), TARGET_MARKERS, strict=False))
        panels.append(ClassPanel(f"Norms of {part}", "norm",
                                 (Curve("measured", axis.values(found.measured), "bar"),), marks))
    return Bars("Norms per class, measured beside predicted",
                f"{axis.description}. Measured and predicted norms are those of Gram matrices at {found.scale}.",
                " ".join(_describe_bars(panel, axis) for panel in panels), tuple(panels), 2, axis.names)


def accuracies(run: RunLike | Reading, epoch: int | None = None) -> Bars | None:
    """Test accuracy of each class, majority and minority told apart.

    Parameters
    ----------
    run : RunLike
    epoch : int, optional
        A measured epoch; the last one when left out.

    Returns
    -------
    Bars or None
        None when the run has no test accuracy per class.
    """
    reading = Reading.of(run).up_to(epoch)
    measured = reading.last_per_class("test", "per_class_accuracy")
    if measured is None or not np.isfinite(measured).any():
        return None
    axis = class_axis(reading.counts)
    panel = ClassPanel("Test accuracy", "share correct", _by_group(reading, axis, measured), percent=True)
    return Bars("Test accuracy per class",
                f"{axis.description}.",
                _describe_bars(panel, axis), (panel,), 1, axis.names)


def margins(run: RunLike | Reading, epoch: int | None = None) -> Bars | None:
    """The margin of each class on the training samples, the mean as bars and the smallest as marks.

    z_y − max_{c≠y} z_c, negative where a sample is misclassified (thrampoulidis2022; theory.md §6).

    Parameters
    ----------
    run : RunLike
    epoch : int, optional
        A measured epoch; the last one when left out.

    Returns
    -------
    Bars or None
        None when the run has no margins per class.
    """
    reading = Reading.of(run).up_to(epoch)
    mean, least = (reading.last_per_class("measurement", "margins", "per_class", key) for key in ("mean", "min"))
    if mean is None or not np.isfinite(mean).any():
        return None
    axis = class_axis(reading.counts)
    marks = () if least is None else (Curve("smallest", axis.values(least), "ink", "diamond"),)
    panel = ClassPanel("Margin", "margin", _by_group(reading, axis, mean), marks)
    return Bars("Margins per class",
                f"{axis.description}. Bars are means over training samples, diamonds the smallest; a negative margin "
                "is a misclassified sample.", _describe_bars(panel, axis), (panel,), 1, axis.names)


def _by_group(reading: Reading, axis: ClassAxis, values: Float[np.ndarray, " k"]) -> tuple[Curve, ...]:
    """Bars of majority and minority classes, or of all where there is no minority."""
    few = reading.minority
    if not few.any():
        return (Curve("all classes", axis.values(values), "bar"),)
    groups = [("majority", "green", ~few), ("minority", "purple", few)]
    return tuple(Curve(name, axis.values(np.where(members, values, np.nan)), colour)
                 for name, colour, members in groups if members.any())


def _describe_bars(panel: ClassPanel, axis: ClassAxis) -> str:
    show = percent if panel.percent else number
    parts = []
    for curve in (*panel.bars, *panel.marks):
        known = curve.y[np.isfinite(curve.y)]
        if known.size:
            parts.append(f"{curve.name} from {show(float(known.min()))} to {show(float(known.max()))}")
    return f"{panel.title} of {axis.size} {'groups of classes' if axis.grouped else 'classes'}: {'; '.join(parts)}."
