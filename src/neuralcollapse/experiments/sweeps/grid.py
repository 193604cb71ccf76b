"""A sweep file: the settings that all runs share and those that vary, resolved into named configurations.

preset: demo                    # optional: where the shared settings start from
base: {dataset: digits, epochs: 100}
grid:                           # every combination of these
  ratio: [1, 10, 100]
  loss_options.gamma: [0.1, 0.2]
cells:                          # optional: settings that vary together; each is crossed with the grid
  - {model: mlp, learning_rate: 0.1}
  - {model: cnn, learning_rate: 0.01}
seeds: 3                        # optional: how many, or a list; seed by seed is run
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations, product
import json
from math import prod
from pathlib import Path
import re
from typing import Any

from neuralcollapse.checks import InvalidInput, did_you_mean, shown
from neuralcollapse.experiments.config import TrainConfig, apply, read_mapping

_MOST_SEEDS = 1_000_000
_PARTS = ("preset", "base", "grid", "cells", "seeds")
_MOST_CELLS = 100_000
_LONGEST_NAME = 100
_MANY_EPOCHS = 10**9


@dataclass(frozen=True)
class GridCell:
    """One run of a sweep.

    Parameters
    ----------
    name : str
        Of its folder: the settings that vary, as `setting-value` joined by underscores.
    settings : dict
        Those settings; an inner one is called as in `loss_options.gamma`.
    config : TrainConfig
        All of its settings.
    """

    name: str
    settings: dict[str, Any]
    config: TrainConfig


def read_sweep(source: str | Path | Mapping[str, Any]) -> list[GridCell]:
    """The cells of a sweep, every one of them valid.

    Parameters
    ----------
    source : path of a YAML file, or what would stand in it as a mapping

    Returns
    -------
    list of GridCell
        In the order in which they are run: all of the grid at the first seed comes first.

    Raises
    ------
    InvalidInput
        A file that cannot be read, a part or setting that does not exist (with the nearest one that does), a value
        outside its range (all of them of the first such cell), or two cells that are the same.

    Examples
    --------
    >>> [cell.name for cell in read_sweep({"grid": {"ratio": [1, 10]}, "seeds": 2})]
    ['ratio-1_seed-0', 'ratio-10_seed-0', 'ratio-1_seed-1', 'ratio-10_seed-1']
    >>> read_sweep({"grid": {"ration": [1, 10]}})
    Traceback (most recent call last):
        ...
    neuralcollapse.checks.InvalidInput: unknown setting 'ration' in grid: did you mean 'ratio'? known: ...
    """
    parts = read_mapping(source) if isinstance(source, (str, Path)) else dict(source)
    for part in parts:
        if part not in _PARTS:
            raise InvalidInput(f"unknown part '{part}' of a sweep: {did_you_mean(str(part), _PARTS)}")
    base, grid, cells = _shared(parts), _grid(parts), _explicit(parts)
    seeds = _seeds(parts.get("seeds"))
    if not grid and cells == [{}] and not seeds:
        given = " and ".join(part for part in parts if parts[part])
        raise InvalidInput(f"a sweep needs a grid, cells or seeds, got {f'only {given}' if given else 'nothing'}")
    explicit = {key for cell in cells for key in cell}
    varied = (("grid", grid.keys()), ("cells", explicit), ("seeds", {"seed"} if seeds else set[str]()))
    for (part, keys), (other, others) in combinations(varied, 2):
        if keys & others:
            raise InvalidInput(f"a setting must vary in one place only, got {min(keys & others)} in {part} and again "
                               f"in {other}")
    size = prod(map(len, grid.values())) * len(cells) * max(len(seeds), 1)
    if size > _MOST_CELLS:
        raise InvalidInput(f"a sweep takes at most {_MOST_CELLS:,} cells, got {size:,}")
    return _named([_cell(base, settings) for settings in _combinations(grid, cells, seeds)])


# -- parts of the file ------------------------------------------------------------------------------


def _shared(parts: Mapping[str, Any]) -> dict[str, Any]:
    base = _settings("base", parts.get("base") or {})
    if parts.get("preset") is None:
        return apply({}, base)
    from neuralcollapse.experiments.presets import PRESETS

    return apply(PRESETS[str(parts["preset"])].function().model_dump(), base)


def _grid(parts: Mapping[str, Any]) -> dict[str, list[Any]]:
    grid = _settings("grid", parts.get("grid") or {})
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise InvalidInput(f"grid must give {key} a list of values, got {shown(values)}")
    return grid


def _explicit(parts: Mapping[str, Any]) -> list[dict[str, Any]]:
    cells = parts.get("cells")
    if cells is None:
        return [{}]
    if not isinstance(cells, list) or not cells:
        raise InvalidInput(f"cells must be a list of settings, got {shown(cells)}")
    return [_settings("cells", cell) for cell in cells]


def _settings(part: str, settings: Any) -> dict[str, Any]:
    if not isinstance(settings, Mapping) or not all(isinstance(key, str) for key in settings):
        raise InvalidInput(f"{part} must map settings to values, got {shown(settings)}")
    for key in settings:
        name = key.partition(".")[0]
        if name not in TrainConfig.model_fields:
            raise InvalidInput(f"unknown setting '{name}' in {part}: {did_you_mean(name, TrainConfig.model_fields)}")
    return dict(settings)


def _seeds(seeds: Any) -> list[int]:
    if seeds is None:
        return []
    if isinstance(seeds, int) and seeds > _MOST_SEEDS:
        raise InvalidInput(f"seeds must be at most {_MOST_SEEDS:,}, got {shown(seeds)}")
    listed = list(range(seeds)) if isinstance(seeds, int) and not isinstance(seeds, bool) else seeds
    if not isinstance(listed, list) or not listed or not all(type(seed) is int for seed in listed):
        raise InvalidInput(f"seeds must be how many or a list of whole numbers, got {shown(seeds)}")
    return listed


# -- cells ------------------------------------------------------------------------------------------


def _combinations(grid: Mapping[str, list[Any]], cells: list[dict[str, Any]], seeds: list[int]
                  ) -> Iterator[dict[str, Any]]:
    for seed in [{"seed": seed} for seed in seeds] or [{}]:
        for cell in cells:
            for values in product(*grid.values()):
                yield {**cell, **dict(zip(grid, values, strict=True)), **seed}


def _cell(base: Mapping[str, Any], settings: Mapping[str, Any]) -> GridCell:
    """The cell with its settings as the configuration understood them: 1e-3 is text to YAML."""
    given = apply(base, settings)
    try:
        config = TrainConfig(**given)
    except InvalidInput as error:
        named = ", ".join(f"{key} {shown(value)}" for key, value in settings.items())
        where = f" (in the cell of {named})" if named else ""
        raise InvalidInput("; ".join(_problems(given) or [str(error)]) + where) from None
    resolved = {key: value if "." in key else getattr(config, key) for key, value in settings.items()}
    return GridCell("_".join(_words(resolved)) or "run", resolved, config)


def _problems(given: Mapping[str, Any]) -> list[str]:
    """What is wrong with each setting by itself; none when they are wrong together only."""
    epochs = given.get("epochs", _MANY_EPOCHS)  # within which lists of epochs must lie
    of_epochs = _problem(epochs=epochs)
    within = _MANY_EPOCHS if of_epochs else epochs
    others = (_problem(**{"epochs": within, key: value}) for key, value in given.items() if key != "epochs")
    return list(dict.fromkeys(filter(None, (of_epochs, *others))))


def _problem(**settings: Any) -> str | None:
    try:
        TrainConfig(**settings)
    except InvalidInput as error:
        return str(error)
    return None


def _words(settings: Mapping[str, Any]) -> list[str]:
    short = Counter(key.rpartition(".")[2] for key in settings)
    return [f"{key.rpartition('.')[2] if short[key.rpartition('.')[2]] == 1 else key}-{_text(value)}"
            for key, value in settings.items()]


def _text(value: Any) -> str:
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _named(cells: list[GridCell]) -> list[GridCell]:
    """Cells with names that can be folders; where readable words do not tell cells apart, a hash does."""
    named, seen = [], dict[str, str]()
    plain = [re.sub(r"[^A-Za-z0-9.+_-]+", "-", cell.name).strip("-.")[:_LONGEST_NAME] for cell in cells]
    shared = Counter(name.casefold() for name in plain)  # some file systems do not tell cases apart
    for cell, name in zip(cells, plain, strict=True):
        key = canonical(cell.config)
        if key in seen:
            raise InvalidInput(f"every cell must differ from the others, got the same settings twice: {seen[key]}")
        seen[key] = ", ".join(f"{key} {shown(value)}" for key, value in cell.settings.items()) or "those of base"
        if name != cell.name or shared[name.casefold()] > 1:
            name = f"{name}-{sha256(key.encode()).hexdigest()[:8]}"
        named.append(GridCell(name, cell.settings, cell.config))
    return named


def canonical(config: TrainConfig) -> str:
    """The same text for the same settings."""
    return json.dumps(config.model_dump(), sort_keys=True)
