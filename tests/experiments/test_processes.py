"""Two real gloo processes: the run of one process to 1e-5, one history, and nobody waits for a process that is gone."""

from dataclasses import replace
import json
import os
from pathlib import Path
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data import load_data
from neuralcollapse.experiments.run import Run, RunFolder
from neuralcollapse.experiments.session import Session, reproducible
from neuralcollapse.experiments.train import train

HERE = Path(__file__).parent
TINY = TrainConfig(epochs=5, measure="every 2", n_max=40, batch_size=33, feature_penalty=1e-4, learning_rate=0.1,
                   schedule="constant", threads=1, device="cpu", model_options={"width": 16, "features": 12})
# "noisy" at 0.02: at 0.1 the class means after an epoch span condition numbers of 450,000 (7,000 here, 10,000 when
# plain), and NC1 divides by the smallest: float32 rounding then shows in its fifth digit on some processors.
RUNS = {"plain": TINY, "noisy": TINY.replace(label_noise=0.1, terminal_epochs=2, learning_rate=0.02),
        "oversampled": TINY.replace(sampling="oversampled", loss="vs", optimizer="adam", learning_rate=0.01),
        "normed": TINY.replace(model_options={"width": 16, "features": 12, "batch_norm": True}),
        "resumed": TINY}


def next_token_session():
    """Texts in which one position in five has no label, and one whole stretch none."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, (20, 8))
    labels[rng.random(labels.shape) < 0.2] = -100
    labels[:4] = -100
    texts = rng.integers(0, 9, (20, 8))
    counts = ClassCounts(np.bincount(labels[labels >= 0], minlength=6))
    config = TINY.replace(model="transformer", model_options={"width": 8, "heads": 2, "depth": 1}, batch_size=5)
    data = replace(load_data(config), inputs=torch.from_numpy(texts), labels=torch.from_numpy(labels), counts=counts,
                   test_inputs=torch.from_numpy(texts[:7]), test_labels=torch.from_numpy(labels[:7]), tokens=9,
                   indices=np.arange(20), test_indices=np.arange(7))
    return Session(config, data)


def next_token_results():
    with reproducible(1):
        session = next_token_session()
        losses = [session.run_epoch(epoch) for epoch in (1, 2, 3)]
        values, measurement = session.measure(3)
        return {"losses": losses, **values, "measurement": measurement.to_dict()}


def refused(call):
    with pytest.raises(InvalidInput) as error:
        call()
    return str(error.value)


def one_of_two(folder):
    """What each of the two processes does, in turn."""
    folder, rank = Path(folder), int(os.environ["RANK"])
    for name, config in RUNS.items():
        heard = []
        train(config, folder / name, resume=name == "resumed", on_epoch=heard.append)
        assert bool(heard) == (rank == 0)
    found = {"next token": next_token_results(),
             "taken": refused(lambda: train(TINY, folder / "plain")),
             "held": refused(lambda: train(None, folder / "held", resume=True)),
             "small": refused(lambda: train(TINY.replace(batch_size=1), folder / "small"))}
    (folder / f"rank-{rank}.json").write_text(json.dumps(found))
    os._exit(0)  # as the command line leaves: the other one may still be writing


def launched(arguments):
    """The same Python in two processes that a launcher would start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return [subprocess.Popen([sys.executable, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             env={**environment, "RANK": str(r), "LOCAL_RANK": str(r)}) for r in range(2)]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The folder in which two processes have trained, and what they printed."""
    folder = tmp_path_factory.mktemp("ranks")

    def stop(report):
        raise KeyboardInterrupt

    for name in ("resumed", "held"):
        with pytest.raises(KeyboardInterrupt):
            train(TINY, folder / name, on_epoch=stop)
    code = f"import test_processes as here; here.one_of_two({str(folder)!r})"
    with RunFolder(folder / "held").held():
        started = launched(["-c", code])
        try:
            said = [process.communicate(timeout=600) for process in started]
        finally:
            for process in started:
                process.kill()
    assert [process.returncode for process in started] == [0, 0], said
    return folder, said


def numbers(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            if key != "seconds":
                yield from numbers(inner, (*path, key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from numbers(inner, (*path, place))
    else:
        yield path, value


def assert_alike(one, other, rtol=1e-5):
    """Counts, names and shares of samples equal; everything else to rounding."""
    one, other = dict(numbers(one)), dict(numbers(other))
    assert one.keys() == other.keys()
    for path, value in one.items():
        # Cosines and margins pass through zero: there the tolerance is relative to 1.
        assert other[path] == (pytest.approx(value, rel=rtol, abs=rtol) if isinstance(value, float) else value), path


@pytest.mark.parametrize("name", ["plain", "noisy", "oversampled", "resumed"])
def test_the_history_is_that_of_one_process(results, tmp_path, name):
    folder, said = results
    alone = train(RUNS[name], tmp_path / "alone")
    together = Run.open(folder / name)
    assert together.finished, said
    assert together.measured_epochs == alone.measured_epochs
    assert_alike(alone.history, together.history)
    for part, gram in alone.grams(5).items():
        np.testing.assert_allclose(together.grams(5)[part], gram, atol=1e-5)
    assert [one["kind"] for one in together.rescue] == [one["kind"] for one in alone.rescue]
    assert together.data == alone.data


def test_batch_norm_normalises_each_part_by_itself_and_all_measure_one_network(results):
    run = Run.open(results[0] / "normed")
    assert run.finished, results[1]
    # Accuracy is counted twice: over both processes' logits, and by the measurement that they share.
    last = run.history[-1]
    assert last["train"]["accuracy"] == pytest.approx(last["measurement"]["accuracy"]["overall"], abs=1e-12)
    assert last["measurement"]["counts"] == run.data["counts"]


def test_next_tokens_are_shared_out_with_their_labels_weighed(results):
    both = [json.loads((results[0] / f"rank-{rank}.json").read_text())["next token"] for rank in range(2)]
    assert both[0] == both[1]
    assert_alike(json.loads(json.dumps(next_token_results())), both[0])


@pytest.mark.parametrize(("what", "message"), [
    ("taken", "'{}/plain' holds a finished run with 4 measured epochs: choose another folder"),
    ("held", "'{}/held' is being written by another process: wait for it, or choose another folder"),
    ("small", "every process needs a sample of each batch, got 2 processes and batches of 1")])
def test_all_processes_hear_what_was_wrong(results, what, message):
    for rank in range(2):
        found = json.loads((results[0] / f"rank-{rank}.json").read_text())
        assert found[what] == message.format(results[0])


def test_a_process_that_dies_is_one_line_in_the_others(tmp_path):
    settings = TINY.replace(epochs=10**6, measure=[1])
    (tmp_path / "config.yaml").write_text(settings.to_yaml())
    lost = tmp_path / "lost"
    started = launched(["-m", "neuralcollapse", "train", "--config", str(tmp_path / "config.yaml"), "--out", str(lost)])
    try:
        end = time.monotonic() + 200
        while not ((lost / "history.jsonl").exists() and (lost / "history.jsonl").read_bytes()):
            assert time.monotonic() < end
            assert [process.poll() for process in started] == [None, None]
            time.sleep(0.01)
        started[1].kill()
        said = started[0].communicate(timeout=200)[1]
    finally:
        for process in started:
            process.kill()
            process.communicate()
    assert started[0].returncode == 2, said
    assert said.splitlines()[-1] == ("neuralcollapse: another process of this run has stopped (its own message says "
                                     "why): what was written stays, and --resume continues from there")


def test_the_package_is_a_module_that_launchers_can_start():
    result = subprocess.run([sys.executable, "-m", "neuralcollapse", "--version"], capture_output=True, text=True)
    assert (result.returncode, result.stdout.count(".")) == (0, 3), result.stderr
