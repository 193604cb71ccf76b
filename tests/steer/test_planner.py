"""How many samples a class needs: by a linear scan over the count, with the numbers computed from dense matrices."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from neuralcollapse.checks import InvalidInput, OutsideTheory
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import predict
from neuralcollapse.steer.losses import VSLoss
from neuralcollapse.steer.planner import samples_needed


def seli(counts):
    """(P D P)^{1/2} by an eigendecomposition: the vanishing limit, with no code of this library."""
    k = len(counts)
    P = np.eye(k) - 1 / k
    values, vectors = np.linalg.eigh(P @ np.diag(np.asarray(counts, dtype=float)) @ P)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def angle(gram, c):
    norms = np.sqrt(np.diag(gram))
    return min(np.degrees(np.arccos(np.clip(gram[c, j] / norms[c] / norms[j], -1, 1)))
               for j in range(len(gram)) if j != c)


def relative_norm(gram, c):
    norms = np.sqrt(np.diag(gram))
    return norms[c] / np.sqrt(np.mean(norms**2))


def scan(counts, c, reached):
    """The first y by trying all of them."""
    for extra in range(int(max(counts) - counts[c]) + 1):
        values = np.array(counts, dtype=float)
        values[c] += extra
        if reached(values):
            return extra
    return None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=3, max_size=6), st.integers(0, 5), st.floats(0.05, 0.95),
       st.sampled_from(["angle", "norm"]))
def test_the_number_is_that_of_a_linear_scan_in_the_limit(counts, place, share, quantity):
    c = place % len(counts)
    measure = {"angle": angle, "norm": relative_norm}[quantity]
    full = np.array(counts, dtype=float)
    full[c] = max(counts)
    low, high = measure(seli(counts), c), measure(seli(full), c)
    target = low + share * (high - low)
    needed = samples_needed(counts, c, **{quantity: target})
    assert needed == scan(counts, c, lambda values: measure(seli(values), c) >= target * (1 - 1e-10))


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=3, max_size=5), st.integers(0, 4), st.floats(0.1, 0.9),
       st.sampled_from([0.1, 1.0]))
def test_the_number_is_that_of_a_linear_scan_at_a_ridge(counts, place, share, ridge):
    c = place % len(counts)

    def margin(values):
        z = predict(values, ridge=ridge).logits.dense()
        return z[c, c] - max(z[j, c] for j in range(len(z)) if j != c)

    full = np.array(counts, dtype=float)
    full[c] = max(counts)
    target = margin(np.array(counts, dtype=float)) * (1 - share) + margin(full) * share
    if target < 1e-3:  # merged at this ridge whatever the count
        return
    needed = samples_needed(counts, c, margin=target, ridge=ridge)
    assert needed == scan(counts, c, lambda values: margin(values) >= target * (1 - 1e-10))


def test_a_weight_decay_holds_the_mean_loss_and_lets_the_ridge_grow():
    counts, decay, penalty = np.array([60, 60, 6, 6]), 2e-3, 5e-4

    def found(extra):
        values = counts + np.array([0, 0, 0, extra])
        gram = predict(values, ridge=values.sum() * np.sqrt(decay * penalty)).classifiers.dense()
        return angle(gram, 3)

    needed = samples_needed(counts, 3, angle=85, weight_decay=decay, feature_penalty=penalty)
    assert found(needed - 1) < 85 <= found(needed)


def test_merged_classes_come_apart_beyond_the_threshold():
    counts = [100, 100, 4, 4]
    needed = samples_needed(counts, 3, angle=1, ridge=3.0)
    for extra, wide in ((needed - 1, False), (needed, True)):
        values = [*counts[:3], counts[3] + extra]
        assert (angle(predict(values, ridge=3.0).classifiers.dense(), 3) >= 1) == wide


def test_what_is_reached_needs_nothing_and_names_find_their_class():
    counts = ClassCounts([500, 500, 5, 5], names=["a", "b", "c", "d"])
    assert samples_needed(counts, "d", angle=1) == 0
    assert samples_needed(counts, "d", angle=60) == samples_needed(counts, 3, angle=60) == 5
    assert samples_needed([80, 3], 1, angle=180) == 0  # two classes are always opposite
    assert samples_needed([80, 80, 3], 0, norm=0.5) == 0


def test_a_loss_whose_parameters_follow_the_counts():
    def geometry(counts):
        return VSLoss.cdt(counts, gamma=0.1).geometry()

    needed = samples_needed([200, 200, 5, 5], 3, angle=95, loss=geometry)
    plain = samples_needed([200, 200, 5, 5], 3, angle=95)
    assert 0 < needed < plain
    for extra, wide in ((needed - 1, False), (needed, True)):
        assert (angle(geometry([200, 200, 5, 5 + extra]).classifiers.dense(), 3) >= 95) == wide
    fixed = samples_needed([200, 200, 5, 5], 3, angle=60, loss="ldt", delta=[2, 2, 1, 1])
    assert 0 <= fixed <= samples_needed([200, 200, 5, 5], 3, angle=60)


def test_a_target_out_of_reach_says_how_far_the_largest_count_goes():
    with pytest.raises(OutsideTheory) as error:
        samples_needed([500, 500, 5, 5], 3, angle=170)
    most = angle(seli([500, 500, 5, 500]), 3)
    assert str(error.value) == ("angle 170 is out of reach for class 3: with 500 samples, as many as the largest "
                                f"class, it is {most:.4g}; ask for less than that")
    assert samples_needed([500, 500, 5, 5], 3, angle=most) <= 495
    with pytest.raises(OutsideTheory, match=r"^margin 1 is out of reach .* it is 0; ask for less than that$"):
        samples_needed([9, 9, 1], 2, margin=1, ridge=5)
    with pytest.raises(OutsideTheory, match=r"^angle 5 is out of reach .* it is undefined, its classifier being zero;"):
        samples_needed([9, 9, 1], 2, angle=5, loss="mse", ridge=4)


@pytest.mark.parametrize(("options", "message"), [
    ({}, "give exactly one target of angle, margin, norm, got none"),
    ({"angle": 5, "norm": 1}, "give exactly one target of angle, margin, norm, got angle, norm"),
    ({"angle": -5}, "angle must be a positive number, got -5"),
    ({"angle": 200}, "angle must be at most 180 degrees, got 200"),
    ({"margin": 1}, "a margin has a scale at a finite ridge only: give ridge or weight_decay, or a target for angle or "
                    "norm"),
    ({"angle": 5, "ridge": 1.0, "weight_decay": 1e-3}, "give ridge or weight_decay, not both, got 1 and 0.001"),
    ({"angle": 5, "feature_penalty": 1e-3}, "feature_penalty goes with weight_decay, got 0.001 alone: give it too"),
    ({"angle": 5, "ridge": 1.0, "loss": lambda counts: None},
     "a callable loss gives the geometry at its own ridge and parameters, got ridge: put them into it"),
    ({"angle": 5, "cls": "cat"}, "there is no class 'cat': known: 0, 1, 2"),
    ({"angle": 5, "cls": 3}, "cls must be a class name or an index 0 … 2, got 3"),
    ({"angle": 5, "cls": 0.5}, "cls must be a class name or an index 0 … 2, got 0.5"),
])
def test_bad_input_is_refused_in_one_line(options, message):
    with pytest.raises(InvalidInput) as error:
        samples_needed([9, 5, 1], **({"cls": 2} | options))
    assert str(error.value) == message
