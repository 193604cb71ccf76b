"""PREDICT: class counts and a loss to the geometry they lead to. NumPy and SciPy only."""

from neuralcollapse.predict import losses as _losses  # registers the geometries
from neuralcollapse.predict.geometry import GEOMETRIES, Geometry, predict, target_geometry
from neuralcollapse.rooms import open_room

__all__ = ["GEOMETRIES", "Geometry", "predict", "target_geometry"]
open_room(__name__)
del _losses, open_room
