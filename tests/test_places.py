"""Places that cannot be written, and folders that vanish: one line, and nothing that was written is lost."""

import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import yaml

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments import Run, TrainConfig, sweep
from neuralcollapse.experiments.train import train
from neuralcollapse.label_files import counts_from_file
from neuralcollapse.measure import Snapshot, measure_file
from neuralcollapse.simulate import simulate

CONFIG = TrainConfig(epochs=4, measure="every 1", n_max=20, threads=1, model_options={"width": 8, "features": 4})

# Runs one command line after another, each as from a shell, and says how each ended.
SESSION = """
import contextlib, io, json, sys
from neuralcollapse.cli import main
ends = []
for line in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["neuralcollapse", *line]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code
    ends.append((code, err.getvalue()))
json.dump(ends, sys.stdout)
"""
# root writes everywhere; without these two capabilities it is held to the folder's permissions like everyone else.
UNPRIVILEGED = (["setpriv", "--bounding-set=-dac_override,-dac_read_search",
                 "--inh-caps=-dac_override,-dac_read_search"] if os.geteuid() == 0 else [])

WRITING = {
    "train": (["train", "--preset", "demo", "--out", "locked/run"], "locked/run"),
    "resume": (["train", "--resume", "frozen"], "frozen"),
    "report": (["report", "run", "--out", "locked/page.html"], "locked/page.html"),
    "sweep": (["sweep", "sweep.yaml", "--out", "locked/sweep"], "locked/sweep"),
    "compare": (["compare", "run", "--out", "locked/compared"], "locked/compared"),
    "compare in a folder": (["compare", "run", "--out", "locked"], "locked/runs.parquet"),
    "simulate": (["simulate", "--counts", "4,1", "--steps", "9", "--out", "locked/s"], "locked/s"),
    "simulate to a file": (["simulate", "--counts", "4,1", "--steps", "9", "--out", "locked/s.npz"], "locked/s.npz"),
    "study": (["study", "rates", "--quick", "--out", "locked/study"], "locked/study"),
    "picture": (["predict", "--counts", "4,1", "--plot", "locked/p.png"], "locked/p.png"),
    "page": (["predict", "--counts", "4,1", "--plot", "locked/p.html"], "locked/p.html"),
    "heads": (["steer", "run", "--posthoc", "repair", "--save", "locked/heads.safetensors"],
              "locked/heads.safetensors"),
}


def mode_of_all(folder, files, folders):
    for path, _, names in os.walk(folder, topdown=False):
        for name in names:
            os.chmod(os.path.join(path, name), files)
        os.chmod(path, folders)


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """How each of the commands ended where it may not write, and the contents of the folder before and after."""
    # Of root alone, and on systems without util-linux: no folder is then read-only, so there is nothing to see.
    if UNPRIVILEGED and shutil.which("setpriv") is None:
        pytest.skip("root writes everywhere, and there is no setpriv to be less than root")
    place = tmp_path_factory.mktemp("places")
    train(CONFIG, place / "run")

    def stop(report):
        if report.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, place / "frozen", on_epoch=stop)
    (place / "sweep.yaml").write_text(yaml.safe_dump({"base": {"epochs": 2}, "grid": {"ratio": [1, 10]}}))
    (place / "locked").mkdir()
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    for folder in ("locked", "frozen"):
        mode_of_all(place / folder, stat.S_IREAD, stat.S_IREAD | stat.S_IEXEC)
    try:
        done = subprocess.run([*UNPRIVILEGED, sys.executable, "-c", SESSION], cwd=place, text=True,
                              capture_output=True, input=json.dumps([line for line, _ in WRITING.values()]))
    finally:
        for folder in ("locked", "frozen"):
            mode_of_all(place / folder, stat.S_IREAD | stat.S_IWRITE, stat.S_IRWXU)
    after = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert done.returncode == 0, done.stderr
    return dict(zip(WRITING, json.loads(done.stdout), strict=True)), before, after, place


@pytest.mark.parametrize("name", WRITING)
def test_a_read_only_folder_is_one_line(ends, name):
    place = WRITING[name][1] if name != "sweep" else ends[3] / WRITING[name][1]  # its workers need it absolute
    assert ends[0][name] == [2, f"neuralcollapse: cannot write '{place}': Permission denied\n"]


def test_nothing_that_was_written_is_lost_and_nothing_is_left_behind(ends):
    assert ends[1] == ends[2]


def test_python_says_the_same_line(tmp_path):
    said = f"cannot write '{tmp_path}/no/a.npz': there is no folder '{tmp_path}/no'"
    with pytest.raises(InvalidInput, match=rf"^{said}$"):
        Snapshot(np.eye(2), np.array([0, 1])).save(tmp_path / "no" / "a.npz")


def test_a_message_is_one_line_whatever_it_quotes(tmp_path):
    """Names of arrays and files come from others: line breaks, escape sequences and reversed text stay out."""
    path = tmp_path / "a.npz"
    np.savez(path, **{"fea\x1b[31m\rtures\u2028\u202e": np.eye(2)})
    with pytest.raises(InvalidInput, match=r"features missing, got fea \[31m tures$"):
        measure_file(path)
    assert str(InvalidInput("λ  must  be")) == "λ  must  be"


@pytest.mark.parametrize("name", ["labels.npy", "features.npz"])
def test_a_header_that_numpy_cannot_parse_is_one_line(tmp_path, name):
    """Found by fuzzing: an open bracket sends NumPy's reader of old headers into an error of Python's tokenizer."""
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (3L\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    path = tmp_path / name
    if name.endswith("npz"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("features.npy", content)
            archive.writestr("labels.npy", content)
        with pytest.raises(InvalidInput, match=r"^'features.npz' cannot be read as .npz arrays: "):
            measure_file(path)
    else:
        path.write_bytes(content)
        with pytest.raises(InvalidInput, match=r"^'labels.npy' cannot be read as labels: "):
            counts_from_file(path)


# -- folders that vanish ------------------------------------------------------------------------------


def vanishing(folder, moment):
    def remove(report):
        if getattr(report, "epoch", None) == moment or getattr(report, "step", None) == moment:
            folder.rename(folder.with_name("elsewhere"))

    return remove


def test_a_run_whose_folder_vanishes_says_so_and_keeps_what_it_had(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(InvalidInput, match=rf"^cannot write '{run}': it was moved or removed while it was written$"):
        train(CONFIG, run, on_epoch=vanishing(run, 2))
    assert not run.exists()
    left = tmp_path / "elsewhere"
    assert Run.open(left).measured_epochs == [1, 2]
    assert train(None, left, resume=True).measured_epochs == [1, 2, 3, 4]
    assert train(CONFIG, run).measured_epochs == [1, 2, 3, 4]


def test_a_simulation_whose_folder_vanishes_writes_it_again(tmp_path):
    folder = tmp_path / "simulation"
    steps = []

    def progress(at):
        steps.append(at.step)
        if len(steps) == 2:
            shutil.rmtree(folder)

    whole = simulate([4, 1], steps=3000)
    again = simulate([4, 1], steps=3000, folder=folder, progress=progress)
    assert len(steps) > 2
    assert (folder / "simulation.npz").is_file()
    np.testing.assert_array_equal(again.classifiers, whole.classifiers)


def test_a_sweep_whose_folder_vanishes_says_so(tmp_path):
    folder = tmp_path / "sweep"
    moved = []

    def tell(_):
        if not moved and list(folder.glob("*/history.jsonl")):
            folder.rename(tmp_path / "elsewhere")
            moved.append(True)

    cells = {"base": {**CONFIG.model_dump(exclude_unset=True), "epochs": 4000}, "grid": {"ratio": [1, 10]}}
    with pytest.raises(InvalidInput, match=rf"^cannot write '{folder}.*': .*(removed|no folder)"):
        sweep(cells, folder, progress=tell)
    assert moved
    # Which of two runs came first is not ours to say; what was written went with the folder.
    assert {one.name for one in (tmp_path / "elsewhere").iterdir()} >= {"sweep.yaml"}
    assert list((tmp_path / "elsewhere").glob("ratio-*/history.jsonl"))
