"""A measurement in one word: healthy collapse told apart from merged minorities and from lost dimensions.

A network near its predicted geometry has collapsed as it should, however small its rank: the simplex spans k − 1
dimensions and SELI at R = 100 spreads its energy over half of them. What has gone wrong is read off against the
same prediction: minority classifiers more parallel than it says (`fang2021`, minority collapse), or directions
that it fills and the network does not (dimensional collapse).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Bool, Float
import numpy as np

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts, plain_number
from neuralcollapse.gram import Gram
from neuralcollapse.measure.measured import number
from neuralcollapse.measure.measurement import Measurement
from neuralcollapse.measure.spectrum import BetweenSpectrum, effective_rank
from neuralcollapse.predict import Geometry

HEALTHY, MINORITY, DIMENSIONAL = "healthy collapse", "minority collapse", "dimensional collapse"
NOT_COLLAPSED, UNKNOWN = "not collapsed", "unknown"

COLLAPSED = 0.1
"""tr Σ_W / tr Σ_B up to which samples count as collapsed onto their means: a tenth of the energy between classes."""
NEAR = 0.3
"""D_W and D_M up to which a geometry counts as the predicted one: Gram matrices with a cosine of 0.955. The simplex
is farther than that from SELI from R = 5 on, and a simplex of ten classes that lost one of its nine dimensions too."""
APART = 1.0
"""tr Σ_W / tr Σ_B above which classes are not even apart: early in training every minority classifier turns away from
the mean of all features, and their angles say nothing yet."""
MERGED = 0.5
"""Share of the way from the predicted minority cosine to 1 from which minority classifiers count as merging."""
FILLED = 0.1
"""A direction is filled when it carries this share of the energy that the prediction puts there."""
KEPT = 0.8
"""Share of the predicted dimensions that has to be filled: four classes on a plane (2/3) and five in space (3/4) have
lost rank, ten classes in eight dimensions of nine have not."""

_PREDICTED_ZERO = 1e-6  # share of the largest predicted eigenvalue below which it is a merged direction's rounding
_PREDICTED_MERGED = 1e-3  # 1 − cosine below which the prediction itself has merged the minorities


@dataclass(frozen=True)
class Merging:
    """How far minority classifiers have merged.

    Attributes
    ----------
    cosine, predicted : float
        Mean cosine over pairs of minority classifiers, measured and in the target geometry.
    share : float
        (cosine − predicted)/(1 − predicted): 0 as predicted, 1 merged into one. Where the prediction has merged
        them itself (a ridge beyond its threshold), the cosine.
    apart : bool
        Whether classes are apart (tr Σ_W / tr Σ_B at most 1), so that it means something.
    advice : str
        What to do about it, in one clause.
    """

    cosine: float
    predicted: float
    share: float
    apart: bool
    advice: str

    def __str__(self) -> str:
        return f"mean minority cosine {self.cosine:.2f} where {self.predicted:.2f} is predicted"


@dataclass(frozen=True)
class Verdict:
    """What a measurement amounts to.

    Attributes
    ----------
    kind : str
        "healthy collapse", "minority collapse", "dimensional collapse", "not collapsed" or "unknown".
    sentences : tuple of str
        Why, in plain words with the numbers.
    nc1 : float or None
        tr Σ_W / tr Σ_B.
    distances : pair of float or None
        D_W and D_M to the main target.
    dimensions, expected_dimensions : int or None
        Directions filled by classifiers or class means (the fewer), and those that the prediction fills.
    effective_rank, expected_effective_rank : float or None
        Of the class means, measured and predicted.
    merging : Merging or None
        None with fewer than two minority classes.
    """

    kind: str
    sentences: tuple[str, ...]
    nc1: float | None = None
    distances: tuple[float | None, float | None] = (None, None)
    dimensions: int | None = None
    expected_dimensions: int | None = None
    effective_rank: float | None = None
    expected_effective_rank: float | None = None
    merging: Merging | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {' '.join(self.sentences)}"

    def scalars(self) -> dict[str, float]:
        """`nc/merging` and `nc/dimensions` (share of the expected ones), NaN where they are not defined."""
        kept = (float("nan") if self.dimensions is None or not self.expected_dimensions
                else self.dimensions / self.expected_dimensions)
        return {"nc/merging": float("nan") if self.merging is None else self.merging.share, "nc/dimensions": kept}


def judge(measurement: Measurement) -> Verdict:
    """Tell healthy collapse from minority collapse, dimensional collapse and none.

    Everything is held against the main target of the measurement, class means centred alike.

    Parameters
    ----------
    measurement : Measurement
        With a head, a sample of every class and a target.

    Returns
    -------
    Verdict
        Kind "unknown", with the reason, where one of those is missing.

    Raises
    ------
    InvalidInput
        Anything but a Measurement, such as its `to_dict()`.

    References
    ----------
    papyan2020; fang2021; thrampoulidis2022.

    Examples
    --------
    >>> from neuralcollapse.measure import measure
    >>> from neuralcollapse.predict import predict
    >>> W, M = predict([10, 10, 1, 1]).factors(d=6, seed=0)
    >>> labels = np.repeat([0, 1, 2, 3], [10, 10, 1, 1])
    >>> judge(measure(M[labels], labels, W)).kind
    'healthy collapse'
    >>> W[2:] = W[2:].mean(0)
    >>> print(judge(measure(M[labels], labels, W)))
    minority collapse: Minority classifiers share one direction: mean minority cosine 1.00 where 0.08 is predicted. ...
    """
    if not isinstance(measurement, Measurement):
        raise InvalidInput(f"measurement must be what measure or measure_model gave, got {type(measurement).__name__}")
    why = _unknown(measurement)
    if why is not None:
        return Verdict(UNKNOWN, (why,))
    measured, values = measurement.measured, measurement.to_dict()
    target = measured.targets[measurement.target]
    merged = merging(measurement)
    few = merged is not None and merged.share >= MERGED and merged.apart
    whole = _fullness(measurement, target, np.ones(measured.k, dtype=bool))
    nc1, distances = values["nc1"]["trace"], values["distance"]
    verdict = Verdict(
        UNKNOWN, (), nc1, (distances["classifiers"], distances["embeddings"]), whole.filled, whole.expected,
        values["nc1"]["effective_rank"], number(effective_rank(_spectrum(target.embeddings))), merged)
    # Merged minorities share directions. Whether more was lost than that, the majority classes tell.
    lost = _fullness(measurement, target, ~measured.minority) if few else whole
    if lost.filled < KEPT * lost.expected and (nc1 is None or nc1 <= COLLAPSED):
        return _as(verdict, DIMENSIONAL, _lost(verdict, whole, measured.means.shape[1]))
    if few:
        assert merged is not None
        return _as(verdict, MINORITY, f"Minority classifiers share one direction: {merged}.",
                   f"{merged.advice[0].upper()}{merged.advice[1:]}.")
    return _collapse_or_none(verdict, measurement.target)


def merging(measurement: Measurement) -> Merging | None:
    """How far minority classifiers are from their predicted cosine, towards one shared direction.

    None without a head or target, with fewer than two minority classes, or with a classifier that is zero.
    """
    measured = measurement.measured
    target = measured.targets.get(measurement.target)
    cosine = measurement.to_dict()["cosines"]["classifiers"]["minority_minority"]
    if target is None or cosine is None:
        return None
    predicted = _mean_cosine(target.classifiers, measured.minority)
    if np.isnan(predicted):
        return None
    apart = 1 - predicted
    share = cosine if apart < _PREDICTED_MERGED else (cosine - predicted) / apart
    spread = measurement.to_dict()["nc1"]["trace"]
    return Merging(float(cosine), predicted, float(share), spread is None or spread <= APART, _advice(target))


def _unknown(measurement: Measurement) -> str | None:
    measured = measurement.measured
    absent = int((measured.seen == 0).sum())
    if measured.weight is None:
        return "There is no head to judge."
    if absent:
        return f"{absent} of {measured.k} classes have no sample."
    return None if measured.targets else "There is no target to hold it against."


def _collapse_or_none(verdict: Verdict, target: str) -> Verdict:
    nc1, (to_classifiers, to_means) = verdict.nc1, verdict.distances
    if nc1 is None or to_classifiers is None or to_means is None:
        return _as(verdict, UNKNOWN, "Classifiers, class means or their prediction vanish.")
    places = f"D_W = {to_classifiers:.2g} and D_M = {to_means:.2g} from {target}"
    if nc1 > COLLAPSED:
        return _as(verdict, NOT_COLLAPSED, f"Samples still spread about their class means (NC1 = {nc1:.2g}, collapsed "
                   f"below {COLLAPSED:g}); {places}.")
    if max(to_classifiers, to_means) > NEAR:
        return _as(verdict, NOT_COLLAPSED, f"Samples have gathered at their class means (NC1 = {nc1:.2g}), but those "
                   f"are not in the predicted geometry: {places} (near below {NEAR:g}).")
    return _as(verdict, HEALTHY, f"Samples have gathered at their class means (NC1 = {nc1:.2g}) and the geometry is "
               f"the predicted one: {places}, {verdict.dimensions} of {verdict.expected_dimensions} dimensions filled.")


def _lost(verdict: Verdict, whole: _Fullness, d: int) -> str:
    narrow = f" (the features have {d})" if d < whole.expected else ""
    return (f"{whole.part} fill {whole.filled} of {whole.expected} predicted dimensions{narrow}; the effective rank "
            f"of the class means is {verdict.effective_rank or 0:.1f} where {verdict.expected_effective_rank or 0:.1f} "
            "is predicted.")


def _as(verdict: Verdict, kind: str, *sentences: str) -> Verdict:
    return Verdict(**{**vars(verdict), "kind": kind, "sentences": sentences})


def _advice(target: Geometry) -> str:
    """Which weight decay lets the minorities merge, where theory knows it."""
    ridge = target.find_thresholds(False).get("minority_collapse")
    if ridge is None:
        return "lower the weight decay, weigh minority classes more, or train longer"
    counts: ClassCounts = target.counts
    return (f"theory merges classes from λ = {ridge:.3g} on, a weight decay of {ridge / counts.n:.2g} on head and "
            f"features with a mean loss over {plain_number(counts.n)} samples: go below it, or weigh minority classes "
            "more")


# -- spectra, classifiers and class means about their prediction -------------------------------------


class _Fullness(NamedTuple):
    """How many of the directions that the prediction fills are filled."""

    part: str
    filled: int
    expected: int


def _fullness(measurement: Measurement, target: Geometry, among: Bool[np.ndarray, " k"]) -> _Fullness:
    """Of classifiers and class means of some classes, the emptier."""
    measured = measurement.measured
    parts = []
    for part, gram, factor in (("Class means", target.embeddings, measured.centred_means),
                               ("Classifiers", target.classifiers, measured.weight)):
        assert factor is not None
        predicted = _spectrum(gram, among)
        have = BetweenSpectrum.of(factor[among]).values[::-1] if factor[among].any() else np.zeros(0)
        parts.append(_Fullness(part, _filled(have, predicted), predicted.size))
    return min(parts, key=lambda part: part.filled / max(part.expected, 1))


def _filled(have: Float[np.ndarray, " r"], predicted: Float[np.ndarray, " s"]) -> int:
    """How many predicted eigenvalues, both descending and of sum 1, the measured ones reach a tenth of."""
    r = min(have.size, predicted.size)
    return int(np.sum(have[:r] / have.sum() >= FILLED * predicted[:r] / predicted.sum())) if r else 0


def _spectrum(gram: Gram, among: Bool[np.ndarray, " k"] | None = None) -> Float[np.ndarray, " r"]:
    """The positive eigenvalues of a predicted Gram over some classes, descending, in O(g³).

    Within a group of s classes, differences of classes are eigenvectors of its diagonal entry (s − 1 times); what is
    constant on groups is diag(a) + √s U S Uᵀ √s.
    """
    index = gram.groups.index if among is None else gram.groups.index[among]
    sizes = np.bincount(index, minlength=gram.groups.sizes.size)
    there = sizes > 0
    sizes, a = sizes[there], gram.diagonal[there]
    basis = np.eye(gram.core.shape[0]) if gram.basis is None else gram.basis
    core = basis[there] @ gram.core @ basis[there].T
    root = np.sqrt(sizes)
    constant = np.linalg.eigvalsh(np.diag(a) + root[:, None] * core * root)
    values = np.sort(np.concatenate([constant, np.repeat(a, sizes - 1)]))[::-1]
    return values[values > _PREDICTED_ZERO * max(values[0], 0.0)]


def _mean_cosine(gram: Gram, among: Bool[np.ndarray, " k"]) -> float:
    """Mean cosine over pairs of some classes, uᵀGu over u = 1/norm without the diagonal; NaN beside a zero vector."""
    norms, few = gram.norms, int(among.sum())
    if few < 2 or not norms[among].all():
        return float("nan")
    unit = np.where(among, 1 / np.where(norms > 0, norms, 1.0), 0.0)
    return float((unit @ (gram @ unit[:, None])[:, 0] - few) / (few * (few - 1)))
