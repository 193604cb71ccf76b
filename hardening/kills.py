"""SIGKILL at random moments of train, sweep, simulate and report: what was written is kept, everything goes on.

A run that is killed again and again has to end with the history of one that was not, and what was read from its folder
before a kill has to be there after it. A report is the old page or the new one, never a part of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
import json
import os
from pathlib import Path
import random
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch

from harness import Check
from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments import Run, TrainConfig
from neuralcollapse.experiments.train import train
from neuralcollapse.show import write_report
from neuralcollapse.simulate import Simulation, simulate

CONFIG = TrainConfig(epochs=40, measure="every 4", n_max=60, batch_size=32, threads=1, checkpoint_every=0,
                     model_options={"width": 32, "features": 12})
PROFILES = [[20, 2], [9, 3]]
SWEEP = {"base": {"epochs": 30, "n_max": 60, "batch_size": 32, "threads": 1, "measure": "every 5",
                  "model_options": {"width": 32}}, "grid": {"ratio": [1, 10]}, "seeds": 3}


def main(many: int = 200, seed: int = 0) -> Check:
    """So many kills, most of them of training."""
    check = Check("kills", "SIGKILL at random moments of train, simulate, report and sweep")
    rng = random.Random(seed)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        told = {"train": kill_training(check, place / "train", rng, many // 2),
                "simulate": kill_simulations(check, place / "simulate", rng, many // 4),
                "report": kill_reports(check, place / "report", rng, many // 5),
                "sweep": kill_sweeps(check, place / "sweep", rng, max(2, many // 16))}
    check.count = sum(told.values())
    check.figures = {f"of {verb}": number for verb, number in told.items()}
    check.close()
    return check


def killed(task: Callable[[], object], after: float) -> bool:
    """Run a task in a process that is killed after some seconds; whether that came in time."""
    child = os.fork()
    if not child:
        code = 1
        try:
            task()
            code = 0
        except BaseException as error:  # the parent sees the code
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        os._exit(code)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the task itself ended with {code}")
    return code != 0


def without_times(run: Run) -> list[dict[str, object]]:
    """The history, but for how long things took."""
    return [{name: value for name, value in record.items() if name != "seconds"} for record in run.history]


def kill_training(check: Check, place: Path, rng: random.Random, many: int) -> int:
    """Run after run, each killed until it is finished."""
    place.mkdir()
    train(CONFIG, place / "warm")  # the first is longer
    begin = time.monotonic()
    whole = without_times(train(CONFIG, place / "whole"))
    length, kills, number = time.monotonic() - begin, 0, 0
    while kills < many:
        out, kept, number = place / str(number), [], number + 1
        while True:
            go_on = partial(train, CONFIG, out, resume=(out / "config.yaml").is_file())
            dead = killed(go_on, rng.uniform(0, 0.8 * length))
            kills += dead
            try:
                now = without_times(Run.open(out))
            except InvalidInput:
                now = []  # killed before the folder was a run
            if now[:len(kept)] != kept:
                check.fail(f"train: {len(kept)} records were there before a kill, {len(now)} after it")
            kept = now
            if not dead:
                break
        if kept != whole:
            check.fail(f"train: run {number} ended with another history than one that was not killed")
    return kills


def kill_simulations(check: Check, place: Path, rng: random.Random, many: int) -> int:
    """As training, of the unconstrained model; it saves itself by the clock, so a run needs one that is long enough."""
    place.mkdir()

    def run(out: Path) -> Simulation:
        return simulate(PROFILES, "nesterov", steps=6000, ridge=0.1, seeds=4, snapshots=60, folder=out,
                        resume=out.is_dir() and any(out.iterdir()))

    run(place / "warm")
    begin = time.monotonic()
    whole = run(place / "whole")
    length, kills, number = time.monotonic() - begin, 0, 0
    while kills < many:
        out, number = place / str(number), number + 1
        while killed(partial(run, out), rng.uniform(0, 1.3 * length)):
            kills += 1
        again = run(out)
        if not np.array_equal(again.classifiers, whole.classifiers):
            check.fail(f"simulate: run {number} ended elsewhere than one that was not killed")
    return kills


def kill_reports(check: Check, place: Path, rng: random.Random, many: int) -> int:
    """A report that is written over and over."""
    run = train(CONFIG, place)
    page = write_report(run)
    begin = time.monotonic()
    whole = write_report(run).read_bytes()
    length, kills = time.monotonic() - begin, 0
    while kills < many:
        kills += killed(lambda: write_report(run), rng.uniform(0, length))
        if page.read_bytes() != whole:
            check.fail("report: a kill left another page than the whole one")
    return kills


def kill_sweeps(check: Check, place: Path, rng: random.Random, many: int) -> int:
    """The process of a sweep; its workers end with it."""
    file = place.parent / "grid.json"  # JSON is YAML
    file.write_text(json.dumps(SWEEP))
    command = [sys.executable, "-m", "neuralcollapse", "sweep", str(file), "--jobs", "2", "--out"]
    kills = number = 0
    while kills < many:
        out, number = place.parent / f"sweep-{number}", number + 1
        while True:
            process = subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            try:
                _, said = process.communicate(timeout=rng.uniform(1, 14))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills += 1
                continue
            if process.returncode:
                check.fail(f"sweep: ended with {process.returncode}: {said.decode()[-300:]}")
            break
        runs = [Run.open(file.parent) for file in out.glob("*/config.yaml")]
        if len(runs) != 6 or not all(run.finished for run in runs):
            check.fail(f"sweep: {sum(run.finished for run in runs)} of 6 runs are finished")
    return kills


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--many", type=int, default=200)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    sys.exit(bool(main(given.many, given.seed).failures))
