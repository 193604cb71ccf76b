"""Fits recover the laws and exponents that were put in; times to a distance against a loop, censoring included."""

import numpy as np
import pytest
from scipy import stats

from neuralcollapse.checks import InvalidInput
from neuralcollapse.simulate import simulate
from neuralcollapse.simulate.rates import decay, fit_decay, mean_interval, time_to

STEPS = np.unique(np.rint(np.geomspace(1, 1e5, 60))).astype(float)
PARTS = ["seli/classifiers", "seli/embeddings", "seli/logits"]


@pytest.mark.parametrize("rate", [0.25, 0.5, 1.0, 2.0])
@pytest.mark.parametrize(("law", "abscissa"), [("power", lambda t: t), ("logarithmic", np.log)])
def test_a_law_that_was_put_in_comes_out(rate, law, abscissa):
    rng = np.random.default_rng(0)
    clean = 3.0 * abscissa(STEPS.clip(min=2)) ** -rate
    noisy = clean * np.exp(0.02 * rng.standard_normal((12, STEPS.size)))
    found = decay(STEPS, noisy)
    assert (found.law, found.runs) == (law, 12)
    assert found.interval[0] < found.rate < found.interval[1]
    # Standard error of a slope: noise/(√points·spread of the abscissa), over 12 runs.
    spread = np.std(np.log(abscissa(STEPS[STEPS >= 10])))
    error = 0.02 / np.sqrt((STEPS >= 10).sum() * 12) / spread
    assert abs(found.rate - rate) < 5 * error
    assert 0.5 < (found.interval[1] - found.interval[0]) / (2 * stats.t.ppf(0.975, 11) * error) < 2
    np.testing.assert_allclose(found.residual, 0.02, rtol=0.2, atol=0)
    assert found.other > 1.5 * found.residual
    line = fit_decay(STEPS, clean, law)
    np.testing.assert_allclose([line.rate, line.residual], [rate, 0], rtol=1e-9, atol=1e-10)


def test_a_geometric_decay_is_told_from_a_power():
    steps = np.arange(0.0, 1001, 20)
    found = decay(steps, np.stack([2 * np.exp(-0.02 * steps), 7 * np.exp(-0.03 * steps)]), floor=1e-14)
    assert found.law == "geometric"
    np.testing.assert_allclose(found.rate, 0.025, rtol=1e-9, atol=0)


def test_what_reached_rounding_and_what_comes_before_is_left_out():
    values = 5 / STEPS**2
    values[STEPS < 10] = 100.0
    values[values < 1e-8] = 1e-16
    values[-1] = 1.0
    line = fit_decay(STEPS, values, "power", floor=1e-9)
    np.testing.assert_allclose(line.rate, 2, rtol=1e-10, atol=0)
    assert fit_decay(STEPS, values, "power", floor=1e-2) is None
    assert decay(STEPS, np.full((2, STEPS.size), np.nan)) is None
    assert np.isnan(decay(STEPS, (1 / STEPS)[None]).interval).all()


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = [low <= 0 <= high for low, high in (mean_interval(rng.standard_normal(5), 0.9) for _ in range(2000))]
    assert abs(np.mean(inside) - 0.9) < 4 * np.sqrt(0.09 / 2000)


def test_times_are_those_of_a_loop_and_censored_where_not_reached():
    runs = simulate([[8, 8, 1, 1], [2, 2, 1, 1]], "ngd", step=[0.3, 0.01], seeds=2, steps=600, symmetric=True,
                    snapshots=range(0, 601, 20))
    for epsilon in (0.3, 0.1, 1e-9):
        for names in ("seli/logits", PARTS):
            listed = [names] if isinstance(names, str) else names
            expected = []
            for cell in range(len(runs)):
                worst = [max(runs[name][cell, s] for name in listed) for s in range(runs.steps.size)]
                stays = [s for s in range(len(worst)) if all(x <= epsilon for x in worst[s:])]
                expected.append(runs.steps[stays[0]] if stays else np.inf)
            np.testing.assert_array_equal(time_to(runs, names, epsilon), expected)
    assert np.isinf(time_to(runs, PARTS, 1e-9)).all()
    assert np.isfinite(time_to(runs, PARTS, 0.3)).any()
    diverged = simulate([6, 3, 1], "gd", loss="mse", ridge=0.1, step=[0.01, 5.0], steps=200)
    assert np.isinf(time_to(diverged, "ridge/logits", 10.0)[1])


@pytest.mark.parametrize(("call", "message"), [
    (lambda: fit_decay(STEPS, 1 / STEPS, "cubic"), "law must be one of power, logarithmic, geometric, got 'cubic'"),
    (lambda: fit_decay(STEPS, 1 / STEPS, "power", since=1),
     "since must be at least 3, where ln ln t is positive, got 1"),
    (lambda: decay(STEPS, (1 / STEPS)[None], law="cubic"),
     "law must be one of power, logarithmic, geometric, got 'cubic'"),
    (lambda: time_to(simulate([2, 1], steps=1), "seli/logits", 0), "epsilon must be a positive number, got 0"),
])
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(InvalidInput) as error:
        call()
    assert str(error.value) == message
