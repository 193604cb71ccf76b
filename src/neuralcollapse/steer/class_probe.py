"""What frozen features can tell apart, class by class: a balanced linear probe; and `rescue` from features alone."""

from __future__ import annotations

from typing import Any
import warnings

from jaxtyping import Float, Int
import numpy as np
import torch

from neuralcollapse.checks import InvalidInput, NotConverged, as_array, check_labels
from neuralcollapse.counts import ClassCounts
from neuralcollapse.measure.arrays import check_head
from neuralcollapse.measure.decisions import Head
from neuralcollapse.predict import Geometry, predict
from neuralcollapse.steer.amounts import array_of, positive, positive_or_none, whole
from neuralcollapse.steer.rescue import ClassVerdict, rescue

MARGIN_QUANTILE = 0.1
"""The quantile of a class's held-out margins that stands for it."""

_STEPS = 2000


def probe_recall(features: Any, labels: Any, *, held_out: tuple[Any, Any] | None = None, classes: int | None = None,
                 folds: int = 5, regularisation: float = 1.0, seed: int = 0) -> Float[np.ndarray, " k"]:
    """Recall per class of a class-balanced linear probe on frozen features, on samples that it was not fitted to.

        min over W, b of Σ_c (n/(k n_c)) Σ_{y_i=c} CE(W x_i + b, c) + 1/(2C)‖W‖²

    a SUM over samples, x_i the features shifted and divided by one number: to mean 0 and mean square norm d.

    Parameters
    ----------
    features : (n, d) array or tensor
    labels : (n,) whole numbers
    held_out : pair of (m, d) and (m,) arrays, optional
        Features and labels to score on. Without them the n samples are cross-validated: each class is dealt out to
        the folds, and a class of one sample, which is always fitted to, has recall NaN.
    classes : int, optional
        k; largest label + 1 when left out.
    folds : int
        At least 2.
    regularisation : float
        C > 0.
    seed : int
        Of the deal.

    Returns
    -------
    (k,) float64 array
        NaN for a class without a scored sample or without one to fit to.

    Raises
    ------
    InvalidInput
        Features and labels that do not fit together, fewer than two classes, folds < 2, a C that is not positive, a
        seed below 0.

    References
    ----------
    kang2020; pedregosa2011 (the solver).

    Examples
    --------
    >>> features = np.repeat(np.eye(3), [20, 20, 2], axis=0) + 0.01 * np.arange(42)[:, None] % 0.05
    >>> probe_recall(features, np.repeat([0, 1, 2], [20, 20, 2])).tolist()
    [1.0, 1.0, 1.0]
    """
    classes = None if classes is None else whole("classes", classes, 2)
    folds, seed = whole("folds", folds, 2), whole("seed", seed, 0)
    regularisation = positive("regularisation", regularisation)
    x, y = _samples("features", features, labels, classes)
    k = int(y.max()) + 1 if classes is None else classes
    if np.unique(y).size < 2:
        raise InvalidInput(f"a probe needs samples of at least two classes, got class {int(y[0])} only")
    if held_out is not None:
        other_x, other_y = _samples("held-out features", *held_out, classes=k)
        if other_x.shape[1] != x.shape[1]:
            raise InvalidInput(f"held-out features must have {x.shape[1]} columns, as those the probe is fitted to, "
                               f"got {other_x.shape[1]}")
        right = _decide(x, y, other_x, regularisation) == other_y
        return _share(right, other_y, np.isin(np.arange(k), y), k)
    fold = _deal(y, folds, seed)
    right = np.zeros(y.size, dtype=bool)
    for each in range(folds):
        out = fold == each
        if out.any():
            right[out] = _decide(x[~out], y[~out], x[out], regularisation) == y[out]
    return _share(right[fold >= 0], y[fold >= 0], np.ones(k, dtype=bool), k)


def rescue_features(train: tuple[Any, Any], held_out: tuple[Any, Any], weight: Any, bias: Any = None, *,
                    counts: Any = None, geometry: Geometry | None = None, ridge: float | None = None,
                    probe: Any = None, **options: Any) -> list[ClassVerdict]:
    """`rescue` of a network, from its frozen features on training and held-out samples.

    Parameters
    ----------
    train, held_out : pairs of (n, d) features and (n,) labels
        Class means and the probe are those of `train`; recalls, margins and confusions of `held_out`.
    weight, bias : (k, d), (k,) arrays or tensors
        The head.
    counts : ClassCounts, optional
        Training counts; counted from the labels of `train` when left out.
    geometry : Geometry, optional
        What the loss in use leads to; that of cross-entropy at `ridge` when left out.
    ridge : float, optional
        λ with the loss SUMMED over samples; the limit λ → 0 when left out.
    probe : (k,) array, optional
        The probe's recalls, where they are known already.
    **options
        `merging`, `feature_penalty` and `level` of `rescue`.

    Returns
    -------
    list of ClassVerdict

    Raises
    ------
    InvalidInput
        Arrays that do not fit together; a geometry and a ridge.

    References
    ----------
    kang2020; theory.md §4.

    Examples
    --------
    >>> W, M = predict([50, 50, 5]).factors(d=4, seed=0)
    >>> train, test = np.repeat([0, 1, 2], [50, 50, 5]), np.repeat([0, 1, 2], 20)
    >>> noise = np.random.default_rng(0).standard_normal
    >>> found = rescue_features((M[train] + 0.01 * noise((105, 4)), train), (M[test] + 0.01 * noise((60, 4)), test), W)
    >>> [verdict.kind for verdict in found]
    ['safe', 'safe', 'safe']
    """
    ridge = positive_or_none("ridge", ridge)
    if geometry is not None and ridge is not None:
        raise InvalidInput(f"give the geometry at its ridge, or a ridge for cross-entropy, not both, got both (ridge "
                           f"{ridge:g})")
    head = check_head(weight, bias, np.shape(as_array(train[0]))[-1])
    if head is None:
        raise InvalidInput("rescue needs the head, got no weight: give its weight (k, d)")
    k = len(head.weight)
    (x, y), (other_x, other_y) = _samples("features", *train, classes=k), _samples("held-out features", *held_out,
                                                                                   classes=k)
    profile = ClassCounts.from_labels(y, k) if counts is None else ClassCounts.from_counts(counts)
    decided = Head(head.weight.double().cpu(), None if head.bias is None else head.bias.double().cpu()).decide(
        torch.from_numpy(other_x), torch.from_numpy(other_y))
    confusions = np.bincount(other_y * k + decided.classes.numpy(), minlength=k * k).reshape(k, k)
    if probe is None:
        probe = probe_recall(x, y, held_out=(other_x, other_y), classes=k)
    return rescue(profile, head.weight.double().cpu().numpy(), _class_means(x, y, k),
                  geometry=predict(profile, ridge=ridge) if geometry is None else geometry,
                  margins=_quantiles(decided.margins.numpy(), other_y, k), confusions=confusions, probe=probe,
                  **options)


def _decide(x: np.ndarray, y: np.ndarray, other: np.ndarray, regularisation: float) -> Int[np.ndarray, " m"]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    present = np.unique(y)
    if present.size == 1:
        return np.full(len(other), present[0])
    mean = x.mean(0)
    size = np.sqrt(np.mean((x - mean) ** 2))
    scale = 1 / size if size > 0 else 1.0
    model = LogisticRegression(C=regularisation, class_weight="balanced", max_iter=_STEPS, tol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said below, in this library's words
        model.fit((x - mean) * scale, y)
    if model.n_iter_.max() >= _STEPS:
        warnings.warn(f"the probe stopped after {_STEPS} steps before it had converged: a smaller regularisation C "
                      "needs fewer", NotConverged, stacklevel=3)
    return np.asarray(model.predict((other - mean) * scale), dtype=np.int64)


def _deal(labels: np.ndarray, folds: int, seed: int) -> Int[np.ndarray, " n"]:
    """The fold of each sample, every class dealt out evenly; −1 for the only sample of a class."""
    shuffled = np.random.default_rng(seed).permutation(labels.size)
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    seen = np.bincount(labels)
    rank = np.arange(labels.size) - (np.cumsum(seen) - seen)[labels[order]]
    fold = np.empty(labels.size, dtype=np.int64)
    # Each class begins at another fold, so that small classes do not all fall into the first ones.
    fold[order] = (rank + labels[order]) % folds
    fold[seen[labels] == 1] = -1
    return fold


def _share(right: np.ndarray, labels: np.ndarray, fitted: np.ndarray, k: int) -> Float[np.ndarray, " k"]:
    seen = np.bincount(labels, minlength=k)
    known = (seen > 0) & fitted
    return np.divide(np.bincount(labels[right], minlength=k), seen, out=np.full(k, np.nan), where=known)


def _quantiles(margins: np.ndarray, labels: np.ndarray, k: int) -> Float[np.ndarray, " k"]:
    order = np.argsort(labels, kind="stable")
    parts = np.split(margins[order], np.cumsum(np.bincount(labels, minlength=k))[:-1])
    # A class without a sample is refused by `rescue`, in its own words.
    return np.array([np.quantile(part, MARGIN_QUANTILE) if part.size else 0.0 for part in parts])


def _class_means(x: np.ndarray, y: np.ndarray, k: int) -> Float[np.ndarray, "k d"]:
    seen = np.bincount(y, minlength=k)
    if (seen == 0).any():
        raise InvalidInput(f"every class needs a training sample, class {int(np.argmin(seen))} has none")
    sums = np.zeros((k, x.shape[1]))
    np.add.at(sums, y, x)
    return sums / seen[:, None]


def _samples(name: str, features: Any, labels: Any, classes: int | None) -> tuple[np.ndarray, np.ndarray]:
    x = array_of(name, features)
    y = check_labels(labels, classes)
    if x.ndim != 2 or len(x) != len(y):
        raise InvalidInput(f"{name} must be (n, d) with one row per label, got shape {x.shape} and {len(y)} labels")
    if not np.isfinite(x).all():
        raise InvalidInput(f"{name} must be finite, got NaN or Inf in row {int(np.argmin(np.isfinite(x).all(1)))}")
    return x, y
