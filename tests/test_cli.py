"""Every command as a user runs it: exit codes and streams, the JSON contracts, and each bad input with its one line."""

import _thread
from collections import namedtuple
import json
import os
from pathlib import Path
import re
import shlex
import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

from neuralcollapse import __version__
from neuralcollapse.citations import registries
from neuralcollapse.cli import app
from neuralcollapse.experiments import Run
from neuralcollapse.measure import Snapshot, measure
from neuralcollapse.predict import GEOMETRIES
from neuralcollapse.registry import references
from references import limit_dense, two_pass

Result = namedtuple("Result", "code out err")

COMMANDS = sorted(typer.main.get_command(app).commands)
VECTORS = json.loads((Path(__file__).parent / "predict" / "vectors.json").read_text())
TINY = ("--epochs", "2", "--n-max", "20", "--set", "model_options.width=16", "--threads", "1")
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# These make rich and typer write colours even into a pipe.
FORCING = ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE", "CLICOLOR_FORCE")


# -- how to call it -----------------------------------------------------------------------------------


def command(*args):
    return [sys.executable, "-c", "from neuralcollapse.cli import main; main()", *map(str, args)]


def plain_environment(**changes):
    return {name: value for name, value in os.environ.items() if name not in FORCING} | changes


def run(*args, **options):
    """A fresh process, as from a shell."""
    done = subprocess.run(command(*args), capture_output=True, text=True, encoding="utf-8",
                          **{"env": plain_environment(), **options})
    return Result(done.returncode, done.stdout, done.stderr)


def all_that_was_shown(terminal):
    """What was written to a pseudo-terminal until its other side closed."""
    screen = b""
    try:
        while part := os.read(terminal, 65536):
            screen += part
    except OSError:  # how Linux says that the other side has closed
        pass
    os.close(terminal)
    return screen


def document(result):
    """The one JSON document on stdout; every number finite or null."""
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    assert result.code == 0, result.err
    assert result.out.count("\n") == 1
    return json.loads(result.out, parse_constant=refuse)


# -- predict ------------------------------------------------------------------------------------------


def test_predict_json_is_the_contract(cli):
    result = cli("predict", "--counts", "10,10,1,1", "--json")
    values = document(result)
    assert result.err == ""
    assert set(values) == {"counts", "loss", "ridge", "bias", "classifiers", "embeddings", "logits", "objective", "gap",
                           "thresholds"}
    assert values["counts"] == [10, 10, 1, 1]
    assert (values["loss"], values["ridge"], values["bias"], values["gap"]) == ("ce", None, False, None)
    assert set(values["thresholds"]) == {"minority_collapse", "total_collapse"}
    for name, gram in zip(("classifiers", "embeddings"), limit_dense([10, 10, 1, 1])[:2], strict=True):
        assert set(values[name]) == {"norms", "cosines", "gram"}
        assert np.linalg.norm(values[name]["gram"]) == pytest.approx(1, abs=1e-12)
        # The dense route is the less accurate one: √eps on the null vector (theory.md §2).
        np.testing.assert_allclose(values[name]["norms"], np.sqrt(gram.diagonal()), rtol=1e-7)
        norms = np.sqrt(gram.diagonal())
        np.testing.assert_allclose(values[name]["cosines"], gram / np.outer(norms, norms), atol=1e-7)
    np.testing.assert_allclose(values["logits"], np.eye(4) - 1 / 4, atol=1e-12)


def comma_list(numbers):
    return ",".join(map(repr, numbers))


def vectors(kind, *chosen):
    found = [vector for vector in VECTORS if vector["kind"] == kind]
    chosen = [found[i] for i in chosen] or found
    return pytest.mark.parametrize("vector", chosen, ids=[f"{v.get('loss', kind)}-{v['counts']}" for v in chosen])


@vectors("limit")
def test_predict_gives_the_reference_vectors(cli, vector):
    counts, delta = comma_list(vector["counts"]), comma_list(vector["delta"])
    flags = () if vector["loss"] == "ce" else ("--delta", delta)
    ways = [("--loss", vector["loss"], *flags)]
    if vector["loss"] != "ce":
        kind = "label" if vector["loss"] == "ldt" else "class"
        ways.append(("--delta", delta, "--temperature", kind))
    for way in ways:
        values = document(cli("predict", "--counts", counts, *way, "--json"))
        np.testing.assert_allclose(values["classifiers"]["gram"], vector["gram_w"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(values["embeddings"]["gram"], vector["gram_m"], rtol=0, atol=1e-9)


@vectors("ridge", 0, 4, 9)  # a plain one, one with a bias, one with every parameter
def test_predict_gives_the_reference_vectors_at_a_ridge(cli, vector):
    flags = [f"--{name}={comma_list(vector[name])}" for name in ("counts", "weight", "delta", "iota")]
    values = document(cli("predict", *flags, "--ridge", vector["lam"], *["--bias"] * vector["bias"], "--json"))
    assert (values["ridge"], values["bias"]) == (vector["lam"], vector["bias"])
    assert 0 <= values["gap"] < 1e-9
    # The vectors were solved to about 1e-9 in the objective, hence to 3e-5 in the Grams.
    assert values["objective"] == pytest.approx(vector["objective"], rel=2e-9)
    np.testing.assert_allclose(values["classifiers"]["gram"], vector["gram_w"], rtol=0, atol=5e-5)
    np.testing.assert_allclose(values["embeddings"]["gram"], vector["gram_m"], rtol=0, atol=5e-5)


def test_cosines_of_what_has_vanished_are_null(cli):
    values = document(cli("predict", "--counts", "10,10,1,1", "--ridge", "100", "--json"))
    assert values["thresholds"]["total_collapse"] < 100
    for part in ("classifiers", "embeddings"):
        assert (values[part]["norms"], values[part]["cosines"]) == ([0] * 4, [[None] * 4] * 4)


def test_weight_decay_is_a_ridge(cli):
    values = document(cli("predict", "--counts", "10,1", "--weight-decay", "4e-3", "--feature-penalty", "1e-3", "--n",
                          "500", "--json"))
    assert values["ridge"] == pytest.approx(500 * 2e-3, rel=1e-14)


def test_class_tables_above_200_classes_are_left_out_unless_asked_for(cli):
    for k, flags, listed in ((200, (), True), (201, (), False), (201, ("--full",), True)):
        values = document(cli("predict", "--long-tail", f"k={k},ratio=10,n_max=50", *flags, "--json"))
        assert ("logits" in values) == listed
        for name in ("classifiers", "embeddings"):
            assert len(values[name]["norms"]) == k
            assert ("gram" in values[name], "cosines" in values[name]) == (listed, listed)


@pytest.mark.parametrize(("flags", "counts"), [
    (("--counts", " 10, 10 1,1, "), [10, 10, 1, 1]),
    (("--counts", "2.5,1e3"), [2.5, 1000]),
    (("--step", "k=4,ratio=10,n_min=5"), [50, 50, 5, 5]),
    (("--step", "k=5, ratio=100, minority=0.4, n_max=500"), [500, 500, 500, 5, 5]),
    (("--long-tail", "k=4,ratio=100,n_max=500"), [500, 107, 23, 5]),
    (("--labels", "labels.txt"), [2, 1]), (("--labels", "labels.npy"), [1, 2]), (("--labels", "good.npz"), [10, 5, 3]),
])
def test_every_way_to_give_counts(cli, inputs, flags, counts):
    assert document(cli("predict", *flags, "--json"))["counts"] == counts


def test_predict_in_words(cli, inputs):
    result = cli("predict", "--step", "k=10,ratio=10,n_min=5")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("Predicted geometry: ce, 10 classes, n = 275, ratio 10\n")
    assert "mean cosine of" in result.out
    assert result.out.endswith("Source: thrampoulidis2022.\n")
    assert "\n1,000  " in cli("predict", "--step", "k=2000,ratio=10,n_min=5").out  # one line per count, not per class
    assert re.search(r"^cat +2 ", cli("predict", "--labels", "labels.txt").out, re.M)


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG\r\n"), (".pdf", b"%PDF-"), (".svg", b"<?xml")])
def test_plot_writes_the_picture(cli, tmp_path, suffix, start):
    path = tmp_path / f"seli{suffix}"
    result = cli("predict", "--counts", "10,10,1,1", "--plot", path)
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith(f"\nDrawn into {path}\n")
    assert path.read_bytes().startswith(start)
    assert path.stat().st_size > 5000
    assert document(cli("predict", "--counts", "10,1", "--plot", path, "--json"))["counts"] == [10, 1]


# -- measure ------------------------------------------------------------------------------------------


def agree(values, reference):
    for name, expected in reference.items():
        if isinstance(expected, dict):
            agree(values[name], expected)
        else:  # float64 features; atol: NC4 and accuracy may be exactly 0
            np.testing.assert_allclose(values[name], expected, rtol=1e-9, atol=1e-12, err_msg=name)


def sample(bias=True, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(4), [60, 25, 10, 5]))
    features = rng.standard_normal((4, 7))[labels] + 0.3 * rng.standard_normal((100, 7))
    return features, labels, rng.standard_normal((4, 7)), rng.standard_normal(4) if bias else None


@pytest.mark.parametrize(("suffix", "bias", "center"), [
    (".npz", True, "classes"), (".safetensors", True, "samples"), (".npz", False, "none")])
def test_measure_json_is_the_contract_and_the_reference(cli, tmp_path, suffix, bias, center):
    arrays = sample(bias)
    Snapshot(*arrays).save(tmp_path / f"epoch-3{suffix}")
    result = cli("measure", tmp_path / f"epoch-3{suffix}", "--center", center, "--json")
    values = document(result)
    assert result.err == ""
    assert set(values) >= {"counts", "center", "nc1", "cdnv", "nc2", "nc3", "nc4", "distance", "norms", "cosines",
                           "margins", "accuracy", "lambda_eff"}
    assert "distances" not in values
    fitted = measure(*arrays, center=center).lambda_eff()
    assert values["lambda_eff"] == (None if fitted is None else pytest.approx(fitted.ridge, rel=1e-9))
    assert (values["counts"], values["center"]) == ([60, 25, 10, 5], center)
    assert set(values["distance"]) == {"target", "classifiers", "embeddings", "logits"}
    assert values["distance"]["target"] == "seli"
    for part in ("classifiers", "embeddings"):
        assert set(values["nc2"][part]) == {"norm_cv", "angle", "etf_distance"}
        assert set(values["cosines"][part]) == {"majority_majority", "majority_minority", "minority_minority"}
    agree(values, two_pass(*arrays, center))


def test_measure_against_another_target(cli, tmp_path):
    features, labels, weight, _ = sample()
    Snapshot(features, labels, weight).save(tmp_path / "a.npz")
    values = document(cli("measure", tmp_path / "a.npz", "--target", "etf", "--json"))
    assert values["distance"]["target"] == "etf"
    assert values["distance"]["classifiers"] == pytest.approx(values["nc2"]["classifiers"]["etf_distance"], rel=1e-9)


def test_a_class_without_a_sample_is_measured_with_nulls(cli, inputs):
    values = document(cli("measure", "absent.npz", "--json"))
    assert values["counts"] == [10, 8, 0]
    assert values["nc1"]["pinv"] is None
    assert values["distance"] == {"target": "seli", "classifiers": None, "embeddings": None, "logits": None}
    assert values["nc2"]["classifiers"]["angle"] is not None
    assert values["margins"]["per_class"]["min"][2] is None
    result = cli("measure", "absent.npz")
    assert (result.code, result.err) == (0, "")
    assert re.search(r"^Distance to seli +– +– +–", result.out, re.M)
    assert "1 of 3 classes has no sample here" in result.out


@pytest.mark.parametrize("name", ["tiny.npz", "constant.npz", "small-types.npz"])
def test_odd_but_valid_snapshots_are_measured_without_a_word_on_stderr(cli, inputs, name):
    result = cli("measure", name, "--json")
    assert document(result)["counts"] == [10, 5, 3]
    assert result.err == ""


def test_measure_in_words(cli, inputs):
    result = cli("measure", "good.npz")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("Measured on 18 samples of 3 classes (class means centred on: classes)\n")
    for line in ("NC1", "CDNV", "NC2", "NC3", "NC4", "Distance to seli", "Majority and minority"):
        assert f"\n{line}" in result.out


def test_several_files_are_one_document_and_one_table(cli, inputs):
    files = ("good.npz", "absent.npz", "good.npz")
    result = cli("measure", *files, "--target", "etf", "--json")
    values = document(result)
    assert list(values) == ["epochs"]
    assert [epoch.pop("file") for epoch in values["epochs"]] == list(files)
    for name, epoch in zip(files, values["epochs"], strict=True):
        assert epoch == document(cli("measure", name, "--target", "etf", "--json"))
    result = cli("measure", *files, "--target", "etf")
    assert (result.code, result.err) == (0, "")
    title, heading, *rows = result.out.splitlines()
    assert title == "Measured 3 files in the order given (D: distance to etf; class means centred on: classes)"
    assert heading.split() == ["file", "NC1", "NC1", "trace", "D_W", "D_M", "D_Z", "NC3", "NC4", "accuracy", "cos(w)",
                               "min", "cos(μ)", "min"]
    assert rows[3:5] == ["", "over the 3 files     "]
    # The second file has no class mean for one class, so that half of its numbers are missing.
    assert {row.split()[-1] for row in rows[5:-2]} <= {"█·█", "▁·▁", "███"}
    assert [row.rsplit(maxsplit=1)[0] for row in rows[5:-2]] == [
        "NC1", "NC1 trace", "D_W", "D_M", "D_Z", "NC3", "NC4", "accuracy", "cos(w) min", "cos(μ) min"]
    for name, row, epoch in zip(files, rows[:3], values["epochs"], strict=True):
        numbers = (epoch["nc1"]["pinv"], epoch["nc1"]["trace"], *(epoch["distance"][part] for part in (
            "classifiers", "embeddings", "logits")), epoch["nc3"], epoch["nc4"], epoch["accuracy"]["overall"],
            *(epoch["cosines"][part]["minority_minority"] for part in ("classifiers", "embeddings")))
        assert row.split() == [name, *("–" if value is None else f"{value:.3g}" for value in numbers)]
    assert cli("measure", "good.npz", "good.npz").out.startswith(
        "Measured 2 files in the order given, 18 samples of 3 classes each (D: distance to seli; ")


def test_the_file_before_gives_the_means_for_nc4(cli, inputs):
    values = document(cli("measure", "good.npz", "good.npz", "--nc4", "previous", "--json"))["epochs"]
    own = document(cli("measure", "good.npz", "--json"))["nc4"]
    assert [(epoch["nc4"], epoch["nc4_means"]) for epoch in values] == [(None, None), (own, "previous")]
    values = document(cli("measure", "good.npz", "--nc4", "none", "--trace-only", "--json"))
    assert (values["nc4"], values["nc1"]["pinv"]) == (None, None)
    assert values["nc1"]["trace"] > 0


def test_a_head_beside_the_features_and_training_counts(cli, inputs, tmp_path):
    whole = document(cli("measure", "good.npz", "--json"))
    for place in (("good.parquet", "--head", "good.npz"), ("headless.npz", "--head", "good.npz"),
                  ("unlabelled.npz", "--labels", "good.npz")):
        assert document(cli("measure", *place, "--json")) == whole
    alone = document(cli("measure", "good.parquet", "--json"))
    assert (alone["nc3"], alone["nc4"], alone["accuracy"]["overall"], alone["norms"]["classifiers"]) == (None,) * 4
    assert alone["nc1"]["pinv"] == pytest.approx(whole["nc1"]["pinv"], rel=1e-12)
    result = cli("measure", "good.parquet")
    assert (result.code, result.err) == (0, "")
    assert re.search(r"^NC3 +duality +–", result.out, re.M)
    (tmp_path / "train.txt").write_text("0\n" * 10 + "1\n" * 10 + "2\n")
    given = [document(cli("measure", "good.npz", "--counts", counts, "--json"))
             for counts in ("10,10,1", tmp_path / "train.txt")]
    assert given[0] == given[1]
    assert given[0]["counts"] == whole["counts"] == [10, 5, 3]
    assert given[0]["distance"]["classifiers"] != whole["distance"]["classifiers"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("after", [0.0, 3600.0])
def test_a_bar_is_drawn_on_a_terminal_s_stderr_alone_and_after_a_while(inputs, after):
    import pty

    ours, theirs = pty.openpty()
    code = (f"from neuralcollapse.show import reading_files; reading_files.FileProgress.__init__.__defaults__ = (None, "
            f"{after}); from neuralcollapse.cli import main; main()")
    process = subprocess.Popen([sys.executable, "-c", code, "measure", "good.npz", "good.parquet", "--json"],
                               stdout=subprocess.PIPE, stderr=theirs, env=plain_environment(TERM="xterm-256color"))
    out = process.communicate()[0]
    os.close(theirs)
    screen = all_that_was_shown(ours)
    assert process.returncode == 0
    assert len(json.loads(out)["epochs"]) == 2
    assert (b"good.parquet" in screen) == (after == 0.0)


# -- train and report ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run, trained from a shell in JSON mode, and what the command printed."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "settings.yaml").write_text("epochs: 9\nseed: 3\nratio: 4\nmodel_options: {width: 8, features: 12}\n")
    return folder / "run", run("train", "--config", folder / "settings.yaml", *TINY, "--seed", "4", "--set", "seed=5",
                               "--out", folder / "run", "--json")


def test_train_leaves_a_run_folder_and_prints_one_document(trained):
    folder, result = trained
    values = document(result)
    assert set(values) == {"run", "report", "last"}
    assert (values["run"], values["report"]) == (str(folder), str(folder / "report.html"))
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in history] == [1, 2]
    assert values["last"] == history[-1]
    assert [line.split("  ")[0] for line in result.err.splitlines()] == ["epoch 1/2", "epoch 2/2"]  # progress
    for name in ("config.yaml", "environment.json", "data.json", "geometry.safetensors", "checkpoint", "report.html"):
        assert (folder / name).exists(), name


def test_flags_win_over_the_file_and_set_over_flags(trained):
    config = (trained[0] / "config.yaml").read_text()
    for line in ("epochs: 2", "seed: 5", "ratio: 4.0", "n_max: 20", "  width: 16", "  features: 12"):
        assert f"\n{line}\n" in config


def test_train_from_a_preset_in_words_names_its_folder_by_the_settings(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = cli("train", "--preset", "demo", "--epochs", "2", "--ratio", "5", "--imbalance", "long-tail")
    assert result.code == 0
    lines = result.out.splitlines()
    assert all(line.startswith("• ") for line in lines[:-2])
    assert len(lines) > 3
    assert lines[-1] == "Report: runs/digits-long-tail-5-mlp-seed-0/report.html"
    report = tmp_path / lines[-1].removeprefix("Report: ")
    assert report.is_file()
    assert "\noptimizer: adam\n" in (report.parent / "config.yaml").read_text()  # the rest is the preset's


def test_interrupted_training_says_how_to_go_on_is_reported_and_goes_on(cli, tmp_path):
    folder = tmp_path / "run"
    history = folder / "history.jsonl"
    over = threading.Event()

    def interrupt():
        while not (over.wait(0.01) or (history.exists() and history.read_bytes().count(b"\n") >= 3)):
            pass
        if not over.is_set():
            _thread.interrupt_main()  # what Ctrl-C does

    watcher = threading.Thread(target=interrupt)
    watcher.start()
    try:
        result = cli("train", *TINY, "--epochs", "4000", "--measure", "every 1", "--out", folder, "--json")
    finally:
        over.set()
        watcher.join()
    assert (result.code, result.out) == (130, "")
    assert result.err.splitlines()[-1] == f"Stopped. Continue with:  neuralcollapse train --resume {folder}"
    done = history.read_bytes().count(b"\n")
    page = tmp_path / "page.html"
    assert cli("report", folder, "--out", page) == (0, f"Report: {page}\n", "")
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert "still training" not in page.read_text()
    assert f"stopped after epoch {Run.open(folder).measured_epochs[-1]:,}" in page.read_text()
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("epochs: 4000", f"epochs: {done + 2}"))
    values = document(cli("train", "--resume", folder, "--json"))
    assert values["last"]["epoch"] == done + 2


# -- cite, help, version, and how it looks --------------------------------------------------------------


def test_cite_prints_each_entry_once(cli):
    result = cli("cite", "seli", "nc1", "thrampoulidis2022", "demo", "digits")
    assert (result.code, result.err) == (0, "")
    assert re.findall(r"^@\w+\{(\w+),$", result.out, re.M) == ["thrampoulidis2022", "papyan2020", "tirer2023",
                                                               "pedregosa2011"]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_examples_that_parse(cli, name):
    for flag in ("--help", "-h"):
        result = cli(name, flag)
        assert (result.code, result.err) == (0, "")
    words = " ".join(ANSI.sub("", result.out).split())
    examples = [f"neuralcollapse {rest}" for rest in re.split("neuralcollapse ", words.split("Example")[-1])[1:]]
    assert any(f"{example} ".startswith(f"neuralcollapse {name} ") for example in examples)
    for example in examples:
        used, *args = shlex.split(example.strip(" ·"))[1:]
        typer.main.get_command(app).commands[used].make_context(used, args)


def test_alone_it_shows_the_commands_and_version_is_the_version(cli):
    result = cli()
    assert (result.code, result.err) == (0, "")
    assert all(name in result.out for name in COMMANDS)
    assert cli("--help").out.split() == result.out.split()
    assert cli("--version") == (0, f"{__version__}\n", "")


def test_a_pipe_gets_plain_text_in_whatever_encoding():
    result = run("predict", "--counts", "10,10,1,1", env=plain_environment(PYTHONIOENCODING="ascii"))
    assert (result.code, result.err) == (0, "")
    assert "\x1b" not in result.out
    assert "|w|" in result.out  # ‖w‖
    assert "from lambda = 1 on" in result.out
    assert "?" not in result.out
    result = run("predict", "--long-tail", "k=30,ratio=100,n_max=500", env=plain_environment(PYTHONIOENCODING="ascii"))
    assert (result.code, result.err) == (0, "")
    assert "from n = 500" not in result.out  # a sketch is left out where there are no blocks
    assert "?" not in result.out


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("args", [["--help"], ["predict", "--long-tail", "k=30,ratio=100,n_max=500"],
                                  ["measure", "FILE"], ["measure", "FILE", "FILE", "FILE"]], ids=len)
@pytest.mark.parametrize("no_color", [False, True])
def test_colours_in_a_terminal_unless_NO_COLOR(inputs, args, no_color):
    import pty

    ours, theirs = pty.openpty()
    environment = plain_environment(TERM="xterm-256color", NO_COLOR="1", COLUMNS="60")
    if not no_color:
        del environment["NO_COLOR"]
    given = [inputs / "good.npz" if arg == "FILE" else arg for arg in args]
    process = subprocess.Popen(command(*given), stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    screen = all_that_was_shown(ours)
    assert process.wait() == 0
    colour = re.search(rb"\x1b\[(\d+;)*([34][0-7]|9[0-7]|[34]8;[0-9;]+)m", screen)
    assert colour is None or not no_color
    if args == ["--help"]:  # tables have no colour of their own: bold and dim are enough
        assert (colour is None) == no_color
    assert b"\x1b[" in screen
    plain = re.sub(rb"\x1b\[[0-9;]*m", b"", screen).decode()
    assert max(map(len, plain.splitlines())) <= 60
    if args != ["--help"]:
        assert re.search("[▁-█]{6}" if args.count("FILE") == 0 else "NC1", plain)


# -- bad input ----------------------------------------------------------------------------------------


def known(*names):
    """Each once, the first forty."""
    names = sorted(set(names))
    return ", ".join(names[:40]) + (f", … ({len(names) - 40} more)" if len(names) > 40 else "")


LOSSES = known(*GEOMETRIES.names)
CITABLE = known(*(name for registry in registries() for name in registry.names), *references())
POSITIVE = "drop empty classes first"
EMPTY = "drop it from labels and head, or give it a small positive count (class_counts does with absent=1)"

BAD_PREDICT = [
    (["--counts", "10,0,1"], f"every class needs a sample, and class 1 has none: {EMPTY}"),
    (["--counts", "10,-3,1"], f"counts must be at least two positive numbers, got -3 for class 1: {POSITIVE}"),
    (["--counts", "10,nan,1"], "counts must be finite, got nan at position 1 (1 of 3 values)"),
    (["--counts", "10,inf"], "counts must be finite, got inf at position 1 (1 of 2 values)"),
    (["--counts", "1e-300,1e300"], "counts must lie between 1e-40 and 1e+40, got 1e-300 for class 0"),
    (["--counts", "5"], "counts must name at least two classes, got 1 ([5.0])"),
    (["--counts", ""], "counts must be numbers separated by commas, such as 10,10,1,1, got ''"),
    (["--counts", "10,,1"], "counts must be numbers separated by commas, such as 10,10,1,1, got '10,,1'"),
    (["--counts", "10;1"], "counts must be numbers separated by commas, such as 10,10,1,1, got '10;1'"),
    ([], "give exactly one of --counts, --step, --long-tail, --labels, got none"),
    (["--counts", "5,5", "--step", "k=10"],
     "give exactly one of --counts, --step, --long-tail, --labels, got --counts, --step"),
    (["--step", "k=10,ratio=0.5,n_min=5"], "ratio must be a number ≥ 1 (largest count over smallest), got 0.5"),
    (["--step", "k=10,ratio=nan,n_min=5"], "ratio must be a number ≥ 1 (largest count over smallest), got nan"),
    (["--step", "k=1,ratio=10,n_min=5"], "classes must be a whole number ≥ 2, got 1"),
    (["--step", "k=2.5,ratio=10,n_min=5"], "classes must be a whole number ≥ 2, got 2.5"),
    (["--step", "k=ten,ratio=10,n_min=5"], "k must be a number, got 'ten'"),
    (["--step", "k=10,k=20,ratio=10,n_min=5"], "k must be given once, got 'k=10,k=20,ratio=10,n_min=5'"),
    (["--step", "ratio=10,n_min=5"], "step needs k=…, got 'ratio=10,n_min=5'"),
    (["--step", "k=10,n_min=5"], "step needs ratio=…, got 'k=10,n_min=5'"),
    (["--step", "k=10,ratio=10"], "step needs exactly one of n_min and n_max, got n_min=None, n_max=None"),
    (["--step", "k=10,ratio=10,minorty=.5,n_min=5"],
     "expected k=…,ratio=…,minority=…,n_min=…,n_max=…, got 'minorty=.5'"),
    (["--step", "k=10,ratio=10,minority=.33,n_min=5"],
     "minority × classes must be a whole number, got 0.33 × 10 = 3.3: the nearest share is 0.3"),
    (["--step", "k=10,ratio=10,n_min=0"], "n_min must be a positive number, got 0.0"),
    (["--long-tail", "k=100,ratio=100"], "long-tail needs n_max=…, got 'k=100,ratio=100'"),
    (["--long-tail", "k=100,ratio=1000,n_max=500"],
     "n_max / ratio must leave the last class at least 1 sample, got 500 / 1000 = 0.5"),
    (["--long-tail", "k=10,ratio=10,n_max=-5"], "n_max must be a positive number, got -5.0"),
    (["--counts", "5,5", "--loss", "ldtt"], f"unknown loss 'ldtt': did you mean 'ldt'? known: {LOSSES}"),
    (["--counts", "5,5", "--loss", "ldt"], "loss 'ldt' needs delta, one positive number per class"),
    (["--counts", "5,5", "--delta", "1"], "delta must be 2 numbers, one per class, got 1 ([1.0])"),
    (["--counts", "5,5", "--delta", "1,0"], "delta must be positive, got 0 for class 1"),
    (["--counts", "5,5", "--delta", "1,x"],
     "delta must be numbers separated by commas, such as 10,10,1,1, got '1,x'"),
    (["--counts", "5,5", "--delta", "1,1e-200"], "delta must lie between 1e-40 and 1e+40, got 1e-200 for class 1"),
    (["--counts", "5,5", "--iota", "1,nan"], "iota must be finite, got nan at position 1 (1 of 2 values)"),
    (["--counts", "5,5", "--weight", "0,1"], "weight must be positive, got 0 for class 0"),
    (["--counts", "5,5", "--temperature", "clas"], "temperature must be 'class' or 'label', got 'clas'"),
    (["--counts", "5,1", "--ridge", "0"], "ridge must be a positive number, got 0.0"),
    (["--counts", "5,1", "--ridge", "nan"], "ridge must be a positive number, got nan"),
    (["--counts", "5,1", "--ridge", "1", "--weight-decay", "2"],
     "give --ridge or --weight-decay, not both, got 1 and 2"),
    (["--counts", "5,1", "--n", "9"],
     "--feature-penalty and --n go with --weight-decay: give it too, or --ridge alone"),
    (["--counts", "5,1", "--bias"], "the limit of vanishing ridge is known without a head bias only: leave the bias "
                                    "out, or give a small ridge such as 1e-6"),
    (["--counts", "5,5", "--plot", "absent/a.png"],
     "cannot write 'absent/a.png': there is no folder 'absent'"),
    (["--counts", "5,5", "--plot", "good.npz/a.png"], "cannot write 'good.npz/a.png': Not a directory"),
    (["--counts", "5,5", "--plot", "a.gif"],
     "a picture's file name must end in .png, .pdf, .svg, .jpg, .html, got 'a.gif'"),
    (["--labels", "absent.txt"], "no such file of labels: 'absent.txt'"),
    (["--labels", "full"], "expected a file of labels, got the folder 'full'"),
    (["--labels", "square.npy"], "labels must be a vector of at least one class index, got shape (3, 3)"),
    (["--labels", "heading.txt"],
     "'heading.txt' must hold one label a line, but 'label' stands over whole numbers: leave the heading out"),
    (["--labels", "table.txt"], "'table.txt' must hold one label a line, got '0,1,2'"),
    (["--counts", "5,5", "--temperature", "label"],
     "--temperature says what --delta multiplies: give --delta, got --temperature label alone"),
    (["--counts", "5,5", "--path", "--ridge", "1"],
     "--path follows all λ; --ridge or --weight-decay is marked in its --plot: give --plot, or leave them out"),
    (["--labels", "empty.txt"], "'empty.txt' must hold at least one label, got none"),
    (["--labels", "gap.txt"], f"every class needs a sample, and class 1 has none: {EMPTY}"),
    (["--labels", "one.txt"], "counts must name at least two classes, got 1 ([2])"),
    (["--labels", "negative.npz"], "labels must be in 0 … k−1, got -1 at position 15"),
    (["--labels", "half.npz"], "labels must be whole numbers 0 … k−1, got float64 ([0.5, 0.5, 0.5, 0.5, 0.5])"),
    (["--labels", "pickled.npz"], "'pickled.npz' cannot be read as labels: it must hold plain arrays, nothing pickled"),
    (["--labels", "array.npz"],
     "'array.npz' cannot be read as labels: it holds one array, expected an archive of named ones"),
]

BAD_MEASURE = [
    (["full"], "expected a file, got the folder 'full'"),
    (["run"], "expected a file of features, got the run folder 'run': its measurements are in its report "
              "(neuralcollapse report)"),
    (["absent-file.npz"], "no such file: 'absent-file.npz'"),
    (["labels.txt"], "a snapshot must be a .npz, .npy, .safetensors or .parquet file, got 'labels.txt'"),
    (["outside.npz"], "labels must be in 0 … 2, got 3 at position 15"),
    (["negative.npz"], "labels must be in 0 … k−1, got -1 at position 15"),
    (["half.npz"], "labels must be whole numbers 0 … k−1, got float64 ([0.5, 0.5, 0.5, 0.5, 0.5])"),
    (["nan.npz"], "features must be finite, got NaN or Inf in row 3 (1 of 18 rows)"),
    (["inf.npz"], "features must be finite, got NaN or Inf in row 4 (2 of 18 rows)"),
    (["huge.npz"], "features must be small enough to square, below 1e+18 in single and 1e+100 in double precision, got "
                   "class means or spreads of 1e+200"),
    (["short.npz"], "features and labels must have the same length, got 18 and 17"),
    (["flat.npz"], "features must be a matrix with at least one row and column, got shape (18,)"),
    (["transposed.npz"], "weight must have shape (k, 6), one row per class as in torch's Linear, got (6, 3): give its "
                         "transpose"),
    (["narrow.npz"], "weight must have shape (k, 6), one row per class as in torch's Linear, got (3, 5)"),
    (["bias.npz"], "bias must be 3 finite numbers, one per class, got shape (2,) ([1.0, 1.0])"),
    (["unlabelled.npz"], "'unlabelled.npz' must hold features (n, d), labels (n,) and, for a head, weight (k, d) and "
                         "bias (k,): labels missing, got features, weight"),
    (["text.npz"], "features in text.npz must hold real numbers, got <U32"),
    (["pickled.npz"], "'pickled.npz' cannot be read as .npz arrays: it must hold plain arrays, nothing pickled"),
    (["array.npz"], "'array.npz' cannot be read as .npz arrays: it holds one array, expected an archive of named ones"),
    (["cut.npz"], "'cut.npz' cannot be read as .npz arrays: File is not a zip file"),
    (["cut.parquet"], "'cut.parquet' cannot be read as .parquet arrays: it must begin and end with PAR1; it is cut "
                      "short, or something else"),
    (["ragged.parquet"],
     "column 'features' of ragged.parquet must hold lists of 6 numbers each, got 2 numbers in row 7"),
    (["flat.parquet"], "column 'features' of flat.parquet must hold lists of numbers, got double"),
    (["half.parquet"], "labels must be whole numbers 0 … k−1, got float64 ([0.5, 0.5, 0.5, 0.5, 0.5])"),
    (["good.parquet", "--head", "narrow.npz"],
     "weight must have shape (k, 6), one row per class as in torch's Linear, got (3, 5)"),
    (["good.parquet", "--head", "absent.npy"], "no such file: 'absent.npy'"),
    (["good.parquet", "--head", "headless.npz"],
     "'headless.npz' holds no head 'weight': known: features, labels"),
    (["good.parquet", "--head", "good.npz:lm_head"],
     "'good.npz' holds no head 'lm_head.weight': did you mean 'weight'? known: features, labels, weight"),
    (["good.parquet", "--column", "featuers"],
     "'good.parquet' holds no 'featuers': did you mean 'features'? known: features, labels"),
    (["good.npz", "--label-column", "y"], "'good.npz' holds no 'y': known: features, labels, weight"),
    (["good.npz", "--labels", "absent.npy"], "no such file: 'absent.npy'"),
    (["good.npz", "--labels", "labels.npy"], "features and labels must have the same length, got 18 and 3"),
    (["labels.npy", "--labels", "labels.npy"],
     "features must be a matrix with at least one row and column, got shape (3,)"),
    (["good.npz", "--counts", "10,5"], "counts must be one per class, expected 3, got 2"),
    (["good.npz", "--counts", "10,x,5"],
     "counts must be numbers separated by commas, such as 10,10,1,1, got '10,x,5'"),
    (["headless.npz", "--counts", "10,8"], "labels must be in 0 … 1, got 2 at position 15"),
    (["good.npz", "--nc4", "third"], "nc4 must be one of second-pass, previous, none, got 'third'"),
    (["good.npz", "--nc4", "previous"],
     "nc4 'previous' takes the class means of the file before: give several files, or 'second-pass'"),
    (["good.npz", "absent-file.npz"], "no such file: 'absent-file.npz'"),
    (["good.npz", "nan.npz", "--json"], "nan.npz: features must be finite, got NaN or Inf in row 3 (1 of 18 rows)"),
    (["good.npz", "outside.npz", "--json"], "outside.npz: labels must be in 0 … 2, got 3 at position 15"),
    (["good.npz", "cut.npz", "good.npz"], "'cut.npz' cannot be read as .npz arrays: File is not a zip file"),
    (["good.npz", "--center", "median"], "center must be one of classes, samples, none, got 'median'"),
    (["good.npz", "--target", "selli"],
     f"target must name a geometry, got 'selli': unknown loss 'selli': did you mean 'seli'? known: {LOSSES}"),
]

BAD_TRAIN = [
    (["--dataset", "digits", "--n-max", "100000"],
     "the data set is too small for these counts: class 0 has 144 of 100000, class 1 has 148 of 100000, class 2 has "
     "143 of 100000, class 3 has 149 of 100000, class 4 has 147 of 100000 and 5 more classes"),
    (["--ratio", "1000"], "the data set is too small for ratio 1000: with 143 samples in the largest class the "
                          "smallest would keep 0.14; use a ratio of at most 143"),
    (["--ratio", "0.5"], "ratio must be at least 1, got 0.5"),
    (["--ratio", "nan"], "ratio must be a finite number, got nan"),
    (["--minority", "0.33"],
     "minority × classes must be a whole number, got 0.33 × 10 = 3.3: the nearest share is 0.3"),
    (["--epochs", "0"], "epochs must be at least 1, got 0"),
    (["--dataset", "digit"], "unknown data set 'digit': did you mean 'digits'? known: cifar10, cifar100, digits, "
                            "fashion-mnist, folder, hf, mnist, mnist5k, npz, parquet, text, tokens"),
    (["--dataset", "npz"], "data set 'npz' must be given as 'npz:PATH', got 'npz'"),
    (["--dataset", "npz:absent-file.npz"], "cannot read the data set 'absent-file.npz': No such file or directory"),
    (["--dataset", "npz:pickled.npz"], "the data set 'pickled.npz' must be an .npz file of plain arrays, nothing "
                                       "pickled: it could not be read as one"),
    (["--dataset", "npz:nan.npz"], "inputs of 'nan.npz' must be finite, got NaN or Inf in sample 3 (1 of 18 samples)"),
    (["--dataset", "npz:huge.npz"],
     "inputs of 'huge.npz' must be finite, got NaN or Inf in sample 0 (18 of 18 samples)"),
    (["--dataset", "npz:good.npz", "--imbalance", "natural", "--model", "cnn"],
     "model 'cnn' needs images of shape (channels, height, width), got samples of shape (6,): the model 'mlp' takes "
     "any shape"),
    (["--model", "resnet19"], "unknown model 'resnet19': did you mean 'resnet18'? known: cnn, mlp, resnet18, "
     "timm, transformer, transformers, vgg13"),
    (["--model", "os:nothing"], "model 'os:nothing' must name an importable module:factory, got module 'os' has no "
                                "attribute 'nothing'"),
    (["--set", "model_options.widht=3"], "unknown option 'widht' of model 'mlp': did you mean 'width'? known: "
                                         "batch_norm, depth, features, rectify, width"),
    (["--loss", "cee"], "unknown loss 'cee': did you mean 'ce'? known: auto, balanced-softmax, cdt, ce, "
     "effective-number, etf-head, focal, ldam, ldt, logit-adjusted, scl, vs, weighted, weighted-ldt"),
    (["--imbalance", "stepp"], "imbalance must be 'step', 'long-tail', 'none' or 'natural', got 'stepp'"),
    (["--preset", "dmeo"], "unknown preset 'dmeo': did you mean 'demo'? known: cifar10, cifar100, demo, "
                           "fashion-mnist, image-folder, mnist, terminal-phase"),
    (["--preset", "demo", "--config", "settings.yaml"], "give a --config or a --preset, not both"),
    (["--config", "absent.yaml"], "cannot read the configuration 'absent.yaml': No such file or directory"),
    (["--config", "labels.txt"], "the configuration 'labels.txt' must map settings to values, got cat dog cat"),
    (["--set", "epochs"], "--set takes KEY=VALUE, got 'epochs'"),
    (["--set", "epochs.inner=3"], "epochs has no inner settings, got epochs.inner"),
    (["--set", "epochs=["], "the value of epochs must be YAML, got '['"),
    (["--learning-rate", "1e18", "--set", "momentum=0", "--out", "diverged"],
     "the loss must stay finite, but is not after epoch 1: try a learning_rate below 1e+18 (what was written before "
     "stays)"),
    (["--out", "good.npz/run"], "cannot write 'good.npz/run': Not a directory"),
    (["--out", "full"], "a run needs a new or empty folder, got 'full' that holds thesis.tex"),
    (["--resume", "absent"], "'absent' is not a run folder: there is no such folder"),
    (["--resume", "absent", "--epochs", "3"], "'absent' is not a run folder: there is no such folder"),
    (["--resume", "good.npz"], "'good.npz' is not a run folder: it is a file"),
    (["--resume", "full", "--out", "other"], "give an --out for a new run or a --resume to continue one, not both"),
]

BAD_REPORT = [
    (["absent"], "'absent' is not a run folder: there is no such folder"),
    (["full"], "'full' is not a run folder: it has no config.yaml"),
    (["good.npz"], "'good.npz' is not a run folder: it is a file"),
]

BAD_CITE = [
    (["sely"], f"nothing is known by the name 'sely': did you mean 'seli'? known: {CITABLE}"),
    (["seli", "nothing2020"],
     f"nothing is known by the name 'nothing2020': did you mean 'kang2020'? known: {CITABLE}"),
]

BAD = [(name, *case) for name, table in (("predict", BAD_PREDICT), ("measure", BAD_MEASURE), ("train", BAD_TRAIN),
                                         ("report", BAD_REPORT), ("cite", BAD_CITE)) for case in table]


def tables(folder, features, labels):
    """The same samples as Parquet, and with one thing wrong each."""
    lists = features.tolist()
    for name, columns in {
            "good": {"features": lists, "labels": labels}, "flat": {"features": features[:, 0], "labels": labels},
            "ragged": {"features": [*lists[:7], [1.0, 2.0], *lists[8:]], "labels": labels},
            "half": {"features": lists, "labels": labels + 0.5}}.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    (folder / "cut.parquet").write_bytes((folder / "good.parquet").read_bytes()[:-3])


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory):
    """A folder of snapshots with one thing wrong each, label files, and a folder that is no run."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [10, 5, 3])
    features, weight = rng.standard_normal((18, 6)), rng.standard_normal((3, 6))

    def snapshot(name, **changed):
        arrays = {"features": features, "labels": labels, "weight": weight} | changed
        np.savez(folder / f"{name}.npz", **{key: array for key, array in arrays.items() if array is not None})

    def with_value(value, *places):
        changed = features.copy()
        changed[tuple(np.transpose(places))] = value
        return changed

    snapshot("good")
    snapshot("tiny", features=features * 1e-200)
    snapshot("constant", features=np.ones((18, 6)))
    snapshot("small-types", features=features.astype(np.float16), labels=labels.astype(np.uint8))
    snapshot("absent", labels=np.where(labels == 2, 1, labels))
    snapshot("outside", labels=np.where(labels == 2, 3, labels))
    snapshot("negative", labels=np.where(labels == 2, -1, labels))
    snapshot("half", labels=labels + 0.5)
    snapshot("nan", features=with_value(np.nan, (3, 2)))
    snapshot("inf", features=with_value(np.inf, (4, 0), (9, 5)))
    snapshot("huge", features=np.full((18, 6), 1e200))
    snapshot("short", labels=labels[:-1])
    snapshot("flat", features=features[:, 0])
    snapshot("transposed", weight=weight.T)
    snapshot("narrow", weight=weight[:, :5])
    snapshot("bias", bias=np.ones(2))
    snapshot("headless", weight=None)
    snapshot("unlabelled", labels=None)
    snapshot("text", features=features.astype(str))
    snapshot("pickled", labels=labels.astype(object))
    (folder / "cut.npz").write_bytes((folder / "good.npz").read_bytes()[:400])
    tables(folder, features, labels)
    np.save(folder / "labels.npy", np.array([1, 0, 1]))
    (folder / "array.npz").write_bytes((folder / "labels.npy").read_bytes())
    for name, text in {"labels": "cat\ndog\ncat\n", "gap": "0\n2\n2\n", "one": "0\n0\n", "empty": "\n",
                       "heading": "label\n0\n1\n", "table": "0,1,2\n3,4,5\n"}.items():
        (folder / f"{name}.txt").write_text(text)
    np.save(folder / "square.npy", np.eye(3))
    (folder / "settings.yaml").write_text("epochs: 2\n")
    (folder / "run").mkdir()
    (folder / "run" / "config.yaml").write_text("epochs: 2\n")
    (folder / "full").mkdir()
    (folder / "full" / "thesis.tex").write_text("precious")
    return folder


@pytest.fixture
def inputs(bad_files, monkeypatch):
    """That folder as the working directory, so that messages quote names alone."""
    monkeypatch.chdir(bad_files)
    return bad_files


@pytest.mark.parametrize(("name", "args", "message"), BAD, ids=[f"{name} {' '.join(args)}" for name, args, _ in BAD])
def test_bad_input_gets_one_line_and_exit_code_2(cli, inputs, name, args, message):
    before = sorted(inputs.rglob("*"))
    assert cli(name, *args) == (2, "", f"neuralcollapse: {message}\n")
    assert [path for path in sorted(inputs.rglob("*")) if path not in before and "diverged" not in path.parts] == []


@pytest.mark.parametrize(("args", "pattern"), [  # worded by typer, and not the same in all of its versions
    (["predikt"], r".*'predikt'.*predict.*\(see neuralcollapse --help\)"),
    (["predict", "--count", "5,5"], r".*--count\b.*--counts.*\(see neuralcollapse predict --help\)"),
    (["predict", "10,10,1,1"], r".*10,10,1,1.*\(see neuralcollapse predict --help\)"),
    (["predict", "--counts"], r".*--counts.*requires an argument.*"),
    (["train", "--ratio", "ten"], r".*--ratio.*'ten'.*\(see neuralcollapse train --help\)"),
    (["train", "--epochs", "1.5"], r".*--epochs.*'1.5'.*\(see neuralcollapse train --help\)"),
    (["measure"], r".*missing argument.*file.*\(see neuralcollapse measure --help\)"),
    (["report"], r".*missing argument.*run.*\(see neuralcollapse report --help\)"),
    (["cite"], r".*missing argument.*names.*\(see neuralcollapse cite --help\)"),
])
def test_bad_usage_gets_one_line_and_exit_code_2(cli, args, pattern):
    result = cli(*args)
    assert (result.code, result.out) == (2, "")
    assert re.fullmatch(f"neuralcollapse: {pattern}\n", result.err, re.I)


def test_a_finished_run_is_shown_again_and_says_that_it_is_finished(cli, trained):
    folder = trained[0]
    again = cli("train", "--resume", folder)
    assert (again.code, again.err) == (0, f"'{folder}' is finished already\n")
    assert again.out.startswith("• At epoch 2 the network ")


def test_a_run_is_neither_overwritten_nor_resumed_with_other_settings(cli, trained):
    folder = trained[0]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert cli("train", *TINY, "--out", folder) == (
        2, "", f"neuralcollapse: '{folder}' holds a finished run with 2 measured epochs: choose another "
               "folder\n")
    assert cli("train", "--resume", folder, "--epochs", "3", "--set", "momentum=0.5") == (
        2, "", f"neuralcollapse: cannot resume '{folder}' with other settings: epochs is 2 there and 3 here, momentum "
               "is 0.9 there and 0.5 here\n")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_not_enough_memory_is_said_in_one_line(cli):
    result = cli("predict", "--step", "k=1e15,ratio=10,n_min=1")
    assert (result.code, result.out) == (1, "")
    assert re.fullmatch(r"neuralcollapse: not enough memory: [^\n]+\n", result.err)


@pytest.mark.parametrize(("args", "message"), [
    (["predict", "--counts", "10,0,1"], BAD_PREDICT[0][1]),
    (["report", "full"], BAD_REPORT[1][1]),
])
def test_bad_input_in_a_process_of_its_own(bad_files, args, message):
    assert run(*args, cwd=bad_files) == (2, "", f"neuralcollapse: {message}\n")


@pytest.mark.parametrize(("options", "told"), [
    (["--ridge", "1"], "At λ = 1; certified, relative duality gap "),
    (["--ridge", "1", "--bias", "--weight", "1,1,2,2"], "At λ = 1 with class weights, a head bias; certified, "),
    (["--loss", "mse", "--ridge", "3"], "With a ridge λ: the rarest classes vanish from λ = 2.236 on"),
    (["--loss", "ldt", "--delta", "4,4,2,2"], "With label temperatures, in the limit λ → 0."),
    (["--ridge", "30"], "All classes have vanished: the ridge is too large for any of them."),
])
def test_a_prediction_says_what_it_is_of(cli, options, told):
    assert told in cli("predict", "--counts", "50,50,5,5", *options).out


def test_several_targets(cli, inputs):
    one = json.loads(cli("measure", "good.npz", "--target", "etf", "--json").out)
    two = json.loads(cli("measure", "good.npz", "--target", "seli", "--target", "etf", "--json").out)
    assert "distances" not in one
    assert two["distances"]["etf"] == {part: one["distance"][part] for part in ("classifiers", "embeddings", "logits")}
    assert two["distance"]["target"] == "seli"
    shown = cli("measure", "good.npz", "--target", "seli", "--target", "etf").out
    assert "Distance to seli" in shown
    assert "Distance to etf" in shown
