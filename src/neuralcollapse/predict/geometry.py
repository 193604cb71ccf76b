"""What is predicted: a `Geometry`, and `predict`, which makes one from class counts and a loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jaxtyping import Float
import numpy as np

from neuralcollapse.checks import InvalidInput, OutsideTheory, did_you_mean
from neuralcollapse.counts import ClassCounts, plain_number
from neuralcollapse.gram import DiagonalPlusLowRank, Gram
from neuralcollapse.registry import Registry

GEOMETRIES: Registry[Any] = Registry("loss")
"""Every loss whose geometry is known: a function of ClassCounts and the loss's own parameters."""

_UNKNOWN = {"minority_collapse": None, "total_collapse": None}
_LISTED_BELOW = 200  # classes up to which k × k tables are written unless asked for


@dataclass(frozen=True, eq=False)
class Geometry:
    """The predicted arrangement of classifiers and class-mean embeddings.

    Attributes
    ----------
    counts : ClassCounts
    loss : str
        The registered name it was asked by.
    classifiers : Gram
        G_W, (k, k): inner products of the classifiers w_c.
    embeddings : Gram
        G_M, (k, k): inner products of the class means μ_c.
    logits : DiagonalPlusLowRank
        (k, k): column c holds the logits of class c's samples, WᵀM.
    assumes : str
        What has to hold for the prediction to apply.
    source : tuple of str
        Keys into references.bib.
    ridge : float or None
        λ = √(λ_W λ_H) with the loss summed over samples; None is the limit λ → 0.
    bias : bool
        Whether the head has a bias.
    objective : float or None
        The minimum of the convex problem at this ridge; None for closed forms in the limit.
    gap : float or None
        Certified relative duality gap; None for closed forms.
    thresholds : dict
        λ at which the first group of equal classes collapses and at which all do; None where unknown.
    """

    counts: ClassCounts
    loss: str
    classifiers: Gram
    embeddings: Gram
    logits: DiagonalPlusLowRank
    assumes: str
    source: tuple[str, ...]
    ridge: float | None = None
    bias: bool = False
    objective: float | None = None
    gap: float | None = None
    thresholds: Mapping[str, float | None] = field(default_factory=lambda: dict(_UNKNOWN))

    @property
    def k(self) -> int:
        """Number of classes."""
        return self.counts.k

    @cached_property
    def _factorised(self) -> tuple[Float[np.ndarray, "k r"], Float[np.ndarray, "k r"]]:
        # A = C D^{1/2} = VΛUᵀ gives W = VΛ^{1/2} and M = D^{-1/2}UΛ^{1/2} (theory.md §1), up to one rotation.
        root_counts = np.sqrt(self.counts.values)
        left, singular, right = np.linalg.svd(self.logits.dense() * root_counts)
        r = int(np.sum(singular > singular[0] * self.k * np.finfo(float).eps * 8)) if singular[0] > 0 else 0
        spread = np.sqrt(singular[:r])
        return left[:, :r] * spread, right[:r].T * spread / root_counts[:, None]

    @property
    def rank(self) -> int:
        """Dimension the geometry spans (k − 1 unless classes have merged)."""
        return self._factorised[0].shape[1]

    def factors(self, d: int | None = None, seed: int | None = None
                ) -> tuple[Float[np.ndarray, "k d"], Float[np.ndarray, "k d"]]:
        """Classifiers W and class means M, row by class, that realise the geometry in d dimensions.

        W Wᵀ, M Mᵀ and W Mᵀ are the Grams and logits of this geometry (λ_W = λ_H).

        Parameters
        ----------
        d : int, optional
            Feature dimension, at least the rank; the rank when left out.
        seed : int, optional
            Seed of a random rotation; none when left out.

        Returns
        -------
        W, M : (k, d) float64 arrays

        Raises
        ------
        InvalidInput
            d below the rank.

        References
        ----------
        thrampoulidis2022, Theorem 1; theory.md §1.

        Examples
        --------
        >>> W, M = predict([10, 10, 1, 1]).factors(d=8, seed=0)
        >>> W.shape, bool(np.allclose(W @ M.T, np.eye(4) - 1 / 4))
        ((4, 8), True)
        """
        classifiers, means = self._factorised
        d = self.rank if d is None else d
        if d < self.rank:
            raise InvalidInput(f"d must be at least the rank of this geometry, {self.rank} for {self.k} classes, "
                               f"got {d}")
        if seed is None:
            frame = np.eye(self.rank, d)
        else:
            gaussian = np.random.default_rng(seed).standard_normal((d, self.rank))
            frame = np.linalg.qr(gaussian)[0].T
        return classifiers @ frame, means @ frame

    def to_dict(self, full: bool = False) -> dict[str, Any]:
        """The prediction as JSON-ready numbers, finite or None (the contract of `predict --json`).

        Parameters
        ----------
        full : bool
            Write the k × k tables above 200 classes too.
        """
        listed = full or self.k <= _LISTED_BELOW
        return {
            "counts": [plain_number(n) for n in self.counts.values],
            "loss": self.loss, "ridge": self.ridge, "bias": self.bias,
            "classifiers": _gram_to_dict(self.classifiers, listed),
            "embeddings": _gram_to_dict(self.embeddings, listed),
            **({"logits": self.logits.dense().tolist()} if listed else {}),
            "objective": self.objective, "gap": self.gap, "thresholds": dict(self.thresholds),
        }


def predict(counts: Any, loss: str = "ce", **parameters: Any) -> Geometry:
    """The geometry that training with `loss` on these class counts leads to, in the limit of vanishing ridge.

    Parameters
    ----------
    counts : ClassCounts, sequence of k positive numbers, or text such as "10,10,1,1"
    loss : str
        A registered name: "ce" (SELI; also "seli"), "weighted", "la", "ldt", "cdt", "vs", "etf".
    **parameters
        The loss's own: `weight` ω, `delta` δ, `temperature` ("label" or "class"), `iota` ι; (k,) each.

    Returns
    -------
    Geometry

    Raises
    ------
    InvalidInput
        Unknown loss, a parameter the loss does not take or lacks, a vector of the wrong length or sign.

    References
    ----------
    thrampoulidis2022, Theorem 1; behnia2023; theory.md §2–3.

    Examples
    --------
    >>> geometry = predict([10, 10, 1, 1])
    >>> geometry.classifiers.norms.round(3).tolist()
    [1.472, 1.472, 1.042, 1.042]
    """
    entry = GEOMETRIES[loss]
    known = {name: p for name, p in entry.parameters.items() if name != "counts"}
    given = {name: value for name, value in parameters.items() if value is not None}
    for name in given:
        if name not in known:
            takes = did_you_mean(name, known) if known else "it takes none"
            raise InvalidInput(f"loss '{loss}' takes no {name}: {takes}")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in given:
            raise InvalidInput(f"loss '{loss}' needs {name}, one positive number per class")
    geometry: Geometry = entry.function(ClassCounts.from_counts(counts), **given)
    return geometry


def target_geometry(target: str, counts: ClassCounts) -> Geometry:
    """The geometry that a measurement is held against, from its name.

    Parameters
    ----------
    target : str
        A registered loss without required parameters: "seli", "etf", ….
    counts : ClassCounts

    Raises
    ------
    InvalidInput
        An unknown name, or one that needs parameters.
    """
    try:
        return predict(counts, target)
    except OutsideTheory:
        raise
    except InvalidInput as error:
        raise InvalidInput(f"target must name a geometry, got '{target}': {error}") from None


def _gram_to_dict(gram: Gram, listed: bool) -> dict[str, Any]:
    table: dict[str, Any] = {"norms": gram.norms.tolist()}
    if listed:
        cosines = gram.cosines()
        table["cosines"] = [[None if np.isnan(value) else value for value in row] for row in cosines.tolist()]
        table["gram"] = gram.unit().dense().tolist()
    return table
