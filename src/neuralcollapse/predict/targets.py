"""Geometries by name, as a measurement asks for them: "seli", "etf", "ridge:0.1"."""

from __future__ import annotations

from neuralcollapse.checks import InvalidInput, OutsideTheory, positive_number
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict.geometry import Geometry, predict


def target_geometry(target: str, counts: ClassCounts) -> Geometry:
    """The geometry that a measurement is held against, from its name.

    Parameters
    ----------
    target : str
        A registered loss without required parameters ("seli", "etf", …), or "ridge:λ" for cross-entropy at that
        ridge (loss summed over samples).
    counts : ClassCounts

    Raises
    ------
    InvalidInput
        An unknown name, or one that needs parameters.
    """
    name, colon, value = target.partition(":")
    try:
        if name == "ridge":
            return predict(counts, ridge=positive_number("the λ of ridge:λ", value))
        if colon:
            raise InvalidInput("only ridge:λ takes a value")
        return predict(counts, target)
    except OutsideTheory:
        raise
    except InvalidInput as error:
        raise InvalidInput(f"target must name a geometry, got '{target}': {error}") from None
