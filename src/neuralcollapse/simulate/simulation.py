"""What a simulation gives: numbers per cell and snapshot, and where every run ended; `.npz` on disk, never pickle."""

from __future__ import annotations

from dataclasses import dataclass, field
import json
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
import numpy as np

from neuralcollapse.checks import UNREADABLE, InvalidInput, did_you_mean, why_unreadable
from neuralcollapse.counts import ClassCounts
from neuralcollapse.files import replacing, require_file, writing
from neuralcollapse.predict.geometry import PARTS
from neuralcollapse.simulate.displays import simulation_html


@dataclass(frozen=True, eq=False)
class Simulation:
    """The runs of a grid.

    Attributes
    ----------
    method, loss : str
    profiles : tuple of ClassCounts
    cells : list of dict
        Per run: "profile" (which counts), "ratio", "ridge", "balance", "step", "decay" (the exponent of its
        schedule), "scale", the method's hyper-parameters, "seed".
    steps : (s,) int array
        After how many steps the snapshots were taken; each step is one gradient.
    values : dict of str to (cells, s) arrays
        See `Observer`; NaN where a quantity is not defined, and after a run has diverged.
    diverged : dict of int to int
        Cells that were stopped, and the step at which this was found.
    classifiers, features, bias : (cells, k, d), (cells, columns, d), (cells, k) arrays
        Where each run ended (NaN if it diverged); a symmetric run has one column per class. `bias` may be None.
    symmetric : bool

    Examples
    --------
    >>> from neuralcollapse.simulate import simulate
    >>> runs = simulate([4, 4, 1, 1], "ngd", steps=200, step=[0.1, 0.2], symmetric=True)
    >>> runs
    Simulation(ngd on ce, 2 cells, 200 steps: D to seli of classifiers 0.0..., embeddings 0.0..., logits 0.0...)
    >>> runs["seli/classifiers"].shape == (2, runs.steps.size)
    True
    """

    method: str
    loss: str
    profiles: tuple[ClassCounts, ...]
    cells: list[dict[str, Any]]
    steps: Int[np.ndarray, " s"]
    values: dict[str, Float[np.ndarray, "cells s"]]
    diverged: dict[int, int]
    classifiers: Float[np.ndarray, "cells k d"]
    features: Float[np.ndarray, "cells n d"]
    bias: Float[np.ndarray, "cells k"] | None = None
    symmetric: bool = field(default=False)

    def __getitem__(self, name: str) -> Float[np.ndarray, "cells s"]:
        """One quantity of every cell and snapshot."""
        if name not in self.values:
            raise InvalidInput(f"unknown quantity '{name}': {did_you_mean(name, self.values)}")
        return self.values[name]

    def __len__(self) -> int:
        return len(self.cells)

    _repr_html_ = simulation_html

    def __repr__(self) -> str:
        target = self.target
        parts = []
        for part in PARTS:
            last = self[f"{target}/{part}"][:, -1]
            reached = np.median(last[np.isfinite(last)]) if np.isfinite(last).any() else np.nan
            parts.append(f"{part} {reached:.2g}")
        stopped = f", {len(self.diverged)} diverged" if self.diverged else ""
        return (f"Simulation({self.method} on {self.loss}, {len(self)} cells{stopped}, {self.steps[-1]} steps: "
                f"D to {target} of {', '.join(parts)})")

    @property
    def target(self) -> str:
        """What the runs should lead to: their ridge's geometry, or their loss's limit (with multipliers always)."""
        held = ("ridge",) if self.method != "multipliers" else ()
        return next(name for name in (*held, "limit", "seli") if f"{name}/classifiers" in self.values)

    def samples(self, cell: int) -> tuple[Float[np.ndarray, "k d"], Float[np.ndarray, "n d"], Int[np.ndarray, " n"]]:
        """Head, features and labels that a cell ended with, as `measure` takes them.

        A symmetric run gives each class's embedding as often as it has samples.

        Raises
        ------
        InvalidInput
            Counts that are not whole, as a symmetric run may have.
        """
        counts = self.profiles[self.cells[cell]["profile"]]
        if (counts.values % 1).any():
            raise InvalidInput(f"counts must be whole numbers to have samples, got {counts}: take `classifiers` and "
                               "`features`, one column per class, as they are")
        labels = np.repeat(np.arange(counts.k), counts.values.astype(np.int64))
        columns = self.features[cell]
        return self.classifiers[cell], columns[labels] if self.symmetric else columns[:labels.size], labels

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat dictionary per cell and snapshot, numbers finite or None: a table for a data frame or a CSV."""
        rows = []
        for c, cell in enumerate(self.cells):
            for s, step in enumerate(self.steps.tolist()):
                numbers = {name: float(array[c, s]) for name, array in self.values.items()}
                rows.append({"method": self.method, "loss": self.loss, "cell": c, **cell,
                             "diverged": self.diverged.get(c), "at": step}
                            | {name: value if np.isfinite(value) else None for name, value in numbers.items()})
        return rows

    def save(self, path: Path | str) -> None:
        """Write to `.npz`; the file appears whole or not at all.

        Raises
        ------
        InvalidInput
            Another ending, or a place that cannot be written.
        """
        meta = {"method": self.method, "loss": self.loss, "cells": self.cells, "symmetric": self.symmetric,
                "diverged": sorted(self.diverged.items()), "profiles": [p.values.tolist() for p in self.profiles]}
        arrays = {f"value:{name}": array for name, array in self.values.items()}
        ends = {name: getattr(self, name) for name in ("classifiers", "features", "bias")}
        write_arrays(Path(path), meta, {"steps": self.steps, **arrays,
                                        **{name: array for name, array in ends.items() if array is not None}})

    @classmethod
    def load(cls, path: Path | str) -> Simulation:
        """Read what `save` wrote; InvalidInput when it is something else."""
        meta, arrays = read_arrays(Path(path))
        try:
            values = {name.partition(":")[2]: array for name, array in arrays.items() if name.startswith("value:")}
            return cls(meta["method"], meta["loss"], tuple(ClassCounts(one) for one in meta["profiles"]),
                       meta["cells"], arrays["steps"], values, {int(c): int(at) for c, at in meta["diverged"]},
                       arrays["classifiers"], arrays["features"], arrays.get("bias"), meta["symmetric"])
        except KeyError as error:
            raise InvalidInput(f"'{Path(path).name}' must hold a simulation, but has no {error}") from None


def write_arrays(path: Path, meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """An `.npz` with one JSON text beside its arrays, put in place at once."""
    if path.suffix != ".npz":
        raise InvalidInput(f"a simulation's name must end in .npz, got '{path.name}'")
    with writing(path), replacing(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, meta=np.array(json.dumps(meta)), **arrays)


def read_arrays(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `write_arrays` wrote."""
    require_file(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return json.loads(str(arrays.pop("meta"))), arrays
    except UNREADABLE as error:
        raise InvalidInput(f"'{path.name}' cannot be read as a simulation: {why_unreadable(error)}") from None
