"""A fitted linear classifier of scikit-learn, or anything shaped like one, as a head."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Float, Int, Shaped
import numpy as np

from neuralcollapse.checks import InvalidInput, shown


class FittedHead(NamedTuple):
    """What a fitted classifier says.

    Attributes
    ----------
    weight : (k, d) array
    bias : (k,) array or None
    classes : (k,) array
        The labels it was fitted on, in the order of the rows.
    """

    weight: Float[np.ndarray, "k d"]
    bias: Float[np.ndarray, " k"] | None
    classes: Shaped[np.ndarray, " k"]

    @property
    def names(self) -> list[str]:
        """The classes, as text."""
        return [str(name) for name in self.classes.tolist()]

    def rows_of(self, labels: Any) -> Int[np.ndarray, " n"]:
        """The rows that labels stand for; InvalidInput names the first label that is none of the classes."""
        given = np.asarray(labels)
        if given.ndim != 1 or given.size == 0:
            raise InvalidInput(f"labels must be a vector of at least one class, got shape {given.shape}")
        found, inverse = np.unique(given, return_inverse=True)
        known = {name: row for row, name in enumerate(self.classes.tolist())}
        rows = np.array([known.get(name, -1) for name in found.tolist()])[inverse]
        if (rows < 0).any():
            first = int(np.argmax(rows < 0))
            raise InvalidInput(f"labels must be among the classes of the fitted classifier "
                               f"({shown(', '.join(self.names))}), got {shown(given[first])} at position {first}")
        return rows


def is_estimator(value: Any) -> bool:
    """Whether `value` is a classifier rather than an array."""
    return hasattr(value, "fit") and hasattr(value, "predict")


def fitted_head(classifier: Any) -> FittedHead:
    """The head of a fitted classifier with `coef_`, `classes_` and, where it has one, `intercept_`.

    Two classes have one row w and one offset b there, with the decision wᵀh + b > 0. As a head that is the rows
    (−w/2, +w/2) and the bias (−b/2, +b/2): their difference is the same, and their softmax is exactly the sigmoid.

    Raises
    ------
    InvalidInput
        A classifier that is not fitted, or not linear with one row per class.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> fitted = LogisticRegression().fit([[0., 0], [0, 1], [1, 0], [1, 1]], ["no", "no", "yes", "yes"])
    >>> head = fitted_head(fitted)
    >>> head.weight.shape, head.names, head.rows_of(["yes", "no"]).tolist()
    ((2, 2), ['no', 'yes'], [1, 0])
    """
    kind = type(classifier).__name__
    if not hasattr(classifier, "classes_"):
        raise InvalidInput(f"the classifier must be fitted first, got a {kind} without classes_")
    if not hasattr(classifier, "coef_"):
        raise InvalidInput(f"the classifier must be linear, with coef_, got a fitted {kind} without")
    coef = classifier.coef_.toarray() if hasattr(classifier.coef_, "toarray") else np.asarray(classifier.coef_)
    weight = np.atleast_2d(coef).astype(np.float64)
    bias = np.broadcast_to(np.asarray(getattr(classifier, "intercept_", 0.0), dtype=np.float64), weight.shape[:1])
    classes = np.asarray(classifier.classes_)
    if classes.size == 2 and len(weight) == 1:
        sides = np.array([-0.5, 0.5])
        weight, bias = sides[:, None] * weight, sides * bias
    # A kernel machine decides between pairs, and three classes have just as many pairs.
    if len(weight) != classes.size or (classes.size > 2 and hasattr(classifier, "support_vectors_")):
        raise InvalidInput(f"the classifier must have one row of coef_ per class, got a {kind} with {len(weight)} rows "
                           f"of {'pairs of ' if hasattr(classifier, 'support_vectors_') else ''}{classes.size} classes")
    return FittedHead(weight, np.array(bias) if bias.any() else None, classes)
