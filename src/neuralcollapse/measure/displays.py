"""How a measurement and a metric show themselves in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuralcollapse.displays import DRAWN
from neuralcollapse.notebook import card, matrix, number, table
from neuralcollapse.predict.geometry import PARTS

if TYPE_CHECKING:
    from neuralcollapse.measure.measurement import Measurement



def measurement_html(measurement: Measurement) -> str:
    """The collapse metrics, the distances to every target, and the measured Gram matrices."""
    values: Any = measurement.to_dict()
    measured = measurement.measured
    metrics = [["NC1 (pinv)", number(values["nc1"]["pinv"])], ["NC1 (trace)", number(values["nc1"]["trace"])],
               ["CDNV", number(values["cdnv"])], ["NC3", number(values["nc3"])], ["NC4", number(values["nc4"])],
               ["accuracy", number(values["accuracy"]["overall"])]]
    distances = [[name, *(number(far[part]) for part in PARTS)] for name, far in values["distances"].items()]
    grams = measurement.grams() if measured.k <= DRAWN else {}
    return card(f"Measured on {int(measured.seen.sum()):,} samples of {measured.k:,} classes",
                *(matrix("class means" if name == "embeddings" else name, gram) for name, gram in grams.items()),
                table(["metric", ""], metrics), table(["distance to", *PARTS], distances),
                note=f"Class means are centred on: {measured.center}.")


def metric_html(name: str, measurement: Measurement | None) -> str:
    """What a metric would measure now; None before it has seen a sample."""
    if measurement is None:
        return card(name, note="Nothing to measure yet: call update(features, labels) first.")
    return measurement_html(measurement)
