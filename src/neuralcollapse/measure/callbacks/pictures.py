"""One picture of a measurement for experiment trackers: measured Gram matrices above the predicted ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuralcollapse.measure.measurement import Measurement

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_CLASSES = 200  # a picture shows no more, and k × k would be large
_TITLES = {"classifiers": "classifiers", "embeddings": "class means", "logits": "logits"}


def gram_picture(measurement: Measurement) -> dict[str, Figure]:
    """Measured G_W, G_M and WᵀM above those of the main target, on one colour scale centred at 0.

    Parameters
    ----------
    measurement : Measurement

    Returns
    -------
    dict of str to matplotlib Figure
        One picture, `nc/grams`; none above 200 classes, without a head or without a target.

    Examples
    --------
    >>> from neuralcollapse.measure import measure
    >>> list(gram_picture(measure(np.eye(4), [0, 0, 1, 1], np.eye(2, 4))))
    ['nc/grams']
    """
    grams, target = measurement.grams(), measurement.measured.targets.get(measurement.target)
    if measurement.measured.k > _MOST_CLASSES or target is None or len(grams) < len(_TITLES):
        return {}
    from matplotlib.figure import Figure  # not pyplot, which would keep the figure

    predicted = {name: getattr(target, name).dense() for name in grams}
    rows = {"measured": grams, measurement.target: {name: matrix / max(float(np.linalg.norm(matrix)), 1e-300)
                                                    for name, matrix in predicted.items()}}
    largest = max(float(np.abs(matrix).max()) for row in rows.values() for matrix in row.values())
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    for place, (row, matrices) in zip(figure.subplots(2, 3), rows.items(), strict=True):
        for axes, (name, matrix) in zip(place, matrices.items(), strict=True):
            image = axes.imshow(matrix, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
            axes.set_title(f"{_TITLES[name]}, {row}", fontsize=9)
            axes.set_xticks([])
            axes.set_yticks([])
    figure.colorbar(image, ax=figure.axes, shrink=0.6)
    return {"nc/grams": figure}
