"""The runs of the explorer: what may be opened, what a folder may hold, what a URL may ask, what a request may be."""

from __future__ import annotations

from collections.abc import Mapping
import json
import threading
from urllib.parse import parse_qs

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.run import Run, RunFolder
from neuralcollapse.show.decay import along_decay
from neuralcollapse.show.explorer import run_parts
from neuralcollapse.show.explorer.run_history import GrowingHistory
from neuralcollapse.show.explorer.run_opened import OpenedRun, Unreadable
from neuralcollapse.show.explorer.run_state import RunsState, read_state
from neuralcollapse.show.explorer.serve import application
from neuralcollapse.show.explorer.watch import RunShelf
from neuralcollapse.show.reading import Reading

STEP = ClassCounts.step(4, 10, 0.5, n_min=5)


@pytest.fixture
def demo(make_run, save_run, tmp_path):
    """A run of nine measured epochs, the last one its last."""
    return save_run(make_run(STEP), tmp_path / "runs" / "demo")


def texts(part) -> str:
    """All that a part of a page says."""
    if isinstance(part, str):
        return part
    if isinstance(part, (list, tuple)):
        return " ".join(texts(each) for each in part)
    return texts(getattr(part, "children", None) or "")


# -- the shelf --------------------------------------------------------------------------------------


def test_a_shelf_gives_runs_by_name(demo, make_run, save_run, tmp_path):
    save_run(make_run(STEP), tmp_path / "runs" / "sweep" / "seed-10")
    save_run(make_run(STEP), tmp_path / "runs" / "sweep" / "seed-2")
    save_run(make_run(STEP), tmp_path / "other" / "demo")
    shelf = RunShelf.of([tmp_path / "runs", tmp_path / "other" / "demo", demo])
    assert list(shelf.folders) == ["runs/demo", "seed-2", "seed-10", "other/demo"]
    assert all(isinstance(shelf.open(name), OpenedRun) for name in shelf.folders)


@pytest.mark.parametrize(("name", "message"), [
    ("nothing", "'{}' is not a folder of runs: there is no such folder"),
    ("file", "'{}' is not a folder of runs: it is a file")])
def test_a_path_that_is_no_folder(name, message, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput) as found:
        RunShelf.of([tmp_path / name])
    assert str(found.value) == message.format(tmp_path / name)


@pytest.mark.parametrize("name", ["", "demo/", "../runs/demo", "/etc/passwd", "runs/demo", "\0", "x" * 10_000])
def test_only_names_are_opened(name, demo):
    found = RunShelf.of([demo]).open(name)
    assert isinstance(found, Unreadable)
    assert found.problem == "no run of this name was given to the explorer"


def test_a_run_is_read_again_only_when_it_has_changed(demo, make_run):
    shelf = RunShelf.of([demo])
    first, seen = shelf.open("demo"), shelf.signature()
    assert shelf.open("demo") is first
    assert shelf.signature() == seen
    RunFolder(demo).append(make_run(STEP, epochs=(200,)).history[0])
    assert shelf.signature() != seen
    second = shelf.open("demo")
    assert second.epochs == [*first.epochs, 200]
    assert second.version != first.version
    assert second.path is first.path  # settings and data are the same: so is the geometry along λ


def test_a_run_that_comes_into_being_while_it_is_watched(make_run, save_run, tmp_path, monkeypatch):
    monkeypatch.setattr("neuralcollapse.show.explorer.watch._LOOK_AGAIN", 0.0)
    folder = tmp_path / "later"
    folder.mkdir()
    shelf = RunShelf.of([folder])
    waiting = shelf.open("later")
    assert isinstance(waiting, Unreadable)
    assert waiting.waiting
    save_run(make_run(STEP, epochs=()), folder)
    with RunFolder(folder).held():
        assert shelf.open("later").state == "nothing measured yet"
        training = shelf.signature()
    assert shelf.signature() != training  # no file has changed, but nobody holds it any more
    assert shelf.open("later").state == "stopped before its first measurement"
    save_run(make_run(STEP), tmp_path / "later2" / "cell")
    assert list(RunShelf.of([tmp_path / "later2"]).folders) == ["cell"]


BROKEN: Mapping[str, tuple[str, bytes]] = {
    "no settings": ("config.yaml", b""), "settings that are a list": ("config.yaml", b"- 1\n"),
    "settings that are no YAML": ("config.yaml", b"a: [\n"), "binary settings": ("config.yaml", bytes(range(256))),
    "truncated data": ("data.json", b'{"counts": [1'), "data that is a number": ("data.json", b"3"),
    "data without counts": ("data.json", b"{}"), "counts that are text": ("data.json", b'{"counts": "x", "names": []}'),
    "counts below zero": ("data.json", b'{"counts": [3, -1], "names": ["a", "b"]}'),
    "counts that are NaN": ("data.json", b'{"counts": [NaN, 1], "names": ["a", "b"]}'),
    "names of another number": ("data.json", b'{"counts": [3, 1], "names": ["a"]}'),
    "a newer format": ("data.json", b'{"format": 99, "counts": [3, 1], "names": ["a", "b"]}'),
    "epochs that are text": ("config.yaml", b"epochs: many\n"),
    "deep data": ("data.json", b"[" * 100_000), "history of garbage": ("history.jsonl", b"\xff\xfe\n{}\n{}\n"),
    "history of lists": ("history.jsonl", b"[1]\n[2]\n"), "deep history": ("history.jsonl", b"[" * 100_000 + b"\n{}\n"),
}
ODD: Mapping[str, tuple[str, bytes]] = {
    "no history": ("history.jsonl", b""), "history cut in half": ("history.jsonl", b'{"epoch": 1, "tr'),
    "epochs that are none": ("history.jsonl", b'{"epoch": "x"}\n{"epoch": NaN}\n{"epoch": 1e999}\n{"epoch": null}\n'),
    "NaN where numbers should be": ("history.jsonl", b'{"epoch": 1, "train": {"loss": NaN, "accuracy": "x"}, "test": 3,'
                                                     b'"measurement": {"nc1": null, "distances": {"seli": []}}}\n'),
    "lists of another length": ("history.jsonl", b'{"epoch": 1, "test": {"per_class_accuracy": [1]}, "measurement": '
                                                 b'{"norms": {"classifiers": [1, "x"]}, "distances": {"new:1": {}}, '
                                                 b'"margins": {"per_class": {"mean": [1], "min": 3}}}}\n'),
    "epochs that go back": ("history.jsonl", b'{"epoch": 5}\n{"epoch": 2}\n{"epoch": 2}\n'),
    "Grams of garbage": ("geometry.safetensors", b"\xff" * 100), "empty Grams": ("geometry.safetensors", b""),
    "settings from elsewhere": ("config.yaml", b"epochs: 200\nloss: {a: 1}\nmodel: [1]\nseed: .nan\n"),
    "data of other kinds": ("data.json", b'{"counts": [50, 5], "names": ["a", "b"], "test_counts": ["x", {}], '
                                         b'"dataset": 3, "ridges": "none", "input_shape": {}}'),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_folder_is_one_line(kind, demo, make_run, save_run, tmp_path):
    name, content = BROKEN[kind]
    bad = save_run(make_run(STEP), tmp_path / "runs" / "bad")
    (bad / name).write_bytes(content)
    shelf = RunShelf.of([tmp_path / "runs"])
    found = shelf.open("bad")
    assert isinstance(found, Unreadable)
    assert found.problem
    assert "\n" not in found.problem
    assert isinstance(shelf.open("demo"), OpenedRun)
    assert "finished, epoch 128" in texts(run_parts.run_list([shelf.open(name) for name in shelf.folders], "demo", []))


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_folder_is_shown_as_far_as_it_goes(kind, make_run, save_run, tmp_path):
    name, content = ODD[kind]
    path = save_run(make_run(STEP), tmp_path / "odd")
    (path / name).write_bytes(content)
    run = RunShelf.of([path]).open("odd")
    assert isinstance(run, OpenedRun), run.problem
    shown = [run_parts.run_list([run], "odd", []), run_parts.run_head(run), run_parts.run_curves(run, 0, False),
             run_parts.comparison([run, run], False)]
    for epoch in run.epochs[:2]:
        reading = run.reading.up_to(epoch)
        shown += [run_parts.epoch_tables(reading), run_parts.epoch_pictures(reading, True),
                  run_parts.nearest(run, epoch)]
    assert "odd" in texts(shown)
    assert "nan" not in texts(shown).lower().replace("nano", "")


def test_a_missing_file_of_each_kind(make_run, save_run, tmp_path):
    for name, readable in {"config.yaml": False, "data.json": False, "history.jsonl": True,
                           "geometry.safetensors": True, "environment.json": True}.items():
        path = save_run(make_run(STEP), tmp_path / name)
        (path / name).unlink()
        assert isinstance(RunShelf.of([path]).open(name), OpenedRun) == readable


# -- a history that grows ---------------------------------------------------------------------------


def test_a_history_that_is_written_while_it_is_read(tmp_path):
    path = tmp_path / "history.jsonl"
    records = [{"epoch": epoch, "values": list(range(epoch % 50))} for epoch in range(400)]
    done = threading.Event()

    def write() -> None:
        with path.open("ab", buffering=0) as file:
            for record in records:
                line = json.dumps(record).encode() + b"\n"
                file.write(line[: len(line) // 2])  # half a line is on disk for a moment
                file.write(line[len(line) // 2:])
        done.set()

    history, writer = GrowingHistory(path), threading.Thread(target=write)
    writer.start()
    lengths = []
    while not done.is_set():
        found = history.read()
        assert found == records[: len(found)]
        lengths.append(len(found))
    writer.join()
    assert lengths == sorted(lengths)
    assert history.read() == records


@pytest.mark.parametrize("after", [b'{"epoch": 9}\n', b'{"epoch": 1, "other": 0}\n{"epoch": 7}\n{"epoch": 8}\n', b""])
def test_a_history_that_is_written_anew(after, tmp_path):
    path = tmp_path / "history.jsonl"
    history = GrowingHistory(path)
    assert history.read() == []
    path.write_bytes(b'{"epoch": 1}\n{"epoch": 2}\n')
    assert [record["epoch"] for record in history.read()] == [1, 2]
    path.write_bytes(after)
    assert history.read() == [json.loads(line) for line in after.splitlines()]
    path.unlink()
    assert history.read() == []


def test_a_history_reads_like_the_run_itself(demo):
    with (demo / "history.jsonl").open("a") as file:
        file.write('{"epoch": 256, "tra')
    assert GrowingHistory(demo / "history.jsonl").read() == Run.open(demo).history


# -- numbers ----------------------------------------------------------------------------------------


def test_the_numbers_of_an_epoch_are_those_of_its_record(demo):
    run = RunShelf.of([demo]).open("demo")
    for record in run.reading.history:
        said = texts(run_parts.epoch_tables(run.reading.up_to(record["epoch"])))
        for target in ("seli", "etf"):
            for value in record["measurement"]["distances"][target].values():
                assert f"{value:#.3g}".rstrip(".") in said
        assert f"{100 * record['test']['minority_accuracy']:.1f} %" in said
        assert f"Distances at epoch {record['epoch']:,}" in said


def test_lambda_eff_of_the_last_epoch_is_the_reports(demo):
    run = RunShelf.of([demo]).open("demo")
    alone = along_decay(Reading(Run.open(demo)))
    found = run.lambda_eff(run.epochs[-1])
    assert found.ridge == pytest.approx(alone.estimate.ridge, rel=1e-6)
    assert found.distance == pytest.approx(alone.estimate.distance, rel=1e-6)
    assert run.lambda_eff(run.epochs[0]).distance > found.distance


def test_an_epoch_shows_the_geometry_of_that_epoch(demo):
    run = RunShelf.of([demo]).open("demo")
    kept, axis = Run.open(demo).grams(4)["classifiers"], np.argsort(-STEP.values, kind="stable")
    measured = run_parts.figures.grams(run.reading.up_to(4)).panels[0].values
    np.testing.assert_allclose(measured, kept[np.ix_(axis, axis)], rtol=1e-6)
    norms = run_parts.figures.norms(run.reading, 4).panels[0].bars[0].y
    np.testing.assert_allclose(norms, np.sqrt(np.diagonal(kept))[axis], rtol=1e-6)


def test_margins_per_class(make_run):
    run = make_run(STEP, epochs=(1, 2))
    for record, base in zip(run.history, (1.0, 2.0), strict=True):
        record["measurement"]["margins"]["per_class"] = {"mean": [base, base + 1, 4.0, 5.0], "min": [-1.0, None, 0, 1]}
    first = run_parts.figures.margins(run, 1).panels[0]
    assert [bar.name for bar in first.bars] == ["majority", "minority"]
    np.testing.assert_array_equal(first.bars[0].y, [1.0, 2.0, np.nan, np.nan])
    np.testing.assert_array_equal(first.bars[1].y, [np.nan, np.nan, 4.0, 5.0])
    np.testing.assert_array_equal(first.marks[0].y, [-1.0, np.nan, 0.0, 1.0])
    assert run_parts.figures.margins(run).panels[0].bars[0].y[0] == 2.0
    assert run_parts.figures.margins(make_run(STEP)) is None


@pytest.mark.parametrize("k", [300, 10_000])
def test_many_classes_are_shown_as_groups(k, make_run, save_run, tmp_path):
    run = make_run(ClassCounts.long_tail(300, 100, 500), epochs=(1, 2))
    if k > 300:  # the same numbers, repeated: the geometry of so many classes is not drawn from
        times = -(-k // 300)
        run.counts = ClassCounts(np.tile(run.counts.values, times)[:k])
        run.data |= {"counts": run.counts.values.tolist(), "names": list(run.counts.names), "test_counts": [4] * k}
        for record in run.history:
            record["test"]["per_class_accuracy"] = (record["test"]["per_class_accuracy"] * times)[:k]
            norms = record["measurement"]["norms"]
            norms |= {part: (norms[part] * times)[:k] for part in norms}
    opened = RunShelf.of([save_run(run, tmp_path / "many")]).open("many")
    pictures = run_parts.epoch_pictures(opened.reading.up_to(2), False)
    assert f"With {k:,} classes a run keeps no k × k matrices" in texts(pictures)
    assert len(run_parts.figures.accuracies(opened.reading).names) == 10
    assert len(run_parts.figures.norms(opened.reading).names) == 10


# -- the URL ----------------------------------------------------------------------------------------


NAMES = st.text(min_size=1, max_size=30)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(NAMES, min_size=1, max_size=6, unique=True), st.integers(0, 10**9) | st.none())
def test_a_state_survives_its_url(names, epoch):
    names = [name.encode("utf-8", "replace").decode() for name in names]
    state = RunsState(names[0], epoch, tuple(dict.fromkeys(name for name in names[1:] if name != names[0])))
    assert read_state("?" + state.query(), names) == (state, [])


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_url_is_read(search):
    state, said = read_state(search, ["demo"])
    assert state.run in ("demo", None)
    assert set(state.others) <= {"demo"}
    assert all("\n" not in line for line in said)


@pytest.mark.parametrize(("search", "said"), [
    ("?run=/etc/passwd", "There is no run called '/etc/passwd' here."),
    ("?run=demo&with=../x", "There is no run called '../x' here."),
    ("?run=demo&epoch=-1", "An epoch must be a whole number, got '-1': the last is shown."),
    ("?epoch=" + "9" * 5000, f"An epoch must be a whole number, got '{'9' * 29}…': the last is shown."),
    ("?" + "a=1&" * 400, "The address has more than 300 parts: all runs are shown as if it had none.")])
def test_what_a_url_cannot_ask_is_said(search, said):
    assert read_state(search, ["demo"])[1] == [said]


def test_an_epoch_between_measured_ones_is_the_one_before(demo):
    run = RunShelf.of([demo]).open("demo")
    assert [run.epochs[run.place(epoch)] for epoch in (0, 5, 31, 128, 10**9, None)] == [0, 4, 16, 128, 128, 128]


# -- requests ---------------------------------------------------------------------------------------


@pytest.fixture
def client(demo):
    return application([demo]).server.test_client()


@pytest.mark.parametrize("path", [
    "/runs?run=/etc/passwd", "/runs?run=../../etc/passwd", "/runs/../../etc/passwd", "/runs/%2e%2e/%2e%2e/etc/passwd",
    "/assets/../app.py", "/assets/%2e%2e/app.py", "/assets//etc/passwd", "/etc/passwd", "/data.json",
    "/runs/demo/data.json", "/_dash-component-suites/dash/../../../etc/passwd"])
def test_no_path_of_a_url_is_opened(path, client, demo):
    answer = client.get(path)
    assert b"root:" not in answer.data
    assert b"def make_app" not in answer.data
    assert (demo / "data.json").read_bytes() not in answer.data
    assert answer.status_code in (200, 404)


def test_another_host_is_refused(client):
    assert client.get("/runs", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/runs", headers={"Host": "evil.example:8050"}).status_code == 403
    for host in ("127.0.0.1:8050", "localhost:8050", "[::1]:8050"):
        assert client.get("/runs", headers={"Host": host}).status_code == 200


def test_a_body_too_large_is_refused(client):
    answer = client.post("/_dash-update-component", data=b" " * 2_000_001, content_type="application/json")
    assert answer.status_code == 413


@pytest.mark.parametrize(("name", "drawn"), [("/etc/passwd", {"run": "/etc/passwd"}), ("../demo", {"run": "../demo"}),
                                             ("nothing", {"run": "nothing"})])
def test_a_request_opens_names_only(name, drawn, client):
    def part(identity, value=None, prop="data"):
        return {"id": identity, "property": prop, "value": value}

    output = ("..run-head.children...run-curves.children...run-slider.hidden...run-epoch.max...run-epoch.marks..."
              "run-epoch.value...runs-drawn.data..")
    names = [each.rsplit(".", 1) for each in output.strip(".").split("...")]
    answer = client.post("/_dash-update-component", json={
        "output": output, "outputs": [{"id": identity, "property": prop} for identity, prop in names],
        "inputs": [part("runs-chosen", name), part("runs-seen", ""), part("dark", False)],
        "state": [part("run-epoch", 0, "value"), part("runs-drawn", drawn)], "changedPropIds": ["runs-chosen.data"]})
    assert answer.status_code == 200
    assert "no run of this name was given to the explorer" in answer.get_data(as_text=True)


def test_what_is_in_the_address_bar_is_what_is_read():
    state = RunsState("a/b & <c>", 3, ("ü=1", "two"))
    assert parse_qs(state.query()) == {"run": ["a/b & <c>"], "epoch": ["3"], "with": ["ü=1", "two"]}
