"""The level that NC2 and NC3 settle at under imbalance: what the prediction itself measures."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
import numpy as np

from neuralcollapse.predict import Geometry
from neuralcollapse.show.charts import Level
from neuralcollapse.show.palette import target_name
from neuralcollapse.show.reading import Reading

_MOST_CLASSES = 1_000  # k × k matrices below


@dataclass(frozen=True)
class PredictedLevels:
    """Horizontal lines of the panels of NC2 and NC3; empty where 0 is predicted."""

    norms: tuple[Level, ...] = ()
    angles: tuple[Level, ...] = ()
    duality: tuple[Level, ...] = ()


def predicted_levels(reading: Reading) -> PredictedLevels:
    """NC2 and NC3 of the predicted geometry, with its class means centred as the measured ones were."""
    if reading.counts.balanced or reading.counts.k > _MOST_CLASSES:
        return PredictedLevels()
    name = target_name(reading.target)
    grams = centred_grams(reading.predicted, reading.center)
    spread, angles = [], []
    for part, colour in (("classifiers", "green"), ("embeddings", "purple")):
        norms = np.sqrt(np.maximum(grams[part].diagonal(), 0.0))
        with np.errstate(invalid="ignore", divide="ignore"):
            cosines = (grams[part] / np.multiply.outer(norms, norms))[~np.eye(norms.size, dtype=bool)]
            spread.append(Level(f"{name}, {part}", float(norms.std() / norms.mean()), colour))
        angles.append(Level(f"{name}, {part}", float(np.abs(cosines + 1 / (norms.size - 1)).mean()), colour))
    sizes = np.sqrt(grams["classifiers"].trace() * grams["embeddings"].trace())
    overlap = grams["logits"].trace() / sizes if sizes > 0 else np.nan
    duality = Level(f"{name}, NC3", float(np.sqrt(max(2 - 2 * overlap, 0.0))), "ink")
    kept = [tuple(level for level in levels if np.isfinite(level.y)) for levels in (spread, angles, [duality])]
    return PredictedLevels(*kept)


def centred_grams(geometry: Geometry, center: str) -> dict[str, Float[np.ndarray, "k k"]]:
    """WWᵀ, MMᵀ and WMᵀ with M about the mean of the classes or of the samples, or as it is ("none")."""
    centred = geometry.centred(center)
    return {"classifiers": geometry.classifiers.dense(), "embeddings": centred.embeddings.dense(),
            "logits": centred.logits.dense()}
