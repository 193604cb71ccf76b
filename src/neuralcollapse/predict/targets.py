"""Geometries by name, as a measurement asks for them: "seli", "etf", "ridge:0.1"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from neuralcollapse.checks import InvalidInput, OutsideTheory, positive_number
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict.geometry import Geometry, predict

Targets = Sequence[str] | Mapping[str, Geometry]
"""What a measurement is held against, the main one first: a name or several, or geometries by the names they go by."""


def listed(targets: Targets) -> Targets:
    """One name as a list of it."""
    return (targets,) if isinstance(targets, str) else targets


def target_geometry(target: str, counts: ClassCounts) -> Geometry:
    """The geometry that a measurement is held against, from its name.

    Parameters
    ----------
    target : str
        A registered loss without required parameters ("seli", "etf", …), or "ridge:λ" for cross-entropy at that
        ridge (loss summed over samples).
    counts : ClassCounts

    Returns
    -------
    Geometry

    Raises
    ------
    InvalidInput
        An unknown name, or one that needs parameters.
    OutsideTheory
        A ridge that no theorem covers.

    Examples
    --------
    >>> target_geometry("ridge:0.5", ClassCounts([10, 10, 1, 1])).ridge
    0.5
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


def target_geometries(targets: Targets, counts: ClassCounts) -> dict[str, Geometry]:
    """Every target's geometry by its name.

    Parameters
    ----------
    targets : str, sequence of str, or mapping of str to Geometry
    counts : ClassCounts

    Raises
    ------
    InvalidInput
        As `target_geometry`; geometries without names, or of another number of classes.

    Examples
    --------
    >>> counts = ClassCounts([10, 10, 1, 1])
    >>> found = target_geometries({"mine": predict(counts, "ldt", delta=[2, 2, 1, 1])}, counts)
    >>> found["mine"].loss
    'ldt'
    """
    if not isinstance(targets, Mapping):
        other = next((one for one in (listed(targets) if isinstance(targets, Iterable) else [targets])
                      if not isinstance(one, str)), None)
        if other is not None:
            raise InvalidInput("targets must be names, or a mapping of names to geometries such as {'mine': geometry}, "
                               f"got {type(other).__name__}")
        return {name: target_geometry(name, counts) for name in listed(targets)}
    for name, geometry in targets.items():
        if geometry.k != counts.k:
            raise InvalidInput(f"target '{name}' must be a geometry of {counts.k} classes, got one of {geometry.k}")
    return dict(targets)
