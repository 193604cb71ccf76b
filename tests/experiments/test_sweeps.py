"""Sweeps in real processes: what is missing is trained, what fails is recorded, and no kill changes anything."""

from concurrent.futures import ThreadPoolExecutor
import json
import os
from pathlib import Path
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from rich.console import Console
import yaml

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments import Run, TrainConfig, sweep
from neuralcollapse.experiments.sweeps import pools, worker
from neuralcollapse.experiments.sweeps.folder import SweepFolder
from neuralcollapse.experiments.sweeps.progress import SweepProgress
from neuralcollapse.experiments.sweeps.running import CellState

BASE = {"epochs": 3, "n_max": 20, "batch_size": 32, "model_options": {"width": 8, "features": 8}, "threads": 1,
        "measure": "every 1"}
GRID = {"base": BASE, "grid": {"ratio": [1, 10]}, "seeds": 2}
NAMES = ["ratio-1_seed-0", "ratio-10_seed-0", "ratio-1_seed-1", "ratio-10_seed-1"]
FACTORIES = """
import os, signal
from pathlib import Path
from neuralcollapse.experiments import MODELS

def mlp(*given, **options):
    return MODELS["mlp"].function(*given, width=8, features=8, **options)

def killed_once(*given, flag):
    if not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return mlp(*given)

def always_killed(*given):
    os.kill(os.getpid(), signal.SIGKILL)

def leaving(*given, session):
    Path(session).write_text("another")
    return mlp(*given)
"""


def untimed(run):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in Run.open(run).history]


def written(folder):
    return {path: path.stat().st_mtime_ns for name in NAMES for path in (folder / name).rglob("*") if path.is_file()}


def wait_for(condition, seconds=600):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


def at_work(folder):
    """The process that trains a cell, where one does."""
    for marker in (folder / ".sweep").glob("*.worker"):
        words = marker.read_text().split()
        if len(words) > 1:
            return int(words[1])
    return None


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A sweep that nothing happened to."""
    folder = tmp_path_factory.mktemp("sweeps") / "undisturbed"
    result = sweep(GRID, folder, jobs=1)
    assert [(cell.name, cell.state, cell.last["epoch"]) for cell in result.cells] == [(n, "done", 3) for n in NAMES]
    return folder


@pytest.fixture
def started():
    """Starts processes that end with the test."""
    processes = []

    def start(*words, **options):
        processes.append(subprocess.Popen(list(map(str, words)), **options))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def factories(tmp_path, monkeypatch):
    (tmp_path / "sweep_factories.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)


# -- on this machine ----------------------------------------------------------------------------------


def test_a_worker_that_grows_is_kept():
    pytest.importorskip("psutil")  # without it joblib does not look
    pool = pools.LocalPool(1, 1)

    def process(words="0"):
        future = pool.submit(eval, f"({words}, __import__('os').getpid())[1]")
        number = future.result(timeout=60)
        pool.release(future)
        return number

    try:
        first = process()
        time.sleep(1.1)  # it looks once a second
        process("globals().update(kept=b'x' * 400_000_000)")
        assert process() == process() == first
    finally:
        pool.close()


def test_done_cells_are_kept_whatever_they_would_be_called_now(undisturbed):
    before, heard = written(undisturbed), []
    result = sweep(GRID, undisturbed, progress=lambda cells: heard.append([cell.state for cell in cells]))
    # The same runs as explicit cells would have other names: their folders are found by what they hold.
    cells = [{"seed": seed, "ratio": ratio} for seed in (1, 0) for ratio in (10.0, 1)]
    renamed = sweep({"base": BASE, "cells": cells}, undisturbed)
    assert [cell.folder.name for cell in renamed.cells] == NAMES[::-1]
    assert heard == [["done"] * 4]
    assert written(undisturbed) == before
    assert result.to_dict()["done"] == 4
    saved = yaml.safe_load((undisturbed / "sweep.yaml").read_text())
    assert saved["cells"][NAMES[1]] == {"seed": 0, "ratio": 10}
    for name, settings in saved["cells"].items():
        assert TrainConfig(**saved["base"], **settings) == TrainConfig(**Run.open(undisturbed / name).config)


def test_cells_fail_alone_and_are_recorded(undisturbed, tmp_path, factories, cli):
    factory = {"model_options": {}}
    cells = [{"seed": 0}, {"model": "sweep_factories:killed_once", "model_options": {"flag": str(tmp_path / "once")}},
             {"dataset": f"npz:{tmp_path}/none.npz"}, {"learning_rate": 1e30},
             {"model": "sweep_factories:always_killed", **factory}]
    file, out = tmp_path / "grid.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump({"base": BASE | {"ratio": 10}, "cells": cells}))
    result = cli("sweep", file, "--out", out, "--jobs", 1, "--json")
    assert result.code == 1
    assert result.err.splitlines()[-1] == (f"neuralcollapse: 3 of 5 cells failed: see {out}/failed; the same command "
                                           "tries them again")
    assert len(result.err.splitlines()) == 6
    assert result.err.startswith("1 of 5  seed-0  done  balanced accuracy ")
    document = json.loads(result.out)
    assert [cell["state"] for cell in document["cells"]] == ["done", "done", "failed", "failed", "failed"]
    assert (document["done"], document["failed"]) == (2, 3)
    assert untimed(out / "seed-0") == untimed(undisturbed / NAMES[1])
    missing, diverged, killed = (cell["error"] for cell in document["cells"][2:])
    assert missing["message"] == f"cannot read the data set '{tmp_path}/none.npz': No such file or directory"
    assert "in load_data" in missing["traceback"]
    assert diverged["message"].startswith("the loss must stay finite, but is not after epoch 1")
    assert killed["type"] == "WorkerKilled"
    assert killed["message"] == ("the worker that trained it was killed, and so was the one that tried again: is there "
                                 "enough memory?")
    assert killed["where"].endswith(f" on {socket.gethostname()}")
    recorded = {path.stem: json.loads(path.read_text()) for path in (out / "failed").iterdir()}
    assert recorded == {cell["name"]: cell["error"] for cell in document["cells"][2:]}


def test_interrupted_or_killed_at_any_moment_it_goes_on_to_the_same(undisturbed, tmp_path, started):
    file, out = tmp_path / "grid.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(GRID))
    command = (sys.executable, "-c", "from neuralcollapse.cli import main; main()", "sweep", file, "--out", out,
               "--jobs", 1)
    first = started(*command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    training = wait_for(lambda: at_work(out))
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does
    assert first.communicate(timeout=600)[1].splitlines()[-1] == (
        f"Stopped. Continue with:  neuralcollapse sweep {file} --out {out}")
    assert first.returncode == 130
    wait_for(lambda: gone(training))

    second = started(*command, stderr=subprocess.DEVNULL)
    wait_for(lambda: [path for path in out.glob("*/history.jsonl") if path.stat().st_size])
    training = wait_for(lambda: at_work(out))
    second.kill()
    second.wait()
    # At once: whoever still trains holds its cell's lock until it notices.
    result = sweep(GRID, out, jobs=1)
    assert gone(training)
    assert [cell.state for cell in result.cells] == ["done"] * 4
    for name in NAMES:
        assert untimed(out / name) == untimed(undisturbed / name)


def test_a_run_whose_sweep_is_gone_stops_after_its_epoch(tmp_path, factories, monkeypatch):
    folder = SweepFolder(tmp_path / "out")
    config = TrainConfig(**BASE | {"model": "sweep_factories:leaving",
                                   "model_options": {"session": str(tmp_path / "out/.sweep/session")}}).model_dump()
    with folder.opened() as session:
        assert worker.run_cell(str(folder.path), "a", config, "an older one", 1) == {"state": "stopped"}
        assert not (folder.path / "a").exists()
        assert worker.run_cell(str(folder.path), "a", config, session, 1) == {"state": "stopped"}
        assert Run.open(folder.path / "a").measured_epochs == [1]
        assert folder.working() == set()
    monkeypatch.setattr(worker, "_PATIENCE", 0)
    outcome = worker.run_cell(str(tmp_path / "elsewhere"), "a", config, session, 1)
    assert outcome["error"]["message"] == (
        f"process {os.getpid()} on {socket.gethostname()} does not see the sweep in '{tmp_path}/elsewhere': the "
        "workers must share its file system")
    assert not (tmp_path / "elsewhere").exists()


def test_one_process_at_a_time_trains_a_cell(tmp_path):
    folder = SweepFolder(tmp_path / "out")
    config = TrainConfig(**BASE | {"epochs": 1}).model_dump()
    with folder.opened() as session, ThreadPoolExecutor(1) as other:
        with folder.lock("a"):
            waiting = other.submit(worker.run_cell, str(folder.path), "a", config, session, 1)
            time.sleep(0.5)
            assert not waiting.done()
            assert not (folder.path / "a").exists()
        assert waiting.result(600) == {"state": "done"}


def test_threads_left_open_are_shared_and_stay_those_a_run_began_with(tmp_path):
    folder = SweepFolder(tmp_path / "out")
    config = TrainConfig(**BASE | {"epochs": 2, "threads": None}).model_dump()
    with folder.opened() as session:
        assert worker.run_cell(str(folder.path), "a", config, session, 2) == {"state": "done"}
    run = Run.open(folder.path / "a")
    assert (run.environment["threads"], run.config["threads"]) == (2, None)
    lines = (run.path / "history.jsonl").read_text().splitlines(keepends=True)
    assert worker._threads_of(run.path) == 2
    assert worker._threads_of(tmp_path) is None
    assert len(lines) == 2


# -- on a cluster -------------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path, started):
    """The address of a Dask scheduler, and its two workers by process number."""
    dask, quiet = (sys.executable, "-m", "dask"), {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    file = tmp_path / "scheduler.json"
    started(*dask, "scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", file, **quiet)
    address = wait_for(lambda: file.exists() and json.loads(file.read_text() or "{}").get("address"))
    workers = [started(*dask, "worker", address, "--nthreads", 1, "--no-nanny", "--no-dashboard", "--local-directory",
                       tmp_path / "dask", **quiet) for _ in range(2)]
    return address, {process.pid: process for process in workers}


def test_a_cluster_trains_the_same_and_goes_on_without_a_killed_worker(undisturbed, tmp_path, cluster):
    address, workers = cluster
    out = tmp_path / "out"
    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(sweep, GRID, out, scheduler=address)
        killed = wait_for(lambda: result.done() or at_work(out))
        workers[killed].kill()
        cells = result.result(600).cells
    assert [(cell.name, cell.state) for cell in cells] == [(name, "done") for name in NAMES]
    for name in NAMES:
        assert untimed(out / name) == untimed(undisturbed / name)
    bad = {"base": BASE | {"model": "mpl"}, "seeds": 1}
    with pytest.raises(InvalidInput, match=r"^unknown model 'mpl': did you mean 'mlp'\? known: "):
        sweep(bad, tmp_path / "bad", scheduler=address)


def test_an_address_that_does_not_answer(tmp_path, monkeypatch, cli):
    monkeypatch.setattr(pools, "_SECONDS_TO_CONNECT", 1)
    file = tmp_path / "grid.yaml"
    file.write_text(yaml.safe_dump(GRID))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        for asked, why in ((address, "silent for 1 s"), ("10.0.0.1", "missing port number in address '10.0.0.1'")):
            assert cli("sweep", file, "--out", tmp_path / "out", "--scheduler", asked) == (
                2, "", f"neuralcollapse: no Dask scheduler answers at '{asked}', expected an address that `dask "
                f"scheduler` printed, such as tcp://10.0.0.1:8786 ({why})\n")


# -- mistakes -----------------------------------------------------------------------------------------


def test_mistakes_are_one_line_and_touch_nothing(undisturbed, tmp_path, cli):
    file = tmp_path / "grid.yaml"

    def complaint(content, out, *options):
        file.write_text(yaml.safe_dump(content))
        result = cli("sweep", file, "--out", out, *options)
        assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
        return result.err.removeprefix("neuralcollapse: ").rstrip()

    before, new = written(undisturbed), tmp_path / "new"
    assert complaint({"base": {"epoch": 3}}, new).startswith(
        "unknown setting 'epoch' in base: did you mean 'epochs'? known: augment, batch_size, ")
    assert complaint(GRID, new, "--jobs", 0) == "jobs must be at least 1, got 0"
    assert complaint(GRID, new, "--jobs", 1, "--scheduler", "tcp://x:1") == (
        "give jobs for this machine or a scheduler whose workers are the jobs, not both")
    assert not new.exists()
    assert complaint(GRID | {"base": BASE | {"epochs": 4}}, undisturbed) == (
        f"'{undisturbed}/{NAMES[0]}' holds a run with other settings: epochs is 3 there and 4 here: "
        "choose another folder")
    assert complaint(GRID, tmp_path) == (
        f"a sweep needs a new or empty folder or one that holds a sweep, got '{tmp_path}' that holds grid.yaml")
    with SweepFolder(undisturbed).opened():
        assert complaint(GRID, undisturbed) == (
            f"another sweep is at work in '{undisturbed}': wait for it, or stop it")
    assert written(undisturbed) == before


# -- what is shown ------------------------------------------------------------------------------------


def test_the_live_table_keeps_who_matters_when_it_is_too_long(capsys):
    cells = [CellState(f"cell-{i}", {}, Path(f"runs/{i}"), epochs=9) for i in range(40)]
    cells[3].state, cells[3].last = "done", {"epoch": 9, "test": {"balanced_accuracy": 0.5}}
    cells[20].state, cells[20].last = "running", {"epoch": 4}
    cells[30].state, cells[30].error = "failed", {"type": "InvalidInput", "message": "no [such] file"}
    console = Console(force_terminal=True, width=100, height=12)
    with SweepProgress(console) as progress:
        progress(cells)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().out).split("\n")
    text = "\n".join(lines[[line.startswith("cell  ") for line in lines].index(True):])  # as it was left
    rows = [line.split() for line in text.splitlines()]
    assert rows[0] == ["cell", "state", "epoch", "balanced", "accuracy", "NC1", "D_W"]
    assert ["cell-3", "done", "9/9", "0.5", "–", "–"] in rows
    assert ["cell-20", "running", "4/9", "–", "–", "–"] in rows
    assert "40 cells: 1 done, 1 running, 37 waiting, 1 failed" in text
    assert "no [such] file" in text
    assert len(rows) <= 12
