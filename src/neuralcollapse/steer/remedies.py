"""Every remedy against imbalance that training can use: from class counts to the loss (or head), and the line to paste.

A remedy is one function of the counts here; its geometry is the one its loss names (`VSLoss.geometry`), or a frame that
the counts do not move.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from neuralcollapse.checks import InvalidInput, did_you_mean
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import Geometry, predict
from neuralcollapse.registry import Entry, Registry
from neuralcollapse.steer.losses import VSLoss

REMEDIES: Registry[Callable[..., nn.Module]] = Registry("remedy")
"""Every remedy: a function of the class counts and its own parameters that gives a loss or a head.

Option `line` is the call that makes it where `counts` (and the feature dimension `d`) are at hand; `frame` names the
geometry of those whose frame is the same at any counts.
"""


@dataclass(frozen=True)
class Remedy:
    """A registered remedy with its parameters, for some class counts.

    Parameters
    ----------
    name : str
        A name in REMEDIES.
    counts : ClassCounts
    parameters : dict
        Those of the registered function; its defaults stand in for the rest.

    Raises
    ------
    InvalidInput
        An unknown remedy, or a parameter that it does not take.

    Examples
    --------
    >>> remedy = Remedy("vs", ClassCounts([500, 5]), {"gamma": 0.25})
    >>> remedy.line
    'VSLoss.vs(counts, gamma=0.25, tau=1.0)'
    >>> remedy.loss()
    VSLoss.vs(ClassCounts(500, 5), gamma=0.25, tau=1.0)
    """

    name: str
    counts: ClassCounts
    parameters: dict[str, Any]

    def __post_init__(self) -> None:
        known = list(self.entry.parameters)[1:]
        for name in self.parameters:
            if name not in known:
                takes = did_you_mean(name, known) if known else "it takes none"
                raise InvalidInput(f"remedy '{self.name}' takes no {name}: {takes}")
        defaults = {name: parameter.default for name, parameter in list(self.entry.parameters.items())[1:]}
        object.__setattr__(self, "parameters", defaults | self.parameters)

    @property
    def entry(self) -> Entry[Callable[..., nn.Module]]:
        """What is registered under its name."""
        return REMEDIES[self.name]

    @property
    def line(self) -> str:
        """The code that makes it, to paste where `counts` are the training counts."""
        return str(self.entry.options["line"]).format(k=self.counts.k, **self.parameters)

    def loss(self) -> nn.Module:
        """The loss itself; the head, for a remedy that fixes one."""
        return self.entry.function(self.counts, **self.parameters)

    def geometry(self, ridge: float | None = None, **options: Any) -> Geometry:
        """The geometry it leads to, at a ridge (the loss SUMMED over samples) or in the vanishing limit.

        A frame that the counts do not move is given as it is: no ridge on the features moves it either.

        Raises
        ------
        OutsideTheory
            A loss that no theorem covers there.
        """
        frame = self.entry.options.get("frame")
        if frame is not None:
            # Asked for equal counts, it is one group of classes however many different counts there are.
            return replace(predict(np.ones(self.counts.k), frame), counts=self.counts)
        loss = self.loss()
        assert isinstance(loss, VSLoss)
        return loss.geometry(ridge=ridge, **options)

    def merging_parameters(self) -> dict[str, Any] | None:
        """ω and Δ (or δ) that set the ridge at which equal classes merge; None where that is not known."""
        loss = None if "frame" in self.entry.options else self.loss()
        if not isinstance(loss, VSLoss) or loss.focus or loss.label_smoothing or loss.margin is not None:
            return None
        return {name: loss.vectors[name] for name in ("weight", "delta")}


@REMEDIES.register("ce", source="thrampoulidis2022", line="VSLoss.ce(counts)")
def cross_entropy(counts: ClassCounts) -> VSLoss:
    """Plain cross-entropy: SELI, with minority classifiers short and close together."""
    return VSLoss.ce(counts)


@REMEDIES.register("weighted", source="thrampoulidis2022", line="VSLoss.weighted(counts)")
def inverse_weights(counts: ClassCounts) -> VSLoss:
    """Weights by inverse counts: they shift what a ridge does, and leave the limit at SELI."""
    return VSLoss.weighted(counts)


@REMEDIES.register("effective-number", source="cui2019",
                   line="VSLoss.weighted(counts, scheme='effective-number', beta={beta})")
def effective_number(counts: ClassCounts, beta: float = 0.9999) -> VSLoss:
    """Weights by the effective number of samples: between none and inverse counts; the limit stays SELI."""
    return VSLoss.weighted(counts, scheme="effective-number", beta=beta)


@REMEDIES.register("logit-adjusted", source=("menon2021", "ren2020"), aliases=("balanced-softmax",),
                   line="VSLoss.logit_adjusted(counts, tau={tau})")
def logit_adjusted(counts: ClassCounts, tau: float = 1.0) -> VSLoss:
    """Offsets τ ln π_c beside the logits: consistent for the balanced error at τ = 1; the limit stays SELI."""
    return VSLoss.logit_adjusted(counts, tau=tau)


@REMEDIES.register("ldt", source="behnia2023", line="VSLoss.ldt(counts, gamma={gamma})")
def label_temperatures(counts: ClassCounts, gamma: float = 0.5) -> VSLoss:
    """Label temperatures (n_y/n_max)^γ: margins ∝ n_c^(−γ); γ = ½ leads to the simplex as the ridge vanishes."""
    return VSLoss.ldt(counts, gamma=gamma)


@REMEDIES.register("weighted-ldt", source="behnia2023", line="VSLoss.ldt(counts, gamma=0.5).reweighted('inverse')")
def simplex_at_any_ridge(counts: ClassCounts) -> VSLoss:
    """Label temperatures ∝ √n_y with inverse weights: the simplex at every ridge, not in the limit alone."""
    # With B = C diag(δ) the objective is Σ n_c ω_c CE(B_c, c) + λ‖B diag(√n_c/δ_c)‖_*: both factors are constant, so
    # that this is the problem of balanced classes.
    return VSLoss.ldt(counts, gamma=0.5).reweighted("inverse")


@REMEDIES.register("cdt", source=("ye2020", "behnia2023"), line="VSLoss.cdt(counts, gamma={gamma})")
def class_temperatures(counts: ClassCounts, gamma: float = 0.2) -> VSLoss:
    """Class temperatures (n_c/n_max)^γ: minority margins grow, and with them minority classifiers."""
    return VSLoss.cdt(counts, gamma=gamma)


@REMEDIES.register("vs", source=("kini2021", "behnia2023"), line="VSLoss.vs(counts, gamma={gamma}, tau={tau})")
def vector_scaling(counts: ClassCounts, gamma: float = 0.2, tau: float = 1.0) -> VSLoss:
    """Class temperatures (n_c/n_max)^γ for the geometry, offsets τ ln π_c for the way there."""
    return VSLoss.vs(counts, gamma=gamma, tau=tau)


@REMEDIES.register("ldam", source="cao2019", line="VSLoss.ldam(counts, max_margin={max_margin}, scale={scale})")
def label_margins(counts: ClassCounts, max_margin: float = 0.5, scale: float = 30.0) -> VSLoss:
    """Margins ∝ n_y^(−1/4) on the label's logit, for a head of cosines; at s = 1 on a linear head the limit is SELI."""
    return VSLoss.ldam(counts, max_margin=max_margin, scale=scale)


@REMEDIES.register("focal", source="lin2017", line="VSLoss.focal(counts, gamma={gamma})")
def focal(counts: ClassCounts, gamma: float = 2.0) -> VSLoss:
    """Less weight on samples that are decided already; where that leads under imbalance no theorem says."""
    return VSLoss.focal(counts, gamma=gamma)


@REMEDIES.register("etf-head", source="yang2022", line="etf_head({k}, d)", frame="etf")
def etf_head(counts: ClassCounts, d: int | None = None) -> nn.Module:
    """A head fixed at the simplex: with free features every sample faces the same problem, whatever the counts."""
    from neuralcollapse.steer.heads import etf_head as fixed_head

    return fixed_head(counts.k, counts.k if d is None else d)


@REMEDIES.register("scl", source="kini2023", line="SupConLoss(nonnegative=True)", frame="scl")
def contrastive(counts: ClassCounts) -> nn.Module:
    """Supervised contrastive loss on ReLU features: orthogonal class means of one length at any counts."""
    from neuralcollapse.steer.contrastive import SupConLoss

    return SupConLoss(nonnegative=True)


def remedy(name: str, counts: Any, **parameters: Any) -> Remedy:
    """A registered remedy for class counts.

    Parameters
    ----------
    name : str
        A name in REMEDIES.
    counts : ClassCounts or anything it is made from
    **parameters
        The remedy's own.

    Raises
    ------
    InvalidInput
        An unknown remedy or parameter; counts that are none.

    Examples
    --------
    >>> remedy("ldt", [100, 100, 1, 1]).geometry().classifiers.norms.round(3).tolist()
    [2.739, 2.739, 2.739, 2.739]
    """
    return Remedy(name, ClassCounts.from_counts(counts), parameters)

