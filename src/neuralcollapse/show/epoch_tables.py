"""The numbers of one measured epoch of a run: distances to what is predicted, measures of collapse, accuracies."""

from __future__ import annotations

from collections.abc import Callable

from neuralcollapse.predict import RidgeEstimate
from neuralcollapse.show.markup import Table
from neuralcollapse.show.palette import in_a_sentence
from neuralcollapse.show.reading import PARTS, Reading
from neuralcollapse.show.wording import at_ridge, number, percent

_MEASURES: tuple[tuple[str, tuple[str, ...], Callable[[float | None], str]], ...] = (
    ("NC1, pseudo-inverse", ("measurement", "nc1", "pinv"), number),
    ("NC1, ratio of traces", ("measurement", "nc1", "trace"), number),
    ("CDNV", ("measurement", "cdnv"), number),
    ("NC3", ("measurement", "nc3"), number),
    ("NC4", ("measurement", "nc4"), percent),
    ("smallest margin", ("measurement", "margins", "min"), number),
)
_SCORES: tuple[tuple[str, tuple[str, ...], Callable[[float | None], str]], ...] = (
    ("training loss", ("train", "loss"), number),
    ("training accuracy", ("train", "accuracy"), percent),
    ("test accuracy", ("test", "accuracy"), percent),
    ("test accuracy, majority", ("test", "majority_accuracy"), percent),
    ("test accuracy, minority", ("test", "minority_accuracy"), percent),
)


def epoch_distances(reading: Reading) -> Table:
    """Distances of classifiers, embeddings and logits to every predicted geometry, at the last epoch read."""
    rows = [[f"to {in_a_sentence(target)}",
             *(number(reading.last_distance(part, target)) for part, _, _ in PARTS)] for target in reading.targets]
    return Table(f"Distances at epoch {reading.last_epoch:,}",
                 ["", *(part for part, _, _ in PARTS)], rows)


def epoch_measures(reading: Reading) -> Table:
    """Measures of collapse at the last epoch read."""
    return _values(f"Collapse at epoch {reading.last_epoch:,}", reading, _MEASURES)


def epoch_scores(reading: Reading) -> Table:
    """Loss and accuracy at the last epoch read."""
    return _values(f"Accuracy at epoch {reading.last_epoch:,}", reading, _SCORES)


def nearest_sentence(estimate: RidgeEstimate | None) -> str:
    """What follows the symbol λ_eff: the λ that the geometry of an epoch looks like."""
    if estimate is None:
        return (" is not known here: it needs the Gram matrices of the epoch, which runs keep up to 200 classes, "
                "and at most 40 different counts.")
    low, high = estimate.interval
    return (f" {at_ridge(estimate)}: the geometry predicted at this λ is the nearest to the network of this "
            f"epoch, at a distance of {number(estimate.distance)}; anywhere from {number(low)} to {number(high)} the "
            "distance is within 5 % of it.")


def _values(title: str, reading: Reading,
            lines: tuple[tuple[str, tuple[str, ...], Callable[[float | None], str]], ...]) -> Table:
    rows = [[name, show(value)] for name, path, show in lines if (value := reading.last(*path)) is not None]
    return Table(title, ["", ""], rows)
