"""Terminal phase, label noise, half precision, checkpoints by time, and who may write or read a run folder."""

from dataclasses import replace
import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data import LazyInputs, load_data
from neuralcollapse.experiments.data.lazy import Normalise
from neuralcollapse.experiments.label_noise import with_label_noise
from neuralcollapse.experiments.models import build_model
from neuralcollapse.experiments.run import FORMAT, Run, RunFolder
from neuralcollapse.experiments.session import Session, reproducible
from neuralcollapse.experiments.train import train

TINY = TrainConfig(epochs=6, measure="every 2", n_max=40, batch_size=32, feature_penalty=1e-4, threads=1,
                   learning_rate=0.1, schedule="constant", model_options={"width": 16, "features": 12})
EASY = TINY.replace(epochs=60, optimizer="adam", learning_rate=0.01, measure=[10], terminal_epochs=3)


def untimed(history):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history]


def stopping_after(epoch):
    def stop(report):
        if report.epoch == epoch:
            raise KeyboardInterrupt
    return stop


def interrupted(config, out, epoch):
    with pytest.raises(KeyboardInterrupt):
        train(config, out, on_epoch=stopping_after(epoch))


# -- the terminal phase -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    """A run that goes on for three epochs after it fits every sample."""
    return train(EASY, tmp_path_factory.mktemp("easy") / "run")


def test_training_ends_so_many_epochs_after_error_has_become_zero(easy, tmp_path):
    last = easy.history[-1]
    zero = last["terminal"]["zero_error_epoch"]
    assert 1 < zero < 50
    assert last["terminal"]["last_epoch"] == last["epoch"] == easy.last_epoch == zero + 3
    assert easy.finished
    assert zero in easy.measured_epochs  # the geometry that the terminal phase begins with
    records = {record["epoch"]: record for record in easy.history}
    assert records[zero]["train"]["accuracy"] == 1
    assert all(record["terminal"]["zero_error_epoch"] is None for epoch, record in records.items() if epoch < zero)
    # The same training without the setting: nothing else has changed, and the schedule is that of `epochs`.
    plain = train(EASY.replace(terminal_epochs=None, measure="every 1"), tmp_path / "plain")
    for record in plain.history:
        if record["epoch"] in records:
            other = untimed([records[record["epoch"]]])[0]
            del other["terminal"]
            assert other == untimed([record])[0]
    # Not before every sample was fitted in eval mode, however few were missed.
    assert min(r["epoch"] for r in plain.history if r["train"]["accuracy"] == 1) <= zero


@pytest.mark.parametrize("after", [-1, 0, 1])
def test_a_terminal_phase_that_was_interrupted_goes_on(easy, tmp_path, after):
    interrupted(EASY, tmp_path / "run", easy.last_epoch - 3 + after)
    assert not Run.open(tmp_path / "run").finished
    assert untimed(train(None, tmp_path / "run", resume=True).history) == untimed(easy.history)


def test_without_zero_error_or_without_epochs_after_it(easy, tmp_path):
    never = train(EASY.replace(epochs=2, measure=[1]), tmp_path / "never")
    assert never.finished
    assert [record["terminal"] for record in never.history] == [
        {"zero_error_epoch": None, "last_epoch": None}, {"zero_error_epoch": None, "last_epoch": 2}]
    at_once = train(EASY.replace(terminal_epochs=0), tmp_path / "at once")
    assert at_once.measured_epochs[-1] == easy.last_epoch - 3
    assert at_once.finished


# -- label noise --------------------------------------------------------------------------------------


def test_a_share_of_the_training_labels_is_replaced_by_other_classes():
    config = TrainConfig(label_noise=0.3, ratio=1, seed=5)
    clean = load_data(config)
    noisy, noise = with_label_noise(config, clean)
    changed = (noisy.labels != clean.labels).numpy()
    np.testing.assert_array_equal(np.flatnonzero(changed), noise.positions)
    np.testing.assert_array_equal(noisy.labels.numpy()[noise.positions], noise.labels)
    assert changed.sum() == round(0.3 * len(clean.labels)) == noise.record()["replaced"]
    assert noisy.counts.values.tolist() == np.bincount(noisy.labels.numpy()).tolist()
    assert noise.clean == clean.counts
    assert torch.equal(noisy.test_labels, clean.test_labels)
    # Every other class alike: of m moves each of the 9 takes m/9, within five deviations.
    moves = np.bincount((noisy.labels - clean.labels).numpy()[changed] % 10, minlength=10)
    m = changed.sum()
    assert moves[0] == 0
    assert np.abs(moves[1:] - m / 9).max() < 5 * np.sqrt(m / 9)
    again, other = (with_label_noise(config.replace(seed=seed), clean)[0].labels for seed in (5, 6))
    assert torch.equal(again, noisy.labels)
    assert not torch.equal(other, noisy.labels)


def test_a_noisy_run_says_which_labels_it_was_trained_on(tmp_path):
    config = TINY.replace(label_noise=0.1, epochs=2)
    run = train(config, tmp_path / "run")
    clean = load_data(config)
    with np.load(run.path / "indices.npz") as indices:
        labels = clean.labels.numpy().copy()
        labels[indices["noisy"]] = indices["noisy_labels"]
    assert run.data["label_noise"] == {"share": 0.1, "replaced": 22, "clean_counts": [40] * 5 + [4] * 5}
    assert run.counts.values.tolist() == np.bincount(labels).tolist() == run.history[-1]["measurement"]["counts"]
    assert "label_noise" not in train(TINY.replace(epochs=1), tmp_path / "clean").data


def test_noise_that_empties_a_class_is_refused():
    config = TrainConfig(label_noise=0.5)
    data = load_data(config)
    two = replace(data, inputs=data.inputs[:2], labels=torch.tensor([0, 1]), indices=np.arange(2),
                  counts=ClassCounts([1, 1], ["cat", "dog"]))
    with pytest.raises(InvalidInput, match=r"^label_noise 0.5 leaves class (cat|dog) without a sample: give less"):
        with_label_noise(config, two)


# -- precision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_and_what_is_measured_is_float32(tmp_path, precision):
    config = TINY.replace(precision=precision, feature_penalty=0.0, epochs=3)
    run = train(config, tmp_path / "whole")
    data = load_data(config)
    model = build_model("mlp", data.shape, 10, **config.model_options)
    model.load_state_dict(torch.load(run.path / "checkpoint" / "state.pt", weights_only=True)["model"])
    with torch.no_grad():
        loss = F.cross_entropy(model(data.inputs), data.labels)
        with torch.autocast("cpu", {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]):
            rounded = F.cross_entropy(model(data.inputs).float(), data.labels)
    assert run.history[-1]["train"]["loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert abs(loss - rounded) > 1e-5 * loss  # so the comparison above can tell the two apart
    interrupted(config, tmp_path / "run", 2)
    assert untimed(train(None, tmp_path / "run", resume=True).history) == untimed(run.history)


def test_half_precision_reaches_the_layers_and_not_the_loss():
    session = Session(TINY.replace(precision="bf16"), load_data(TINY))
    found = []
    session.model.body[1].register_forward_hook(lambda layer, inputs, output: found.append(output.dtype))
    session.use_loss(Recording())
    with reproducible(1):
        session.run_epoch(1)
    assert set(found) == {torch.bfloat16}
    assert session._loss.seen == {torch.float32}


class Recording(torch.nn.CrossEntropyLoss):
    """Cross-entropy that knows the precision of its logits."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def forward(self, logits, labels):
        self.seen.add(logits.dtype)
        return super().forward(logits, labels)


# -- data that comes in other forms -------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [32, None])
def test_inputs_read_when_asked_for_train_the_same_network(batch_size):
    config = TINY.replace(batch_size=batch_size)
    data = load_data(config)
    as_it_is = Normalise(np.zeros(1), np.ones(1))
    lazy = replace(data, inputs=LazyInputs(data.inputs.numpy(), np.arange(len(data.inputs)), as_it_is),
                   test_inputs=LazyInputs(data.test_inputs.numpy(), np.arange(len(data.test_inputs)), as_it_is))
    results = []
    for given in (data, lazy):
        with reproducible(1):
            session = Session(config, given)
            losses = [session.run_epoch(epoch) for epoch in (1, 2)]
            values, measurement = session.measure(2)
            results.append((losses, values, measurement.to_dict(), session.features(given.inputs)))
    assert results[0][:3] == results[1][:3]
    assert torch.equal(results[0][3], results[1][3])


def test_the_loss_of_next_tokens_is_a_mean_over_labelled_positions():
    rng = np.random.default_rng(0)
    texts, labels = (torch.from_numpy(rng.integers(0, 6, (20, 8))) for _ in range(2))
    labels[torch.from_numpy(rng.random((20, 8)) < 0.3)] = -100
    counts = ClassCounts(np.bincount(labels[labels >= 0], minlength=6))
    config = TINY.replace(model="transformer", batch_size=None, feature_penalty=0.02,
                          model_options={"width": 8, "heads": 2, "depth": 1})
    data = replace(load_data(config), inputs=texts, labels=labels, test_inputs=texts, test_labels=labels, counts=counts,
                   indices=np.arange(20), test_indices=np.arange(20), tokens=6)
    with reproducible(1):
        session = Session(config, data)
        features, kept = session.features(texts), labels >= 0
        with torch.no_grad():
            loss = F.cross_entropy(session.head(features).flatten(0, 1), labels.flatten(), ignore_index=-100)
            penalty = 0.02 / 2 * features[kept].square().sum()
        values, measurement = session.measure(1)
        assert values["train"]["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert measurement.measured.seen.tolist() == counts.values.tolist()
        np.testing.assert_allclose(measurement.measured.means[2], features[labels == 2].double().mean(0), atol=1e-6)
        assert session.run_epoch(1) == pytest.approx((loss + penalty).item(), rel=1e-5)
    with pytest.raises(InvalidInput, match="sampling 'oversampled' needs one label a sample, got one at each position"):
        Session(config.replace(sampling="oversampled"), data)


# -- checkpoints and folders --------------------------------------------------------------------------


@pytest.mark.parametrize(("every", "first"), [(0, 4), (60, 3)])
def test_epochs_that_are_not_measured_are_saved_as_well_once_time_has_passed(tmp_path, every, first):
    config = TINY.replace(checkpoint_every=every)
    interrupted(config, tmp_path / "run", 3)
    heard = []
    resumed = train(None, tmp_path / "run", resume=True, on_epoch=heard.append)
    assert heard[0].epoch == first
    assert untimed(resumed.history) == untimed(train(TINY, tmp_path / "whole").history)


def test_verdicts_that_a_kill_prevented_are_made_up_for(tmp_path):
    run = train(TINY, tmp_path / "run")
    verdicts = (run.path / "rescue.json").read_bytes()
    (run.path / "rescue.json").unlink()
    assert train(None, run.path, resume=True).history == run.history
    assert (run.path / "rescue.json").read_bytes() == verdicts


def test_an_older_run_goes_on_and_a_newer_one_is_refused(tmp_path):
    interrupted(TINY, tmp_path / "run", 4)
    path = tmp_path / "run"
    data = json.loads((path / "data.json").read_text())
    (path / "data.json").write_text(json.dumps({key: value for key, value in data.items() if key != "format"}))
    state = torch.load(path / "checkpoint" / "state.pt", weights_only=True)
    del state["scaler"], state["clock"]["zero_error"]
    torch.save(state, path / "checkpoint" / "state.pt")
    settings = (path / "config.yaml").read_text().splitlines(keepends=True)
    newer = ("terminal_epochs", "label_noise", "precision", "checkpoint_every")
    (path / "config.yaml").write_text("".join(line for line in settings if not line.startswith(newer)))
    assert untimed(train(None, path, resume=True).history) == untimed(train(TINY, tmp_path / "whole").history)
    (path / "data.json").write_text(json.dumps({**data, "format": FORMAT + 1}))
    with pytest.raises(InvalidInput) as error:
        train(None, path, resume=True)
    assert str(error.value) == (f"'{path}' was written by a newer neuralcollapse, in format {FORMAT + 1}: this one "
                                f"reads up to {FORMAT}")


def test_two_processes_do_not_write_one_folder(tmp_path):
    interrupted(TINY, tmp_path / "run", 2)
    before = (tmp_path / "run" / "history.jsonl").read_bytes()
    message = "' is being written by another process: wait for it, or choose another folder"
    for config, name in ((None, "run"), (TINY, "new")):
        with RunFolder(tmp_path / name).held(), pytest.raises(InvalidInput) as error:
            train(config, tmp_path / name, resume=config is None)
        assert str(error.value) == f"'{tmp_path / name}{message}"
    assert (tmp_path / "run" / "history.jsonl").read_bytes() == before
    assert train(None, tmp_path / "run", resume=True).finished  # let go of, it is free


class Twice(torch.nn.Module):
    """A network that asks its head twice."""

    def __init__(self, classes):
        super().__init__()
        self.head = torch.nn.Linear(64, classes)

    def forward(self, images):
        return self.head(images.flatten(1)) + self.head(images.flatten(1))


def twice(input_shape, classes, head_bias):
    """Its factory."""
    return Twice(classes)


def test_a_head_that_is_called_twice_has_no_features_of_its_own(tmp_path):
    with pytest.raises(InvalidInput, match="the model must call its head once in a forward pass, got 2 calls"):
        train(TINY.replace(model=f"{__name__}:twice", model_options={}), tmp_path / "run")


def test_batch_norm_over_one_sample_is_refused_by_name(tmp_path):
    alone = TINY.replace(batch_size=1, epochs=1, measure=[1], model_options={"width": 8, "batch_norm": True})
    with pytest.raises(InvalidInput) as error:
        train(alone, tmp_path / "run")
    assert str(error.value) == ("batch norm needs at least 2 samples in each process's part of a batch, got 1: give a "
                                "larger batch_size, or a model without batch norm")
