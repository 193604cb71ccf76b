"""What a run trains with against imbalance: losses, heads, oversampling; and a finished run's frozen features."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from neuralcollapse import ClassCounts, InvalidInput, Run, TrainConfig, predict, train, write_report
from neuralcollapse.experiments.data import load_data
from neuralcollapse.experiments.frozen import Frozen
from neuralcollapse.experiments.models import build_model
from neuralcollapse.experiments.remedied import chosen_remedy, epoch_positions, training_loss
from neuralcollapse.experiments.session import Session
from neuralcollapse.steer import advise

COUNTS = ClassCounts([30, 30, 3, 3])
TINY = {"dataset": "digits", "ratio": 8, "n_max": 40, "model_options": {"width": 24, "depth": 1, "features": 12},
        "threads": 1, "batch_size": 32, "learning_rate": 0.05}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(TrainConfig(**TINY, epochs=25, measure="every 25", loss="auto"),
                 tmp_path_factory.mktemp("runs") / "auto")


def test_the_loss_that_is_named_with_its_options():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 2])
    loss = training_loss(TrainConfig(loss="vs", loss_options={"gamma": 0.3, "tau": 0.5}), COUNTS).double()
    values = torch.tensor(COUNTS.values)
    adjusted = logits * (values / 30) ** 0.3 + 0.5 * (values / 66).log()
    expected = torch.nn.functional.cross_entropy(adjusted, labels)
    torch.testing.assert_close(loss(logits, labels), expected, rtol=1e-12, atol=0)
    assert type(training_loss(TrainConfig(), COUNTS)) is torch.nn.CrossEntropyLoss


def test_auto_is_what_advise_recommends():
    chosen = advise(COUNTS).recommended
    made = chosen_remedy(TrainConfig(loss="auto"), COUNTS)
    assert (made.name, made.line) == (chosen.name, chosen.line)


@pytest.mark.parametrize(("settings", "message"), [
    ({"loss": "vz"}, "unknown loss 'vz': did you mean 'vs'?"),
    ({"loss": "vs", "loss_options": {"gama": 1}}, "remedy 'vs' takes no gama: did you mean 'gamma'?"),
    ({"loss": "etf-head"}, "loss 'etf-head' is a head: give head etf or seli, and a loss of logits"),
    ({"loss": "scl", "head": "etf"},
     "loss 'scl' trains the features alone and a head beside them: give head learned, got etf"),
    ({"loss": "auto", "loss_options": {"tau": 1}},
     "loss 'auto' chooses its own options from the counts: name a loss, or give no options"),
])
def test_bad_remedies_are_one_line_before_anything_is_written(settings, message, tmp_path):
    with pytest.raises(InvalidInput) as raised:
        train(TrainConfig(**TINY, **settings), tmp_path / "run")
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_oversampling_keeps_every_sample_and_fills_every_class():
    labels = np.repeat([0, 1, 2], [9, 4, 1])
    config = TrainConfig(sampling="oversampled", seed=3)
    found = epoch_positions(config, labels)
    assert np.bincount(labels[found]).tolist() == [9, 9, 9]
    assert set(found) == set(range(14))
    np.testing.assert_array_equal(found, epoch_positions(config, labels))
    np.testing.assert_array_equal(epoch_positions(TrainConfig(), labels), np.arange(14))


def test_oversampling_without_its_package_says_what_to_install():
    code = ("import sys; sys.modules['imblearn.over_sampling'] = None\n"
            "import numpy as np\n"
            "from neuralcollapse.experiments.remedied import epoch_positions\n"
            "from neuralcollapse import TrainConfig\n"
            "epoch_positions(TrainConfig(sampling='oversampled'), np.array([0, 0, 1]))")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.splitlines()[-1].endswith(
        "sampling 'oversampled' needs imbalanced-learn, which is not installed: "
        "pip install 'neuralcollapse[oversampling]'")


@pytest.mark.parametrize("head", ["etf", "seli"])
def test_a_fixed_head_stays_where_theory_puts_it(head):
    config = TrainConfig(**TINY, epochs=2, head=head)
    data = load_data(config)
    session = Session(config, data)
    target = predict(data.counts, "etf" if head == "etf" else "ce").classifiers.dense()
    before = session.head.weight.detach().clone()
    for epoch in (1, 2):
        session.run_epoch(epoch)
    after = session.head.weight.detach().double()
    gram = (after @ after.T).numpy()
    np.testing.assert_allclose(gram / np.linalg.norm(gram), target / np.linalg.norm(target), atol=1e-6)
    assert not torch.equal(before, session.head.weight), "its one scale is learned"


def test_frozen_features_are_the_checkpoint_s(run):
    found = Frozen.of_run(run)
    saved = torch.load(run.path / "checkpoint" / "state.pt", weights_only=True)
    config = TrainConfig(**run.config)
    data = load_data(config)
    model = build_model("mlp", data.shape, 10, **config.model_options)
    model.load_state_dict(saved["model"])
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(found.test[0], model.body(data.test_inputs), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.train[0], model.body(data.inputs), rtol=1e-5, atol=1e-6)
    assert torch.equal(found.weight, model.head.weight)
    accuracy = ((found.test[0] @ found.weight.T).argmax(1) == found.test[1]).double().mean().item()
    assert accuracy == pytest.approx(run.history[-1]["test"]["accuracy"], abs=1e-9)
    assert (found.epoch, found.ridge) == (25, None)  # without a feature penalty there is no λ


def test_a_finished_run_says_what_became_of_every_class(run):
    assert [one["name"] for one in run.rescue] == list(run.counts.names)
    for one, verdict in zip(run.rescue, Frozen.of_run(run).rescue(), strict=True):
        assert one["kind"] == verdict.kind
    recall = run.history[-1]["test"]["per_class_accuracy"]
    np.testing.assert_allclose([one["recall"] for one in run.rescue], recall, atol=1e-9)
    page = write_report(run).read_text()
    assert "What became of every class" in page
    assert all(one["rule"].split(",")[0].split("'")[0] in page for one in run.rescue if one["kind"] != "safe")


@pytest.mark.parametrize("change", [{"classifier_angle": None}, {"classifier_angle": {"measured": 1}}, {"name": 3},
                                    {"recall": "high"}, {"confused_with": 0}, {"margin": {"measured": 1,
                                                                                          "predicted": [2]}}])
def test_verdicts_that_are_something_else_are_refused(run, tmp_path, change):
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    content = json.loads((copy / "rescue.json").read_text())
    content["classes"][0] |= change
    (copy / "rescue.json").write_text(json.dumps(content))
    with pytest.raises(InvalidInput, match=r"rescue.json' must hold a verdict on every class, got"):
        len(Run.open(copy).rescue)


def test_a_run_without_a_checkpoint_is_refused(run, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.yaml", "data.json", "history.jsonl"):
        (copy / name).write_bytes((run.path / name).read_bytes())
    with pytest.raises(InvalidInput, match="has no checkpoint yet: wait for its first measured epoch"):
        Frozen.of_run(Run.open(copy))
    (copy / "checkpoint").mkdir()
    (copy / "checkpoint" / "state.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InvalidInput, match=r"the checkpoint of '.*' cannot be read"):
        Frozen.of_run(Run.open(copy))
    assert json.loads((run.path / "rescue.json").read_text())["classes"]
