"""What a terminal shows: whole numbers at any width, sketches that follow the numbers, no markup from names."""

from __future__ import annotations

from io import BytesIO, StringIO, TextIOWrapper

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest
from rich.console import Console

from neuralcollapse.console import print_table, sketch, sparkline
from neuralcollapse.counts import ClassCounts
from neuralcollapse.measure import measure
from neuralcollapse.predict import predict
from neuralcollapse.show.rescue import print_posthoc, print_rescue
from neuralcollapse.show.terminal import print_geometry, print_measurement, print_measurements
from neuralcollapse.steer import advise, evaluate_posthoc
from neuralcollapse.steer.rescue import rescue

WIDE = ["[red]a class with a very long name that goes on and on[/red]", "漢字の名前", "plain", "x" * 70]
COUNTS_LOST = [100, 100, 4, 4]
LOST = predict(COUNTS_LOST, ridge=3.0)
STEP = ClassCounts.step(8, 10, 0.5, n_min=5)


def printed(show, *args, width=60):
    file = StringIO()
    show(*args, Console(file=file, width=width))
    return file.getvalue()


def at_noise(size):
    W, M = predict(STEP).factors(d=12, seed=0)
    labels = np.repeat(np.arange(8), STEP.values.astype(int))
    rng = np.random.default_rng(0)
    return measure(M[labels] + size * rng.standard_normal((labels.size, 12)) * np.abs(M).mean(), labels,
                   W + size * rng.standard_normal(W.shape) * np.abs(W).mean())


@given(st.integers(30, 120), st.integers(1, 14))
def test_numbers_stay_whole_at_any_width(width, columns):
    file = StringIO()
    rows = [[f"row {i} of many words", *(f"{i + 0.001 * c:.6f}" for c in range(columns))] for i in range(3)]
    print_table(Console(file=file, width=width), ["name", *(f"long heading {c}" for c in range(columns))], rows)
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    for row in rows:
        assert all(text.split().count(cell) == 1 for cell in row[1:])


def test_the_columns_of_a_verdict_are_explained_and_what_is_missing_is_a_dash():
    verdicts = rescue(COUNTS_LOST, *LOST.factors(d=4, seed=0), geometry=LOST, margins=[5, 5, 0, 0], probe=[1] * 4,
                      confusions=np.eye(4)[[0, 1, 2, 2]])
    text = printed(print_rescue, verdicts, width=150)
    assert "angle: degrees to the nearest other classifier; margin: 10 % quantile on the test part;" in text
    balanced = evaluate_posthoc((np.eye(2), [0, 1]), (np.eye(2), [0, 1]), np.eye(2), counts=[5, 5])
    assert "nan" not in printed(print_posthoc, balanced, 7, width=150)


@pytest.mark.parametrize("width", [40, 50, 80])
def test_advice_and_verdicts_have_whole_numbers_at_any_width(width):
    advice = advise([500, 400, 50, 5, 5], ridge=1.0)
    verdicts = rescue(COUNTS_LOST, *LOST.factors(d=4, seed=0), geometry=LOST, margins=[5, 5, 0, 0], probe=[1] * 4,
                      confusions=np.eye(4)[[0, 1, 2, 2]])
    rows = evaluate_posthoc((np.eye(2), [0, 1]), (np.eye(2), [0, 1]), np.eye(2))
    for text, numbers in (
            (printed(lambda console: console.print(advice), width=width),
             [f"{value:.3g}" for row in advice.rows for value in (row.norm_ratio, row.minority_angle, row.merging_ridge)
              if value is not None]),
            (printed(print_rescue, verdicts, width=width),
             [f"{one.classifier_angle.measured:.3g} ({one.classifier_angle.predicted:.3g})" for one in verdicts]),
            (printed(print_posthoc, rows, 7, width=width), [f"{row.scores.nll:.3f}" for row in rows if row.scores])):
        assert numbers
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width
        assert all(number in text for number in numbers)


def test_names_are_folded_and_are_no_markup():
    text = printed(print_geometry, predict(ClassCounts([9, 9, 2, 2], WIDE)), width=50)
    squeezed = "".join(text.split())
    assert "[red]aclasswith" in squeezed
    assert squeezed.count("x") >= 70
    assert "漢字の名前" in squeezed
    assert max(map(len, text.splitlines())) <= 50


def test_a_prediction_is_sketched_over_its_counts():
    geometry = predict(ClassCounts.long_tail(30, 100, 500))
    lines = printed(print_geometry, geometry).splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("from n = 500 to 5"))
    few = geometry.counts.groups.first[::-1]
    for line, norms in zip(lines[start + 1:start + 3], (geometry.classifiers.norms, geometry.embeddings.norms),
                           strict=True):
        heights = np.floor(norms[few] / norms.max() * 8).clip(max=7).astype(int)
        assert line.split()[-1] == "".join("▁▂▃▄▅▆▇█"[height] for height in heights)
    assert "from n =" not in printed(print_geometry, predict(STEP))  # two counts need no sketch


def test_a_measurement_is_sketched_beside_its_prediction():
    measurement = at_noise(0.5)
    text = printed(print_measurement, measurement)
    rows = [line.split() for line in text.splitlines()]
    geometry = measurement.measured.targets["seli"]
    assert next(row for row in rows if row[:1] == ["by"]) == [
        "by", "class,", "n", "=", "50", "to", "5", "measured", "seli"]
    for name, kind, gram in (("‖w‖", "classifiers", geometry.classifiers), ("‖μ‖", "embeddings", geometry.embeddings)):
        norms = np.array(measurement.to_dict()["norms"][kind])
        assert [name, sparkline(norms), sparkline(gram.norms)] in rows
    assert ["margin", sparkline(np.array(measurement.to_dict()["margins"]["per_class"]["mean"]))] in rows


@pytest.mark.parametrize("width", [60, 200])
def test_several_measurements_are_sketched_in_order(width):
    measurements = [at_noise(size) for size in (2.0, 1.0, 0.5, 0.2)]
    text = printed(print_measurements, [f"epoch-{i}.npz" for i in range(4)], measurements, width=width)
    rows = [line.split() for line in text.splitlines()]
    values = [measurement.to_dict() for measurement in measurements]
    far = np.array([each["distance"]["classifiers"] for each in values])
    cosine = np.array([each["cosines"]["embeddings"]["minority_minority"] for each in values])
    assert ["D_W", sparkline(far)] in rows
    assert sparkline(far)[0] == "█"
    assert ["cos(μ)", "min", sparkline(cosine)] in rows
    assert all(f"{each:.3g}" in text.split() for each in (*far, *cosine))
    assert "…" not in text
    assert "A sketch goes" not in printed(print_measurements, ["a", "b"], measurements[:2], width=width)


def test_the_nearest_ridge_is_a_bound_at_the_end_of_what_was_tried_and_left_out_where_there_is_none():
    W, M = predict([50, 50, 5, 5]).factors(d=8, seed=0)
    labels = np.repeat(np.arange(4), [50, 50, 5, 5])
    text = printed(print_measurement, measure(M[labels], labels, W), width=200)
    assert "Nearest finite-ridge geometry: λ ≤ 0.000707 (the smallest tried), at distance 0.0779." in text
    for features, weight in ((M[labels], 0 * W), (np.ones((110, 8)), W)):
        measurement = measure(features, labels, weight)
        assert measurement.lambda_eff() is None
        assert "Nearest" not in printed(print_measurement, measurement, width=200)


def test_no_sketch_where_the_encoding_has_no_blocks():
    narrow = Console(file=TextIOWrapper(BytesIO(), encoding="ascii"))
    assert sketch(narrow, np.arange(4.0)) == ""
    assert sketch(Console(file=StringIO()), np.arange(4.0)) == "▁▃▆█"
