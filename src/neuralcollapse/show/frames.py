"""Measured Grams over epochs, packed for the slider of the report: 16 bits per entry, as many epochs as fit."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from jaxtyping import Float
import numpy as np

from neuralcollapse.show.charts import Heatmaps
from neuralcollapse.show.class_axis import class_axis
from neuralcollapse.show.reading import PARTS, Reading

_BYTES = 500_000  # of text; with plotly.js a report stays below 6 MB at 100 classes
_MOST = 40


def gram_frames(reading: Reading, chart: Heatmaps) -> dict[str, Any]:
    """The Grams of selected epochs, the first and the last among them.

    Parameters
    ----------
    reading : Reading
    chart : Heatmaps
        The picture at the last epoch: measured and predicted panels in turn.

    Returns
    -------
    dict
        "epochs": list of int; "size": k; "scale": the value of the integer 1; "panels": for each panel a list of
        base64 of little-endian int16, one per epoch for measured panels and one alone for predicted ones. Rows follow
        each other; of a symmetric matrix those up to the diagonal.
    """
    axis = class_axis(reading.counts)
    parts = [part for part, _, _ in PARTS if part in reading.grams(reading.last_epoch)]
    room = int(_BYTES / (2 * 2 * axis.size**2 * 4 / 3))  # two halves and a whole matrix of 2 bytes an entry
    frames: dict[int, dict[str, Float[np.ndarray, " *shape"]]] = {}
    for epoch in spread_out([int(epoch) for epoch in reading.epochs], max(2, min(room, _MOST))):
        kept = reading.grams(epoch)
        if kept.keys() >= set(parts):
            frames[epoch] = {part: axis.reorder(kept[part]) for part in parts}
    largest = max([chart.limit, *(np.abs(m).max(initial=0) for f in frames.values() for m in f.values())])
    scale = float(largest) / 32_767
    panels = []
    for place, part in enumerate(parts):
        rows = np.tril_indices(axis.size) if part != "logits" else slice(None)
        panels += [[_packed(frame[part][rows], scale) for frame in frames.values()],
                   [_packed(chart.panels[2 * place + 1].values[rows], scale)]]
    return {"epochs": list(frames), "scale": scale, "size": axis.size, "panels": panels}


def spread_out(epochs: list[int], most: int) -> list[int]:
    """At most `most` of the epochs, evenly spaced in their order, always the first and the last.

    Examples
    --------
    >>> spread_out([0, 1, 2, 4, 8, 16, 32], 3)
    [0, 4, 32]
    """
    if len(epochs) <= most:
        return epochs
    places = np.unique(np.linspace(0, len(epochs) - 1, most).round().astype(int))
    return [epochs[place] for place in places]


def _packed(entries: Float[np.ndarray, " *shape"], scale: float) -> str:
    whole = np.rint(np.nan_to_num(entries) / scale).astype("<i2")
    return b64encode(whole.tobytes()).decode()
