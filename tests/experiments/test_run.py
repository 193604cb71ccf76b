"""Run folders: what is written comes back, half-written files are read, and nothing is overwritten."""

import json
import sys

import numpy as np
import pytest

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.run import GRAMS_UP_TO, Run, RunFolder, read_history, require_free

DATA = {"names": ["a", "b", "ü"], "counts": [10, 10, 1]}


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", "epochs: 3\n", {"python": "3"}, DATA, {"train": np.arange(21)})


def test_what_is_written_comes_back(folder):
    grams = {"classifiers": np.eye(3), "embeddings": np.full((3, 3), 0.5)}
    for epoch in (1, 3):
        folder.add_grams(epoch, {name: gram * epoch for name, gram in grams.items()})
        folder.append({"epoch": epoch, "note": "ü"})
        folder.save_checkpoint(b"state %d" % epoch)
    run = Run.open(folder.path)
    assert (run.name, run.config, run.environment, run.data) == ("run", {"epochs": 3}, {"python": "3"}, DATA)
    assert (run.counts.names, run.counts.values.tolist()) == (("a", "b", "ü"), [10, 10, 1])
    assert run.history == [{"epoch": 1, "note": "ü"}, {"epoch": 3, "note": "ü"}]
    assert (run.measured_epochs, run.finished) == ([1, 3], True)
    assert run.grams(2) is None
    assert run.grams(3)["classifiers"].dtype == np.float32
    np.testing.assert_array_equal(run.grams(3)["embeddings"], 1.5)
    assert folder.checkpoint.read_bytes() == b"state 3"
    assert np.load(folder.path / "indices.npz")["train"].size == 21
    assert not list(folder.path.rglob("*.tmp"))


def test_epochs_beyond_six_digits(folder):
    folder.add_grams(1_000_000, {"classifiers": np.eye(3)})
    folder.add_grams(100_000, {"classifiers": np.zeros((3, 3))})
    assert Run.open(folder.path).grams(1_000_000)["classifiers"].trace() == 3


def test_a_new_run_has_nothing_measured(folder):
    run = Run.open(folder.path)
    assert (run.history, run.grams(1), run.finished) == ([], None, False)


@pytest.mark.parametrize("cut", [1, 5, 13])
def test_a_history_cut_at_any_place_reads_up_to_it_and_is_mended(folder, cut):
    folder.append({"epoch": 1})
    folder.append({"epoch": 2})
    path = folder.path / "history.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    kept = [{"epoch": 1}, {"epoch": 2}] if cut == 1 else [{"epoch": 1}]
    assert Run.open(folder.path).history == kept
    folder.mend_history()
    folder.append({"epoch": 3})
    assert Run.open(folder.path).history == [*kept, {"epoch": 3}]


def test_a_history_that_ends_in_zeros_reads_up_to_them(folder):
    folder.append({"epoch": 1})
    with (folder.path / "history.jsonl").open("ab") as file:
        file.write(b"\0" * 40)
    assert Run.open(folder.path).history == [{"epoch": 1}]


def test_a_broken_line_in_the_middle_is_an_error(folder):
    path = folder.path / "history.jsonl"
    path.write_text('{"epoch": 1}\n{"epo\n{"epoch": 3}\n')
    with pytest.raises(InvalidInput) as error:
        read_history(path)
    assert str(error.value) == f"line 2 of '{path}' must be JSON, got b'{{\"epo'"


def test_missing_or_half_written_geometry_is_no_error(folder):
    folder.add_grams(1, {"classifiers": np.eye(3)})
    path = folder.path / "geometry.safetensors"
    path.write_bytes(path.read_bytes()[:30])
    assert Run.open(folder.path).grams(1) is None
    path.unlink()
    assert Run.open(folder.path).grams(1) is None


def test_no_grams_for_many_classes(folder):
    folder.add_grams(1, {"classifiers": np.eye(GRAMS_UP_TO + 1)})
    assert not (folder.path / "geometry.safetensors").exists()


def test_non_finite_numbers_are_refused(folder):
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.append({"epoch": 1, "loss": float("nan")})
    assert Run.open(folder.path).history == []


def not_a_folder(path):
    (path / "x").write_text("")


def empty_folder(path):
    (path / "x").mkdir()


def no_data(path):
    empty_folder(path)
    (path / "x" / "config.yaml").write_text("epochs: 3")


def broken_config(path):
    no_data(path)
    (path / "x" / "data.json").write_text("{}")
    (path / "x" / "config.yaml").write_text("a: [")


def broken_data(path):
    no_data(path)
    (path / "x" / "data.json").write_text('{"names"')


def opened(path):
    run = Run.open(path)
    return run.config, run.data


NO_RUNS = [
    (lambda path: None, "'PATH' is not a run folder: there is no such folder"),
    (not_a_folder, "'PATH' is not a run folder: it is a file"),
    (empty_folder, "'PATH' is not a run folder: it has no config.yaml"),
    (no_data, "'PATH' is not a run folder: it has no data.json"),
    (broken_config, "'PATH' is not a run folder: its config.yaml is not a mapping"),
    (broken_data, "'PATH' is not a run folder: its data.json is not a mapping"),
]


@pytest.mark.parametrize(("make", "message"), NO_RUNS)
def test_what_is_no_run_says_why(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(InvalidInput) as error:
        opened(tmp_path / "x")
    assert str(error.value) == message.replace("PATH", str(tmp_path / "x"))


def test_a_run_says_whether_a_process_trains_it(folder):
    def state():
        return Run.open(folder.path).state

    assert state() == "stopped before its first measurement"  # as after a kill: nobody holds it
    before = sorted(entry.name for entry in folder.path.iterdir())
    with folder.held():
        assert state() == "still training"
    folder.append({"epoch": 1})
    assert state() == "stopped after epoch 1"
    folder.append({"epoch": 3})
    with folder.held():
        assert state() == "finished"
    assert sorted(entry.name for entry in folder.path.iterdir()) == sorted([*before, ".lock"])


def test_where_locks_are_unknown_a_run_is_unfinished(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert Run.open(folder.path).state == "unfinished"


def test_a_look_at_a_lock_does_not_keep_a_writer_out(folder, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    with folder.held():
        pass
    with (folder.path / ".lock").open("rb") as look:
        fcntl.flock(look.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        waited = []

        def let_go(seconds):
            waited.append(seconds)
            fcntl.flock(look.fileno(), fcntl.LOCK_UN)

        monkeypatch.setattr("time.sleep", let_go)
        with folder.held():
            assert len(waited) == 1  # it was asked for twice, and had
            assert Run.open(folder.path).state == "still training"


def test_a_measured_run_is_not_overwritten(folder):
    require_free(folder.path)  # nothing measured yet: nothing to lose
    for epoch, state in ((1, "an unfinished run with 1 measured epoch: resume it, or"),
                         (3, "a finished run with 2 measured epochs:")):
        folder.append({"epoch": epoch})
        with pytest.raises(InvalidInput) as error:
            RunFolder.create(folder.path, "", {}, DATA, {})
        assert str(error.value) == (f"'{folder.path}' holds {state} choose another folder")
    assert len(Run.open(folder.path).history) == 2


def test_a_folder_with_other_things_is_not_used(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    (tmp_path / "config.yaml").write_text("mine: 1")
    with pytest.raises(InvalidInput) as error:
        RunFolder.create(tmp_path, "", {}, DATA, {})
    assert str(error.value) == f"a run needs a new or empty folder, got '{tmp_path}' that holds thesis.tex"
    assert (tmp_path / "config.yaml").read_text() == "mine: 1"


def test_a_start_that_was_killed_can_be_started_again(folder):
    (folder.path / "config.yaml").unlink()
    (folder.path / ".config.yaml.tmp").write_text("epo")
    again = RunFolder.create(folder.path, "epochs: 4\n", {}, DATA, {})
    assert Run.open(again.path).config == {"epochs": 4}


def test_a_folder_that_cannot_be_written(tmp_path, folder):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput) as error:
        RunFolder.create(tmp_path / "file" / "run", "", {}, DATA, {})
    assert str(error.value) == f"cannot write '{tmp_path}/file/run': Not a directory"
    (folder.path / "history.jsonl").unlink()
    (folder.path / "history.jsonl").mkdir()
    with pytest.raises(InvalidInput) as error:
        folder.append({"epoch": 1})
    assert str(error.value) == f"cannot write '{folder.path}': Is a directory"


def test_the_history_is_plain_json_lines(folder):
    folder.append({"epoch": 1, "test": {"accuracy": None}})
    lines = (folder.path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"epoch": 1, "test": {"accuracy": None}}]
