"""One remedy's predicted geometry in a row of numbers that compare across remedies."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from neuralcollapse.checks import OutsideTheory, finite_or_none
from neuralcollapse.gram import Gram
from neuralcollapse.groups import Groups
from neuralcollapse.predict import Geometry
from neuralcollapse.steer.class_geometry import class_margins, margin_scale, mean_cosine, merging_ridges
from neuralcollapse.steer.remedies import Remedy

_ZERO = 1e-6  # of the largest norm: below it a classifier has collapsed, and its angles are rounding
_NOTHING = 1e-9  # logits of this size at a ridge are a total collapse and its rounding
_RANK_UP_TO = 64  # distinct counts up to which a lost dimension is looked for where no two classes share a count


@dataclass(frozen=True)
class Row:
    """What a remedy leads to.

    Attributes
    ----------
    remedy : str
        Its name in REMEDIES.
    parameters : dict
    line : str
        The code that makes it.
    norm_ratio : float or None
        Mean norm of majority classifiers over that of minority classifiers.
    minority_cosine, minority_angle : float or None
        Mean cosine between two minority classifiers, and the angle of that cosine in degrees.
    majority_margin, minority_margin : float or None
        Mean over the classes of each kind of z_y − max_{c≠y} z_c, of the logits without the loss's temperatures and
        offsets, in units of the balanced margin at the same ‖W‖_F ‖H‖_F and n (`margin_scale`): 1 when balanced.
    etf_distance : float or None
        ‖G_W/‖G_W‖ − P/‖P‖‖_F to the simplex.
    merging_ridge : float or None
        The smallest λ = ω_j Δ_j √n_j at which classes of one count merge; None where no two are alike or none is known.
    beyond : bool or None
        Whether the ridge asked about has merged classes; None without a ridge, or where it is not known.
    outside : str or None
        Why there are no numbers, where no theorem covers the remedy.
    """

    remedy: str
    parameters: dict[str, Any]
    line: str
    norm_ratio: float | None = None
    minority_cosine: float | None = None
    minority_angle: float | None = None
    majority_margin: float | None = None
    minority_margin: float | None = None
    etf_distance: float | None = None
    merging_ridge: float | None = None
    beyond: bool | None = None
    outside: str | None = None

    @property
    def margin_ratio(self) -> float | None:
        """Minority margin over majority margin."""
        if self.minority_margin is None or not self.majority_margin:
            return None
        return self.minority_margin / self.majority_margin

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON-ready values, numbers finite or None."""
        return asdict(self) | {"margin_ratio": self.margin_ratio}


def predicted_row(made: Remedy, ridge: float | None = None) -> Row:
    """The row of a remedy, at a ridge (summed loss) or in the vanishing limit.

    Parameters
    ----------
    made : Remedy
    ridge : float, optional

    Returns
    -------
    Row
        Without numbers but with the reason, where no theorem covers the remedy.

    References
    ----------
    behnia2023; theory.md §3–5.

    Examples
    --------
    >>> from neuralcollapse.steer.remedies import remedy
    >>> row = predicted_row(remedy("ldt", [100, 100, 1, 1]))
    >>> round(row.margin_ratio, 6), round(row.minority_angle, 2)
    (10.0, 109.47)
    """
    try:
        geometry = made.geometry(ridge)
    except OutsideTheory as error:
        return Row(made.name, made.parameters, made.line, outside=str(error))
    few = made.counts.minority
    norms, gram = geometry.classifiers.norms, geometry.classifiers
    nothing = geometry.ridge is not None and geometry.logits.frobenius <= _NOTHING * geometry.k
    vanished = nothing or norms.min() <= _ZERO * norms.max()
    margins = np.zeros(few.size) if nothing else class_margins(geometry) * margin_scale(geometry)
    cosine = None if vanished else mean_cosine(gram, few)
    merging = _merging(made)
    return Row(made.name, made.parameters, made.line,
               None if vanished else finite_or_none(_mean(norms[~few]) / _mean(norms[few])), cosine,
               None if cosine is None else float(np.degrees(np.arccos(cosine))),
               finite_or_none(_mean(margins[~few])), finite_or_none(_mean(margins[few])),
               None if nothing else finite_or_none(gram.distance_to(_simplex(gram.groups))), merging,
               _beyond(geometry, ridge, merging))


def _simplex(groups: Groups) -> Gram:
    """P as diagonal plus rank one: a distance to it then costs O(g r²), where `predict`'s g × g entries cost g³."""
    g, k = groups.sizes.size, groups.index.size
    return Gram(groups, np.ones(g), np.array([[-1 / k]]), np.ones((g, 1)), np.full(g, 1 - 1 / k))


def _merging(made: Remedy) -> float | None:
    parameters = made.merging_parameters()
    counts = made.counts
    if parameters is None:
        return None
    ridges, sizes = merging_ridges(counts, **parameters), counts.groups.sizes
    alike = sizes[counts.groups.index] > 1
    return float(ridges[alike].min()) if alike.any() else None


def _beyond(geometry: Geometry, ridge: float | None, merging: float | None) -> bool | None:
    if ridge is None:
        return None
    if geometry.ridge is None:  # a frame that no ridge moves
        return False
    if merging is not None:
        return bool(ridge >= merging)
    alone = bool((geometry.counts.groups.sizes == 1).all())
    return geometry.rank < geometry.k - 1 if alone and geometry.k <= _RANK_UP_TO else None


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
