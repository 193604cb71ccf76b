"""What the numbers of a run mean, in plain sentences.

Each function below says one thing, or nothing when the numbers for it are missing. The direction of every
comparison follows from the numbers; where a run is far from what theory predicts, the sentence says so.
"""

from __future__ import annotations

from dataclasses import dataclass
import shlex

import numpy as np

from neuralcollapse.checks import counted
from neuralcollapse.show.facts import (
    accuracy_gap,
    lengths,
    measured_cosine,
    norm_spread,
    predicted_cosine,
    still_falling,
)
from neuralcollapse.show.palette import in_a_sentence
from neuralcollapse.show.reading import PARTS, Reading, RunLike
from neuralcollapse.show.tables import planned
from neuralcollapse.show.wording import cosine, degrees, number, percent, ratio

_TRAINED = 0.999  # training accuracy from which the terminal phase has begun
_SAME = 1e-6
_MATCHES, _CLOSE, _FAR = 0.05, 0.15, 0.5  # distances from which words change; √2 is no resemblance
_REACHED = 1.1  # times the distance that the own weight decay leaves: no further
_ALIKE = 1.03  # norms within 3 % are called equal


@dataclass(frozen=True)
class Sentence:
    """One statement about a run, with the word it is filed under."""

    topic: str
    text: str


def verdict(run: RunLike | Reading) -> list[Sentence]:
    """What a run shows, most important first.

    Parameters
    ----------
    run : RunLike
        A run folder opened with `Run.open`, finished or not.

    Returns
    -------
    list of Sentence
        One sentence alone when nothing has been measured yet.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from neuralcollapse import TrainConfig, train
    >>> with TemporaryDirectory() as folder:
    ...     run = train(TrainConfig(epochs=2, threads=1, model_options={"width": 8}), f"{folder}/run")
    ...     [sentence.topic for sentence in verdict(run)][:2]
    ['Geometry', 'Classifiers']
    """
    reading = Reading.of(run)
    if not reading.measured:
        return [Sentence("Status", f"This run {reading.run.state}." if reading.stopped else
                         "No epoch has been measured yet.")]
    found = [("Status", _status(reading)), ("Terminal phase", _terminal(reading)), ("Labels", _labels(reading)),
             ("Geometry", _geometry(reading)), ("Own weight decay", _own_decay(reading)),
             ("Classifiers", _lengths(reading, "classifiers", "classifiers")),
             ("Embeddings", _lengths(reading, "embeddings", "class means of the embeddings")),
             ("Angles", _angles(reading)), ("Collapse", _collapse(reading)), ("Accuracy", _accuracy(reading)),
             ("What to make of it", _advice(reading))]
    return [Sentence(topic, text) for topic, text in found if text]


# -- one statement each -----------------------------------------------------------------------------


def _status(reading: Reading) -> str:
    if reading.finished:
        return ""
    if reading.stopped:
        return (f"This run {reading.run.state} of {planned(reading)}: everything below describes that epoch. It goes "
                f"on with `neuralcollapse train --resume {shlex.quote(str(reading.run.path))}`.")
    return (f"This run has been measured up to epoch {reading.last_epoch} of {planned(reading)}: everything "
            "below describes that epoch and may still change.")


def _terminal(reading: Reading) -> str:
    phase = reading.terminal_phase
    if phase is None:
        return ""
    if phase.zero_error is None:
        return (f"Training error never reached zero in {counted(reading.last_epoch, 'epoch')}, so there was no "
                "terminal phase."
                if reading.finished else "Training error has not been zero yet; the terminal phase begins when it is.")
    start = f"Training error was first zero after epoch {phase.zero_error}; the terminal phase"
    if not reading.finished:
        return f"{start} goes on until epoch {reading.planned_epochs}."
    return f"{start} lasted {counted(reading.last_epoch - phase.zero_error, 'epoch')}."


def _labels(reading: Reading) -> str:
    noise = reading.noisy_labels
    if noise is None:
        return ""
    return (f"{noise.replaced:,} training labels ({percent(noise.replaced / noise.labels)}) were replaced by another "
            "class: counts and predictions follow the labels trained on, test labels are clean.")


def _geometry(reading: Reading) -> str:
    near = _near(reading, reading.target)
    if not near:
        return ""
    name = in_a_sentence(reading.target)
    if reading.counts.balanced:
        name += " (SELI is the same where all classes have the same count)"
    text = f"At epoch {reading.last_epoch} the network {_match(max(near.values()))} {name}: {_away(near)} (0 is a " \
           "perfect match, 1.41 no resemblance)."
    return f"{text} {_against_etf(reading)}".strip()


def _own_decay(reading: Reading) -> str:
    own = reading.own_target
    near = {} if own is None else _near(reading, own)
    if own is None or not near:
        return ""
    return f"The network {_match(max(near.values()))} {in_a_sentence(own)}, that of its own penalties: {_away(near)}."


def _near(reading: Reading, target: str) -> dict[str, float]:
    """Distance by part; none where that of the classifiers is not known."""
    near = {part: value for part, _, _ in PARTS if (value := reading.last_distance(part, target)) is not None}
    return near if "classifiers" in near else {}


def _away(near: dict[str, float]) -> str:
    return _listing([f"the {part} {'are ' if part == 'classifiers' else ''}{number(value, 2)}"
                     f"{' away' if part == 'classifiers' else ''}" for part, value in near.items()])


def _match(distance: float) -> str:
    if distance < _MATCHES:
        return "matches"
    if distance < _CLOSE:
        return "is close to"
    return "has moved towards" if distance < _FAR else "is far from"


def _against_etf(reading: Reading) -> str:
    if len(reading.targets) < 2:
        return ""
    target, other = reading.targets[0], "etf" if "etf" in reading.targets else reading.targets[1]
    one, two = reading.last_distance("classifiers", target), reading.last_distance("classifiers", other)
    first, second = reading.geometry(target), reading.geometry(other)
    if one is None or two is None or first is None or second is None:
        return ""
    apart = first.classifiers.distance_to(second.classifiers)
    name, other_name = in_a_sentence(target), in_a_sentence(other)
    if apart < _SAME:
        return f"For the classifiers {name} and {other_name} are the same."
    if min(one, two) > apart and min(one, two) < _CLOSE:
        return (f"The classifiers of {name} and {other_name} are only {number(apart, 2)} from each other, too near "
                "for this run to tell them apart.")
    if min(one, two) > apart:
        return (f"Its classifiers are farther from {name} ({number(one, 2)}) and from {other_name} "
                f"({number(two, 2)}) than the two are from each other ({number(apart, 2)}): this run follows neither.")
    if max(one, two) <= 1.1 * min(one, two):
        return f"{_capital(other_name)} is about as near ({number(two, 2)} for the classifiers)."
    if one < two:
        how_much = f"{ratio(two / one)} as far ({number(two, 2)})" if one > 0 else f"{number(two, 2)} away"
        return f"{_capital(other_name)} is {how_much} from the classifiers, so {name} describes them better."
    return (f"{_capital(other_name)} is nearer to the classifiers ({number(two, 2)}): the imbalance has not shaped "
            f"them the way {name} predicts.")


def _lengths(reading: Reading, part: str, what: str) -> str:
    if reading.counts.balanced:
        return _equal_lengths(reading, part, what)
    found = lengths(reading, part)
    predicted = found.predicted[reading.target]
    if found.measured is None or predicted is None:
        return ""
    measured_text, predicted_text = _longer(found.measured), _longer(predicted)
    name = in_a_sentence(reading.target)
    start = f"Minority {what} are {measured_text}{'' if _equal(found.measured) else ' than majority ones'}"
    differ = not _equal(found.measured) and not _equal(predicted) and (found.measured > 1) != (predicted > 1)
    how = "the opposite: " if differ else "them " if _equal(predicted) else ""
    return f"{start}; {name} predicts {how}{predicted_text}."


def _equal_lengths(reading: Reading, part: str, what: str) -> str:
    measured = reading.last_per_class("measurement", "norms", part)
    spread = None if measured is None else norm_spread(measured)
    if spread is None:
        return ""
    return f"The longest of the {what} is {ratio(spread)} as long as the shortest; equal lengths are predicted."


def _equal(majority_over_minority: float) -> bool:
    return 1 / _ALIKE <= majority_over_minority <= _ALIKE


def _longer(majority_over_minority: float) -> str:
    if np.isinf(majority_over_minority):
        return "infinitely shorter (their norm is 0)"
    if _equal(majority_over_minority):
        return "as long as majority ones"
    if majority_over_minority > 1:
        return f"{ratio(majority_over_minority)} shorter"
    return f"{ratio(1 / majority_over_minority) if majority_over_minority > 0 else 'infinitely'} longer"


def _angles(reading: Reading) -> str:
    pair = "majority_majority" if reading.counts.balanced else "minority_minority"
    measured = measured_cosine(reading, "classifiers", pair)
    if measured is None:
        return ""
    which = "Two classifiers" if reading.counts.balanced else "Two minority classifiers"
    beside = [f"{in_a_sentence(target)} predicts {degrees(value)}" for target in reading.targets
              if (value := predicted_cosine(reading, target, "classifiers", pair)) is not None]
    text = f"{which} stand at {degrees(measured)} to each other on average (cosine {cosine(measured)})"
    text += f"; {_listing(beside)}." if beside else "."
    if not reading.counts.balanced and measured > 0.95:
        text += " They have all but merged: minority collapse."
    return text


def _collapse(reading: Reading) -> str:
    trace = reading.series("measurement", "nc1", "trace")
    if not np.isfinite(trace[-1]):
        return ""
    spread = float(trace[-1])
    state = ("Classes have collapsed to their means" if spread < 0.01 else
             "Classes are collapsing to their means" if spread < 0.2 else "Classes have not collapsed to their means")
    known = np.flatnonzero(np.isfinite(trace))
    since = f" (it was {percent(float(trace[known[0]]))} at epoch {reading.epochs[known[0]]:.0f})" \
        if known.size > 1 else ""
    text = f"{state}: features vary within classes {percent(spread)} as much as class means do between them{since}."
    disagree = reading.last("measurement", "nc4")
    if disagree is None:
        return text
    return f"{text} The nearest class mean decides like the network on {percent(1 - disagree)} of training samples."


def _accuracy(reading: Reading) -> str:
    overall = reading.last("test", "accuracy")
    if overall is None:
        return ""
    text = f"Test accuracy is {percent(overall)}"
    gap = accuracy_gap(reading)
    if gap is None or reading.counts.balanced:
        return f"{text}."
    text += f": {percent(gap.majority)} on majority and {percent(gap.minority)} on minority classes"
    error = "" if gap.error is None else f" (± {100 * gap.error:.1f}, from the size of the test set)"
    points = f"{100 * abs(gap.value):.1f} points{error}"
    if not gap.clear:
        return f"{text}; the difference of {points} may be chance."
    return f"{text}, a gap of {points}." if gap.value > 0 else f"{text}: minority classes do better by {points}."


def _advice(reading: Reading) -> str:
    return " ".join(text for text in (_trained(reading), _longer_training(reading), _gap_advice(reading)) if text)


def _trained(reading: Reading) -> str:
    accuracy = reading.last("train", "accuracy")
    if accuracy is None or accuracy >= _TRAINED:
        return ""
    return (f"Training accuracy is {percent(accuracy)}. The prediction is for training that goes on after all "
            "training samples are classified correctly, so distances may still fall.")


def _longer_training(reading: Reading) -> str:
    distance = reading.last_distance("classifiers", reading.target)
    falling = still_falling(reading, "classifiers")
    if distance is None or distance < _MATCHES or falling is None or not reading.finished:
        return ""
    own = _limit_of_own_decay(reading)
    if own is not None and distance <= _REACHED * own:
        return (f"The geometry of its own weight decay is itself {number(own, 2)} away from "
                f"{in_a_sentence(reading.target)}: longer training brings it no closer, only a smaller λ does.")
    if falling:
        at_last = "" if own is None or own < _MATCHES else \
            f", up to the {number(own, 2)} that its own weight decay leaves"
        return f"The distance was still falling over the second half of training: more epochs bring it closer{at_last}."
    if reading.counts.balanced:
        return "The distance has stopped falling."
    if reading.expected is not None and reading.expected.at_every_ridge:
        return "The distance has stopped falling."
    return ("The distance has stopped falling. The prediction is the limit of vanishing regularisation, which is "
            "approached only logarithmically: any real weight decay keeps a network short of it.")


def _limit_of_own_decay(reading: Reading) -> float | None:
    """How far the classifiers at the run's own λ are from the prediction; None where that λ is not known."""
    own = None if reading.own_target is None else reading.geometry(reading.own_target)
    if own is None or not own.classifiers.norms.any():
        return None
    return own.classifiers.distance_to(reading.predicted.classifiers)


def _gap_advice(reading: Reading) -> str:
    gap = accuracy_gap(reading)
    if gap is None or reading.counts.balanced or not gap.clear or gap.value <= 0:
        return ""
    if reading.expected is not None and not reading.expected.untempered:
        return ""
    return ("If minority classes matter: class weights and logit offsets leave this limit geometry where it is, while "
            "label- or class-dependent temperatures (LDT, CDT, VS) move it (Behnia et al. 2023); compare with "
            f"`neuralcollapse advise {shlex.quote(str(reading.run.path))}`.")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _listing(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""
