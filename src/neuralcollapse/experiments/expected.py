"""What a run's settings lead to: loss, head, sampling and bias together, by theory; and where that theory ends.

Oversampling repeats samples until every class is drawn equally often. With the penalty on features a mean over what is
drawn, the objective of the n samples is then that of n/k samples in each class, at the same λ = n√(wp): the loss keeps
its weights, temperatures and offsets, which are those of the training counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
import numpy as np

from neuralcollapse.checks import OutsideTheory
from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.remedied import chosen_remedy
from neuralcollapse.predict import Geometry, predict, target_geometry
from neuralcollapse.steer import Remedy, VSLoss, advise
from neuralcollapse.steer.class_geometry import merging_ridges

LIMIT = "loss"
"""The name of the target that is the limit of a run's own loss."""

_DISTINCT_COUNTS = 40  # up to which the geometry at a ridge is solved within a fraction of a second
_FEW, _BETWEEN = ClassCounts([8, 8, 1, 1]), 0.5  # where it shows whether a ridge moves a geometry
_SAME = 1e-6  # distance below which two geometries are one


@dataclass(frozen=True)
class Expected:
    """What theory expects of a network that was trained with some settings.

    Attributes
    ----------
    remedy : Remedy
        The loss.
    head : str
        "learned", or the frame that the classifiers are fixed in.
    oversampled : bool
        Whether every class is drawn equally often.
    bias : bool
        Whether the head has a bias, which is free.

    Examples
    --------
    >>> found = Expected.of(TrainConfig(loss="ldt"), ClassCounts([100, 100, 1, 1]))
    >>> found.geometry().classifiers.cosines().round(3).tolist()[0]
    [1.0, -0.333, -0.333, -0.333]
    """

    remedy: Remedy
    head: str
    oversampled: bool
    bias: bool

    @classmethod
    def of(cls, config: TrainConfig, counts: ClassCounts) -> Expected:
        """What these settings lead to for these training counts."""
        return cls(chosen_remedy(config, counts), config.head, config.sampling == "oversampled", config.head_bias)

    @property
    def counts(self) -> ClassCounts:
        """Training samples per class."""
        return self.remedy.counts

    @property
    def plain(self) -> bool:
        """Whether this is cross-entropy as it comes: a learned head without bias, every sample once."""
        return self.remedy.name == "ce" and self.head == "learned" and not (self.oversampled or self.bias)

    def geometry(self, ridge: float | None = None) -> Geometry:
        """The geometry at a ridge (the loss SUMMED over samples), or in the vanishing limit.

        A free bias is part of it at a ridge; in the limit, where none is known with a bias, it is that without.

        Parameters
        ----------
        ridge : float, optional

        Raises
        ------
        OutsideTheory
            A loss that no theorem covers, or classifiers fixed in a frame that is not a simplex.

        References
        ----------
        thrampoulidis2022; behnia2023; zhu2021 (the fixed simplex); theory.md §3–5.
        """
        if self.head == "etf" or self.remedy.name == "scl":
            # Orthogonal class means are a simplex about their mean, and so is a head trained on them.
            return replace(predict(np.ones(self.counts.k), "etf"), counts=self.counts)
        if self.head != "learned":
            raise OutsideTheory(f"where class means go is known for classifiers fixed in a simplex, not in "
                                f"'{self.head}': compare with the geometry of a learned head")
        options: dict[str, Any] = {"bias": True} if self.bias and ridge is not None else {}
        if not self.oversampled:
            return self.remedy.geometry(ridge, **options)
        k = self.counts.k
        found = self.remedy.geometry(ridge, drawn=np.full(k, self.counts.n / k), **options)
        # Its factors are not those of the training counts: they are read off the Grams.
        return replace(found, counts=self.counts, balanced=False)

    def in_terms_of_cross_entropy(self) -> tuple[ClassCounts, dict[str, Any]]:
        """Counts as they are drawn and the parameters of "ce" with which `predict` and `ridge_path` give the same.

        Raises
        ------
        OutsideTheory
            A fixed head, a loss of features, focus, smoothing or margins: no parameters stand for these.
        """
        loss = self.remedy.loss()
        if self.head != "learned" or not isinstance(loss, VSLoss) or loss.focus or loss.label_smoothing or \
                loss.margin is not None:
            raise OutsideTheory("the geometry along the ridge is known for the cross-entropies and a learned head, not "
                                f"for {self.remedy.line}")
        given = {name: values for name, values in loss.vectors.items() if values is not None}
        drawn = ClassCounts(np.full(self.counts.k, self.counts.n / self.counts.k)) if self.oversampled else self.counts
        return drawn, {**given, "temperature": loss.temperature, "bias": self.bias}

    def geometry_or_nearest(self, ridge: float | None = None) -> Geometry:
        """`geometry`, or that of cross-entropy where no theorem covers these settings."""
        try:
            return self.geometry(ridge)
        except OutsideTheory:
            return predict(self.counts, ridge=ridge)

    def targets(self, ridges: tuple[float, float] = (0.0, 0.0)) -> dict[str, Geometry]:
        """What a run is held against, by name, the main one first.

            loss      where these settings lead as the ridge vanishes, unless that is SELI or the simplex
            seli, etf
            ridge:λ   where they lead at the run's own λ, for up to 40 different counts

        The simplex stands first where it is what they lead to.

        Parameters
        ----------
        ridges : pair of float
            λ_W and λ_H with the loss SUMMED over samples; 0 for none.

        Examples
        --------
        >>> list(Expected.of(TrainConfig(loss="cdt", loss_options={"gamma": 0.2}), ClassCounts([9, 1])).targets((1, 1)))
        ['loss', 'seli', 'etf', 'ridge:1']
        """
        counts = self.counts
        found = {name: target_geometry(name, counts) for name in ("seli", "etf")}
        limit = self.geometry_or_nearest()
        reached = {name: all(getattr(limit, part).distance_to(getattr(other, part)) < _SAME
                             for part in ("classifiers", "embeddings")) for name, other in found.items()}
        if reached["etf"] and not reached["seli"]:
            found = {"etf": found["etf"], "seli": found["seli"]}
        elif not reached["seli"]:
            found = {LIMIT: limit, **found}
        ridge = float(np.sqrt(ridges[0] * ridges[1]))
        if ridge > 0 and counts.groups.sizes.size <= _DISTINCT_COUNTS:
            found[f"ridge:{ridge:.6g}"] = self.geometry_or_nearest(float(f"{ridge:.6g}"))
        return found

    def merging(self, counts: ClassCounts | None = None) -> Float[np.ndarray, " k"]:
        """λ from which each class merges with others of its count and loss; Inf where the head is fixed.

        Parameters
        ----------
        counts : ClassCounts, optional
            Other training counts, to which the loss is fitted anew.
        """
        counts = self.counts if counts is None else counts
        if self.head != "learned" or self.remedy.name == "scl":
            return np.full(counts.k, np.inf)
        parameters = replace(self.remedy, counts=counts).merging_parameters() or {}
        return merging_ridges(np.full(counts.k, counts.n / counts.k) if self.oversampled else counts, **parameters)

    def posterior(self) -> dict[str, Any]:
        """How the trained logits become those of a posterior, as `steer.posthoc.logit_adjustment` takes it.

        Raises
        ------
        OutsideTheory
            Temperatures by label, whose logits belong to no posterior.
        """
        loss = self._loss
        vectors = {} if loss is None else loss.vectors
        if loss is not None and vectors["delta"] is not None and loss.temperature == "label":
            raise OutsideTheory("logits trained under label temperatures are those of no posterior: there is no prior "
                                "to take out of them; refit the head instead")
        weight = vectors.get("weight")
        prior = np.ones(self.counts.k) if self.oversampled else self.counts.values
        found = {"delta": vectors.get("delta"), "iota": vectors.get("iota"),
                 "prior": prior if weight is None else prior * weight}
        return {name: values for name, values in found.items() if values is not None}

    @property
    def _loss(self) -> VSLoss | None:
        """The loss of logits; None for one of features, or a head."""
        loss = None if self.remedy.name == "scl" else self.remedy.loss()
        return loss if isinstance(loss, VSLoss) else None

    @property
    def at_every_ridge(self) -> bool:
        """Whether the prediction is one geometry, whatever the ridge: a frame, or a loss that makes classes alike.

        Examples
        --------
        >>> [Expected.of(TrainConfig(loss=loss), ClassCounts([9, 3])).at_every_ridge
        ...  for loss in ("ldt", "weighted-ldt")]
        [False, True]
        """
        few = replace(self, remedy=replace(self.remedy, counts=_FEW))
        limit, other = few.geometry_or_nearest(), few.geometry_or_nearest(_BETWEEN)
        return limit.classifiers.distance_to(other.classifiers) < _SAME

    @property
    def untempered(self) -> bool:
        """Whether temperatures would move the prediction: a learned head, and a loss of logits without any."""
        loss = self._loss
        if loss is None or self.head != "learned":
            return False
        delta = loss.vectors["delta"]
        return delta is None or bool(np.ptp(delta) == 0)

    @property
    def advised(self) -> str | None:
        """The line of the recommended loss; None where that is what was trained with."""
        chosen = advise(self.counts).recommended
        used = (self.remedy.name, self.remedy.parameters) == (chosen.name, chosen.parameters)
        return None if used and not self.oversampled else chosen.line
