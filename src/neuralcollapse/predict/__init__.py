"""PREDICT: class counts and a loss to the geometry they lead to. NumPy and SciPy only."""

# Imported to register their losses, which are listed in this order, not the alphabet's (I001).
from neuralcollapse.predict import losses as _losses  # noqa: I001  # the order of `list`
from neuralcollapse.predict import frames as _frames
from neuralcollapse.predict.geometry import GEOMETRIES, Geometry, predict
from neuralcollapse.predict.norms import NORMS
from neuralcollapse.predict.estimates import RidgeEstimate, balance_ridge, lambda_eff
from neuralcollapse.predict.path import RidgePath, ridge_path
from neuralcollapse.predict.targets import target_geometry
from neuralcollapse.predict.weight_decay import (
    CollapseSafety,
    RidgePair,
    collapse_safety,
    ridge_from_weight_decay,
    weight_decay_from_ridge,
)
from neuralcollapse.rooms import open_room

__all__ = ["GEOMETRIES", "NORMS", "CollapseSafety", "Geometry", "RidgeEstimate", "RidgePair", "RidgePath",
           "balance_ridge",
           "collapse_safety", "lambda_eff", "predict", "ridge_from_weight_decay", "ridge_path", "target_geometry",
           "weight_decay_from_ridge"]
open_room(__name__)
del _frames, _losses, open_room
