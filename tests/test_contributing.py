"""The recipes of CONTRIBUTING.md, followed to the letter in a package of their own: every file, every command."""

import json
import os
import re
import subprocess
import sys
import tomllib

import pytest

from neuralcollapse import deprecation
from pages import ROOT, SHELLS, blocks, commands

PAGE = ROOT / "CONTRIBUTING.md"
RECIPES = dict(re.findall(r"^```python title=\"(\w+\.py)\"\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S))
COMMANDS = list(commands(PAGE))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The recipes' files and entry points, as pip would leave them."""
    folder = tmp_path_factory.mktemp("site")
    for name, text in RECIPES.items():
        (folder / name).write_text(text, encoding="utf-8")
    project = tomllib.loads(next(block.text for block in blocks(PAGE) if block.language == "toml"))["project"]
    installed = folder / f"collapse_extras-{project['version']}.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\n"
                                        f"Version: {project['version']}\n")
    (installed / "entry_points.txt").write_text("".join(
        f"[{group}]\n" + "".join(f"{name} = {module}\n" for name, module in points.items())
        for group, points in project["entry-points"].items()))
    return folder


@pytest.fixture(scope="module")
def typed(package, tmp_path_factory):
    """Run Python or a command where the package is installed; what it printed."""
    folder = tmp_path_factory.mktemp("work")

    def run(*words, status=0, error=""):
        python = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=folder, timeout=300,
                              env=os.environ | {"PYTHONPATH": python, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"})
        assert done.returncode == status, done.stderr
        assert error in done.stderr
        return done.stdout

    return run


def test_a_recipe_for_each_kind():
    assert set(RECIPES) == {f"extras_{kind}.py" for kind in ("loss", "metric", "remedy", "study", "data")}
    assert {block.language for block in blocks(PAGE)} <= {"python", "toml", "text", *SHELLS, ""}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_commands_run(typed, words):
    printed = typed("-m", "neuralcollapse", *words)
    told = {"predict": '"loss": "root-frame"', "cite": "@misc{you2026,", "advise": '"half-adjusted"', "data": "rings"}
    assert told.get(words[0], "") in printed


def test_the_numbers_are_those_of_the_recipes(typed):
    asked = ("predict", "--counts", "100,25,4", "--loss", "root-frame", "--json")
    values = json.loads(typed("-m", "neuralcollapse", *asked))
    assert values["classifiers"]["norms"] == pytest.approx([10**0.5, 5**0.5, 2**0.5])
    values = json.loads(typed("-c", "\n".join([
        "import json, numpy as np, neuralcollapse as nc",
        "features = np.array([[0.0, 1.0], [0.0, 3.0], [5.0, 0.0], [9.0, 0.0]])",
        "print(json.dumps(nc.measure(features, [0, 0, 1, 1], np.eye(2)).to_dict()))"])))
    assert values["mean-spread"] == pytest.approx(4.0)


def test_everything_is_listed(typed):
    table = typed("-m", "neuralcollapse", "list")
    assert all(f"`{name}`" in table for name in ("root-frame", "mean-spread", "half-adjusted", "two-classes", "rings"))


def test_a_plug_in_that_cannot_be_loaded_is_named_and_left_out(package, typed):
    (package / "extras_loss.py").write_text("import absent_from_here\n")
    try:
        printed = typed("-m", "neuralcollapse", "predict", "--counts", "5,1", "--json",
                        error="the plug-in extras (extras_loss) cannot be loaded: ModuleNotFoundError: No module named "
                              "'absent_from_here'")
        assert json.loads(printed)["loss"] == "ce"
    finally:
        (package / "extras_loss.py").write_text(RECIPES["extras_loss.py"], encoding="utf-8")


def test_giving_up_a_name_works_as_shown(monkeypatch):
    monkeypatch.setattr(deprecation, "DEPRECATIONS", [])
    block = next(block.text for block in blocks(PAGE) if "renamed_argument" in block.text)
    names = {}
    exec(compile(block, str(PAGE), "exec"), names)
    with pytest.warns(FutureWarning, match="foretell is deprecated since"):
        assert names["foretell"](3) == 3
    with pytest.warns(FutureWarning, match="lam of doubled is deprecated"):
        assert names["doubled"](lam=3) == 6
