"""`advise` and `steer` as a user runs them: streams, files, exit codes and each bad input with its one line."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from neuralcollapse import Run, TrainConfig, predict, train
from neuralcollapse.steer import POSTHOC, REMEDIES, advise


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = TrainConfig(dataset="digits", ratio=10, n_max=40, epochs=20, measure="every 20", threads=1,
                         model_options={"width": 24, "depth": 1, "features": 12}, learning_rate=0.05)
    return train(config, tmp_path_factory.mktemp("runs") / "plain")


def test_advice_from_counts_is_the_library_s(cli):
    code, out, err = cli("advise", "--step", "k=4,ratio=20,n_min=5", "--weight-decay", "1e-3", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out, parse_constant=pytest.fail)
    expected = advise([100, 100, 5, 5], weight_decay=1e-3).to_dict()
    assert document == json.loads(json.dumps(expected))
    assert [row["remedy"] for row in document["table"]] == [entry.name for entry in REMEDIES]


@pytest.mark.parametrize("goal", ["balanced accuracy", "symmetric geometry", "calibrated"])
def test_advice_ends_with_a_line_to_paste(cli, goal):
    code, out, _ = cli("advise", "--counts", "500,500,5,5", "--goal", goal)
    assert code == 0
    line = advise([500, 500, 5, 5], goal=goal).recommended.line
    assert line in out
    assert all(entry.name in out for entry in REMEDIES), "every remedy is named whole, at 80 columns too"


def test_advice_on_a_run_has_a_verdict_on_every_class(cli, run):
    code, out, _ = cli("advise", run.path, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["classes"] == Run.open(run.path).rescue
    code, out, _ = cli("advise", run.path)
    assert code == 0
    for one in document["classes"]:
        assert one["kind"] == "safe" or f"• {one['name']} ({one['count']:g} samples): {one['kind']}." in out


def test_remedies_without_retraining_are_scored_and_saved(cli, run, tmp_path):
    path = tmp_path / "heads.safetensors"
    code, out, _ = cli("steer", run.path, "--posthoc", "all", "--save", path, "--json")
    rows = {row["name"]: row for row in json.loads(out)["rows"]}
    assert code == 0
    assert list(rows) == ["as-trained", *(entry.name for entry in POSTHOC)]
    assert rows["as-trained"]["balanced"] == pytest.approx(run.history[-1]["test"]["balanced_accuracy"], abs=1e-9)
    heads = load_file(path)
    log_prior = np.log(run.counts.values / run.counts.n)
    np.testing.assert_allclose(heads["logit-adjustment.bias"] - heads["logit-adjustment.bias"].mean(),
                               -log_prior + log_prior.mean(), rtol=1e-9)
    np.testing.assert_allclose(heads["logit-adjustment.weight"], heads["as-trained.weight"], rtol=1e-9)
    code, out, _ = cli("steer", run.path, "--posthoc", "logit-adjustment, ncm")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[2:5]] == ["as-trained", "logit-adjustment",
                                                                  "nearest-class-mean"]


def test_a_remedy_asked_for_twice_is_scored_once(cli, run):
    code, out, err = cli("steer", run.path, "--posthoc", "refit,crt,ncm,refit", "--json")
    assert (code, err) == (0, "")
    assert [row["name"] for row in json.loads(out)["rows"]] == ["as-trained", "refit", "nearest-class-mean"]


def test_the_planner_says_how_many_more_samples(cli):
    code, out, _ = cli("advise", "--counts", "500,500,5,5", "--more-of", "3", "--angle", "60", "--json")
    more = json.loads(out)["plan"]["more"]
    assert code == 0

    def nearest(extra):
        gram = predict([500, 500, 5, 5 + extra]).classifiers.dense()
        cosines = gram[3, :3] / np.sqrt(gram[3, 3] * gram.diagonal()[:3])
        return np.degrees(np.arccos(cosines.max()))

    assert nearest(more - 1) < 60 <= nearest(more)
    code, out, _ = cli("advise", "--counts", "500,500,5,5", "--more-of", "3", "--angle", "60")
    assert out.endswith(f"\nClass 3 needs {more} more samples for a predicted angle of 60° under cross-entropy.\n")


@pytest.mark.parametrize(("arguments", "message"), [
    (("advise", "--counts", "5,1", "--angle", "60"),
     "--angle and --margin are targets of one class: name it with --more-of"),
    (("advise", "--counts", "5,1", "--more-of", "cat", "--angle", "60"), "there is no class 'cat'"),
    (("advise", "--counts", "5,1", "--more-of", "7", "--angle", "60"),
     "--more-of must be a class name or an index 0 … 1, got 7"),
    (("advise",), "give exactly one of --counts, --step, --long-tail, --labels, got none"),
    (("advise", "--counts", "5,0"), "every class needs a sample, and class 1 has none: drop it from labels and head"),
    (("advise", "--counts", "5,1", "--goal", "fun"), "unknown goal 'fun'"),
    (("advise", "nowhere"), "'nowhere' is not a run folder: there is no such folder"),
    (("advise", "nowhere", "--counts", "5,1"), "give a run folder, or class counts, not both"),
    (("steer", "nowhere"), "'nowhere' is not a run folder: there is no such folder"),
    (("steer", "nowhere", "--posthoc", "refitt"), "unknown post-hoc remedy 'refitt': did you mean 'refit'?"),
    (("steer", "nowhere", "--save", "heads.npz"), "--save must name a .safetensors file, got 'heads.npz'"),
], ids=lambda case: " ".join(case) if isinstance(case, tuple) else "")
def test_bad_input_is_one_line_and_exit_code_2(cli, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"neuralcollapse: {message}")
