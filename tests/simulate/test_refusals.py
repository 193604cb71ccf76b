"""What a simulation refuses before it computes anything, and how it stops: interrupted, resumed, killed."""

import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from neuralcollapse.checks import InvalidInput
from neuralcollapse.simulate import exact_cross_entropy, simulate
from neuralcollapse.simulate.rates import LAWS, decay, fit_decay

EYE = np.eye(2)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"seeds": 10**9}, "this grid of 1,000,000,000 runs needs more than the memory of 1GB"),
    ({"steps": 10**9, "snapshots": 10**9}, "snapshots must be at most 1,000,000, got 1,000,000,000"),
    ({"snapshots": ["a"]}, "snapshots must be how many to take, or a list of steps in 0 … 1000"),
    ({"method": "multipliers", "ridge": 1.0}, "method 'multipliers' holds a ridge, which must be positive and below"),
    ({"method": "multipliers", "ridge": 0.0}, "method 'multipliers' holds a ridge, which must be positive and below"),
    ({"start": (EYE, np.full((2, 2), np.nan))}, "start must be two matrices of finite numbers, W (k, d) and H (n, d), "
     "got H of shape (2, 2) with NaN or Inf"),
    ({"schedule": []}, "schedule must hold at least one number, got an empty list"),
    ({"start": (1.0, EYE)}, "start must be two matrices of finite numbers, W (k, d) and H (n, d), got W of shape"),
    ({"folder": __file__}, f"'{__file__}' is a file: give a folder for checkpoints"),
])
def test_refused_before_anything_is_computed(arguments, message):
    with pytest.raises(InvalidInput) as raised:
        simulate([1, 1], **arguments)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_one_batch_size_that_every_profile_can_draw():
    with pytest.raises(InvalidInput, match="batch must be at most 7, the samples of the smallest profile, got 64"):
        simulate([[100, 100], [4, 3]], "sgd", steps=5)
    together = simulate([[100, 100], [4, 3]], "sgd", steps=40, batch=5)
    for profile, counts in enumerate(([100, 100], [4, 3])):
        alone = simulate(counts, "sgd", steps=40, batch=5)
        np.testing.assert_allclose(together["log_loss"][profile], alone["log_loss"][0], rtol=1e-10)
    assert simulate([4, 3], "sgd", steps=5).cells[0]["batch"] == 7


def test_a_resume_of_nothing_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="holds no simulation to resume"):
        simulate([4, 3], steps=5, folder=tmp_path / "typo", resume=True)
    assert not (tmp_path / "typo").exists()


def test_two_starts_of_equal_sums_are_two_starts(tmp_path):
    def run(W, **options):
        return simulate([1, 1], steps=20, start=(W, EYE), folder=tmp_path / "run", **options)

    run(EYE)
    with pytest.raises(InvalidInput, match="has another start"):
        run(EYE[::-1], resume=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_between_steps_and_continued_with_the_same_numbers(tmp_path, number):
    code = ("from neuralcollapse.simulate import simulate\n"
            f"simulate([40, 4], 'adam', steps=10**7, seeds=3, folder={str(tmp_path / 'run')!r}, snapshots=8,\n"
            "         progress=lambda at: print(at.step, flush=True))")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    last = int([first, *out.splitlines()][-1])  # the signal may come before a second line
    with np.load(tmp_path / "run" / "state.npz") as state:
        blocks = {name: state[name] for name in state.files if name.startswith("block")}
    whole = simulate([40, 4], "adam", steps=last, seeds=3)
    np.testing.assert_array_equal(blocks["block.0"], whole.classifiers)


def test_what_is_killed_at_once_can_be_resumed(tmp_path):
    code = ("from neuralcollapse.simulate import simulate\n"
            f"simulate([40, 4], steps=10**7, folder={str(tmp_path / 'run')!r})")
    process = subprocess.Popen([sys.executable, "-c", code])
    for _ in itertools.repeat(None, 600):
        if (tmp_path / "run" / "state.npz").exists():
            break
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert (tmp_path / "run" / "state.npz").exists()
    assert not [name for name in os.listdir(tmp_path / "run") if name.endswith("simulation.npz")]


@pytest.mark.parametrize(("loss", "parameters"), [
    ("weighted", {"weight": [5, 1, 2, 0.1]}), ("weighted", {"weight": [100, 1, 100, 1]}),
    ("ldt", {"delta": [1, 1, 1, 0.1]}), ("ldt", {"delta": [10, 1, 20, 1]}), ("vs", {"delta": [0.5, 2, 1, 1]})])
def test_multipliers_arrive_under_uneven_weights_and_temperatures(loss, parameters):
    runs = simulate([2, 50, 2, 9], "multipliers", loss=loss, steps=4000, symmetric=True, **parameters)
    assert runs.target == "limit"
    for part in ("classifiers", "embeddings", "logits"):
        assert runs[f"limit/{part}"][0, -1] < 1e-6


def test_continuation_s_objective_is_that_of_its_own_ridge():
    runs = simulate([4, 4, 1, 1], "continuation", steps=50, ridge=0.1, ridge_start=5.0, half_life=20.0, symmetric=True)
    W, H = runs.classifiers[0], runs.features[0]
    counts = np.array([4, 4, 1, 1])
    logits = H @ W.T
    loss = counts @ (np.log(np.exp(logits).sum(1)) - logits.diagonal())
    objective = loss + 0.05 * (W**2).sum() + 0.05 * (counts @ (H**2).sum(1))
    assert runs["log_objective"][0, -1] == pytest.approx(np.log(objective), rel=1e-12)


def test_labels_of_eight_bits_are_what_they_say():
    logits = torch.zeros(3, 300)
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([156, 1, 2]))
    assert exact_cross_entropy(logits, torch.tensor([156, 1, 2], dtype=torch.uint8)) == expected
    assert exact_cross_entropy(logits[:, :200], torch.tensor([1, 2, 3], dtype=torch.int8)).isfinite()


def test_autocast_leaves_float64_alone():
    logits = torch.tensor([[120.0, 0, 0]], dtype=torch.float64)
    with torch.autocast("cpu"):
        loss = exact_cross_entropy(logits, torch.tensor([0]))
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(2 * np.exp(-120.0), rel=1e-12)


@pytest.mark.parametrize("law", LAWS)
def test_any_law_can_be_asked_for(law):
    t = np.geomspace(10, 1e4, 20)
    values = np.stack([3 / t**0.5, 2 / t**0.7])
    found = decay(t, values, law=law)
    lines = [fit_decay(t, row, law) for row in values]
    assert (found.law, found.rate) == (law, pytest.approx(np.mean([line.rate for line in lines])))
