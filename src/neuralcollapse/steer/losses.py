"""One loss for imbalanced labels, the vector-scaling family, with the losses of the field as named constructors.

    ℓ_i = ω_y · (1 − p_y)^φ · CE(a, y),   p = softmax(a),

    a = Δ∘z + ι − m_y e_y  (class temperature)   or   a = δ_y·z + ι − m_y e_y  (label temperature)

(kini2021; `theory.md` §3.) Each says which geometry it leads to: `VSLoss.geometry`. The arithmetic is `adjusted.py`'s,
the numbers that counts give are `recipes.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from neuralcollapse.checks import InvalidInput, OutsideTheory, positive_vector
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import Geometry, predict
from neuralcollapse.steer.adjusted import AdjustedCrossEntropy
from neuralcollapse.steer.amounts import flag, not_negative, per_class, positive
from neuralcollapse.steer.recipes import by_class, class_weights, count_powers, label_margins, log_priors, normalised
from neuralcollapse.steer.trainer import TrainerLoss

# The registered loss that takes exactly these parameters; plain cross-entropy takes any.
_PREDICTED: dict[tuple[str, ...], str] = {("weight",): "weighted", ("iota",): "la", ("delta",): "cdt",
                                          ("delta", "iota"): "vs"}
_BETA = 0.9999  # of the effective number, as cao2019 has it


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

    _of_cosines = False
    constructors: ClassVar[tuple[str, ...]] = ("ce", "weighted", "logit_adjusted", "balanced_softmax", "ldt", "cdt",
                                               "vs", "ldam", "focal")

    def __init__(self, counts: Any, *, weight: Any = None, delta: Any = None, temperature: str = "class",
                 iota: Any = None, margin: Any = None, **options: Any):
        counts = ClassCounts.from_counts(counts)
        weight, delta, iota, margin = (by_class(name, values, counts) for name, values in
                                       (("weight", weight), ("delta", delta), ("iota", iota), ("margin", margin)))
        if weight is not None:
            weight = normalised(positive_vector("weight", per_class("weight", weight, counts.k), counts.k), counts)
        super().__init__(counts.k, weight=weight, delta=delta, temperature=temperature, iota=iota, margin=margin,
                         **options)
        self.counts = counts
        listed = self._by_hand(self.vectors | {"temperature": self.temperature})
        self._made = f"{type(self).__name__}({', '.join([str(counts), *listed])})"

    # -- the losses of the field ----------------------------------------------------------------------------------

    @classmethod
    def ce(cls, counts: Any, **options: Any) -> VSLoss:
        """Plain cross-entropy, −ln softmax(z)_y.

        Parameters
        ----------
        counts, **options
            As in `VSLoss`, here as in every constructor; parameters of its own are what its first line names them.

        Raises
        ------
        InvalidInput
            Counts that are none, a γ or τ below 0, another parameter that is not positive, an unknown scheme, an
            option that the constructor sets itself: here as in every constructor.
        """
        return cls._named("ce", counts, options, {})

    @classmethod
    def weighted(cls, counts: Any, scheme: str = "inverse", beta: float = _BETA, **options: Any) -> VSLoss:
        """Class-weighted cross-entropy ω_y CE(z, y), by inverse counts or the effective number of samples (cui2019).

        ω_c ∝ 1/n_c   or   ω_c ∝ (1 − β)/(1 − β^{n_c}),   scaled to Σ_c n_c ω_c = n
        """
        counts = ClassCounts.from_counts(counts)
        weight = class_weights(counts, scheme, beta)
        shown_beta = {"beta": beta} if scheme == "effective-number" else {}
        return cls._named("weighted", counts, options, {"weight": weight}, scheme=scheme, **shown_beta)

    @classmethod
    def logit_adjusted(cls, counts: Any, tau: float = 1.0, **options: Any) -> VSLoss:
        """Logit adjustment CE(z + τ ln π, y), π_c = n_c/n (menon2021, Eq. 10); τ = 1 is consistent for balanced error.

        The offsets are part of the loss alone: predict with the bare logits.
        """
        counts = ClassCounts.from_counts(counts)
        return cls._named("logit_adjusted", counts, options, {"iota": log_priors(counts, tau)}, tau=tau)

    @classmethod
    def balanced_softmax(cls, counts: Any, **options: Any) -> VSLoss:
        """Balanced softmax −ln(n_y e^{z_y} / Σ_c n_c e^{z_c}) (ren2020, Eq. 4): logit adjustment with τ = 1."""
        counts = ClassCounts.from_counts(counts)
        return cls._named("balanced_softmax", counts, options, {"iota": log_priors(counts)})

    @classmethod
    def ldt(cls, counts: Any, gamma: float = 0.5, **options: Any) -> VSLoss:
        """Label-dependent temperature CE(δ_y z, y), δ_c = (n_c/n_max)^γ (behnia2023); γ = ½ leads to a simplex ETF."""
        counts = ClassCounts.from_counts(counts)
        return cls._named("ldt", counts, options, {"delta": count_powers(counts, gamma), "temperature": "label"},
                          gamma=gamma)

    @classmethod
    def cdt(cls, counts: Any, gamma: float, **options: Any) -> VSLoss:
        """Class-dependent temperature CE(Δ∘z, y), Δ_c = (n_c/n_max)^γ; ye2020 writes z_c/a_c, a_c = (n_max/n_c)^γ."""
        counts = ClassCounts.from_counts(counts)
        return cls._named("cdt", counts, options, {"delta": count_powers(counts, gamma)}, gamma=gamma)

    @classmethod
    def vs(cls, counts: Any, gamma: float, tau: float, **options: Any) -> VSLoss:
        """Vector scaling CE(Δ∘z + ι, y), Δ_c = (n_c/n_max)^γ, ι_c = τ ln(n_c/n) (kini2021)."""
        counts = ClassCounts.from_counts(counts)
        return cls._named("vs", counts, options, {"delta": count_powers(counts, gamma),
                                                  "iota": log_priors(counts, tau)}, gamma=gamma, tau=tau)

    @classmethod
    def ldam(cls, counts: Any, max_margin: float = 0.5, scale: float = 30.0, **options: Any) -> VSLoss:
        """Label-distribution-aware margins CE(s(z − m_y e_y), y), m_c ∝ n_c^{-1/4}, the largest `max_margin` (cao2019).

        Its logits are cosines, of normalised features and classifiers (`CosineHead(k, d, scale=1)`), which s spreads;
        with s = 1 they are the bare ones of a linear head. Only there is its geometry known: margins leave the limit of
        cross-entropy, SELI. Deferred re-weighting is `loss.reweighted()`, used from some late epoch on.
        """
        counts = ClassCounts.from_counts(counts)
        s, margin = positive("scale", scale), label_margins(counts, max_margin)
        own = {"margin": margin} if s == 1 else {"delta": np.full(counts.k, s), "margin": s * margin}
        loss = cls._named("ldam", counts, options, own, max_margin=max_margin, scale=scale)
        loss._of_cosines = s != 1
        return loss

    @classmethod
    def focal(cls, counts: Any, gamma: float = 2.0, **options: Any) -> VSLoss:
        """Focal loss −(1 − p_y)^γ ln p_y (lin2017, Eq. 4), averaged over samples; its α_c is `weight`."""
        return cls._named("focal", counts, options, {"focal": not_negative("gamma", gamma)}, gamma=gamma)

    @classmethod
    def auto(cls, counts: Any, goal: str = "balanced accuracy", **options: Any) -> VSLoss:
        """The loss that `advise(counts, goal=goal)` recommends in the limit of vanishing ridge.

        `options` are `label_smoothing`, `reduction`, `ignore_index` and `exact`. A recommendation that is no loss of
        logits (a head, a contrastive loss) is refused in one line.

        Examples
        --------
        >>> VSLoss.auto({"cat": 500, "dog": 5})
        VSLoss.logit_adjusted(ClassCounts(500, 5), tau=1.0)
        """
        from neuralcollapse.steer.advise import advise  # which imports this module
        from neuralcollapse.steer.remedies import Remedy

        counts = ClassCounts.from_counts(counts)
        chosen = advise(counts, goal=goal).recommended
        loss = Remedy(chosen.name, counts, chosen.parameters).loss()
        if not isinstance(loss, VSLoss):
            raise InvalidInput(f"for {goal} no loss of logits is recommended but {chosen.line}: build that, or name a "
                               "constructor of VSLoss")
        own = loss.vectors | {"temperature": loss.temperature, "focal": loss.focus}
        made = cls._named("auto", counts, options, own)
        made._made, made._of_cosines = loss._made, loss._of_cosines
        return made

    def reweighted(self, scheme: str = "effective-number", beta: float = _BETA) -> VSLoss:
        """The same loss with class weights: what cao2019's deferred re-weighting (DRW) changes to late in training.

        Parameters
        ----------
        scheme, beta
            As in `weighted`.
        """
        weight = class_weights(self.counts, scheme, beta)
        loss = deepcopy(self)  # where it is, in which dtype and mode
        loss.vectors["weight"] = weight
        loss._fill()
        shown_beta = f", beta={beta!r}" if scheme == "effective-number" and beta != _BETA else ""
        loss._made = f"{self._made}.reweighted({scheme!r}{shown_beta})"
        return loss

    # -- where it leads, and where it is used ---------------------------------------------------------------------

    def geometry(self, ridge: float | None = None, drawn: Any = None, **options: Any) -> Geometry:
        """The geometry this loss leads to on the logits of a linear head, at a ridge or in its vanishing limit.

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
            Focus or label smoothing; LDAM on cosines (a scale other than 1); margins at a ridge (their limit is that of
            any additive offset).

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
        if self._of_cosines:
            raise OutsideTheory("no theorem says where LDAM leads on cosines, which its scale is for: the nearest loss "
                                "that one covers is VSLoss.ldam(counts, scale=1) on the logits of a linear head")
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
        counts = self.counts if drawn is None else ClassCounts.from_counts(drawn)
        return predict(counts, name, ridge=ridge, **options, **given)

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
        return TrainerLoss(self, flag("shift", shift))

    def __repr__(self) -> str:
        plain = {"label_smoothing": 0.0, "reduction": "mean", "ignore_index": -100, "exact": False}
        changed = [f"{name}={getattr(self, name)!r}" for name, value in plain.items() if getattr(self, name) != value]
        if self.focus and ".focal(" not in self._made:
            changed.append(f"focal={self.focus}")
        return self._made if not changed else f"{self._made} with {', '.join(changed)}"

    @classmethod
    def _named(cls, constructor: str, counts: Any, options: Mapping[str, Any], own: Mapping[str, Any],
               **shown_arguments: Any) -> VSLoss:
        """The loss of a constructor: `own` is what it sets, `options` what came with the call."""
        clash = next((name for name in own if name in options), None)
        if clash is not None:
            raise InvalidInput(f"VSLoss.{constructor} sets {clash} itself: leave it out, or give all parameters to "
                               "VSLoss(counts, ...)")
        loss = cls(counts, **own, **options)
        arguments = [f"{name}={value!r}" for name, value in shown_arguments.items()]
        listed = ", ".join([str(loss.counts), *arguments, *cls._by_hand(options)])
        loss._made = f"{cls.__name__}.{constructor}({listed})"
        return loss

    @staticmethod
    def _by_hand(options: Mapping[str, Any]) -> list[str]:
        """How parameters that were given, not made from counts, are shown."""
        given = [f"{name}=…" for name in ("weight", "delta", "iota", "margin") if options.get(name) is not None]
        return [*given, *(["temperature='label'"] if options.get("temperature") == "label" else [])]
