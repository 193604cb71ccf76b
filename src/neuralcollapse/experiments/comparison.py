"""Many runs side by side: which settings differ, and one table with a row per run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuralcollapse.checks import InvalidInput, shown
from neuralcollapse.experiments.run import CONFIG, Run
from neuralcollapse.experiments.sweeps.folder import failures, run_folders
from neuralcollapse.files import replacing, writing

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class ComparedRun:
    """One run among others.

    Parameters
    ----------
    name : str
        That tells it from the others.
    run : Run
    settings : dict
        All of them, an inner one under `table.key`.
    last : dict
        The numbers of its last measured epoch, an inner one under `table.key`; distances to the geometry at the run's
        own ridge under `distances.ridge`.
    """

    name: str
    run: Run
    settings: dict[str, Any]
    last: dict[str, Any]


@dataclass(frozen=True)
class ComparedRuns:
    """Runs that are compared, and what could not be: folders that cannot be read, cells of sweeps that failed."""

    runs: tuple[ComparedRun, ...]
    problems: list[str]

    @property
    def differing(self) -> list[str]:
        """The settings that are not the same in all runs."""
        return [key for key in self._settings if len({_key(one, key) for one in self.runs}) > 1]

    @property
    def difference(self) -> str:
        """What the runs differ in, as a sentence."""
        differing = self.differing
        return f"They differ in {', '.join(differing)}." if differing else "All of their settings are the same."

    @property
    def common(self) -> dict[str, Any]:
        """The settings that are."""
        differing = set(self.differing)
        return {key: self.runs[0].settings.get(key) for key in self._settings if key not in differing}

    @property
    def _settings(self) -> list[str]:
        return list(dict.fromkeys(key for one in self.runs for key in one.settings))


def read_runs(paths: Sequence[str | Path]) -> ComparedRuns:
    """The runs in folders, each a run folder or a folder of them.

    Parameters
    ----------
    paths : list of path

    Returns
    -------
    ComparedRuns
        A folder that cannot be read does not hide the others: it is among the problems.

    Examples
    --------
    >>> read_runs(["runs/nothing"]).problems
    ["'runs/nothing' is no folder"]
    """
    found: dict[Path, Run] = {}
    problems: list[str] = []
    for path in map(Path, paths):
        if not path.is_dir():
            problems.append(f"'{path}' is no folder")
            continue
        try:
            folders = [path] if (path / CONFIG).exists() else run_folders(path)
        except InvalidInput as error:
            problems.append(str(error))
            continue
        failed = failures(path)
        problems += [f"'{path / name}' failed: {shown(why.get('message'), 200)}" for name, why in failed.items()]
        if not folders and not failed:
            problems.append(f"'{path}' holds no runs")
        for folder in folders:
            found.setdefault(folder.resolve(), Run(folder))
    read = []
    for name, run in zip(distinct_names(list(found)), found.values(), strict=True):
        try:
            read.append(compared(name, Run.open(run.path)))
        except InvalidInput as error:
            problems.append(str(error))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problems.append(f"'{run.path}' holds something else than a run: {type(error).__name__} {shown(error)}")
    return ComparedRuns(tuple(read), problems)


def runs_table(runs: ComparedRuns | Sequence[str | Path]) -> pa.Table:
    """One row per run: what tells it from the others, its last measured numbers, then all that the runs share.

    Parameters
    ----------
    runs : ComparedRuns, or a list of paths for `read_runs`

    Returns
    -------
    pyarrow.Table
        Numbers are finite or null; a setting that is a list is text of JSON. The names of the differing settings are
        in the schema's metadata, under `differing`.

    Raises
    ------
    InvalidInput
        pyarrow is not installed.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from neuralcollapse import TrainConfig, train
    >>> with TemporaryDirectory() as folder:
    ...     run = train(TrainConfig(epochs=2, threads=1, model_options={"width": 8}), f"{folder}/run")
    ...     table = runs_table([folder])
    >>> table.column("run").to_pylist(), table.column("epoch").to_pylist()
    (['run'], [2])
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise InvalidInput("a table of runs needs pyarrow, which is not installed: "
                           "pip install 'neuralcollapse[parquet]'") from None
    compared = runs if isinstance(runs, ComparedRuns) else read_runs(runs)
    differing, common = compared.differing, list(compared.common)
    rows = [{"run": one.name, "folder": str(one.run.path), "finished": one.run.finished,
             **{key: one.settings.get(key) for key in differing}, **one.last,
             **{f"data.{key}": one.run.data.get(key) for key in ("classes", "features")},
             "data.samples": float(one.run.counts.n), **{key: one.settings.get(key) for key in common}}
            for one in compared.runs]
    # In the order of the rows; what only some runs have goes where the first of them has it.
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    table = pa.table({name: pa.array(values, kind(pa)) for name, (values, kind) in columns.items()})
    return table.replace_schema_metadata({"differing": json.dumps(differing)})


def write_table(table: pa.Table, path: Path) -> Path:
    """Write a table as Parquet, as a whole or not at all."""
    import pyarrow.parquet as pq

    with writing(path), replacing(path) as part, part.open("wb") as file:
        pq.write_table(table, file)
    return path


# -- one run ----------------------------------------------------------------------------------------


def compared(name: str, run: Run) -> ComparedRun:
    """A run under a name, with all that is compared read from its folder now."""
    assert run.counts.k  # read now, so that a folder without them is a problem here
    last = dict(_flat(run.history[-1])) if run.history else {}
    return ComparedRun(name, run, dict(_settings(run.config)), last)


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", part) for inner, part in value.items())
        else:
            yield key, value


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers and words of a record, those of `measurement` without that word, lists left out."""
    for key, value in record.items():
        name = "ridge" if key.startswith("ridge:") else key
        if isinstance(value, Mapping):
            yield from _flat(value, prefix if key == "measurement" else f"{prefix}{name}.")
            if name != key:
                yield f"{prefix}ridge.lambda", float(key.removeprefix("ridge:"))
        elif not isinstance(value, (list, tuple)):
            yield f"{prefix}{name}", value


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """Each folder's name, with as many of the folders above it as tell it from the others."""
    names = [folder.name for folder in folders]
    for depth in range(2, max((len(folder.parts) for folder in folders), default=1)):
        twice = {name for name in names if names.count(name) > 1}
        if not twice:
            break
        names = ["/".join(folder.parts[-depth:]) if name in twice else name
                 for folder, name in zip(folders, names, strict=True)]
    return names


def _key(one: ComparedRun, key: str) -> str:
    return json.dumps(one.settings.get(key), sort_keys=True, default=str)


def _column(values: list[Any]) -> tuple[list[Any], Any]:
    """Values of one kind, and the arrow type they have."""
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, bool) for value in known):
        return values, lambda pa: pa.bool_()
    if known and all(isinstance(value, int) and abs(value) < 2**63 for value in known
                     ) and not any(isinstance(value, bool) for value in known):
        return values, lambda pa: pa.int64()
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in known):
        return [float(value) if value is not None and math.isfinite(value) else None for value in values], \
            lambda pa: pa.float64()
    return [value if value is None or isinstance(value, str) else json.dumps(value, default=str) for value in values], \
        lambda pa: pa.string()
