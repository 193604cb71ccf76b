"""What is predicted: a `Geometry`, and `predict`, which makes one from class counts and a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from jaxtyping import Float
import numpy as np

from neuralcollapse.checks import InvalidInput, check_center, did_you_mean, positive_number, whole_number
from neuralcollapse.counts import ClassCounts, plain_number
from neuralcollapse.gram import DiagonalPlusLowRank, Gram
from neuralcollapse.predict.displays import geometry_html, geometry_line
from neuralcollapse.predict.factors import balanced_factors, joint_factors
from neuralcollapse.predict.symmetry import LossParameters
from neuralcollapse.predict.thresholds import no_thresholds
from neuralcollapse.registry import Registry

GEOMETRIES: Registry[Any] = Registry("loss")
"""Every loss whose geometry is known: a function of ClassCounts and the loss's own parameters."""

PARTS = ("classifiers", "embeddings", "logits")
"""The matrices of a geometry, as its attributes and every table of distances name them."""


@dataclass(frozen=True)
class Setting:
    """Where along the ridge a geometry is asked for.

    Attributes
    ----------
    ridge : float or None
        λ = √(λ_W λ_H), the loss summed over samples; None is the limit λ → 0.
    bias_ridge : float or None
        λ_b of the head's bias; 0 is a free bias, None no bias.
    tolerance : float
        Relative duality gap asked of a solver.
    start : object
        A neighbouring solution to start from.
    """

    ridge: float | None = None
    bias_ridge: float | None = None
    tolerance: float = 1e-9
    start: object = None


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
    find_thresholds : callable
        Gives `thresholds` when they are asked for; its argument allows a bisection.
    bias_values : (k,) array or None
        The head's bias b at the optimum.
    point : object
        The solver's own variables, to start a neighbouring solution from.
    balanced : bool
        Whether W and M are the balanced factors of the logits, as ridges on both make them (theory.md §1).
    norm, margin, unique : str, float, bool, or None
        Where a norm was asked for: its name, the largest margin in it (1/objective), and whether no other geometry
        has that margin (`assumes` says which is shown).
    parameters : LossParameters or None
        ω, δ and ι of the cross-entropy whose optimum this is; None for other losses.

    Examples
    --------
    >>> geometry = predict([10, 10, 1, 1])
    >>> geometry.rank, geometry.classifiers.cosines()[2].round(3).tolist()
    (3, [-0.382, -0.382, 1.0, 0.079])
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
    find_thresholds: Callable[[bool], Mapping[str, float | None]] = field(default=no_thresholds, repr=False)
    bias_values: Float[np.ndarray, " k"] | None = None
    point: object = field(default=None, repr=False)
    balanced: bool = True
    norm: str | None = None
    margin: float | None = None
    unique: bool | None = None
    parameters: LossParameters | None = field(default=None, repr=False)

    __repr__, _repr_html_ = geometry_line, geometry_html

    @property
    def k(self) -> int:
        """Number of classes."""
        return self.counts.k

    @cached_property
    def thresholds(self) -> Mapping[str, float | None]:
        """λ of "minority_collapse" (equal classes merge, or a dimension is lost) and of "total_collapse".

        In closed form where theory has it, else the middle of a bracket of relative width 1e-3; None where there is
        none or it is unknown.
        """
        return self.find_thresholds(True)

    @cached_property
    def total_collapse(self) -> float:
        """λ from which every logit but the bias is zero; NaN where it is unknown."""
        total = self.find_thresholds(False)["total_collapse"]
        return float("nan") if total is None else total

    @cached_property
    def _factorised(self) -> tuple[Float[np.ndarray, "k r"], Float[np.ndarray, "k r"]]:
        if self.balanced:
            return balanced_factors(self.logits, self.counts)
        return joint_factors(self.classifiers, self.embeddings, self.logits)

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
            d below the rank, or not a whole number.

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
        d = self.rank if d is None else whole_number("d", d)
        if d < self.rank:
            raise InvalidInput(f"d must be at least the rank of this geometry, {self.rank} for {self.k} classes, "
                               f"got {d}")
        if seed is None:
            frame = np.eye(self.rank, d)
        else:
            gaussian = np.random.default_rng(seed).standard_normal((d, self.rank))
            frame = np.linalg.qr(gaussian)[0].T
        return classifiers @ frame, means @ frame

    def centred(self, center: str) -> Geometry:
        """The same geometry with its class means about μ_G, as a measurement centres its own.

        SELI's class means sum to zero over the classes, so centring on "classes" changes nothing there; a finite
        ridge without a head bias leaves them off centre.

        Parameters
        ----------
        center : str
            "classes" (μ_G the mean of the class means), "samples" (of all samples) or "none".

        Raises
        ------
        InvalidInput
            Another center.
        """
        check_center(center)
        if center == "none":
            return self
        n = self.counts.values
        share = np.full(self.k, 1 / self.k) if center == "classes" else n / n.sum()
        return replace(self, embeddings=self.embeddings.centred(share), logits=self.logits.columns_centred(share))

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
            **({} if self.norm is None else {"norm": self.norm, "margin": self.margin, "unique": self.unique}),
        }


def predict(counts: Any, loss: str = "ce", *, ridge: float | None = None, bias: bool = False,
            bias_ridge: float | None = None, tolerance: float = 1e-9, norm: str | None = None,
            **parameters: Any) -> Geometry:
    """The geometry that training with `loss` on these class counts leads to, at a ridge or in its vanishing limit.

    Parameters
    ----------
    counts : ClassCounts, sequence of k positive numbers, or text such as "10,10,1,1"
    loss : str
        A registered name: "ce" (also "seli"), "weighted", "la", "ldt", "cdt", "vs", "mse", "relu-ce", "scl", "etf".
    ridge : float, optional
        λ = √(λ_W λ_H) > 0 with the loss SUMMED over samples (`ridge_from_weight_decay` converts a mean loss);
        the limit λ → 0 when left out.
    bias : bool
        Whether the head has a bias (finite ridge only).
    bias_ridge : float, optional
        λ_b > 0 of λ_b/2‖b‖²; a bias without it is free.
    tolerance : float
        Relative duality gap asked of the solver; NotConverged is warned, and the gap returned, when it is missed.
    norm : str, optional
        "nuclear" (gradient descent), "spectral" (Muon) or "max" (Adam): the geometry of the largest margin in it, for
        the cross-entropy family without ridge (`norms.py`).
    **parameters
        The loss's own: `weight` ω, `delta` δ, `temperature` ("label" or "class"), `iota` ι; (k,) each.

    Returns
    -------
    Geometry

    Raises
    ------
    InvalidInput
        Unknown loss, a parameter the loss does not take or lacks, a vector of the wrong length or sign, a ridge ≤ 0.
    OutsideTheory
        A bias or ridge where no theorem covers it, with what is covered.

    References
    ----------
    thrampoulidis2022, Theorem 1; behnia2023; theory.md §2–3.

    Examples
    --------
    >>> geometry = predict([10, 10, 1, 1])
    >>> geometry.classifiers.norms.round(3).tolist()
    [1.472, 1.472, 1.042, 1.042]
    >>> at_decay = predict([10, 10, 1, 1], ridge=0.5)
    >>> at_decay.gap < 1e-9, at_decay.thresholds
    (True, {'minority_collapse': 1.0, 'total_collapse': 3.16...})
    """
    at = Setting(None if ridge is None else positive_number("ridge", ridge), _bias_setting(bias, bias_ridge), tolerance)
    if norm is None:
        return geometry_at(ClassCounts.from_counts(counts), loss, at, parameters)
    from neuralcollapse.predict.norms import geometry_in_norm  # it stands on this module

    return geometry_in_norm(ClassCounts.from_counts(counts), loss, norm, at, parameters)


def geometry_at(counts: ClassCounts, loss: str, at: Setting, parameters: Mapping[str, Any]) -> Geometry:
    """`predict` with its setting made: parameters are checked against what the loss takes."""
    entry = GEOMETRIES[loss]
    known = {name: p for name, p in entry.parameters.items() if name not in ("counts", "at")}
    given = {name: value for name, value in parameters.items() if value is not None}
    for name in given:
        if name not in known:
            takes = did_you_mean(name, known) if known else "it takes none"
            raise InvalidInput(f"loss '{loss}' takes no {name}: {takes}")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in given:
            raise InvalidInput(f"loss '{loss}' needs {name}, one positive number per class")
    geometry: Geometry = entry.function(counts, at, **given)
    return geometry


def _bias_setting(bias: bool, bias_ridge: float | None) -> float | None:
    if bias_ridge is None:
        return 0.0 if bias else None
    if not bias:
        raise InvalidInput(f"bias_ridge was given without a bias, got {bias_ridge}: ask for a bias too")
    return positive_number("bias_ridge", bias_ridge)


def _gram_to_dict(gram: Gram, listed: bool) -> dict[str, Any]:
    table: dict[str, Any] = {"norms": gram.norms.tolist()}
    if listed:
        cosines = gram.cosines()
        table["cosines"] = [[None if np.isnan(value) else value for value in row] for row in cosines.tolist()]
        table["gram"] = gram.unit().dense().tolist()
    return table
