"""The explorer's page of runs over HTTP: how long each control takes to answer, for runs of 100 measured epochs.

Promised is 200 ms up to 100 classes and 1 s at 1,000, on two cores. Each control is asked several times at different
epochs, runs or comparisons, after the list of runs, which reads all of them; printed are the median, the slowest and
the most processor time of one answer, which tells a slow answer from a busy machine.
"""

import argparse
from http.client import HTTPConnection
import json
from pathlib import Path
import statistics
import tempfile
from threading import Thread
import time
from typing import NamedTuple

import numpy as np
import yaml

from harness import machine
from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.run import RunFolder
from neuralcollapse.show.explorer import explore

EPOCHS = range(1, 101)
LIMITS = {10: 200, 100: 200, 1_000: 1_000, 10_000: None}


class Answer(NamedTuple):
    """Milliseconds of one answer, and how many of them the processor worked for it."""

    wall: float
    processor: float


class Browser:
    """Sends what the page in a browser would send."""

    def __init__(self, address: str):
        self._at = HTTPConnection(address.split("/")[2])
        self._callbacks = json.loads(self._get("/_dash-dependencies"))

    def ask(self, output: str, changed: str, **values: object) -> Answer:
        """The time until the callback with this output has answered; `values` by id with "_" for "-"."""
        found = next(each for each in self._callbacks if output in each["output"] and each.get("clientside_function")
                     is None)

        def filled(parts: list[dict[str, str]]) -> list[dict[str, object]]:
            return [part | {"value": values.get(part["id"].replace("-", "_"))} for part in parts]

        names = found["output"].strip(".").split("...")
        outputs = [dict(zip(("id", "property"), name.rsplit(".", 1), strict=True)) for name in names]
        body = json.dumps({"output": found["output"], "outputs": outputs if len(names) > 1 else outputs[0],
                           "inputs": filled(found["inputs"]), "state": filled(found["state"]),
                           "changedPropIds": [changed]})
        start, used = time.perf_counter(), time.process_time()
        self._at.request("POST", "/_dash-update-component", body, {"Content-Type": "application/json"})
        answer = self._at.getresponse()
        content = answer.read()
        assert answer.status == 200, content[:300]
        return Answer(1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - used))

    def _get(self, path: str) -> bytes:
        self._at.request("GET", path)
        return self._at.getresponse().read()


def make_run(path: Path, k: int, seed: int) -> None:
    """A run folder with a number in every place a real one has; they mean nothing."""
    rng = np.random.default_rng(seed)
    counts = ClassCounts.long_tail(k, 100, 500) if k > 100 else ClassCounts.step(k, 10, 0.5, n_min=14)
    data = {"dataset": "made", "names": list(counts.names), "counts": counts.values.tolist(),
            "test_counts": [20] * k, "features": 64, "ridges": {"classifiers": 1.0, "embeddings": 0.01}}
    folder = RunFolder.create(path, yaml.safe_dump({"dataset": "made", "model": "mlp", "loss": "ce", "epochs": 100,
                                                    "seed": seed}), {}, data, {"train": np.arange(2)})
    lines = []
    for epoch in EPOCHS:
        def one() -> float:
            return float(rng.uniform(0.1, 1.0))

        def each() -> list[float]:
            return rng.uniform(0.1, 1.0, k).tolist()

        far = {part: one() for part in ("classifiers", "embeddings", "logits")}
        lines.append(json.dumps({
            "epoch": epoch, "train": {"loss": one(), "accuracy": one()},
            "test": {"loss": one(), "accuracy": one(), "balanced_accuracy": one(), "majority_accuracy": one(),
                     "minority_accuracy": one(), "per_class_accuracy": each()},
            "measurement": {
                "center": "classes", "nc1": {"pinv": one(), "trace": one(), "per_class": each()}, "cdnv": one(),
                "nc2": {part: {"norm_cv": one(), "angle": one()} for part in ("classifiers", "embeddings")},
                "nc3": one(), "nc4": one(), "distance": {"target": "seli", **far},
                "distances": {"seli": far, "etf": far, **({"ridge:0.1": far} if k <= 100 else {})},
                "norms": {"classifiers": each(), "embeddings": each()},
                "cosines": {part: {pair: one() for pair in ("majority_majority", "majority_minority",
                                                            "minority_minority")}
                            for part in ("classifiers", "embeddings")},
                "margins": {"min": one(), "per_class": {"min": each(), "mean": each()}}}}))
        if epoch % 10 == 0 or epoch == 1:
            folder.add_grams(epoch, {part: rng.normal(size=(k, k)) / k for part in far} if k <= 200 else {})
    (path / "history.jsonl").write_text("\n".join(lines) + "\n")


def time_controls(k: int) -> dict[str, list[Answer]]:
    """Every control, asked several times."""
    with tempfile.TemporaryDirectory() as place:
        names = ["one", "two", "three"]
        for seed, name in enumerate(names):
            make_run(Path(place) / name, k, seed)
        addresses: list[str] = []
        Thread(target=explore, args=([Path(place) / name for name in names],),
               kwargs={"port": 0, "ready": addresses.append}, daemon=True).start()
        while not addresses:
            time.sleep(0.05)
        browser = Browser(addresses[0])

        def drawn(name: str) -> dict[str, object]:
            return {"run": name, "version": "", "dark": False, "last": 99}

        browser.ask("runs-list", "runs-seen.data", runs_chosen="one", runs_others=[])
        browser.ask("run-nearest", "run-epoch-shown.children", run_epoch_shown="100", run_epoch=99,
                    runs_drawn=drawn("one"))  # the path along λ is solved once, while everything else is shown
        looked = [browser.ask("run-head", "runs-chosen.data", runs_chosen=name, dark=False, runs_drawn={}, run_epoch=0)
                  for name in (*names, *names)]
        return {
            "choose a run": looked,
            "move the epoch": [browser.ask("run-pictures", "run-epoch.value", run_epoch=place, runs_drawn=drawn("one"))
                               for place in (99, 0, 9, 19, 29, 49)],
            "λ_eff of an epoch": [browser.ask("run-nearest", "run-epoch-shown.children", run_epoch_shown="1",
                                              run_epoch=place, runs_drawn=drawn("one")) for place in (9, 19, 29)],
            "compare": [browser.ask("runs-comparison", "runs-others.data", runs_chosen="one", runs_others=others,
                                    dark=False, runs_compared="")
                        for others in (["two"], ["two", "three"], ["three"])],
            "list": [browser.ask("runs-list", "runs-others.data", runs_chosen="one", runs_others=["two"])
                     for _ in range(3)],
            "has anything changed": [browser.ask("runs-seen", "runs-tick.n_intervals", runs_seen="")
                                     for _ in range(3)]}


def main() -> None:
    """Print a line per control and size."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--classes", type=int, nargs="+", default=[10, 100, 1_000])
    print(machine())
    for k in options.parse_args().classes:
        limit = LIMITS.get(k)
        for control, answers in time_controls(k).items():
            walls = [answer.wall for answer in answers]
            kept = "" if limit is None else f", promised {limit} ms: {'kept' if max(walls) <= limit else 'BROKEN'}"
            print(f"k = {k:,}: {control}: median {statistics.median(walls):.0f} ms, slowest {max(walls):.0f} ms, "
                  f"processor {max(answer.processor for answer in answers):.0f} ms{kept}", flush=True)


if __name__ == "__main__":
    main()
