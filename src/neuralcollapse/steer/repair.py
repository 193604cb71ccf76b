"""Remedies read off the predicted geometry: what imbalance and ridge do to the head is undone, on the frozen features.

The prediction for the training counts gives the logits C of the class means (column c those of class c, the head's bias
included), the norms ν_c of the classifiers, and factors W*, M* of both.

On four small networks (digits and MNIST images, R = 28 to 80, step and long tail) `repair` as it stands gained 2.3 to
13.8 points of balanced accuracy; with τ = 1 it lost 6 to 12: scaling by norms raises minorities already, and equal
margins on top of it take that back. Where a feature penalty set λ, it was told from the logits to within 12 %. `swap`
gained at most 0.5 and lost up to 14: it shows how near a network is to its prediction more than it remedies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
import numpy as np
from scipy.optimize import brentq
import torch
from torch import Tensor

from neuralcollapse.checks import OutsideTheory
from neuralcollapse.predict import Geometry, predict
from neuralcollapse.steer.amounts import finite_number
from neuralcollapse.steer.equal_margins import equal_margins
from neuralcollapse.steer.rules import FittedRule, Trained

_WITHIN = 1e-9  # of the largest logit: what counts as no difference between two of them
_SMALLEST_RIDGE = 1e-6  # of total collapse: offsets change with the logarithm of the ridge only

Prediction = Geometry | Callable[[float | None], Geometry]
"""A geometry, or what gives it at a ridge λ (the loss SUMMED over samples; None for the limit)."""


def predicted_norms(features: Any, labels: Any, weight: Any, bias: Any = None, counts: Any = None, *, tau: float = 1.0,
                    ridge: float | None = None, loss: str = "ce", geometry: Prediction | None = None,
                    **parameters: Any) -> FittedRule:
    """τ-normalisation by the norms that theory predicts: z'_c = (ν̄/ν_c)^τ (w_cᵀh + b_c), ν̄ the mean of ν.

    Unlike measured norms, ν depends on counts, loss and ridge alone. At τ = 1 a head that has the predicted norms ends
    with equal ones.

    Parameters
    ----------
    features, labels, weight, bias, counts
        As in `repair`; features and labels are not read when counts are given.
    tau : float
    ridge : float, optional
        λ = √(λ_W λ_H), the loss SUMMED over samples; the vanishing limit when left out.
    loss, geometry, **parameters
        As in `repair`.

    Returns
    -------
    FittedRule

    Raises
    ------
    InvalidInput
        Parts that do not fit together.
    OutsideTheory
        A prediction in which a classifier is zero.

    References
    ----------
    kang2020; thrampoulidis2022; theory.md §2.

    Examples
    --------
    >>> W, M = predict([10, 10, 1, 1]).factors(d=6, seed=0)
    >>> rule = predicted_norms(None, None, W, counts=[10, 10, 1, 1])
    >>> rule.weight.norm(dim=1).numpy().round(6).tolist()
    [1.257241, 1.257241, 1.257241, 1.257241]
    """
    trained = Trained.of("predicted-norms", features, labels, weight, bias, counts)
    tau = finite_number("tau", tau)
    found = _predicted(trained, geometry, loss, ridge, parameters)
    scale = trained.per_class(_scales(found, tau))
    return trained.rule(trained.weight * scale[:, None], trained.bias * scale, tau=tau, ridge=found.ridge,
                        loss=found.loss)


def repair(features: Any, labels: Any, weight: Any, bias: Any = None, counts: Any = None, *, tau: float = 0.0,
           ridge: float | None = None, loss: str = "ce", geometry: Prediction | None = None,
           **parameters: Any) -> FittedRule:
    """Equal margins, by the prediction: z'_c = s_c (w_cᵀh + b_c) + α β_c with s_c = (ν̄/ν_c)^τ.

    A ridge leaves minorities smaller margins than majorities. The offsets β move the boundaries until all predicted
    margins C'_cc − max_{j≠c} C'_jc, with C' = diag(s)C + β1ᵀ, are one number, and no offsets have a larger smallest one
    (`equal_margins.py`). Between predicted and measured logits stands the scale α = ⟨C, Ĉ⟩/⟨C, C⟩, Ĉ those of the
    measured class means, both centred over classes; 1 on an exact solution, and 1 where no features are given. In the
    vanishing limit margins are equal already: with τ = 0 nothing is changed there.

    Parameters
    ----------
    features : (n, d) array or tensor, or None
        Head inputs of the training part.
    labels : (n,) array or tensor, or None
    weight : (k, d) array, tensor or layer
        The trained head.
    bias : (k,) array or tensor, optional
    counts : ClassCounts or (k,) sequence, optional
        Training samples per class; the labels' own when left out.
    tau : float
        0 leaves classifiers as long as they are; 1 gives predicted classifiers one length first.
    ridge : float, optional
        λ = √(λ_W λ_H), the loss SUMMED over samples; when left out, the λ whose predicted logits are as large as the
        measured ones of the class means (centred over classes, Frobenius norm; features are needed).
    loss, **parameters
        As in `predict`: what the network was trained with.
    geometry : Geometry or function of λ, optional
        The prediction itself, in place of ridge, loss and parameters; or what gives it at a ridge (None for the limit),
        in place of loss and parameters: `VSLoss.geometry`, say.

    Returns
    -------
    FittedRule

    Raises
    ------
    InvalidInput
        Parts that do not fit together, or neither ridge nor features.
    OutsideTheory
        A prediction in which classes have merged or a classifier is zero.

    References
    ----------
    thrampoulidis2022; karp1978; theory.md §4.

    Examples
    --------
    >>> geometry = predict([10, 10, 1, 1], ridge=0.5)
    >>> W, M = geometry.factors()
    >>> z = repair(None, None, W, counts=[10, 10, 1, 1], geometry=geometry).logits(M).T
    >>> [round(float(z[c, c] - max(z[j, c] for j in range(4) if j != c)), 6) for c in range(4)]
    [1.337199, 1.337199, 1.337199, 1.337199]
    """
    trained = Trained.of("repair", features, labels, weight, bias, counts)
    tau = finite_number("tau", tau)
    if ridge is None and not isinstance(geometry, Geometry):
        ridge = _ridge_of_logits(trained, geometry or _predictor(trained, loss, parameters))
    found = _predicted(trained, geometry, loss, ridge, parameters)
    scales = _scales(found, tau)
    logits, which, alone = _by_group(found)
    offsets, margin = equal_margins(logits, alone, scales[found.logits.groups.first])
    if not margin > _WITHIN * np.abs(logits).max():
        raise OutsideTheory("the prediction must keep every two classes apart to be repaired, got merged classes"
                            f"{'' if found.ridge is None else f' at ridge {found.ridge:.4g}'}: no offset parts those; "
                            "give a smaller ridge, or refit the head")
    alpha = 1.0 if trained.given_features is None else _level(trained, found)
    scale = trained.per_class(scales)
    return trained.rule(trained.weight * scale[:, None],
                        trained.bias * scale + alpha * trained.per_class(offsets[which]),
                        tau=tau, ridge=found.ridge, loss=found.loss, alpha=alpha, margin=margin)


def swap(features: Any, labels: Any, weight: Any, bias: Any = None, counts: Any = None, *, ridge: float | None = None,
         loss: str = "ce", geometry: Prediction | None = None, **parameters: Any) -> FittedRule:
    """The predicted head, turned onto the measured class means: z' = γ (W* Q (h − μ_G)/β + W* m̄*).

    Q (r, d) with orthonormal rows and β > 0 are the rotation and scale that bring the predicted class means M* nearest
    to the measured M, both about their means over classes m̄* and μ_G: M*ᵀM = UΣVᵀ, Q = UVᵀ, β = tr Σ/‖M*‖². γ gives
    the new weight the Frobenius norm of the trained one; it changes no decision.

    Parameters
    ----------
    features, labels, weight, bias, counts
        As in `repair`; features and labels are needed, the bias is not read.
    ridge : float, optional
        λ = √(λ_W λ_H), the loss SUMMED over samples; the vanishing limit when left out.
    loss, geometry, **parameters
        As in `repair`.

    Returns
    -------
    FittedRule

    Raises
    ------
    InvalidInput
        Parts that do not fit together, or no features.
    OutsideTheory
        Features of fewer dimensions than the prediction, or a prediction that is zero.

    References
    ----------
    schonemann1966 (the rotation); thrampoulidis2022; theory.md §1–2.

    Examples
    --------
    >>> W, M = predict([3, 3, 1, 1]).factors(d=6, seed=0)
    >>> labels = np.repeat([0, 1, 2, 3], [3, 3, 1, 1])
    >>> bool(np.allclose(swap(5 * M[labels] + 1, labels, W).weight, W))
    True
    """
    trained = Trained.of("swap", features, labels, weight, bias, counts)
    found = _predicted(trained, geometry, loss, ridge, parameters)
    d = trained.weight.shape[1]
    if not 0 < found.rank <= d:
        raise OutsideTheory(f"the predicted head spans {found.rank} dimensions, expected at least 1 and at most the "
                            f"{d} of the features: no rotation brings it there")
    classifiers, means = (torch.from_numpy(side).to(trained.features.device) for side in found.factors())
    origin, predicted_origin = trained.class_means.mean(0), means.mean(0)
    centred = means - predicted_origin
    left, singular, right = torch.linalg.svd(centred.T @ (trained.class_means - origin), full_matrices=False)
    turned = classifiers @ (left @ right) * (centred.square().sum() / singular.sum())
    gamma = trained.weight.norm() / turned.norm()
    return trained.rule(gamma * turned, gamma * (classifiers @ predicted_origin - turned @ origin),
                        ridge=found.ridge, loss=found.loss)


def _predicted(trained: Trained, geometry: Prediction | None, loss: str, ridge: float | None,
               parameters: dict[str, Any]) -> Geometry:
    if geometry is None:
        return _predictor(trained, loss, parameters)(ridge)
    found = geometry if isinstance(geometry, Geometry) else geometry(ridge)
    if found.k != trained.counts.k or not np.array_equal(found.counts.values, trained.counts.values):
        raise OutsideTheory(f"geometry must be predicted for the training counts, {trained.counts}, got one for "
                            f"{found.counts}")
    return found


def _predictor(trained: Trained, loss: str, parameters: dict[str, Any]) -> Callable[[float | None], Geometry]:
    return lambda ridge: predict(trained.counts, loss, ridge=ridge, **parameters)


def _scales(geometry: Geometry, tau: float) -> Float[np.ndarray, " k"]:
    norms = geometry.classifiers.norms
    if not norms.min() > _WITHIN * max(norms.max(), _WITHIN):
        raise OutsideTheory("the prediction must give every class a classifier, got a zero one for class "
                            f"{geometry.counts.names[int(norms.argmin())]}: give a smaller ridge, or refit the head")
    scales: np.ndarray = (norms.mean() / norms) ** tau
    return scales


def _by_group(geometry: Geometry) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits between groups of interchangeable classes, the group of every class, and logits within groups."""
    groups = geometry.logits.groups
    bias = np.zeros(geometry.k) if geometry.bias_values is None else geometry.bias_values
    logits = geometry.logits.block(groups.first, groups.first) + bias[groups.first, None]
    alone = np.full(groups.sizes.size, -np.inf)
    order = np.argsort(groups.index, kind="stable")
    starts = np.cumsum(groups.sizes) - groups.sizes
    for group in np.flatnonzero(groups.sizes > 1):
        pair = order[starts[group]:starts[group] + 2]
        alone[group] = geometry.logits.block(pair[:1], pair[1:])[0, 0] + bias[pair[0]]
    return logits, groups.index, alone


def _level(trained: Trained, geometry: Geometry) -> float:
    """α: how many times the predicted logits the measured ones are."""
    predicted = geometry.logits.dense()
    if geometry.bias_values is not None:
        predicted = predicted + geometry.bias_values[:, None]
    predicted = predicted - predicted.mean(0)
    return float((predicted * _measured_logits(trained).numpy()).sum() / (predicted**2).sum())


def _measured_logits(trained: Trained) -> Float[Tensor, "k k"]:
    logits = trained.class_means @ trained.weight.T + trained.bias
    return (logits - logits.mean(1, keepdim=True)).T.cpu()


def _ridge_of_logits(trained: Trained, predictor: Callable[[float], Geometry]) -> float:
    """The λ whose predicted logits are as large as the measured ones: they grow as it falls."""
    target = float(_measured_logits(trained).norm())
    top = predictor(1.0).total_collapse
    if not (target > 0 and np.isfinite(top)):
        raise OutsideTheory(f"the ridge cannot be told from logits of size {target:g} where no ridge collapses all "
                            "classes: give a ridge")

    def excess(log_ridge: float) -> float:
        return float(np.log(max(_size(predictor(float(np.exp(log_ridge)))) / target, 1e-300)))

    low, high = float(np.log(top * _SMALLEST_RIDGE)), float(np.log(top)) - 1e-3
    if excess(low) < 0 or excess(high) > 0:  # measured logits beyond either end
        return float(np.exp(low if excess(low) < 0 else high))
    return float(np.exp(brentq(excess, low, high, xtol=0.01)))


def _size(geometry: Geometry) -> float:
    logits = geometry.logits.dense()
    return float(np.linalg.norm(logits - logits.mean(0)))
