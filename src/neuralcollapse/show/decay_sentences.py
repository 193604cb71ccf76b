"""What a run's place along the weight decay means, in plain sentences."""

from __future__ import annotations

import math

from neuralcollapse.predict import CollapseSafety
from neuralcollapse.predict.estimates import RidgeEstimate
from neuralcollapse.show.decay import AlongDecay
from neuralcollapse.show.path_figures import told
from neuralcollapse.show.sentences import Sentence
from neuralcollapse.show.wording import at_ridge, number, ratio

_AGREE = 1.25  # own and nearest λ within this factor agree
_OUTSIDE = 0.15  # distance from which even the nearest geometry is not that of the network
_NAMED = 6


def decay_sentences(found: AlongDecay) -> list[Sentence]:
    """Where the network sits, what its own penalties are, whether the two agree, what merges and what would not."""
    said = [("Where it sits", _nearest(found)), ("Its own penalties", _penalties(found)),
            ("Do they agree?", _agreement(found)), ("Merging classes", _merging(found)),
            ("Largest safe weight decay", _safe(found)), ("Thresholds", _thresholds(found))]
    return [Sentence(topic, text) for topic, text in said if text]


def _nearest(found: AlongDecay) -> str:
    estimate = found.estimate
    if estimate is None:
        return ""
    if _balanced(found):
        return ("With equal counts the geometry is the simplex ETF at every λ, so it does not tell which λ the network "
                f"is at; it is {number(estimate.distance, 2)} away.")
    text = (f"The network is nearest to the geometry at λ {at_ridge(estimate)}, {number(estimate.distance, 2)} "
            f"away; {_within(found, estimate)}.")
    if estimate.distance > _OUTSIDE:
        text += " That is far: no λ describes this network well."
    return text


def _within(found: AlongDecay, estimate: RidgeEstimate) -> str:
    low, high = estimate.interval
    if low <= found.path.ridges[0] * 1.001:
        return f"every λ below it, and up to {number(high)} above, fits as well within 5 %"
    return f"from {number(low)} to {number(high)} the fit is as good within 5 %"


def _penalties(found: AlongDecay) -> str:
    if found.penalties is None:
        return ""
    head, features = found.penalties
    if found.own is not None:
        return (f"With the loss summed over samples its own penalties are λ_W = {_penalty(head)} and λ_H = "
                f"{_penalty(features)}, that is λ = √(λ_W λ_H) = {number(found.own)}.")
    if head == 0 and features == 0:
        return "It has no penalty on head or features: theory's λ is 0, and what it approaches is the limit."
    if head == 0:
        return f"The head has no weight decay (λ_W = 0, λ_H = {_penalty(features)}): theory's λ is 0."
    text = (f"Its head has λ_W = {_penalty(head)} (loss summed over samples), and no penalty acts on the features "
            "(λ_H = 0), so that its own λ is not known: whatever restrains the layers below stands in for it")
    if found.estimate is None:
        return f"{text}."
    return f"{text}. The nearest λ amounts to λ_H = {_penalty(found.estimate.ridge**2 / head)}."


def _agreement(found: AlongDecay) -> str:
    own, estimate = found.own, found.estimate
    if own is None or estimate is None or _balanced(found):
        return ""
    factor = max(own / estimate.ridge, estimate.ridge / own)
    low, high = estimate.interval
    if factor <= _AGREE or low <= own <= high:
        text = "Yes: the network has the geometry that its own penalties predict"
        return f"{text} ({_at_own(found)})." if estimate.distance <= _OUTSIDE else (
            "The two λ agree, but even there the network is far from the prediction: it is outside the model of free "
            f"features ({_at_own(found)}).")
    side = "above" if estimate.ridge > own else "below"
    least = "at least " if not found.path.ridges[0] * 1.01 < estimate.ridge else ""
    text = f"No: the nearest λ is {least}{ratio(factor)} {side} its own ({_at_own(found)}). "
    if estimate.distance > _OUTSIDE:
        return f"{text}As even the nearest geometry is far, the network is outside the model of free features."
    return (f"{text}Either training has not converged yet, or the network is outside the model: its layers restrain "
            "features in other ways than the penalty does.")


def _at_own(found: AlongDecay) -> str:
    if found.at_own is None or math.isnan(found.at_own):
        return "at its own λ nothing but zero is predicted"
    return f"at its own λ the distance is {number(found.at_own, 2)}"


def _merging(found: AlongDecay) -> str:
    safety = found.safety
    if safety is None:
        return ""
    if found.own is not None and found.own >= found.path.events[-1].ridge:
        return (f"At its λ every class vanishes: λ = {number(found.own)} is not below the λ of total collapse, "
                f"{number(found.path.events[-1].ridge)}.")
    if safety.merged:
        groups = "; ".join(_names(group) for group in safety.merged)
        return (f"At its λ these classes must share one classifier and cannot be told apart, whatever the features: "
                f"{groups}.")
    if safety.safe:
        return (f"Its λ merges no classes: the first collapse is at λ = {number(safety.safe_ridge)}, "
                f"{ratio(safety.safe_ridge / safety.ridge)} as large.")
    return f"No two classes have merged, but dimensions are lost from λ = {number(safety.safe_ridge)} on."


def _safe(found: AlongDecay) -> str:
    safety, n = found.safety, found.n
    if safety is None:
        return (f"No class collapses while √(w·p) is below {_penalty(found.first_collapse / n)}, for weight decay w on "
                "the head and penalty p on the features beside a mean loss.")
    return _safe_decay(safety, found.penalties or (0.0, 0.0), n)


def _safe_decay(safety: CollapseSafety, penalties: tuple[float, float], n: float) -> str:
    return (f"With its feature penalty of {_penalty(penalties[1] / n)} any weight decay on the head below "
            f"{_penalty(safety.safe_weight_decay)} is safe; {_penalty(penalties[0] / n)} is in use.")


def _thresholds(found: AlongDecay) -> str:
    unsure = "" if all(event.confirmed for event in found.path.events) else " The solutions do not confirm all of them."
    return f"F{told(found.path.events)[1:]}{unsure}"


def _balanced(found: AlongDecay) -> bool:
    return found.path.geometries[0].counts.balanced


def _names(group: tuple[str, ...]) -> str:
    rest = len(group) - _NAMED
    return ", ".join(group[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _penalty(value: float) -> str:
    """Penalties are small and typed by hand: as many digits as were given, up to three."""
    return f"{value:.3g}"
