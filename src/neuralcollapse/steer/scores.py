"""What a classifier is worth under imbalance: accuracy over samples and over classes, calibration and log-loss.

Recall of class c is the share of its samples that are decided rightly. Overall accuracy averages over samples, balanced
accuracy over classes, majority and minority accuracy over the classes of each kind in the TRAINING counts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Float
import numpy as np
import torch
from torch import Tensor

from neuralcollapse.checks import InvalidInput, check_labels, finite_or_none
from neuralcollapse.counts import ClassCounts
from neuralcollapse.measure.decisions import decide_from_logits

BINS = 15
"""Bins of equal width in which confidence is held against accuracy."""


@dataclass(frozen=True)
class Scores:
    """The scores of one classifier on one set of samples; NaN where no class of that kind was scored.

    Attributes
    ----------
    overall : float
        Share of samples decided rightly; a tie counts as wrong.
    balanced : float
        Mean recall over the classes that have a sample.
    majority, minority : float
        Mean recall over the classes that are majorities, or minorities, in the training counts.
    ece : float
        Expected calibration error Σ_b (|B_b|/n)·|accuracy(B_b) − confidence(B_b)| over 15 bins of the largest
        probability.
    nll : float
        Mean of −ln p_y, in nats.
    """

    overall: float
    balanced: float
    majority: float
    minority: float
    ece: float
    nll: float

    def to_dict(self) -> dict[str, float | None]:
        """The scores as JSON-ready numbers: None in place of NaN and Inf."""
        return {name: finite_or_none(value) for name, value in asdict(self).items()}


def scores(logits: Any, labels: Any, counts: Any) -> Scores:
    """Score logits against labels, majorities and minorities being those of the training counts.

    Parameters
    ----------
    logits : (n, k) array or tensor of floats
        Scored in float64.
    labels : (n,) array or tensor of whole numbers
    counts : ClassCounts or (k,) sequence
        Samples of each class that the classifier was TRAINED on.

    Returns
    -------
    Scores
        Accuracies and calibration error in [0, 1]; log-loss a mean over samples.

    Raises
    ------
    InvalidInput
        Logits that are not (n, k) numbers with one row per label, NaN among them, or a label outside 0 … k−1.

    References
    ----------
    guo2017 (calibration error); theory.md §6.

    Examples
    --------
    >>> found = scores([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [3.0, 0.0, 1.0]], [0, 1, 2], counts=[90, 9, 1])
    >>> round(found.overall, 3), found.majority, found.minority, round(found.nll, 3)
    (0.667, 1.0, 0.5, 0.987)
    """
    profile = ClassCounts.from_counts(counts)
    values = _logits(logits, profile.k)
    index = torch.from_numpy(check_labels(labels, profile.k))
    if len(index) != len(values):
        raise InvalidInput(f"logits and labels must have the same length, got {len(values)} and {len(index)}")
    index = index.to(values.device)
    right = decide_from_logits(values, index).margins > 0
    log_probabilities = torch.log_softmax(values, 1)
    recall = _recall(right.cpu().numpy(), index.cpu().numpy(), profile.k)
    return Scores(float(right.double().mean()), _mean(recall), _mean(recall[~profile.minority]),
                  _mean(recall[profile.minority]), _calibration_error(log_probabilities, right),
                  -float(log_probabilities.gather(1, index[:, None]).mean()))


def _logits(logits: Any, k: int) -> Float[Tensor, "n k"]:
    values = (logits.detach() if isinstance(logits, Tensor) else torch.tensor(np.asarray(logits, np.float64))).double()
    if values.ndim != 2 or values.shape[1] != k or len(values) == 0:
        raise InvalidInput(f"logits must have shape (n, {k}), one column per class of counts, got "
                           f"{tuple(values.shape)}")
    if bool(values.isnan().any()):
        raise InvalidInput(f"logits must not be NaN, got NaN in row {int(values.isnan().any(1).int().argmax())}")
    return values


def _recall(right: np.ndarray, labels: np.ndarray, k: int) -> Float[np.ndarray, " k"]:
    seen = np.bincount(labels, minlength=k)
    return np.divide(np.bincount(labels[right], minlength=k), seen, out=np.full(k, np.nan), where=seen > 0)


def _mean(recall: Float[np.ndarray, " c"]) -> float:
    recall = recall[~np.isnan(recall)]
    return float(recall.mean()) if recall.size else float("nan")


def _calibration_error(log_probabilities: Float[Tensor, "n k"], right: Tensor) -> float:
    confidence = log_probabilities.amax(1).exp()
    # Bins are open below and closed above: certainty belongs to the last one.
    which = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    excess = torch.zeros(BINS, dtype=torch.float64, device=confidence.device)
    excess.index_add_(0, which, right.double() - confidence)
    return float(excess.abs().sum()) / len(confidence)
