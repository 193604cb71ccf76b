"""A trained run held against three predictions: SELI, the simplex ETF, and the finite-ridge geometry at λ_eff."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from jaxtyping import Bool, Float
import numpy as np

from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.frozen import Frozen
from neuralcollapse.experiments.run import Run
from neuralcollapse.predict import Geometry, RidgeEstimate, RidgePath, balance_ridge, lambda_eff, predict, ridge_path

PARTS = ("classifiers", "embeddings", "logits")
TARGETS = ("seli", "etf", "ridge")
PAIRS = ("majority_majority", "majority_minority", "minority_minority")
READ_FROM = 0.99
"""Balanced training accuracy below which a run says nothing about its terminal phase (the paper's own bar)."""
_FALL = 10.0  # NC1 has to fall by this factor


@dataclass(frozen=True, eq=False)
class Convergence:
    """The geometry of a run over its measured epochs, beside what is predicted for it.

    Attributes
    ----------
    run : Run
        Finished, with its Grams.
    fitted : RidgeEstimate or None
        λ_eff: the λ whose classifiers and class means are nearest to the last measured ones; None for equal counts,
        where every λ has the same geometry, and for a network whose features are all one. Loss summed over samples,
        as every λ here.
    balance : float
        λ_W‖W‖/‖H‖ at the last epoch: the λ of a stationary point of the model, without looking at angles.
    given : float or None
        √(λ_W λ_H) of the run's own settings; None where features carry no penalty.
    """

    run: Run
    fitted: RidgeEstimate | None
    balance: float
    given: float | None

    @property
    def epochs(self) -> list[int]:
        """Measured epochs."""
        return self.run.measured_epochs

    @cached_property
    def accuracy(self) -> float:
        """Balanced accuracy on the training part after the last epoch."""
        per_class = self.run.history[-1]["measurement"]["accuracy"]["per_class"]
        return float(np.mean(per_class))

    @cached_property
    def nc1(self) -> Float[np.ndarray, " e"]:
        """tr(Σ_W Σ_B^†)/k."""
        values = [record["measurement"]["nc1"]["pinv"] for record in self.run.history]
        return np.array([np.nan if value is None else value for value in values])

    @cached_property
    def geometries(self) -> dict[str, Geometry]:
        """What is predicted, by target, with class means centred as the measured ones."""
        counts, center = self.run.counts, self.run.config["center"]
        at_ridge = predict(counts, ridge=None if self.fitted is None else self.fitted.ridge)
        return {name: geometry.centred(center) for name, geometry in
                zip(TARGETS, (predict(counts), predict(counts, "etf"), at_ridge), strict=True)}

    @cached_property
    def distances(self) -> dict[str, Float[np.ndarray, "3 e"]]:
        """D_W, D_M, D_Z by target, over epochs."""
        return {name: self.distances_to(geometry) for name, geometry in self.geometries.items()}

    def distances_to(self, geometry: Geometry) -> Float[np.ndarray, "3 e"]:
        """D_W, D_M, D_Z over epochs to a geometry centred as the measured one."""
        return np.array([[getattr(geometry, part).distance_to_product(gram[part]) for gram in self._grams]
                         for part in PARTS])

    @cached_property
    def at_balance(self) -> Float[np.ndarray, " 3"]:
        """D_W, D_M, D_Z after the last epoch to the geometry at `balance`: nothing in it was fitted to angles."""
        geometry = predict(self.run.counts, ridge=self.balance).centred(self.run.config["center"])
        return self.distances_to(geometry)[:, -1]

    @cached_property
    def arrangements(self) -> dict[str, dict[str, Float[np.ndarray, " e"]]]:
        """`arrangement` of classifiers and embeddings over epochs."""
        found = {part: [arrangement(gram[part], self.run.counts.minority) for gram in self._grams]
                 for part in PARTS[:2]}
        return {part: {name: np.array([one[name] for one in each]) for name in each[0]} for part, each in found.items()}

    @cached_property
    def _grams(self) -> list[Mapping[str, Float[np.ndarray, "k k"]]]:
        kept = [self.run.grams(epoch) for epoch in self.epochs]
        return [{part: gram.astype(np.float64) for part, gram in one.items()} for one in kept if one is not None]

    @property
    def claims(self) -> dict[str, bool | None]:
        """What the paper says, of this run: None where it says nothing, as for equal counts or an unfitted network.

        "collapse": NC1 fell to a tenth or less; "seli": D_W to SELI ended below D_W to the ETF; "ridge": D_W, D_M and
        D_Z all ended smaller to the geometry at λ_eff than to either.
        """
        if self.accuracy < READ_FROM:
            return dict.fromkeys(("collapse", "seli", "ridge"))
        last = {name: each[:, -1] for name, each in self.distances.items()}
        differ = self.fitted is not None
        return {"collapse": bool(self.nc1[-1] * _FALL <= self.nc1[0]),
                "seli": bool(last["seli"][0] < last["etf"][0]) if differ else None,
                "ridge": bool((last["ridge"] < np.minimum(last["seli"], last["etf"])).all()) if differ else None}

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row per measured epoch; None where a number does not exist."""
        for place, epoch in enumerate(self.epochs):
            row: dict[str, Any] = {"epoch": epoch, "nc1": self.nc1[place]}
            row |= {f"{name}/{part}": each[number, place] for name, each in self.distances.items()
                    for number, part in enumerate(PARTS)}
            row |= {f"{part}/{name}": values[place] for part, each in self.arrangements.items()
                    for name, values in each.items()}
            yield {name: value.item() if np.isfinite(value) else None for name, value in
                   ((name, np.asarray(value)) for name, value in row.items())}


def read(run: Run) -> Convergence:
    """A finished run with its λ_eff, the balance of its norms and its own λ.

    Parameters
    ----------
    run : Run
        Finished, with Grams of every measured epoch and a checkpoint.
    """
    last = Frozen.of_run(run)
    config = TrainConfig(**run.config)
    weight, means = last.weight.double().numpy(), _class_means(last)
    counts, about = run.counts, means - means.mean(0)
    fitted = None if counts.balanced or not about.any() else lambda_eff(
        _path(tuple(counts.values)), weight, about, center="classes")
    head, _ = config.ridges(float(counts.n))
    size = float(last.train[0].double().norm())
    return Convergence(run, fitted, balance_ridge(head, weight, size), last.ridge)


def arrangement(gram: Float[np.ndarray, "k k"], minority: Bool[np.ndarray, " k"]) -> dict[str, float]:
    """Mean norm of the majority over that of the minority, and mean cosines of pairs; NaN where there are none.

    Examples
    --------
    >>> gram = np.array([[4.0, -2.0, 0.0], [-2.0, 4.0, 0.0], [0.0, 0.0, 1.0]])
    >>> arrangement(gram, np.array([False, False, True]))["norm_ratio"]
    2.0
    """
    norms = np.sqrt(gram.diagonal())
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = gram / np.multiply.outer(norms, norms)
    others = ~np.eye(norms.size, dtype=bool)
    masks = [np.multiply.outer(one, two) & others for one, two in
             ((~minority, ~minority), (~minority, minority), (minority, minority))]
    ratio = norms[~minority].mean() / norms[minority].mean() if minority.any() and not minority.all() else np.nan
    return {"norm_ratio": float(ratio), **{name: float(cosines[mask].mean()) if mask.any() else float("nan")
                                           for name, mask in zip(PAIRS, masks, strict=True)}}


@cache
def _path(counts: tuple[float, ...]) -> RidgePath:
    return ridge_path(counts, points=40)


def _class_means(last: Frozen) -> Float[np.ndarray, "k d"]:
    features, labels = last.train[0].double().numpy(), last.train[1].numpy()
    return np.stack([features[labels == c].mean(0) for c in range(last.counts.k)])
