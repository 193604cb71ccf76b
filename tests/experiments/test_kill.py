"""kill −9 between any two file operations and at random moments, and full disks: resumed, the history is the same."""

from itertools import count
import os
from pathlib import Path
import random
import resource
import signal
import subprocess
import sys
import time

import pytest

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.run import Run
from neuralcollapse.experiments.train import train

HERE = Path(__file__).parent
CONFIG = TrainConfig(epochs=6, measure="every 2", n_max=40, batch_size=32, threads=1, checkpoint_every=0,
                     label_noise=0.05, model=f"{Path(__file__).stem}:dropping")
FILES = ("geometry.safetensors", "indices.npz", "data.json", "config.yaml", "rescue.json")


def dropping(input_shape, classes, head_bias):
    """A network whose forward pass is random, with running statistics."""
    from torch import nn

    from neuralcollapse.experiments.models import build_model

    model = build_model("mlp", input_shape, classes, head_bias, width=5, features=4, batch_norm=True)
    model.body.insert(1, nn.Dropout(0.2))
    return model


def life(out, *, dies_at=None, after=None, room=None):
    """Train, or go on training, in a process that dies; its exit code and what it said."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            if room is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
            if dies_at is not None:
                sys.addaudithook(killer(out, dies_at))
            train(CONFIG, out, resume=(out / "config.yaml").exists())
            os._exit(0)
        except InvalidInput as error:
            os.write(writing, str(error).encode())
            os._exit(2)
        finally:
            os._exit(1)
    os.close(writing)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with os.fdopen(reading) as said:
        return code, said.read()


def killer(out, number):
    """A hook that kills this process before its so-manieth file of the run folder is opened, renamed or made."""
    operations = count(1)

    def hook(event, arguments):
        mine = event in ("open", "os.rename", "os.mkdir") and str(out) in str(arguments[0])
        if mine and next(operations) == number:
            os.kill(os.getpid(), signal.SIGKILL)
    return hook


def lives(folder):
    """In one process that has imported everything, and forks one that dies again and again."""
    folder = Path(folder)
    train(CONFIG, folder / "whole")  # whatever is imported or set up on first use, the forked have at once
    deaths = 0
    for number in count(2):
        code, _ = life(folder / "operations", dies_at=number)
        deaths += code == -signal.SIGKILL
        if code == 0:
            break
    print("deaths between operations:", deaths, flush=True)
    moments = random.Random(0)
    longest = 0.3  # seconds; growing, so that a machine that is busy gets to the end as well
    while not (folder / "moments" / "rescue.json").exists():
        life(folder / "moments", after=moments.uniform(0, longest))
        longest *= 1.2
    for room in (6_000, 13_000):
        full = folder / f"room {room}"
        code, said = life(full, room=room)
        print(f"room {room}: {code} {said}", flush=True)
        print(f"measured {room}:", len(Run.open(full).history), flush=True)
        assert not list(full.rglob("*.tmp"))
        assert life(full) == (0, "")


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """The folder of all runs, and what was printed."""
    folder = tmp_path_factory.mktemp("lives")
    code = f"import test_kill as here; here.lives({str(folder)!r})"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


@pytest.mark.parametrize("name", ["operations", "moments", "room 6000", "room 13000"])
def test_what_is_left_is_what_an_uninterrupted_run_leaves(lived, name):
    whole, other = Run.open(lived[0] / "whole"), Run.open(lived[0] / name)
    assert whole.measured_epochs == [1, 2, 4, 6]
    assert [record | {"seconds": None} for record in other.history] == [
        record | {"seconds": None} for record in whole.history]
    for file in FILES:
        assert (other.path / file).read_bytes() == (whole.path / file).read_bytes(), file


def test_it_was_killed_at_every_kind_of_moment(lived):
    deaths = int(lived[1].split("deaths between operations: ")[1].split()[0])
    assert deaths >= 10


@pytest.mark.parametrize(("room", "measured"), [(6_000, 0), (13_000, 3)])
def test_a_full_disk_is_one_line_and_loses_nothing(lived, room, measured):
    assert f"room {room}: 2 cannot write '{lived[0]}/room {room}': File too large\n" in lived[1]
    assert f"measured {room}: {measured}\n" in lived[1]
