"""Mutated and random inputs to everything that reads what others wrote: no traceback, no hang, no unpickling.

Each reader takes bytes or text and may raise InvalidInput (a line for the user) or return; anything else is a failure.
`coverage.py` drives the same readers by coverage.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import io
from pathlib import Path
import pickle
import random
import sys
import tempfile
from typing import Any
import warnings

import numpy as np
from safetensors.numpy import save
import torch

from harness import Check, TooLong, at_most, peak_megabytes
from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments import Run, TrainConfig, read_sweep
from neuralcollapse.label_files import counts_from_file
from neuralcollapse.measure import measure_file
from neuralcollapse.show.explorer.theory_reading import from_query
from neuralcollapse.show.report import render

SECONDS, MEGABYTES = 20, 600
_WORDS = ("nan", "inf", "-1", "0", "1e308", "99999999999999999999", "null", "true", "[]", "{}", "''", "é", "\x00",
          "../..", "!!python/object/apply:os.system ['true']", "&a [*a]", "<<: *x", "%n", "k=10", "ratio=", "--",
          "\u202e", "=", ":", ",", "\n", "{{7*7}}")


class Readers:
    """The readers, each a function of bytes, and samples of what they are made for."""

    def __init__(self, place: Path):
        self.place = place
        rng = np.random.default_rng(0)
        arrays = {"features": rng.standard_normal((12, 3)).astype(np.float32), "labels": np.repeat([0, 1, 2], 4),
                  "weight": rng.standard_normal((3, 3)).astype(np.float32)}
        npz, npy = io.BytesIO(), io.BytesIO()
        np.savez(npz, **arrays)
        np.save(npy, arrays["labels"])
        run = self._run()
        texts = [b"10,10,1,1", b"500, 5", b"k=10,ratio=100,minority=0.5,n_min=5"]
        self.all: dict[str, tuple[Callable[[bytes], object], list[bytes]]] = {
            "counts": (self._counts, texts),
            "configuration": (self._config, [TrainConfig().to_yaml().encode(), b"epochs: 3\nloss: vs\n"]),
            "sweep": (self._sweep, [b"base: {epochs: 3}\ngrid:\n  ratio: [1, 10]\nseeds: 2\n"]),
            "URL": (self._url, [b"?profile=step&k=10&ratio=100&loss=ldt&ridge=0.5", b"?profile=counts&counts=9,1,1"]),
            "labels": (self._labels, [b"0\n1\n2\n0\n", npy.getvalue()]),
            "npz": (self._snapshot(".npz"), [npz.getvalue()]),
            "safetensors": (self._snapshot(".safetensors"), [save(arrays)]),
        }
        self.all |= {f"run folder, {file.name}": (self._file_of_a_run(run, file), [file.read_bytes()])
                     for file in sorted(run.iterdir()) if file.is_file() and not file.name.startswith(".")}

    def _run(self) -> Path:
        from neuralcollapse.experiments.train import train

        config = TrainConfig(epochs=2, measure="every 1", n_max=20, threads=1,
                             model_options={"width": 4, "features": 3})
        return train(config, self.place / "run").path

    def _counts(self, content: bytes) -> None:
        text = content.decode(errors="replace")
        ClassCounts.from_counts(text)

    def _config(self, content: bytes) -> None:
        file = self.place / "config.yaml"
        file.write_bytes(content)
        TrainConfig.from_yaml(file)

    def _sweep(self, content: bytes) -> None:
        file = self.place / "sweep.yaml"
        file.write_bytes(content)
        read_sweep(file)

    def _url(self, content: bytes) -> None:
        from_query(content.decode(errors="replace"))  # never raises at all

    def _labels(self, content: bytes) -> None:
        for suffix in (".txt", ".npy"):
            file = self.place / f"labels{suffix}"
            file.write_bytes(content)
            counts_from_file(file)

    def _snapshot(self, suffix: str) -> Callable[[bytes], None]:
        def read(content: bytes) -> None:
            file = self.place / f"snapshot{suffix}"
            file.write_bytes(content)
            measure_file(file)

        return read

    def _file_of_a_run(self, run: Path, file: Path) -> Callable[[bytes], None]:
        whole = file.read_bytes()

        def read(content: bytes) -> None:
            file.write_bytes(content)
            try:
                render(Run.open(run))
            finally:
                file.write_bytes(whole)

        return read


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A few random edits: bytes flipped, cut, repeated, words put in."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 12))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 1:
            del data[at:at + rng.choice((1, 3, 20, len(data)))]
        elif kind == 2:
            data[at:at] = data[at:at + rng.choice((1, 8, 64))] * rng.choice((1, 2, 30))
        elif kind == 3:
            data[at:at] = rng.choice(_WORDS).encode()
        else:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 16)))
    return bytes(data)


def forbid_unpickling() -> None:
    """Make it an error that no reader catches."""
    def refuse(*_: Any, **__: Any) -> Any:
        raise TooLong("unpickled")

    for name in ("load", "loads", "Unpickler"):
        setattr(pickle, name, refuse)


def feed(read: Callable[[bytes], object], content: bytes) -> str | None:
    """What went wrong, if anything."""
    try:
        with at_most(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(content)
    except InvalidInput as error:
        lines = str(error).splitlines()
        return None if len(lines) == 1 and len(lines[0]) < 2000 else (
            f"a message of {len(lines)} lines, {len(str(error))} characters: {str(error)[:200]!r}")
    except TooLong as error:
        return str(error)
    except BaseException as error:  # what is not refused in a line is a failure
        return f"{type(error).__name__}: {error}"
    return None


def main(many: int = 100_000, seed: int = 0) -> Check:
    """So many inputs in all; files cost more than text and get fewer."""
    check = Check("fuzz", "mutated counts, configurations, sweeps, URLs, label files, snapshots and run folders")
    torch.set_num_threads(1)
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        readers = Readers(Path(folder)).all
        forbid_unpickling()
        before = peak_megabytes()
        shares = {"counts": 0.40, "URL": 0.30, "configuration": 0.06, "sweep": 0.06, "labels": 0.08, "npz": 0.04,
                  "safetensors": 0.05, "run folder": 0.01}
        files = sum(name.startswith("run folder") for name in readers)
        for name, (read, samples) in readers.items():
            for _ in range(round(many * shares[name] if name in shares else many * shares["run folder"] / files)):
                content = mutated(rng.choice(samples), rng)
                wrong = feed(read, content)
                check.count += 1
                if wrong is not None:
                    check.fail(f"{name}: {wrong} (input {content[:80]!r})")
            print(f"  {name}: {check.count:,} so far, {len(check.failures)} failed", flush=True)
        grown = peak_megabytes() - before
        if grown > MEGABYTES:
            check.fail(f"memory grew by {grown} MB")
        check.figures = {"memory grown by": f"{grown} MB"}
    check.close()
    return check


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--many", type=int, default=100_000)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    sys.exit(bool(main(given.many, given.seed).failures))
