"""What every study shares: its registry, how it is run, and the record of where its numbers come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
import json
import os
from pathlib import Path
import platform
import time
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from neuralcollapse.checks import InvalidInput, positive_number, shown
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.run import CONFIG
from neuralcollapse.experiments.train import train
from neuralcollapse.files import make_folder, replacing, write_text, writing
from neuralcollapse.predict import Geometry
from neuralcollapse.registry import Registry
from neuralcollapse.simulate import Progress
from neuralcollapse.simulate.quantities import PARTS

STUDIES: Registry[Callable[[Setting], str]] = Registry("study")
"""Every study: a function of a `Setting` that writes into its folder and returns a Markdown table.

Option `title` is what its section of a gallery is called; the docstring is the paragraph there, and its picture is
`NAME.png`.
"""

TABLE, GALLERY = "table.md", "gallery.md"

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """What a study is asked for.

    Attributes
    ----------
    out : Path
        An existing folder.
    quick : bool
        The small setting: fewer seeds, ratios and steps.
    seeds : int, optional
        How many; None is the study's own number.
    seed : int
        The first of them.
    ratios : tuple of float, optional
        Imbalance ratios; None is the study's own.
    steps : int, optional
        Gradients per run; None is the study's own.
    progress : callable
        Given a line about once a second.
    jobs : int
        Processes, for a study that trains networks.
    """

    out: Path
    quick: bool = False
    seeds: int | None = None
    seed: int = 0
    ratios: tuple[float, ...] | None = None
    steps: int | None = None
    progress: Callable[[str], None] = field(default=lambda line: None)
    jobs: int = 1

    def own(self, full: T, quick: T) -> T:
        """The study's own value: that of its full setting, or of the small one."""
        return quick if self.quick else full

    def pick(self, name: Literal["ratios", "steps"], full: T, quick: T) -> T:
        """What was asked for, else the study's own."""
        given: T | None = getattr(self, name)
        return self.own(full, quick) if given is None else given

    def pick_seeds(self, full: Sequence[int], quick: Sequence[int]) -> tuple[int, ...]:
        """As many seeds as were asked for, else as many as the study has, from the first on.

        Examples
        --------
        >>> Setting(Path("out"), seed=7).pick_seeds((0, 1, 2), (0,))
        (7, 8, 9)
        """
        many = len(self.own(full, quick)) if self.seeds is None else self.seeds
        return tuple(range(self.seed, self.seed + many))


def run_study(name: str, out: Path | str, *, quick: bool = False, seeds: int | None = None, seed: int = 0,
              ratios: Sequence[float] | None = None, steps: int | None = None, jobs: int = 1,
              progress: Callable[[str], None] | None = None) -> Path:
    """Run a registered study.

    Parameters
    ----------
    name : str
        Such as "rates".
    out : path
        A folder, made where it is not there; files of an earlier run of the study are overwritten.
    quick : bool
        A small setting of minutes at most, to see that it works; not for conclusions.
    seeds : int, optional
        How many, from `seed` on; the study's own number when left out.
    seed : int
        The first seed.
    ratios : sequence of float, optional
        Imbalance ratios R ≥ 1 instead of the study's own.
    steps : int, optional
        Gradients per run instead of the study's own.
    jobs : int
        Processes for a study that trains networks; the numbers do not depend on it.
    progress : callable, optional
        Given lines about what is going on.

    Returns
    -------
    Path
        The table, in Markdown; data (Parquet), figures, `gallery.md` and `study.json` (setting, machine, versions,
        time) lie beside it.

    Raises
    ------
    InvalidInput
        An unknown study, numbers that cannot be, no pyarrow to write data with.

    Examples
    --------
    >>> run_study("rate", "studies/rates")
    Traceback (most recent call last):
        ...
    neuralcollapse.checks.InvalidInput: unknown study 'rate': did you mean 'rates'? known: ...
    """
    from neuralcollapse.experiments.studies.gallery import gallery_section  # it stands on this module

    entry = STUDIES[name]
    levels = None if ratios is None else tuple(_ratio(ratio) for ratio in ratios)
    if levels == ():
        raise InvalidInput("ratios must hold at least one number, got an empty list")
    if seed < 0:
        raise InvalidInput(f"seed must be a whole number ≥ 0, got {seed}")
    many = None if seeds is None else _positive("seeds", seeds)
    folder = Path(out)
    setting = Setting(folder, quick, many, seed, levels, None if steps is None else _positive("steps", steps),
                      progress or (lambda line: None), _positive("jobs", jobs))
    _require_parquet()
    make_folder(folder)
    began, spent = time.perf_counter(), time.process_time()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # matrices of ten rows, and numbers that do not depend on the machine's cores
    try:
        table = entry.function(setting)
    finally:
        torch.set_num_threads(threads)
    # Of joblib's processes, which outlive a study, nothing says how long they were at work.
    cpu = time.process_time() - spent if setting.jobs == 1 else None
    record = {"study": entry.name, "quick": quick, "seeds": None if many is None else list(range(seed, seed + many)),
              "seed": seed, "ratios": levels, "steps": setting.steps, "jobs": setting.jobs,
              "seconds": time.perf_counter() - began, "cpu_seconds": cpu, **machine()}
    write_text(folder / "study.json", json.dumps(record, indent=1) + "\n")
    write_text(folder / GALLERY, gallery_section(entry, setting))
    return write_text(folder / TABLE, table)


def trained(config: TrainConfig, folder: Path) -> int:
    """Train a run, or go on with it, or leave it as it is when it is finished; how many epochs it has."""
    return train(config, folder, resume=(folder / CONFIG).is_file()).measured_epochs[-1]


def reporter(label: str, tell: Callable[[str], None]) -> Callable[[Progress], None]:
    """What a simulation reports to: at most a line a second, and the last."""
    told = [0.0]

    def report(at: Progress) -> None:
        now = time.monotonic()
        if now - told[0] >= 1 or at.step == at.steps:
            told[0] = now
            stopped = f", {len(at.diverged)} diverged" if at.diverged else ""
            tell(f"{label}: step {at.step:,} of {at.steps:,}, {at.running} runs{stopped}")
    return report


def machine() -> dict[str, Any]:
    """What the numbers were made on: processor kind, cores, versions; no names."""
    from neuralcollapse import __version__

    return {"machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread used",
            "python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
            "neuralcollapse": __version__}


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Rows of equal keys as Parquet; None and NaN are null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: [None if row[name] != row[name] else row[name] for row in rows] for name in rows[0]}
    with writing(path), replacing(path) as part, part.open("wb") as file:
        pq.write_table(pa.table(columns), file)


def spread(values: np.ndarray) -> str:
    """The median of what is finite, and its smallest and largest where two digits tell them apart.

    Examples
    --------
    >>> spread(np.array([0.2, 0.1, 0.4, np.nan])), spread(np.array([0.1, 0.1])), spread(np.array([np.nan]))
    ('0.2 (0.1 – 0.4)', '0.1', '–')
    """
    good = values[np.isfinite(values)]
    if not good.size:
        return "–"
    middle, low, high = (f"{value:.2g}" for value in (np.median(good), good.min(), good.max()))
    return middle if low == high else f"{middle} ({low} – {high})"


def named_seeds(seeds: Sequence[int]) -> str:
    """How many seeds, and which.

    Examples
    --------
    >>> named_seeds((0, 1, 2)), named_seeds((4,))
    ('3 seeds (0 … 2)', '1 seed (4)')
    """
    return f"{len(seeds)} seeds ({seeds[0]} … {seeds[-1]})" if len(seeds) > 1 else f"1 seed ({seeds[0]})"


def distances(geometry: Geometry, weight: np.ndarray, means: np.ndarray) -> dict[str, float]:
    """D_W, D_M, D_Z of classifiers and class means about the origin, (k, d) each, to a geometry."""
    factors = ((weight, weight), (means, means), (weight, means))
    return {part: float(getattr(geometry, part).distance_between(*pair))
            for part, pair in zip(PARTS, factors, strict=True)}


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table.

    Examples
    --------
    >>> print(markdown(["a", "b"], [["1", "2"]]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("|" + "|".join(cell if cell == "---" else f" {cell} " for cell in line) + "|" for line in lines)


def _require_parquet() -> None:
    try:
        import pyarrow.parquet
    except ImportError:
        raise InvalidInput("a study writes its data as Parquet, which needs pyarrow: "
                           "pip install 'neuralcollapse[parquet]'") from None
    del pyarrow


def _ratio(value: Any) -> float:
    number = positive_number("ratios", value)
    if number < 1:
        raise InvalidInput(f"ratios must be at least 1, got {value:g}")
    return number


def _positive(name: str, value: Any) -> int:
    if value < 1 or value % 1:
        raise InvalidInput(f"{name} must be a whole number ≥ 1, got {shown(value)}")
    return int(value)
