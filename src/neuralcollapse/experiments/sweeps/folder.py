"""The folder of a sweep: one run folder per cell, and beside them

    sweep.yaml           every cell with the settings that vary, and those that all share
    failed/NAME.json     why a cell failed: type, message, traceback, where
    .sweep/              while it goes on: `session` names the sweep that may write, a lock per cell lets one process
                         at a time train it, NAME.worker says which one does

A killed sweep may leave processes behind that still train (on a cluster nothing can stop them at once). They see
that `session` names another sweep and stop after their epoch; until then the lock keeps others out of the run folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
import json
import os
from pathlib import Path
import re
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout
import yaml

from neuralcollapse.checks import InvalidInput, shown
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.run import CONFIG, DATA, Run
from neuralcollapse.experiments.run_files import json_bytes, write
from neuralcollapse.experiments.sweeps.grid import GridCell, canonical
from neuralcollapse.files import writing

SWEEP, FAILED, _STATE, _SESSION, _WORKER = "sweep.yaml", "failed", ".sweep", "session", ".worker"


class SweepFolder:
    """Where a sweep goes.

    Parameters
    ----------
    path : path of the folder
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).absolute()
        self._state = self.path / _STATE

    @contextmanager
    def opened(self) -> Iterator[str]:
        """The name of a new session, for as long as no other sweep may write here.

        Raises
        ------
        InvalidInput
            A folder that holds something else or cannot be written, or another sweep at work in it.
        """
        others = sorted(entry.name for entry in self.path.iterdir()) if self.path.is_dir() else []
        if not {SWEEP, _STATE} & set(others) and others:
            raise InvalidInput(f"a sweep needs a new or empty folder or one that holds a sweep, got '{self.path}' that "
                               f"holds {shown(', '.join(others))}")
        session, lock = uuid4().hex, FileLock(self._state / "lock", timeout=0)
        with writing(self.path):
            self._state.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout:
                raise InvalidInput(f"another sweep is at work in '{self.path}': wait for it, or stop it") from None
        try:
            with writing(self.path):
                write(self._state / _SESSION, session.encode())
                for left in self._state.glob(f"*{_WORKER}"):
                    left.unlink(missing_ok=True)
            yield session
        finally:
            with suppress(OSError):  # whoever still trains stops after its epoch
                (self._state / _SESSION).unlink()
            lock.release()

    def session(self) -> str | None:
        """The session that may write; None when there is none, or when the folder cannot be seen from here."""
        try:
            return (self._state / _SESSION).read_text(encoding="utf-8")
        except OSError:
            return None

    def lock(self, name: str) -> FileLock:
        """What a process holds while it trains a cell; freed when it dies."""
        return FileLock(self._state / f"{name}.lock")

    @contextmanager
    def at_work(self, name: str, who: str) -> Iterator[None]:
        """Say that a cell is being trained."""
        marker = self._state / f"{name}{_WORKER}"
        marker.write_text(who, encoding="utf-8")
        try:
            yield
        finally:
            marker.unlink(missing_ok=True)

    def working(self) -> set[str]:
        """The cells that are being trained."""
        try:
            return {entry.removesuffix(_WORKER) for entry in os.listdir(self._state) if entry.endswith(_WORKER)}
        except OSError:
            return set()

    def worker(self, name: str) -> str:
        """Who trains a cell, or did when it was killed; forgotten then."""
        marker = self._state / f"{name}{_WORKER}"
        try:
            who = marker.read_text(encoding="utf-8")
            marker.unlink()
        except OSError:
            return "a worker"
        return who or "a worker"

    def placed(self, cells: Sequence[GridCell]) -> list[GridCell]:
        """The cells under the names of the folders that hold their settings already, the others under their own.

        Raises
        ------
        InvalidInput
            A cell's folder that holds a run with other settings, with the difference.
        """
        found = {run.name: _settings(run) for run in self.runs()}
        names = {canonical(config): name for name, config in found.items() if config is not None}
        placed = [replace(cell, name=names.get(canonical(cell.config), cell.name)) for cell in cells]
        for cell in placed:
            there = found.get(cell.name)
            if there is not None and there != cell.config:
                its, mine = there.model_dump(), cell.config.model_dump()
                changes = ", ".join(f"{key} is {shown(its[key])} there and {shown(mine[key])} here"
                                    for key in mine if mine[key] != its[key])
                raise InvalidInput(f"'{self.path / cell.name}' holds a run with other settings: {changes}: "
                                   "choose another folder")
        return placed

    def runs(self) -> list[Path]:
        """The run folders, by name."""
        return run_folders(self.path)

    def write_cells(self, cells: Sequence[GridCell]) -> None:
        """Write sweep.yaml."""
        varying = {key.partition(".")[0] for cell in cells for key in cell.settings}
        shared = {key: value for key, value in cells[0].config.model_dump().items() if key not in varying}
        content = {"base": shared, "cells": {cell.name: cell.settings for cell in cells}}
        with writing(self.path):
            write(self.path / SWEEP, yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())

    def save_failure(self, name: str, error: Mapping[str, Any]) -> None:
        """Write why a cell failed."""
        with writing(self.path):
            (self.path / FAILED).mkdir(exist_ok=True)
            write(self.path / FAILED / f"{name}.json", json_bytes(error, indent=1))

    def forget_failure(self, name: str) -> None:
        """A cell that failed before is done."""
        with writing(self.path):
            (self.path / FAILED / f"{name}.json").unlink(missing_ok=True)


def run_folders(path: Path) -> list[Path]:
    """The folders in `path` that hold runs, broken ones among them, by name: seed-2 before seed-10."""
    try:
        entries = [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise InvalidInput(f"cannot read '{path}': {error.strerror}") from None
    return sorted((entry for entry in entries if (entry / CONFIG).exists() or (entry / DATA).exists()),
                  key=lambda entry: [int(part) if part.isdecimal() else part
                                     for part in re.split(r"([0-9]+)", entry.name)])


def failures(path: Path) -> dict[str, dict[str, Any]]:
    """Why cells of the sweep in `path` failed, by name; nothing for a folder that is no sweep."""
    found = {}
    for file in sorted((path / FAILED).glob("*.json")):
        with suppress(OSError, ValueError):
            content = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(content, dict):
                found[file.stem] = content
    return found


def _settings(run: Path) -> TrainConfig | None:
    """The settings of a run folder; None where they cannot be read, which training in it will say."""
    try:
        return TrainConfig(**Run.open(run).config)
    except (InvalidInput, TypeError):
        return None
