"""Training: the objective, exact repetition, resuming, and what happens when it goes wrong."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from rich.console import Console
from threadpoolctl import threadpool_info, threadpool_limits
import torch
from torch.nn import functional as F

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data import load_data
from neuralcollapse.experiments.progress import TrainProgress
from neuralcollapse.experiments.run import Run
from neuralcollapse.experiments.session import Session
from neuralcollapse.experiments.train import train

TINY = TrainConfig(epochs=6, measure="every 2", n_max=40, batch_size=32, feature_penalty=1e-4, threads=1,
                   model_options={"width": 16, "features": 12, "batch_norm": True})


def untimed(history):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history]


def weights(folder):
    return torch.load(folder / "checkpoint" / "state.pt", weights_only=True)["model"]


def stopping_after(epoch):
    def stop(report):
        if report.epoch == epoch:
            raise KeyboardInterrupt
    return stop


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of TINY."""
    return train(TINY, tmp_path_factory.mktemp("whole") / "run")


def test_a_run_folder_holds_the_contract(whole):
    assert whole.measured_epochs == [1, 2, 4, 6]
    assert whole.finished
    assert TrainConfig(**whole.config) == TINY
    assert whole.counts.values.tolist() == [40] * 5 + [4] * 5
    assert whole.data["ridges"] == {"classifiers": pytest.approx(220 * 5e-4), "embeddings": pytest.approx(220 * 1e-4)}
    assert whole.environment["threads"] == 1
    last = whole.history[-1]
    assert set(last) == {"epoch", "train", "test", "learning_rate", "seconds", "measurement"}
    assert last["measurement"]["counts"] == whole.data["counts"]
    per_class = np.array(last["test"]["per_class_accuracy"])
    assert last["test"]["accuracy"] == pytest.approx(per_class.mean())  # the test part is balanced
    assert last["test"]["majority_accuracy"] == pytest.approx(per_class[:5].mean())
    assert last["test"]["minority_accuracy"] == pytest.approx(per_class[5:].mean())
    grams = whole.grams(6)
    assert {name: gram.shape for name, gram in grams.items()} == dict.fromkeys(
        ("classifiers", "embeddings", "logits"), (10, 10))
    head = weights(whole.path)["head.weight"].double().numpy()
    np.testing.assert_allclose(grams["classifiers"], head @ head.T / np.linalg.norm(head @ head.T), atol=1e-6)


def test_the_same_seed_repeats_exactly_and_another_does_not(whole, tmp_path):
    torch.manual_seed(99)  # the caller's random state must not matter
    again = train(TINY, tmp_path / "again")
    assert untimed(again.history) == untimed(whole.history)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole.path).values(), weights(again.path).values(),
                                                 strict=True))
    other = train(TINY.replace(seed=1, epochs=1), tmp_path / "other")
    assert other.history[0]["train"] != whole.history[0]["train"]


def test_the_callers_random_state_and_threads_are_left_alone(tmp_path):
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    train(TINY.replace(epochs=1, threads=2), tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("threads", [1, 2])
def test_the_blas_of_numpy_has_the_threads_of_the_run(tmp_path, threads):
    def blas(known=()):
        found = {part["filepath"]: part["num_threads"] for part in threadpool_info() if part["user_api"] == "blas"}
        return {path: found[path] for path in known or found}  # others may be loaded meanwhile

    during = []
    with threadpool_limits(threads, user_api="blas"):
        wanted = blas()  # a library that was loaded with one thread may have no more
    with threadpool_limits(3 - threads, user_api="blas"):
        before = blas(wanted)
        train(TINY.replace(epochs=1, threads=threads), tmp_path / "run", on_epoch=lambda _: during.append(blas(wanted)))
        assert (during, blas(wanted)) == ([wanted], before)


def test_measuring_more_often_does_not_change_training(whole, tmp_path):
    often = train(TINY.replace(measure="every 1"), tmp_path / "often")
    assert untimed(often.history)[-1] == untimed(whole.history)[-1]


@pytest.mark.parametrize("epoch", [1, 3, 4, 5])
def test_resumed_equals_uninterrupted(whole, tmp_path, epoch):
    with pytest.raises(KeyboardInterrupt):
        train(TINY, tmp_path / "run", on_epoch=stopping_after(epoch))
    assert not Run.open(tmp_path / "run").finished
    resumed = train(None if epoch % 2 else TINY, tmp_path / "run", resume=True)
    assert untimed(resumed.history) == untimed(whole.history)
    np.testing.assert_array_equal(resumed.grams(6)["logits"], whole.grams(6)["logits"])


def test_killed_between_checkpoint_and_history(whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(TINY, tmp_path / "run", on_epoch=stopping_after(4))
    path = tmp_path / "run" / "history.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:50])
    assert untimed(train(None, tmp_path / "run", resume=True).history) == untimed(whole.history)


def test_killed_before_anything_was_measured(whole, tmp_path):
    config = TINY.replace(measure="every 2")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", on_epoch=stopping_after(1))
    (tmp_path / "run" / "history.jsonl").write_bytes(b"")
    (tmp_path / "run" / "checkpoint" / "state.pt").unlink()
    assert untimed(train(None, tmp_path / "run", resume=True).history) == untimed(whole.history)


SCRIPT = """
import sys
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.train import train
train(TrainConfig.from_yaml(sys.argv[1]), sys.argv[2])
"""


def test_kill_minus_nine_loses_nothing(tmp_path):
    config = TINY.replace(epochs=400, measure="every 1")
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    history = tmp_path / "run" / "history.jsonl"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path / "config.yaml"), str(tmp_path / "run")])
    try:
        while process.poll() is None and not (history.exists() and history.read_bytes().count(b"\n") >= 5):
            time.sleep(0.01)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    written = untimed(Run.open(tmp_path / "run").history)
    last = written[-1]["epoch"]
    with pytest.raises(KeyboardInterrupt):
        train(None, tmp_path / "run", resume=True, on_epoch=stopping_after(last + 3))
    resumed = untimed(Run.open(tmp_path / "run").history)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "whole", on_epoch=stopping_after(last + 3))
    assert resumed[:len(written)] == written
    assert resumed == untimed(Run.open(tmp_path / "whole").history)


def test_a_finished_run_is_returned_as_it_is(whole):
    before = (whole.path / "history.jsonl").read_bytes()
    assert train(None, whole.path, resume=True).history == whole.history
    assert (whole.path / "history.jsonl").read_bytes() == before
    with pytest.raises(InvalidInput) as error:
        train(TINY, whole.path)
    assert str(error.value) == (f"'{whole.path}' holds a finished run with 4 measured epochs: choose another "
                                "folder")


@pytest.fixture
def interrupted(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(TINY, tmp_path / "run", on_epoch=stopping_after(2))
    return tmp_path / "run"


def without_checkpoint(folder):
    (folder / "checkpoint" / "state.pt").unlink()


def broken_checkpoint(folder):
    (folder / "checkpoint" / "state.pt").write_bytes(b"")


def other_data(folder):
    data = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps({**data, "mean": [0.0]}))


CANNOT_RESUME = [
    (lambda folder: None, TINY.replace(learning_rate=0.1, epochs=7),
     "cannot resume 'PATH' with other settings: epochs is 6 there and 7 here, "
     "learning_rate is 0.01 there and 0.1 here"),
    (without_checkpoint, None, "cannot resume 'PATH': it has 2 measured epochs and no checkpoint"),
    (broken_checkpoint, None, "cannot resume 'PATH': its checkpoint cannot be read"),
    (other_data, None, "cannot resume 'PATH': the data set 'digits' is not what the run was trained on any more"),
]


@pytest.mark.parametrize(("spoil", "config", "message"), CANNOT_RESUME)
def test_what_cannot_be_resumed_says_why_and_stays(interrupted, spoil, config, message):
    spoil(interrupted)
    history = Run.open(interrupted).history
    with pytest.raises(InvalidInput) as error:
        train(config, interrupted, resume=True)
    assert str(error.value) == message.replace("PATH", str(interrupted))
    assert Run.open(interrupted).history == history


def test_nothing_to_train_and_nothing_to_resume(tmp_path):
    with pytest.raises(InvalidInput, match="train needs a configuration, got none and nothing to resume"):
        train(None, tmp_path / "run")
    with pytest.raises(InvalidInput, match="is not a run folder: there is no such folder"):
        train(TINY, tmp_path / "run", resume=True)


def test_bad_input_leaves_no_folder_behind(tmp_path):
    for settings in ({"dataset": "digit"}, {"model": "mpl"}, {"ratio": 1000}, {"model_options": {"widht": 1}}):
        with pytest.raises(InvalidInput):
            train(TINY.replace(**{"n_max": None, **settings}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("rate", "last"), [(1e18, 0), (1e3, 1)])
def test_divergence_stops_the_run_and_keeps_what_was_written(tmp_path, rate, last):
    config = TINY.replace(learning_rate=rate, momentum=0.0, batch_size=None, measure="every 1", epochs=40,
                          model_options={"width": 16, "features": 12})
    with pytest.raises(InvalidInput) as error:
        train(config, tmp_path / "run")
    measured = Run.open(tmp_path / "run").measured_epochs
    assert measured == list(range(1, len(measured) + 1))
    assert len(measured) >= last
    assert str(error.value) == (f"the loss must stay finite, but is not after epoch {len(measured) + 1}: try a "
                                f"learning_rate below {rate:g} (what was written before stays)")


@pytest.mark.parametrize("batches", [1, 4])
def test_a_step_follows_the_gradient_of_the_stated_objective(batches):
    """SGD without momentum moves by −rate × the gradient of the formula in config.py, per (equal) batch."""
    config = TrainConfig(n_max=40, batch_size=220 // batches, learning_rate=1e-3, momentum=0.0, weight_decay=0.03,
                         head_weight_decay=0.7, feature_penalty=0.01, head_bias=True, schedule="constant",
                         model_options={"width": 16, "features": 12})
    session = Session(config, load_data(config))
    model, data = session.model.double(), session.data
    session._inputs = session._inputs.double()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    features = model.body(session._inputs)
    others = [parameter for name, parameter in model.named_parameters() if not name.startswith("head")]
    objective = (F.cross_entropy(model.head(features), data.labels) + 0.7 / 2 * model.head.weight.square().sum()
                 + 0.01 / 2 * features.square().sum() + 0.03 / 2 * sum(p.square().sum() for p in others))
    gradients = torch.autograd.grad(objective, list(model.parameters()))
    session.run_epoch(1)
    # Batches of one epoch see weights that have already moved: an error of the order of the rate.
    tolerance = 1e-9 if batches == 1 else 0.05
    for (name, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
        moved = (before[name] - parameter.detach()) / (1e-3 * batches)
        assert float((moved - gradient).norm() / gradient.norm()) < tolerance, name


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_optimizers_and_models_learn(tmp_path, optimizer, model):
    rate = 0.05 if optimizer == "sgd" else 3e-3
    run = train(TrainConfig(epochs=15, n_max=60, batch_size=32, optimizer=optimizer, learning_rate=rate, model=model,
                            schedule="constant", model_options={"features": 16}, threads=1, measure=[15]),
                tmp_path / "run")
    assert run.history[-1]["train"]["accuracy"] > 0.95
    assert run.history[-1]["train"]["loss"] < run.history[0]["train"]["loss"] / 3


def test_a_balanced_run_has_no_minority_accuracy(tmp_path):
    run = train(TINY.replace(imbalance="none", epochs=1), tmp_path / "run")
    test = run.history[-1]["test"]
    assert test["minority_accuracy"] is None
    assert test["majority_accuracy"] == pytest.approx(test["accuracy"])


def test_callback_and_progress(tmp_path):
    class Output:
        text = ""

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    reports, output = [], Output()
    with TrainProgress(Console(file=output)) as progress:
        train(TINY, tmp_path / "run", on_epoch=lambda report: (reports.append(report), progress(report)))
    assert [report.epoch for report in reports] == [1, 2, 3, 4, 5, 6]
    assert [report.epoch for report in reports if report.record] == [1, 2, 4, 6]
    assert [line.split("  ")[0] for line in output.text.splitlines()] == [f"epoch {e}/6" for e in (1, 2, 4, 6)]


def test_live_table_in_a_terminal(tmp_path):
    console = Console(force_terminal=True, width=120, file=(tmp_path / "screen").open("w"))
    with console.file, TrainProgress(console) as progress:
        train(TINY, tmp_path / "run", on_epoch=progress)
    screen = (tmp_path / "screen").read_text()
    assert "D_W SELI" in screen
    assert "6/6" in screen




@pytest.mark.parametrize(("penalty", "expected"), [(1e-4, ["seli", "etf", "ridge:"]), (0.0, ["seli", "etf"])])
def test_the_geometry_at_the_runs_own_ridge_is_a_target_where_there_is_one(tmp_path, penalty, expected):
    run = train(TINY.replace(epochs=1, feature_penalty=penalty), tmp_path / "run")
    measured = run.history[-1]["measurement"]
    assert measured["distance"]["target"] == "seli"
    assert [name[:6] for name in measured["distances"]] == expected
    if penalty:
        head, features = run.data["ridges"].values()
        name = list(measured["distances"])[-1]
        assert float(name[6:]) == pytest.approx(np.sqrt(head * features), rel=1e-5)
