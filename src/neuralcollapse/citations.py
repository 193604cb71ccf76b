"""The papers behind registered things."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from neuralcollapse.checks import InvalidInput, did_you_mean
from neuralcollapse.registry import Registry, references


def registries() -> tuple[Registry[Any], ...]:
    """Every registry of the library, filled."""
    from neuralcollapse.experiments import DATASETS, MODELS, PRESETS
    from neuralcollapse.experiments.studies import STUDIES
    from neuralcollapse.measure import METRICS
    from neuralcollapse.predict import GEOMETRIES, NORMS
    from neuralcollapse.simulate import METHODS
    from neuralcollapse.steer import POSTHOC, REMEDIES

    return GEOMETRIES, NORMS, METRICS, REMEDIES, POSTHOC, METHODS, DATASETS, MODELS, PRESETS, STUDIES


def markdown_table() -> str:
    """Everything registered as one table: kind, name, what it is, and the keys of its papers."""
    lines = ["| kind | name | what it is | sources |", "|---|---|---|---|"]
    for registry in registries():
        for entry in registry:
            names = ", ".join(f"`{name}`" for name in (entry.name, *entry.aliases))
            summary = entry.summary.replace("|", "\\|")
            lines.append(f"| {registry.kind} | {names} | {summary} | {', '.join(entry.source) or '–'} |")
    return "\n".join(lines)


def citations(names: Iterable[str]) -> list[str]:
    """BibTeX entries of what `names` stand for: registered names or keys of references.bib, each once.

    Raises
    ------
    InvalidInput
        A name that is neither.

    Examples
    --------
    >>> print(citations(["seli"])[0].splitlines()[0])
    @inproceedings{thrampoulidis2022,
    """
    keys: dict[str, None] = {}
    for name in names:
        keys.update(dict.fromkeys(_keys(name)))
    return [references()[key] for key in keys]


def _keys(name: str) -> list[str]:
    if name in references():
        return [name]
    entries = [registry[name] for registry in registries() if name in registry]
    found = [key for entry in entries for key in entry.source]
    if entries and not found:
        raise InvalidInput(f"'{name}' has no paper of its own to cite")
    if not found:
        known = [known for registry in registries() for known in registry.names]
        raise InvalidInput(f"nothing is known by the name '{name}': {did_you_mean(name, known + list(references()))}")
    return found
