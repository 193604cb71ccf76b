"""The folder a run leaves: written so that a kill loses nothing, read while the run goes on.

    config.yaml, environment.json, data.json   what was trained, where, on which samples
    indices.npz                                the drawn samples: `train` and `test`; with label noise `noisy`, the
                                               positions in `train` whose labels were replaced, and `noisy_labels`
    history.jsonl                              one object per measured epoch, on disk before training goes on
    geometry.safetensors                       "epoch_000012/classifiers", "/embeddings", "/logits", unit norm
    checkpoint/                                the state that a resumed run continues from
    rescue.json                                once finished: what became of every class (`steer.rescue`)
    .lock                                      held by the process that writes

Files other than the history are replaced as a whole, so that a reader sees the old or the new one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
import json
from pathlib import Path
from typing import Any

from jaxtyping import Float
import numpy as np
from safetensors import numpy as safetensors
import yaml

from neuralcollapse.checks import InvalidInput, counted, shown
from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.displays import run_html
from neuralcollapse.experiments.run_files import (
    append_line,
    is_held,
    is_verdict,
    json_bytes,
    mend_history,
    read_geometry,
    read_history,
    sole_writer,
    write,
)
from neuralcollapse.files import replacing, writing

CONFIG, ENVIRONMENT, DATA, INDICES = "config.yaml", "environment.json", "data.json", "indices.npz"
HISTORY, GEOMETRY, CHECKPOINT = "history.jsonl", "geometry.safetensors", "checkpoint"
RESCUE, LOCK = "rescue.json", ".lock"
_OURS = (CONFIG, ENVIRONMENT, DATA, INDICES, HISTORY, GEOMETRY, CHECKPOINT, RESCUE, "lock")
FORMAT = 1
"""Of the folder, in `data.json`; a folder without one is older and is read as well, a newer one is refused."""

TRAINING = "still training"
"""The state of a run that a process is writing."""

# Grams are k×k per measured epoch: above this many classes they would outweigh everything else.
GRAMS_UP_TO = 200


class Run:
    """A run folder, for reading.

    Made by `Run.open`; every property is read from disk once, when first asked for.

    Parameters
    ----------
    path : Path
        The folder.

    Raises
    ------
    InvalidInput
        A folder that is not a run, or a file in it that cannot be read as what it should be.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from neuralcollapse import TrainConfig, train
    >>> with TemporaryDirectory() as folder:
    ...     run = train(TrainConfig(epochs=2, threads=1, model_options={"width": 8}), f"{folder}/run")
    ...     Run.open(f"{folder}/run")
    Run('...run', 2 epochs measured, finished=True)
    """

    def __init__(self, path: Path):
        self.path = path

    _repr_html_ = run_html

    def __repr__(self) -> str:
        return f"Run('{self.path}', {len(self.history)} epochs measured, finished={self.finished})"

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """The run in a folder; it may still be going on."""
        folder = Path(path)
        for name in (CONFIG, DATA):
            if not (folder / name).is_file():
                reason = (f"it has no {name}" if folder.is_dir() else "it is a file" if folder.exists() else
                          "there is no such folder")
                raise InvalidInput(f"'{path}' is not a run folder: {reason}")
        run = cls(folder)
        written = run.data.get("format", 0)
        if not isinstance(written, int) or written > FORMAT:
            raise InvalidInput(f"'{path}' was written by a newer neuralcollapse, in format {shown(written)}: this one "
                               f"reads up to {FORMAT}")
        return run

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @cached_property
    def config(self) -> dict[str, Any]:
        """Every setting of the run."""
        try:
            content = yaml.safe_load(self._text(CONFIG))
        except yaml.YAMLError:
            content = None
        return self._mapping(CONFIG, content)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions, device and start time; empty when the run did not write them."""
        return self._json(ENVIRONMENT) if (self.path / ENVIRONMENT).is_file() else {}

    @cached_property
    def data(self) -> dict[str, Any]:
        """What was trained on: data set, class names and counts, shapes, ridges."""
        return self._json(DATA)

    @cached_property
    def counts(self) -> ClassCounts:
        """The training counts with class names."""
        if not isinstance(names := self.data.get("names"), list) or "counts" not in self.data:
            raise InvalidInput(f"'{self.path}' is not a run folder: its {DATA} names no classes and their counts")
        return ClassCounts(self.data["counts"], names)

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """One record per measured epoch; a last line that is still being written is left out."""
        return read_history(self.path / HISTORY)

    @property
    def measured_epochs(self) -> list[int]:
        """The epochs in `history`."""
        return [record["epoch"] for record in self.history]

    @property
    def last_epoch(self) -> int:
        """The epoch it ends with: that of the settings, or an earlier one once training error has been zero."""
        return int(last_epoch(self.history, self.config["epochs"]))

    @property
    def finished(self) -> bool:
        """Whether the last epoch has been measured."""
        return bool(self.history) and self.history[-1]["epoch"] >= self.last_epoch

    @property
    def state(self) -> str:
        """In words, now: finished, still training while a process holds the folder, or where it stopped.

        Examples
        --------
        >>> from tempfile import TemporaryDirectory
        >>> from neuralcollapse import TrainConfig, train
        >>> with TemporaryDirectory() as folder:
        ...     train(TrainConfig(epochs=2, threads=1, model_options={"width": 8}), f"{folder}/run").state
        'finished'
        """
        if self.finished:
            return "finished"
        held = is_held(self.path / LOCK)
        if held is None:
            return "unfinished"
        return TRAINING if held else f"stopped after epoch {self.measured_epochs[-1]:,}" if self.history else \
            "stopped before its first measurement"

    @cached_property
    def rescue(self) -> list[dict[str, Any]] | None:
        """The verdict on every class (`steer.ClassVerdict.to_dict`), where the finished run wrote one."""
        if not (self.path / RESCUE).is_file():
            return None
        classes = self._json(RESCUE).get("classes")
        if not (isinstance(classes, list) and all(map(is_verdict, classes))):
            raise InvalidInput(f"'{self.path / RESCUE}' must hold a verdict on every class, got {shown(classes)}")
        return classes

    def grams(self, epoch: int) -> dict[str, Float[np.ndarray, "k k"]] | None:
        """Measured classifiers, embeddings and logits of unit Frobenius norm after `epoch`, if written."""
        prefix = _prefix(epoch)
        return {name.removeprefix(prefix): gram for name, gram in self._geometry.items()
                if name.startswith(prefix)} or None

    @cached_property
    def _geometry(self) -> dict[str, np.ndarray]:
        return read_geometry(self.path / GEOMETRY)

    def _text(self, name: str) -> str:
        try:
            return (self.path / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise InvalidInput(f"cannot read '{self.path / name}': {reason}") from None

    def _json(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads(self._text(name))
        except json.JSONDecodeError:
            content = None
        return self._mapping(name, content)

    def _mapping(self, name: str, content: Any) -> dict[str, Any]:
        if not isinstance(content, dict):
            raise InvalidInput(f"'{self.path}' is not a run folder: its {name} is not a mapping")
        return content


class RunFolder:
    """A run folder, for writing.

    Parameters
    ----------
    path : path of the folder

    Raises
    ------
    InvalidInput
        From every method, when the folder or the disk cannot be written.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | Path, config: str, environment: Mapping[str, Any], data: Mapping[str, Any],
               indices: Mapping[str, np.ndarray]) -> RunFolder:
        """Start a run in a new or empty folder, or over one that has not measured anything yet."""
        folder = cls(path)
        require_free(path)
        with writing(folder.path):
            folder.path.mkdir(parents=True, exist_ok=True)
            with replacing(folder.path / INDICES, alone=True) as part, part.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **indices)
            for stale in (folder.checkpoint, folder.path / GEOMETRY, folder.path / RESCUE):
                stale.unlink(missing_ok=True)
            write(folder.path / ENVIRONMENT, json_bytes(environment, indent=1))
            write(folder.path / DATA, json_bytes(data))
            write(folder.path / HISTORY, b"")
            write(folder.path / CONFIG, config.encode())  # last: with it the folder is a run
        return folder

    def held(self) -> AbstractContextManager[None]:
        """A context in which no other process may write the folder; InvalidInput when one does already."""
        return sole_writer(self.path, LOCK)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line to the history; it is on disk when this returns."""
        content = json_bytes(record)
        with writing(self.path):
            append_line(self.path / HISTORY, content)

    def save_rescue(self, classes: list[dict[str, Any]]) -> None:
        """Write what became of every class."""
        with writing(self.path):
            write(self.path / RESCUE, json_bytes({"classes": classes}))

    def add_grams(self, epoch: int, grams: Mapping[str, Float[np.ndarray, "k k"]]) -> None:
        """Add the Grams of one epoch, as float32; left out above 200 classes."""
        if not grams or max(gram.shape[0] for gram in grams.values()) > GRAMS_UP_TO:
            return
        named = {_prefix(epoch) + name: np.ascontiguousarray(gram, dtype=np.float32)
                 for name, gram in grams.items()}
        with writing(self.path):
            write(self.path / GEOMETRY, safetensors.save({**read_geometry(self.path / GEOMETRY), **named}),
                   durable=False)

    def save_checkpoint(self, content: bytes) -> None:
        """Replace the state that a resumed run continues from."""
        with writing(self.path):
            self.checkpoint.parent.mkdir(exist_ok=True)
            write(self.checkpoint, content)

    @property
    def checkpoint(self) -> Path:
        """Where the latest state is, if there is one."""
        return self.path / CHECKPOINT / "state.pt"

    def mend_history(self) -> None:
        """Cut off a last line that a kill left half-written."""
        with writing(self.path):
            mend_history(self.path / HISTORY)


def last_epoch(history: Sequence[Mapping[str, Any]], epochs: Any) -> Any:
    """The epoch a run ends with: the `epochs` of its settings, or an earlier one that its last record names.

    Examples
    --------
    >>> last_epoch([{"epoch": 7, "terminal": {"zero_error_epoch": 5, "last_epoch": 25}}], 100)
    25
    """
    terminal = history[-1].get("terminal") if history else None
    return (terminal or {}).get("last_epoch") or epochs


def require_free(path: str | Path) -> None:
    """Raise InvalidInput when a new run in `path` would overwrite something."""
    folder = Path(path)
    with writing(folder):
        others = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    if not others:
        return
    foreign = sorted(name for name in others if name.removeprefix(".").removesuffix(".tmp") not in _OURS)
    if foreign and not {CONFIG, HISTORY} <= set(others):
        raise InvalidInput(f"a run needs a new or empty folder, got '{path}' that holds "
                           f"{shown(', '.join(foreign))}")
    measured = len(read_history(folder / HISTORY))
    if measured:
        finished = Run.open(path).finished
        raise InvalidInput(f"'{path}' holds {'a finished' if finished else 'an unfinished'} run with "
                           f"{counted(measured, 'measured epoch')}: "
                           f"{'' if finished else 'resume it, or '}choose another folder")


def _prefix(epoch: int) -> str:
    return f"epoch_{epoch:06d}/"
