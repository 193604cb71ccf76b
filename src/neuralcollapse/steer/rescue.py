"""Which classes of a trained network are lost, and to what: the head, the ridge or the features.

Each class is held against its prediction and against a class-balanced linear probe on the frozen features. Norms are
in units of their root mean square over classes, margins in units of those of ‖w_c‖ and ‖μ_c‖ together, so that
measured and predicted numbers compare whatever the scale of the features. Class means are centred on their mean.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from jaxtyping import Float, Int
import numpy as np

from neuralcollapse.checks import InvalidInput, finite_or_none, finite_vector, require_finite, shown
from neuralcollapse.counts import ClassCounts, plain_number
from neuralcollapse.predict import Geometry, weight_decay_from_ridge
from neuralcollapse.steer.amounts import array_of, finite, given, per_class, positive_or_none
from neuralcollapse.steer.class_geometry import class_margins, merging_ridges, nearest_cosines
from neuralcollapse.steer.nearest import nearest_rows
from neuralcollapse.steer.planner import samples_to_part

SAFE, SAVEABLE = "safe", "the loss can save it"
MERGED, ENTANGLED = "merged by the ridge", "entangled in the features"

ENOUGH = 0.8
"""Share of the majority classes' mean recall from which a class counts as decided, by the head or by the probe."""
ABOVE_CHANCE = 1.5
"""Times 1/k: the least recall that counts, however poor the majority's is."""
COINCIDE = 0.1
"""Distance of two class means, in root-mean-square norms, up to which they count as one point."""


class Compared(NamedTuple):
    """A number as measured and as predicted; None where it is not defined."""

    measured: float | None
    predicted: float | None


@dataclass(frozen=True)
class ClassVerdict:
    """One class: its numbers beside their predictions, and what became of it.

    Attributes
    ----------
    index, name, count
        The class and its training samples.
    kind : str
        "safe", "the loss can save it", "merged by the ridge" or "entangled in the features".
    rule : str
        The comparison that decided, with its numbers.
    advice : str
        What to do; empty for a safe class.
    classifier_norm, embedding_norm : Compared
        ‖w_c‖ and ‖μ_c‖, over their root mean square.
    classifier_angle, embedding_angle : Compared
        Degrees to the nearest other classifier, and class mean.
    margin : Compared
        The 10 % quantile of its held-out margins (or what was given), and the model's.
    confused_with : str or None
        The class that most of its misclassified held-out samples go to.
    recall, probe : float, float or None
        Share of its held-out samples that the head, and the probe, decide rightly; None without a probe.
    merging_ridge : float or None
        λ = ω_c Δ_c √n_c from which equal classes of its count merge; None where none does it.
    """

    index: int
    name: str
    count: float
    kind: str
    rule: str
    advice: str
    classifier_norm: Compared
    embedding_norm: Compared
    classifier_angle: Compared
    embedding_angle: Compared
    margin: Compared
    confused_with: str | None
    recall: float
    probe: float | None
    merging_ridge: float | None

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON-ready values, numbers finite or None."""
        compared = {name: value._asdict() for name, value in vars(self).items() if isinstance(value, Compared)}
        return {**asdict(self), **compared, "count": plain_number(self.count)}

    def __str__(self) -> str:
        return f"{self.name} ({self.count:g} samples): {self.kind}. {self.rule} {self.advice}".rstrip()


def rescue(counts: Any, weight: Any, means: Any, *, geometry: Geometry, margins: Any, confusions: Any, probe: Any,
           merging: Any = None, feature_penalty: float | None = None, level: float | None = None,
           advised: str | None = "the loss that `advise` names") -> list[ClassVerdict]:
    """Say for every class whether it is safe, and if not, whether loss, ridge or features have lost it.

    Asked in this order:

        merged by the ridge         λ ≥ ω_c Δ_c √n_c, and its mean coincides with another's
        safe                        recall of the head ≥ level
        the loss can save it        recall of the probe ≥ level
        entangled in the features   neither

    Parameters
    ----------
    counts : ClassCounts or anything it is made from
        TRAINING counts.
    weight, means : (k, d) arrays
        The head's `Linear.weight` and the class means of the training features.
    geometry : Geometry
        Predicted for these counts, at the ridge (summed loss) where one is known; in the limit nothing merges.
    margins : (k,) array
        Per class, the 10 % quantile over held-out samples of z_y − max_{c≠y} z_c.
    confusions : (k, k) array
        Held-out samples by true class (row) and decided class (column).
    probe : (k,) array
        Recall per class of a class-balanced linear probe on the frozen features (`probe_recall`); NaN without one.
    merging : (k,) array, or function of ClassCounts that gives one, optional
        λ from which each class merges, ω_c Δ_c √n_c; Inf where it never does, √n_c when left out (plain cross-entropy).
        Only a function says how many more samples would part a class.
    feature_penalty : float, optional
        p beside a MEAN loss, held when a weight decay is named; tied to it when left out.
    level : float, optional
        Recall that counts as decided: max(0.8 × the majority classes' mean recall, 1.5/k) when left out.
    advised : str or None
        The loss to train with, as verdicts name it; None where it was trained with already.

    Returns
    -------
    list of ClassVerdict
        In the order of the classes.

    Raises
    ------
    InvalidInput
        Shapes that do not fit together, numbers that are not finite, or a class without a held-out sample.

    References
    ----------
    fang2021 (merging); kang2020 (probes of frozen features); theory.md §4.

    Examples
    --------
    >>> from neuralcollapse.predict import predict
    >>> geometry = predict([100, 100, 4, 4], ridge=3.0)
    >>> W, M = geometry.factors(d=4, seed=0)
    >>> found = rescue([100, 100, 4, 4], W, M, geometry=geometry, margins=[5, 5, 0, 0], probe=[1, 1, 0.5, 0.5],
    ...                confusions=[[9, 0, 0, 0], [0, 9, 0, 0], [0, 0, 9, 0], [0, 0, 9, 0]])
    >>> [verdict.kind for verdict in found]
    ['safe', 'safe', 'merged by the ridge', 'merged by the ridge']
    >>> print(found[3].rule)
    λ = 3 ≥ 2 = √n for its 4 samples, and its mean lies on that of 2 (distance 0 of the usual norm).
    """
    profile, feature_penalty = ClassCounts.from_counts(counts), positive_or_none("feature_penalty", feature_penalty)
    table = _check_confusions(confusions, profile)
    rows = _check_rows(weight, means, profile.k, geometry)
    recall = table.diagonal() / table.sum(1)
    probed = _check_shares(probe, profile.k)
    enough = _level(recall, profile, level)
    merging = merging_ridges if merging is None else merging
    ridges = _check_ridges(merging(profile) if callable(merging) else merging, profile.k)
    numbers = _numbers(rows, finite_vector("margins", per_class("margins", margins, profile.k), profile.k),
                       geometry)
    others = table - np.diag(table.diagonal())
    beyond = np.zeros(profile.k, bool) if geometry.ridge is None else geometry.ridge >= ridges
    verdicts = []
    for c, name in enumerate(profile.names):
        near, share = int(numbers.neighbour[c]), None if np.isnan(probed[c]) else float(probed[c])
        confused = profile.names[int(others[c].argmax())] if others[c].any() else None
        if beyond[c] and numbers.distance[c] <= COINCIDE:
            said = _merged(profile, c, near, float(numbers.distance[c]), geometry.ridge, ridges, merging,
                           feature_penalty)
        else:
            said = _decided(float(recall[c]), share, enough, confused, advised)
        compared: dict[str, Any] = {part: column[c] for part, column in numbers.compared.items()}
        verdicts.append(ClassVerdict(c, name, float(profile.values[c]), *said, **compared, confused_with=confused,
                                     recall=float(recall[c]), probe=share,
                                     merging_ridge=finite_or_none(ridges[c])))
    return verdicts


class _Numbers(NamedTuple):
    """Per class: its nearest class mean with its distance, and what the verdict shows, by its name there."""

    neighbour: Int[np.ndarray, " k"]
    distance: Float[np.ndarray, " k"]
    compared: dict[str, list[Compared]]


def _numbers(rows: tuple[np.ndarray, np.ndarray], margins: np.ndarray, geometry: Geometry) -> _Numbers:
    centred = geometry.centred("classes")
    compared: dict[str, list[Compared]] = {}
    units, near = np.ones(2), nearest_rows(rows[1])
    for part, matrix, gram in zip(("classifier", "embedding"), rows, (centred.classifiers, centred.embeddings),
                                  strict=True):
        norms = np.linalg.norm(matrix, axis=1), gram.norms
        own = np.array([np.sqrt(np.mean(length**2)) for length in norms])
        found = near if part == "embedding" else nearest_rows(matrix)
        compared[f"{part}_norm"] = _paired(_over(norms[0], own[0]), _over(norms[1], own[1]))
        compared[f"{part}_angle"] = _paired(_degrees(found.cosine), _degrees(nearest_cosines(gram)))
        units = units * own
    compared["margin"] = _paired(_over(margins, units[0]), _over(class_margins(geometry), units[1]))
    # `own` is now that of the class means; where all of them are one point, they coincide.
    return _Numbers(near.row, np.nan_to_num(_over(near.distance, own[0])), compared)


def _merged(profile: ClassCounts, c: int, near: int, distance: float, ridge: float | None, ridges: np.ndarray,
            merging: Any, feature_penalty: float | None) -> tuple[str, str, str]:
    assert ridge is not None
    more = samples_to_part(profile, c, ridge, merging) if callable(merging) else None
    n_c, limit = float(profile.values[c]), float(ridges[c])
    slope = limit / np.sqrt(n_c)
    factor = "√n" if abs(slope - 1) < 1e-9 else f"{slope:.3g}·√n"
    decay = weight_decay_from_ridge(limit, float(profile.n), feature_penalty)
    rule = (f"λ = {ridge:.3g} ≥ {limit:.3g} = {factor} for its {n_c:g} samples, and its mean lies on that of "
            f"{profile.names[near]} (distance {abs(round(distance, 3)):g} of the usual norm).")
    others = " and of each class with as few" if (profile.values == n_c).sum() > 1 else ""
    collect = "" if more is None else f", or collect {more:,} more samples of it{others}"
    return MERGED, rule, f"Lower λ below {limit:.3g}, a weight decay below {decay:.3g}{collect}."


def _decided(recall: float, probe: float | None, level: float, confused: str | None, advised: str | None
             ) -> tuple[str, str, str]:
    decides = f"head decides {recall:.0%} of its held-out samples"
    if recall >= level:
        return SAFE, f"The {decides}, at least the level of {level:.0%}.", ""
    if probe is None:
        return ENTANGLED, (f"The {decides}, below the level of {level:.0%}, and it has too few samples for a probe."
                           ), "Collect more of its samples."
    if probe >= level:
        advice = ("Refit the head on these features: the recommended loss has been used already." if advised is None
                  else f"Train with {advised}, or refit the head on these features.")
        return SAVEABLE, (f"A probe on its features decides {probe:.0%}, at least the level of {level:.0%}, where the "
                          f"{decides}."), advice
    among = f" and look most like {confused}" if confused is not None else ""
    return ENTANGLED, (f"A probe on its features decides {probe:.0%} and the {decides}, both below the level of "
                       f"{level:.0%}."), f"Its features do not tell it apart{among}: collect more of its samples."


def _level(recall: np.ndarray, profile: ClassCounts, level: float | None) -> float:
    if level is not None:
        number = finite(level)
        if number is None or not 0 < number <= 1:
            raise InvalidInput(f"level must be a recall in (0, 1], got {given(level)}")
        return number
    return float(max(ENOUGH * recall[~profile.minority].mean(), min(1.0, ABOVE_CHANCE / profile.k)))


def _check_confusions(confusions: Any, profile: ClassCounts) -> Float[np.ndarray, "k k"]:
    table = array_of("confusions", confusions)
    k = profile.k
    if table.shape != (k, k):
        raise InvalidInput(f"confusions must be samples by true and decided class, expected shape ({k}, {k}), got "
                           f"{table.shape}")
    require_finite("confusions", table)
    if (table < 0).any():
        raise InvalidInput(f"confusions must count samples, got {table.min():g}")
    empty = np.flatnonzero(table.sum(1) == 0)
    if empty.size:
        raise InvalidInput(f"every class needs a held-out sample to be judged by, class {profile.names[empty[0]]} has "
                           f"none ({empty.size} of {k} classes)")
    return table


def _check_rows(weight: Any, means: Any, k: int, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    if geometry.k != k:
        raise InvalidInput(f"geometry must be that of the {k} classes of counts, got one of {geometry.k}")
    found = []
    for name, rows in (("weight", weight), ("means", means)):
        matrix = array_of(name, rows)
        if matrix.ndim != 2 or len(matrix) != k:
            raise InvalidInput(f"{name} must have one row per class, expected ({k}, d), got {matrix.shape}")
        require_finite(name, matrix)
        found.append(matrix)
    if found[0].shape != found[1].shape:
        raise InvalidInput(f"weight and means must have the same shape, got {found[0].shape} and {found[1].shape}")
    return found[0], found[1] - found[1].mean(0)


def _check_ridges(ridges: Any, k: int) -> Float[np.ndarray, " k"]:
    values = array_of("merging", ridges)
    if values.shape != (k,) or not (values > 0).all():
        raise InvalidInput(f"merging must be {k} positive numbers, one per class, got {shown(ridges)}")
    return values


def _check_shares(probe: Any, k: int) -> Float[np.ndarray, " k"]:
    shares = array_of("probe", probe)
    if shares.shape != (k,):
        raise InvalidInput(f"probe must be {k} recalls, one per class, got shape {shares.shape}")
    known = shares[~np.isnan(shares)]
    if ((known < 0) | (known > 1)).any():
        raise InvalidInput(f"probe must be recalls in [0, 1] or NaN, got {known[(known < 0) | (known > 1)][0]:g}")
    return shares


def _paired(measured: np.ndarray, predicted: np.ndarray) -> list[Compared]:
    return [Compared(*map(finite_or_none, pair)) for pair in zip(measured, predicted, strict=True)]


def _over(values: np.ndarray, unit: float) -> np.ndarray:
    return values / unit if unit > 0 else np.full(np.shape(values), np.nan)


def _degrees(cosines: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip(cosines, -1, 1)))
