"""Studies end to end on a tiny setting: files, numbers that agree with the runs beside them, and bad input."""

import json
import math
from pathlib import Path
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.studies import STUDIES, run_study
from neuralcollapse.experiments.studies.drawing import COLOURS
from neuralcollapse.experiments.studies.gallery import gallery_page, gallery_section
from neuralcollapse.experiments.studies.rates import EPSILONS, METHODS, _heading, largest
from neuralcollapse.experiments.studies.study import Setting, write_rows
from neuralcollapse.registry import references
from neuralcollapse.show.palette import COLOURS as PALETTE
from neuralcollapse.simulate.simulation import Simulation

STUDY_NAMES = ["deepnet-convergence", "geometry-vs-ratio", "loss-geometries", "optimisers", "rates", "ridge-path",
               "robustness", "steering", "ufm-convergence", "vocabulary"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    lines = []
    out = tmp_path_factory.mktemp("study") / "new" / "rates"
    table = run_study("rates", out, quick=True, ratios=[1, 30], seeds=3, seed=7, steps=700, progress=lines.append)
    return out, table, lines


def rows(path):
    return pq.read_table(path).to_pylist()


def test_a_study_leaves_data_figures_a_table_and_where_they_come_from(study):
    out, table, lines = study
    runs = {f"{label.replace(' + ', '-with-')}.npz" for label in METHODS}
    assert {path.name for path in out.iterdir()} == runs | {
        "decays.parquet", "laws.parquet", "times.parquet", "rates.png", "rates.pdf", "gallery.md", "table.md",
        "study.json"}
    assert (out / "rates.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "rates.pdf").read_bytes().startswith(b"%PDF")
    record = json.loads((out / "study.json").read_text())
    assert (record["study"], record["seeds"], record["ratios"], record["steps"]) == ("rates", [7, 8, 9], [1, 30], 700)
    assert {line.partition(":")[0] for line in lines} == set(METHODS)
    assert all(f"{label}: step 700 of 700, 6 runs" in lines for label in METHODS)
    assert "k = 10, (R, ½)-STEP, n_min = 1, d = 20, float64; 3 seeds (7 … 9), 700 gradients per run, 2 ratios." \
        in table.read_text()


def test_a_first_seed_leaves_the_study_its_own_number_of_seeds(tmp_path):
    table = run_study("rates", tmp_path, quick=True, ratios=[10], seed=7, steps=150)
    assert "2 seeds (7 … 8), 150 gradients" in table.read_text()
    record = json.loads((tmp_path / "study.json").read_text())
    assert (record["seeds"], record["seed"]) == (None, 7)
    assert "--quick --ratios 10 --seed 7 --steps 150" in (tmp_path / "gallery.md").read_text()
    assert "; 1 seed (0), 150 gradients" in _heading((10.0,), (0,), 150)


def test_its_times_and_table_are_those_of_its_runs(study):
    out, table, _ = study
    times = rows(out / "times.parquet")
    assert len(times) == len(METHODS) * len(EPSILONS) * 6
    runs = Simulation.load(out / "multipliers.npz")
    worst = largest(runs)
    for row in times:
        if row["method"] != "multipliers":
            continue
        cell, = (c for c, one in enumerate(runs.cells)
                 if (one["seed"], one["ratio"]) == (row["seed"], row["ratio"]))
        at = next(s for s in range(runs.steps.size) if (worst[cell, s:] <= row["epsilon"]).all())
        assert row["steps"] == runs.steps[at]
        assert row["censored_at"] == 700
    gd = [row["steps"] for row in times if row["method"] == "gd" and row["epsilon"] == 1e-3]
    assert gd == [None] * 6
    line, = (line for line in table.read_text().split("Largest of")[1].split("Gradients")[0].splitlines()
             if line.startswith("| gd |"))
    last = largest(Simulation.load(out / "gd.npz"))[:3, -1]
    assert line.split("|")[2].strip() == f"{np.median(last):.1e} ({last.min():.0e} – {last.max():.0e})"
    assert "| > 700 |" in table.read_text()


def test_its_decays_name_a_law_and_its_uncertainty(study):
    decays = rows(study[0] / "decays.parquet")
    assert len(decays) == len(METHODS) * 2 * 3
    for row in decays:
        assert row["law"] in ("power", "logarithmic", "geometric")
        assert row["low"] <= row["rate"] <= row["high"]
        assert row["residual"] <= row["other_residual"]
        assert row["runs"] == 3
    # What the study is about: with raises the decay is geometric, at about every imbalance alike.
    raised = [row for row in decays if row["method"] == "multipliers" and row["ratio"] == 30]
    assert {row["law"] for row in raised} == {"geometric"}
    assert all(0.003 < row["rate"] < 0.1 for row in raised)


def test_every_study_is_registered_with_a_summary():
    assert [entry.name for entry in STUDIES] == STUDY_NAMES


@pytest.mark.parametrize(("arguments", "message"), [
    ({"name": "rate"}, f"unknown study 'rate': did you mean 'rates'? known: {', '.join(STUDY_NAMES)}"),
    ({"ratios": [0.5]}, "ratios must be at least 1, got 0.5"),
    ({"ratios": []}, "ratios must hold at least one number, got an empty list"),
    ({"seeds": 0}, "seeds must be a whole number ≥ 1, got 0"),
    ({"seed": -1}, "seed must be a whole number ≥ 0, got -1"),
    ({"steps": 0}, "steps must be a whole number ≥ 1, got 0"),
])
def test_bad_input_is_refused_in_one_line_before_anything_is_made(tmp_path, arguments, message):
    with pytest.raises(InvalidInput) as error:
        run_study(**({"name": "rates", "out": tmp_path / "new"} | arguments))
    assert str(error.value) == message
    assert not (tmp_path / "new").exists()


def test_its_section_of_a_gallery_names_what_lies_beside_it_and_the_command_that_made_it(study):
    title, paragraph, picture, command = (study[0] / "gallery.md").read_text(encoding="utf-8").split("\n\n")
    assert title == "## How fast first-order methods reach SELI"
    assert paragraph.startswith("Decay of the distances to SELI, and time to reach one,")
    assert paragraph.endswith("within-class-symmetric starts. (thrampoulidis2022)")
    assert picture == "![How fast first-order methods reach SELI](rates.png)"
    assert (study[0] / picture.partition("(")[2].removesuffix(")")).is_file()
    assert command == ("    neuralcollapse study rates --out studies/rates --quick --ratios 1,30 --seeds 3 --seed 7 "
                       "--steps 700\n")


@pytest.mark.parametrize("entry", list(STUDIES), ids=lambda entry: entry.name)
def test_every_study_has_a_section_with_its_sources(entry):
    section = gallery_section(entry, Setting(Path("anywhere")))
    assert section.startswith(f"## {entry.options['title']}\n\n{entry.summary} ")
    assert section.endswith(f"\n\n![{entry.options['title']}]({entry.name}.png)\n\n"
                            f"    neuralcollapse study {entry.name} --out studies/{entry.name}\n")
    assert entry.source
    assert set(entry.source) <= references().keys()


@pytest.mark.parametrize("name", [entry.name for entry in STUDIES])
def test_without_pyarrow_no_study_begins(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InvalidInput) as error:
        run_study(name, tmp_path / "new", quick=True)
    assert str(error.value) == ("a study writes its data as Parquet, which needs pyarrow: "
                                "pip install 'neuralcollapse[parquet]'")
    assert not (tmp_path / "new").exists()


def test_rows_come_back_with_their_types_and_nothing_where_there_is_no_number(tmp_path):
    given = [{"name": "a", "count": 3, "value": np.float64(0.5), "none": None},
             {"name": "λ", "count": None, "value": math.nan, "none": None}]
    write_rows(tmp_path / "rows.parquet", given)
    assert rows(tmp_path / "rows.parquet") == [{"name": "a", "count": 3, "value": 0.5, "none": None},
                                               {"name": "λ", "count": None, "value": None, "none": None}]


def test_studies_draw_in_the_colours_of_every_other_picture():
    assert {name: PALETTE[name][0] for name in COLOURS} == COLOURS


def test_the_gallery_in_the_documentation_is_what_is_registered():
    written = (Path(__file__).parents[2] / "docs/gallery.md").read_text(encoding="utf-8")
    assert written == gallery_page(), "run `python -m neuralcollapse.experiments.studies.gallery` into docs/gallery.md"
