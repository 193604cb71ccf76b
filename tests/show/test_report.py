"""The report: one file, nothing loaded, nothing that a run says is taken for markup."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
import json
import re

from hostile import HOSTILE
import pytest

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.run import Run, RunFolder
from neuralcollapse.show import write_report
from neuralcollapse.show.report import render


class Parsed(HTMLParser):
    """Elements, their attributes, and the text of scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script" and self.cdata_elem == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        else:
            self.text += data

    @property
    def data(self):
        return json.loads(next(text for attributes, text in self.scripts if attributes.get("id") == "page-data"))


def test_nothing_is_loaded(any_run):
    page = Parsed(render(any_run))
    loading = {"src", "srcset", "data", "poster", "action", "background", "xlink:href"}
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object", "embed", "img", "base", "form"}
        assert not loading & attributes.keys()
        assert attributes.get("href", "#").startswith("#")
    own = "".join(text for attributes, text in page.scripts if not attributes and not text.startswith("/**"))
    style = re.search(r"<style>(.*?)</style>", render(any_run), re.S).group(1)
    assert "http" not in own
    assert not re.search(r"url\(|@import|http", style)


def test_policy_allows_the_two_scripts_and_no_other(any_run):
    page = Parsed(render(any_run))
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    scripts = [text for attributes, text in page.scripts if not attributes]
    hashes = [f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in scripts]
    assert len(scripts) == 2
    assert re.search(r"script-src ([^;]*);", policy).group(1).split() == hashes
    assert policy.startswith("default-src 'none'; ")


def test_every_figure_is_described_and_every_id_is_unique(any_run):
    page = Parsed(render(any_run))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    plots = [attributes for _, attributes in page.tags if attributes.get("role") == "img"]
    assert {attributes["id"] for attributes in plots} == set(page.data["figures"])
    assert all(attributes["aria-label"] for attributes in plots)
    figures = sum(tag == "figure" for tag, _ in page.tags)
    assert figures == sum(tag == "figcaption" for tag, _ in page.tags)


def test_names_stay_text(make_run):
    run = make_run(ClassCounts([50, 40, 30, 5, 5], HOSTILE))
    run.config["model"] = "</script><script>alert(1)</script>"
    run.data["dataset"] = "<img src=x onerror=alert(1)>"
    text = render(run)
    page = Parsed(text)
    assert len(page.scripts) == 3
    assert not {"img", "b", "a"} & {tag for tag, attributes in page.tags if attributes.get("class") != "skip"}
    for name in HOSTILE:
        assert " ".join(name.split()) in " ".join(page.text.split())
    assert run.config["model"] in page.text
    assert run.data["dataset"] in page.text
    labels = page.data["figures"]["norms-0"]["data"][0]["x"]
    assert all("<" not in label and ">" not in label for label in labels)


def test_size_at_a_hundred_epochs_and_classes(make_run, tmp_path):
    names = [f"a rather long class name {c}" for c in range(100)]
    counts = ClassCounts(ClassCounts.long_tail(100, 100, 500).values, names)
    path = write_report(make_run(counts, epochs=range(1, 101)), tmp_path / "report.html")
    assert path.stat().st_size < 6_000_000
    frames = Parsed(path.read_text()).data["grams"]
    assert frames["epochs"][0] == 1
    assert frames["epochs"][-1] == 100
    assert len(frames["epochs"]) >= 3


def test_from_a_folder_that_is_still_written(make_run, save_run, tmp_path):
    run = make_run(ClassCounts.step(4, 10, 0.5, n_min=5), epochs=(1, 2, 5), planned=100)
    folder = save_run(run, tmp_path / "first")
    with (folder / "history.jsonl").open("a") as file:
        file.write('{"epoch": 10, "tra')
    with RunFolder(folder).held():
        path = write_report(folder)
    assert path == folder / "report.html"
    page = Parsed(path.read_text())
    assert "still training" in page.text
    assert "and may still change." in page.text
    assert "epoch 5 of 100" in page.text
    assert page.data["grams"]["epochs"] == [1, 2, 5]
    stopped = Parsed(write_report(folder).read_text()).text
    assert "neuralcollapse report stopped after epoch 5" in " ".join(stopped.split())
    assert "This run stopped after epoch 5 of 100: everything below describes that epoch. It goes on with " in stopped
    assert f"neuralcollapse train --resume {folder}" in stopped
    assert "still training" not in stopped
    (folder / "geometry.safetensors").unlink()
    assert "The Gram matrices of this run were not kept." in Parsed(write_report(Run.open(folder)).read_text()).text
    assert [entry.name for entry in folder.iterdir() if entry.name.startswith(".report")] == []


def test_bad_places_are_named_in_one_line(make_run, tmp_path):
    with pytest.raises(InvalidInput, match="is not a run folder: there is no such folder"):
        write_report(tmp_path / "nothing")
    with pytest.raises(InvalidInput, match=r"^cannot write '.*': there is no folder '.*nowhere'$"):
        write_report(make_run(ClassCounts([5, 5])), tmp_path / "nowhere" / "report.html")
