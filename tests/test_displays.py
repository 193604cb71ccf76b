"""How things show themselves: one line, and a small card whose every number is the thing's own."""

from __future__ import annotations

from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO
import re

import numpy as np
from PIL import Image
import pytest
import torch

import neuralcollapse as nc
from neuralcollapse.experiments.run import RunFolder
from neuralcollapse.notebook import matrix
from neuralcollapse.predict import ridge_path

HOSTILE = ["<script>alert(1)</script>", "</td></table><img src=x onerror=alert(1)>", '"><b onmouseover=alert(1)>&amp;']
STEP = nc.ClassCounts.step(10, 10, 0.5, n_min=14)
NAMED = nc.ClassCounts([50, 40, 5], HOSTILE)


class Card(HTMLParser):
    """The tables and pictures of a card; fails on markup that does not nest."""

    def __init__(self, thing):
        super().__init__()
        self.tables, self.pictures, self.tags, self.text, self._open = [], {}, set(), "", []
        self.feed(thing._repr_html_())
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        assert not [name for name, _ in attributes if name.startswith("on")]
        if tag == "img":
            given = dict(attributes)
            prefix, _, content = given["src"].partition(",")
            assert prefix == "data:image/png;base64"
            self.pictures[given["alt"].partition(":")[0]] = np.asarray(Image.open(BytesIO(b64decode(content))))
            return
        self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self._open and self._open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


def shown(value):
    return "–" if value is None else f"{value:.3g}"


@pytest.fixture(scope="module")
def samples():
    W, M = nc.predict(STEP).factors(d=16, seed=0)
    labels = np.repeat(np.arange(10), STEP.values.astype(int))
    noise = np.random.default_rng(0).standard_normal((labels.size, 16))
    return M[labels] + 0.1 * noise * np.abs(M).mean(), labels, W


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "<b>first"
    folder = RunFolder.create(path, "epochs: 9\nmodel: <i>mlp</i>", {}, {
        "dataset": "digits", "names": HOSTILE, "counts": [50, 40, 5]}, {"train": np.arange(3)})
    gram = np.array([[0.6, -0.3, 0.1], [-0.3, 0.5, 0.0], [0.1, 0.0, 0.4]])
    folder.add_grams(4, {"classifiers": gram, "embeddings": gram, "logits": gram.T})
    folder.append({"epoch": 4, "train": {"loss": 0.1234, "accuracy": 1.0}, "test": {"balanced_accuracy": 0.75},
                   "measurement": {"nc1": {"pinv": None}, "nc3": 0.5,
                                   "distances": {"seli": {"classifiers": 0.25, "embeddings": 0.125, "logits": None}}}})
    return nc.Run.open(path)


@pytest.fixture(params=["counts", "many counts", "gram", "million", "geometry", "ridge", "norm", "path", "measurement",
                        "metric", "empty metric", "advice", "simulation", "run"])
def thing(request, samples, run):
    def metric(*given):
        made = nc.CollapseMetric(10, 16, counts=STEP)
        if given:
            made.update(*map(torch.tensor, given))
        return made

    million = nc.ClassCounts.long_tail(1_000_000, 100, 500)
    return {
        "counts": lambda: NAMED, "many counts": lambda: million,
        "gram": lambda: nc.predict(STEP).classifiers, "million": lambda: nc.predict(million),
        "geometry": lambda: nc.predict(NAMED), "ridge": lambda: nc.predict(STEP, ridge=0.5),
        "norm": lambda: nc.predict(STEP, norm="spectral"), "path": lambda: ridge_path(NAMED, points=9),
        "measurement": lambda: nc.measure(*samples), "metric": lambda: metric(*samples[:2]),
        "empty metric": metric, "advice": lambda: nc.advise(NAMED, weight_decay=5e-3),
        "simulation": lambda: nc.simulate([4, 4, 1, 1], "ngd", steps=20, step=[0.1, 0.2], symmetric=True),
        "run": lambda: run,
    }[request.param]()


def test_one_line_and_a_small_card_without_markup_from_names(thing):
    assert "\n" not in repr(thing)
    assert len(repr(thing)) < 200
    assert repr(thing).startswith(type(thing).__name__ + "(")
    card = Card(thing)
    assert card.tags <= {"div", "b", "table", "thead", "tbody", "tr", "td", "th", "img"}
    assert len(thing._repr_html_()) < 10_000
    assert not re.search(r"\bnan\b", card.text)


def test_class_counts():
    assert Card(NAMED).tables == [[["class", "samples each"], *([name, count] for name, count in
                                                                zip(HOSTILE, ["50", "40", "5"], strict=True))]]
    rows = Card(nc.ClassCounts.step(1000, 10, 0.25, n_min=5)).tables[0]
    assert rows == [["classes", "samples each"], ["750 classes", "50"], ["250 classes", "5"]]


def test_a_geometry_shows_its_own_norms_and_gram_matrices():
    geometry = nc.predict(STEP, ridge=0.5)
    card = Card(geometry)
    w, m = np.linalg.norm(geometry.factors()[0], axis=1), np.linalg.norm(geometry.factors()[1], axis=1)
    assert card.tables[0][1:] == [[str(c), f"{STEP.values[c]:g}", shown(w[c]), shown(m[c])] for c in range(10)]
    assert f"Certified gap {geometry.gap:.0e}." in card.text
    for name, gram in (("classifiers", geometry.classifiers), ("class means", geometry.embeddings)):
        dense, pixels = gram.dense(), card.pictures[name].astype(int)
        strength = 255 * np.sqrt(np.abs(dense) / np.abs(dense).max())
        np.testing.assert_allclose(pixels[..., 3], strength, atol=0.51)
        assert ((pixels[..., 2] > pixels[..., 0]) == (dense < 0)).all()  # blue where negative


def test_many_classes_are_drawn_by_two_of_each_group():
    gram = nc.predict(nc.ClassCounts.step(1000, 10, 0.5, n_min=5)).classifiers
    corners = gram.dense()[np.ix_([0, 499, 500, 999], [0, 499, 500, 999])]
    pixels = Card(gram).pictures["entries"].astype(int)
    np.testing.assert_allclose(pixels[..., 3], 255 * np.sqrt(np.abs(corners) / np.abs(corners).max()), atol=0.51)


def test_a_matrix_with_gaps_and_one_of_zeros():
    class Shown:
        def __init__(self, values):
            self.values = values

        def _repr_html_(self):
            return matrix("x", self.values)

    assert Card(Shown(np.array([[np.nan, -4.0], [1.0, 0.0]]))).pictures["x"][..., 3].tolist() == [[0, 255], [128, 0]]
    assert not Card(Shown(np.zeros((2, 2)))).pictures["x"][..., 3].any()


def test_a_path_shows_its_own_points_and_events():
    path = ridge_path(STEP, points=20)
    points, events = Card(path).tables
    at = np.rint(np.linspace(0, 19, 8)).astype(int)
    assert [row[0] for row in points[1:]] == [shown(path.ridges[i]) for i in at]
    assert [row[3] for row in points[1:]] == [str(path.ranks[i]) for i in at]
    assert events[1:] == [[event.kind, shown(event.ridge), f"{event.classes} of n = {event.count:g}"]
                          for event in path.events]


def test_a_measurement_shows_its_own_numbers(samples):
    measurement = nc.measure(*samples)
    values = measurement.to_dict()
    metrics, distances = Card(measurement).tables
    assert dict(metrics[1:]) == {
        "NC1 (pinv)": shown(values["nc1"]["pinv"]), "NC1 (trace)": shown(values["nc1"]["trace"]),
        "CDNV": shown(values["cdnv"]), "NC3": shown(values["nc3"]), "NC4": shown(values["nc4"]),
        "accuracy": shown(values["accuracy"]["overall"])}
    assert distances[1:] == [[name, *(shown(far[part]) for part in ("classifiers", "embeddings", "logits"))]
                             for name, far in values["distances"].items()]


def test_showing_a_metric_leaves_it_as_it_is(samples):
    features, labels, head = map(torch.tensor, samples)
    linear = torch.nn.Linear(16, 10, bias=False).double()
    linear.weight.data = head
    shown_often, never = (nc.CollapseMetric(10, 16, linear, nc4="previous") for _ in range(2))
    for half in (slice(None, None, 2), slice(1, None, 2)):
        for metric in (shown_often, never):
            metric.update(features[half], labels[half])
        assert Card(shown_often).tables
    assert Card(shown_often).tables == Card(never.measurement()).tables
    for metric in (shown_often, never):
        metric.measurement()
        metric.reset()
        metric.update(features, labels)
    assert shown_often.measurement().to_dict()["nc4"] == pytest.approx(never.measurement().to_dict()["nc4"])


def test_a_run_shows_its_last_record(run):
    card = Card(run)
    numbers, distances = card.tables
    assert ["training loss", "0.123"] in numbers
    assert ["NC1 (pinv)", "–"] in numbers
    assert distances[1] == ["seli", "0.25", "0.125", "–"]
    assert list(card.pictures) == ["classifiers", "class means", "logits"]
    assert "<b>first · <i>mlp</i> on digits · epoch 4 of 9" in card.text


def test_advice_and_simulation_show_their_own_numbers():
    advice = nc.advise([400] * 5 + [4] * 5)
    rows = {row[0].removeprefix("→").strip(): row for row in Card(advice).tables[0][1:]}
    assert {name: row[5] for name, row in rows.items()} == {
        row.remedy: shown(row.etf_distance if (row.etf_distance or 0) > 1e-12 else row.etf_distance and 0.0)
        for row in advice.rows}
    assert rows[advice.recommended.name][0].startswith("→ ")
    runs = nc.simulate([4, 4, 1, 1], "ngd", steps=20, step=[0.1, 0.2], symmetric=True)
    assert Card(runs).tables[0][1:] == [
        [str(c), f"{runs.cells[c]['step']:g}",
         *(shown(runs[f"{runs.target}/{part}"][c, -1]) for part in ("classifiers", "embeddings", "logits"))]
        for c in range(2)]


def test_ipython_shows_both(thing):
    formatters = pytest.importorskip("IPython.core.formatters")
    data, _ = formatters.DisplayFormatter().format(thing)
    assert data["text/html"] == thing._repr_html_()
    assert data["text/plain"] == repr(thing)
