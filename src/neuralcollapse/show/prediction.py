"""Pictures of a prediction alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from neuralcollapse.checks import InvalidInput
from neuralcollapse.files import replacing, writing
from neuralcollapse.predict import Geometry
from neuralcollapse.show.charts import Bars, Chart, ClassPanel, Curve, Heatmap, Heatmaps, colour_limit
from neuralcollapse.show.class_axis import class_axis
from neuralcollapse.show.palette import target_name
from neuralcollapse.show.wording import number, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ONE_BY_ONE = 100
_SUFFIXES = (".png", ".pdf", ".svg", ".jpg", ".html")


def predicted_grams(geometry: Geometry) -> Heatmaps:
    """The Gram matrices of a prediction; mean cosines between groups of classes above 100 classes.

    Parameters
    ----------
    geometry : Geometry

    Returns
    -------
    Heatmaps
        Classifiers, embeddings and logits on one scale; without logits for groups.
    """
    axis = class_axis(geometry.counts, _ONE_BY_ONE)
    name = geometry_name(geometry)
    if axis.grouped:
        panels = [Heatmap(part.capitalize(), axis.mean_cosines(getattr(geometry, part)))
                  for part in ("classifiers", "embeddings")]
        title = f"{name}: mean cosines between groups of classes"
        caption = f"{axis.description}; pairs of different classes only."
    else:
        panels = [Heatmap(part.capitalize(), axis.dense(getattr(geometry, part)))
                  for part in ("classifiers", "embeddings", "logits")]
        title, caption = f"{name}: Gram matrices", "Each matrix is scaled to norm 1."
    return Heatmaps(title, caption, f"{title} for {geometry.counts!r}.", tuple(panels), len(panels), axis.names,
                    colour_limit(panels))


def predicted_norms(geometry: Geometry) -> Bars:
    """The norm of each class's classifier and mean embedding; of groups of classes above 100 classes.

    Parameters
    ----------
    geometry : Geometry

    Returns
    -------
    Bars
        Two panels, at the scale of a Gram of Frobenius norm 1.
    """
    axis = class_axis(geometry.counts, _ONE_BY_ONE)
    name = geometry_name(geometry)
    panels = tuple(ClassPanel(f"Norms of {part}", "norm",
                              (Curve(name, axis.values(getattr(geometry, part).unit().norms), "blue"),))
                   for part in ("classifiers", "embeddings"))
    spans = [f"{panel.title} from {number(float(y.min()))} to {number(float(y.max()))}"
             for panel in panels for y in [panel.bars[0].y]]
    return Bars(f"{name}: norms per class", f"{axis.description}; norms at unit Frobenius norm of the Gram matrix.",
                "; ".join(spans) + ".", panels, 2, axis.names)


def geometry_name(geometry: Geometry) -> str:
    """How a prediction is called in titles: by its limit, or by its loss and λ."""
    return target_name(geometry.loss) if geometry.ridge is None else f"{geometry.loss} at λ = {number(geometry.ridge)}"


def prediction_charts(geometry: Geometry) -> list[Chart]:
    """Everything there is to see of a prediction."""
    return [predicted_grams(geometry), predicted_norms(geometry)]


def prediction_figure(geometry: Geometry) -> Figure:
    """Gram heatmaps above norms per class, as one matplotlib Figure.

    Parameters
    ----------
    geometry : Geometry

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from neuralcollapse.predict import predict
    >>> len(prediction_figure(predict("10,10,1,1")).subfigs)
    2
    """
    from matplotlib.figure import Figure
    figure = Figure(figsize=(10, 6.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.1, 1), squeeze=False).ravel()
    grams, norms = prediction_charts(geometry)
    grams.matplotlib(above)
    norms.matplotlib(below)
    counts = geometry.counts
    spread = "balanced" if counts.balanced else f"ratio {plain(counts.ratio)}"
    figure.suptitle(f"{grams.title} ({counts.k:,} classes, {spread})", fontsize=11)
    return figure


def save_prediction(geometry: Geometry, path: str | Path) -> Path:
    """Write the picture of a prediction, in the format its suffix names (.html is interactive).

    Parameters
    ----------
    geometry : Geometry
    path : str or Path
        Ends in .png, .pdf, .svg, .jpg or .html.

    Returns
    -------
    Path

    Raises
    ------
    InvalidInput
        Another suffix, or a place that cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from neuralcollapse import predict
    >>> with TemporaryDirectory() as folder:
    ...     save_prediction(predict([10, 10, 1, 1]), f"{folder}/seli.svg").name
    'seli.svg'
    """
    return save_picture(f"Predicted: {target_name(geometry.loss)}", lambda: prediction_charts(geometry),
                        lambda: prediction_figure(geometry), path)


def save_picture(title: str, charts: Callable[[], list[Chart]], figure: Callable[[], Figure],
                 path: str | Path) -> Path:
    """Write a figure, or its charts as a page, in the format the suffix names."""
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise InvalidInput(f"a picture's file name must end in {', '.join(_SUFFIXES)}, got '{path.name}'")
    if path.suffix.lower() == ".html":
        from neuralcollapse.show.report import write_charts
        return write_charts(title, charts(), path)
    drawn = figure()
    with writing(path), replacing(path, durable=False) as part:
        drawn.savefig(part, format=path.suffix[1:].lower(), dpi=160)
    return path
