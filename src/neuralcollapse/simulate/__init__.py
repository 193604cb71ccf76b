"""SIMULATE: the unconstrained-features model trained by first-order methods, many runs at once."""

from neuralcollapse.rooms import open_room
from neuralcollapse.simulate import multipliers as _multipliers
from neuralcollapse.simulate.methods import METHODS
from neuralcollapse.simulate.residual import exact_cross_entropy
from neuralcollapse.simulate.run import Progress, simulate
from neuralcollapse.simulate.simulation import Simulation

__all__ = ["METHODS", "Progress", "Simulation", "exact_cross_entropy", "simulate"]

open_room(__name__)
del _multipliers, open_room
