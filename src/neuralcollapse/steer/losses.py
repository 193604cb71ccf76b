"""One loss for imbalanced labels, the vector-scaling family, with the losses of the field as named constructors.

    ℓ_i = ω_y · (1 − p_y)^φ · CE(a, y),   p = softmax(a),

    a = Δ∘z + ι − m_y e_y  (class temperature)   or   a = δ_y·z + ι − m_y e_y  (label temperature)

(kini2021; `theory.md` §3.) Each says which geometry it leads to: `VSLoss.geometry`. The arithmetic is `adjusted.py`'s,
the numbers that counts give are `recipes.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from neuralcollapse.checks import InvalidInput, OutsideTheory, positive_number, positive_vector
from neuralcollapse.predict import Geometry, predict
from neuralcollapse.steer.adjusted import AdjustedCrossEntropy
from neuralcollapse.steer.counting import as_counts
from neuralcollapse.steer.recipes import (
    by_class,
    class_weights,
    count_powers,
    label_margins,
    log_priors,
    normalised,
    not_negative,
)
from neuralcollapse.steer.trainer import TrainerLoss

# The registered loss that takes exactly these parameters; plain cross-entropy takes any.
_PREDICTED: dict[tuple[str, ...], str] = {("weight",): "weighted", ("iota",): "la", ("delta",): "cdt",
                                          ("delta", "iota"): "vs"}


class VSLoss(AdjustedCrossEntropy):
    """Vector-scaling loss: cross-entropy with class weights, temperatures, offsets and margins.

        ℓ_i = ω_y CE(Δ∘z + ι, y)     or, with label temperatures,     ℓ_i = ω_y CE(δ_y z + ι, y)

    It takes the place of `torch.nn.CrossEntropyLoss`. Weights are scaled to Σ_c n_c ω_c = n, and "mean" divides by the
    number of samples, not by their weights: a constant of the data set, so that accumulating the gradients of
    micro-batches of one size gives the gradient of the whole batch. (`CrossEntropyLoss(weight=…)` divides by each
    batch's own Σ ω_y.) Most uses need a named constructor alone: `VSLoss.vs(counts, gamma=0.2, tau=1.0)`.

    Parameters
    ----------
    counts : ClassCounts, (k,) sequence or tensor, text, or mapping of class names to counts
        Training samples per class, in the order of the logits; `class_counts` finds them in a data set.
    weight, delta, iota, margin : (k,) array or mapping by class name, optional
        ω > 0; Δ or δ > 0; ι; m ≥ 0, taken from the label's own logit.
    temperature : str
        "class": Δ_c multiplies logit c of every sample. "label": δ_y multiplies all logits of a sample of class y.
    label_smoothing : float
        ε in [0, 1): the target is (1 − ε) e_y + ε/k, as in `cross_entropy`. Not with label temperatures, margins or
        focus, which are set by one label.
    focal : float
        φ ≥ 0.
    reduction : str
        "mean", "sum" or "none".
    ignore_index : int
        Samples with this label are left out.
    exact : bool
        Residuals that keep their relative precision in the terminal phase (`exact_cross_entropy`).

    Raises
    ------
    InvalidInput
        Counts or vectors that are not one per class, of the wrong sign or by unknown names, an unknown temperature or
        reduction, options that do not go together.

    Notes
    -----
    The parameters are buffers, in float32 unless the loss is moved to float64 (`.double()`), and not part of the state
    dict: a model that owns its loss loads older checkpoints.

    References
    ----------
    kini2021, Eq. 2; behnia2023; theory.md §3.

    Examples
    --------
    >>> import torch
    >>> loss = VSLoss.vs({"cat": 500, "dog": 5}, gamma=0.2, tau=1.0)
    >>> loss
    VSLoss.vs(ClassCounts(500, 5), gamma=0.2, tau=1.0)
    >>> loss(torch.tensor([[2.0, -1.0], [0.5, 0.0]]), torch.tensor([0, 1]))
    tensor(2.5561)
    >>> loss.geometry().classifiers.norms.round(3).tolist()
    [4.245, 1.69]
    """

    constructors: ClassVar[tuple[str, ...]] = ("ce", "weighted", "logit_adjusted", "balanced_softmax", "ldt", "cdt",
                                               "vs", "ldam", "focal")

    def __init__(self, counts: Any, *, weight: Any = None, delta: Any = None, temperature: str = "class",
                 iota: Any = None, margin: Any = None, **options: Any):
        counts = as_counts(counts)
        weight, delta, iota, margin = (by_class(name, values, counts) for name, values in
                                       (("weight", weight), ("delta", delta), ("iota", iota), ("margin", margin)))
        if weight is not None:
            weight = normalised(positive_vector("weight", weight, counts.k), counts)
        super().__init__(counts.k, weight=weight, delta=delta, temperature=temperature, iota=iota, margin=margin,
                         **options)
        self.counts = counts
        given = [f"{name}=…" for name, values in self.vectors.items() if values is not None]
        by_label = ["temperature='label'"] if self.temperature == "label" else []
        self._made = f"{type(self).__name__}({', '.join([str(counts), *given, *by_label])})"

    # -- the losses of the field ----------------------------------------------------------------------------------

    @classmethod
    def ce(cls, counts: Any, **options: Any) -> VSLoss:
        """Plain cross-entropy, −ln softmax(z)_y; `options` are those of `VSLoss`, here as in every constructor."""
        return cls(counts, **options)._named("ce")

    @classmethod
    def weighted(cls, counts: Any, scheme: str = "inverse", beta: float = 0.9999, **options: Any) -> VSLoss:
        """Class-weighted cross-entropy ω_y CE(z, y), by inverse counts or the effective number of samples (cui2019).

        ω_c ∝ 1/n_c   or   ω_c ∝ (1 − β)/(1 − β^{n_c}),   scaled to Σ_c n_c ω_c = n
        """
        counts = as_counts(counts)
        shown_beta = {"beta": beta} if scheme == "effective-number" else {}
        return cls(counts, weight=class_weights(counts, scheme, beta), **options)._named(
            "weighted", scheme=scheme, **shown_beta)

    @classmethod
    def logit_adjusted(cls, counts: Any, tau: float = 1.0, **options: Any) -> VSLoss:
        """Logit adjustment CE(z + τ ln π, y), π_c = n_c/n (menon2021, Eq. 10); τ = 1 is consistent for balanced error.

        The offsets are part of the loss alone: predict with the bare logits.
        """
        counts = as_counts(counts)
        return cls(counts, iota=log_priors(counts, tau), **options)._named("logit_adjusted", tau=tau)

    @classmethod
    def balanced_softmax(cls, counts: Any, **options: Any) -> VSLoss:
        """Balanced softmax −ln(n_y e^{z_y} / Σ_c n_c e^{z_c}) (ren2020, Eq. 4): logit adjustment with τ = 1."""
        counts = as_counts(counts)
        return cls(counts, iota=log_priors(counts), **options)._named("balanced_softmax")

    @classmethod
    def ldt(cls, counts: Any, gamma: float = 0.5, **options: Any) -> VSLoss:
        """Label-dependent temperature CE(δ_y z, y), δ_c = (n_c/n_max)^γ (behnia2023); γ = ½ leads to a simplex ETF."""
        counts = as_counts(counts)
        return cls(counts, delta=count_powers(counts, gamma), temperature="label", **options)._named(
            "ldt", gamma=gamma)

    @classmethod
    def cdt(cls, counts: Any, gamma: float, **options: Any) -> VSLoss:
        """Class-dependent temperature CE(Δ∘z, y), Δ_c = (n_c/n_max)^γ; ye2020 writes z_c/a_c, a_c = (n_max/n_c)^γ."""
        counts = as_counts(counts)
        return cls(counts, delta=count_powers(counts, gamma), **options)._named("cdt", gamma=gamma)

    @classmethod
    def vs(cls, counts: Any, gamma: float, tau: float, **options: Any) -> VSLoss:
        """Vector scaling CE(Δ∘z + ι, y), Δ_c = (n_c/n_max)^γ, ι_c = τ ln(n_c/n) (kini2021)."""
        counts = as_counts(counts)
        return cls(counts, delta=count_powers(counts, gamma), iota=log_priors(counts, tau), **options)._named(
            "vs", gamma=gamma, tau=tau)

    @classmethod
    def ldam(cls, counts: Any, max_margin: float = 0.5, scale: float = 30.0, **options: Any) -> VSLoss:
        """Label-distribution-aware margins CE(s(z − m_y e_y), y), m_c ∝ n_c^{-1/4}, the largest `max_margin` (cao2019).

        The paper gives it cosines for logits, of normalised features and classifiers; s = 30 is for these. Its deferred
        re-weighting is `loss.reweighted()`, used from some late epoch on.
        """
        counts = as_counts(counts)
        scale = positive_number("scale", scale)
        return cls(counts, delta=np.full(counts.k, scale), margin=scale * label_margins(counts, max_margin),
                   **options)._named("ldam", max_margin=max_margin, scale=scale)

    @classmethod
    def focal(cls, counts: Any, gamma: float = 2.0, **options: Any) -> VSLoss:
        """Focal loss −(1 − p_y)^γ ln p_y (lin2017, Eq. 4), averaged over samples; its α_c is `weight`."""
        return cls(counts, focal=not_negative("gamma", gamma), **options)._named("focal", gamma=gamma)

    def reweighted(self, scheme: str = "effective-number", beta: float = 0.9999) -> VSLoss:
        """The same loss with class weights: what cao2019's deferred re-weighting (DRW) changes to late in training.

        Parameters
        ----------
        scheme, beta
            As in `weighted`.
        """
        values = self.vectors | {"weight": class_weights(self.counts, scheme, beta)}
        loss = type(self)(self.counts, temperature=self.temperature, label_smoothing=self.label_smoothing,
                          focal=self.focus, reduction=self.reduction, ignore_index=self.ignore_index, exact=self.exact,
                          **values)
        loss._made = f"{self._made}.reweighted({scheme!r})"
        return loss

    # -- where it leads, and where it is used ---------------------------------------------------------------------

    def geometry(self, ridge: float | None = None, drawn: Any = None, **options: Any) -> Geometry:
        """The geometry this loss leads to, at a ridge or in its vanishing limit.

        Parameters
        ----------
        ridge : float, optional
            λ = √(λ_W λ_H) with the loss SUMMED over samples: the mean loss with ridges λ_W/n, λ_H/n.
        drawn : (k,) numbers, optional
            Samples of each class as a sampler draws them, where not the training counts; with the same sum.
        **options
            `bias`, `bias_ridge`, `tolerance`, `norm` of `predict`.

        Raises
        ------
        OutsideTheory
            Focus or label smoothing; margins at a ridge (their limit is that of any additive offset).

        References
        ----------
        behnia2023; theory.md §3–4.

        Examples
        --------
        >>> loss = VSLoss.ldt([100, 100, 1, 1])
        >>> loss.geometry().classifiers.cosines().round(3).tolist()[0]
        [1.0, -0.333, -0.333, -0.333]
        """
        if self.focus or self.label_smoothing:
            what = "the focal loss" if self.focus else "label smoothing"
            raise OutsideTheory(f"no theorem says where {what} leads when classes are imbalanced: the nearest loss "
                                "that one covers is the same without it")
        if self.margin is not None and (ridge is not None or options.get("norm") is not None):
            raise OutsideTheory("where margins on the label's logit lead is known in the limit of vanishing ridge "
                                "only: leave ridge out, or use VSLoss.vs, whose offsets are covered")
        given: dict[str, Any] = {name: values for name, values in self.vectors.items()
                                 if values is not None and name != "margin"}
        if self.temperature == "label" and "delta" in given:
            given |= {"temperature": "label"} if len(given) > 1 else {}
            name = "ce" if len(given) > 1 else "ldt"
        else:
            name = _PREDICTED.get(tuple(given), "ce")
        return predict(self.counts if drawn is None else as_counts(drawn), name, ridge=ridge, **options, **given)

    def for_trainer(self, *, shift: bool = False) -> Callable[..., Tensor]:
        """The loss as `transformers.Trainer(compute_loss_func=…)` calls it; gradient accumulation is exact.

        Parameters
        ----------
        shift : bool
            The label of a position is that of the position after it, as in causal language models.

        Raises
        ------
        InvalidInput
            A reduction other than "mean".
        """
        if self.reduction != "mean":
            raise InvalidInput(f"the Trainer needs reduction='mean', got '{self.reduction}'")
        return TrainerLoss(self, shift)

    def __repr__(self) -> str:
        plain = {"label_smoothing": 0.0, "reduction": "mean", "ignore_index": -100, "exact": False}
        changed = [f"{name}={getattr(self, name)!r}" for name, value in plain.items() if getattr(self, name) != value]
        if self.focus and ".focal(" not in self._made:
            changed.append(f"focal={self.focus}")
        return self._made if not changed else f"{self._made} with {', '.join(changed)}"

    def _named(self, constructor: str, **arguments: Any) -> VSLoss:
        shown_arguments = [f"{name}={value!r}" for name, value in arguments.items()]
        self._made = f"{type(self).__name__}.{constructor}({', '.join([str(self.counts), *shown_arguments])})"
        return self
