"""The map of the house, kept by tests: import directions, light import, sizes, public names."""

import ast
from pathlib import Path
import subprocess
import sys

import pytest

import neuralcollapse

SOURCE = Path(neuralcollapse.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

# Each room may import itself and what stands to the right of it: imports point one way (design.md).
ORDER = ["cli", "show", "experiments", "steer", "simulate", "measure", "predict", "gram", "low_rank", "counts",
         "groups", "registry", "checks"]
# The ground floor may not import a room.
GROUND = {"checks", "deprecation", "files", "registry", "rooms", "threads", "groups", "given_counts", "counts",
          "dense_products", "low_rank", "gram", "label_files", "notebook", "console", "displays"}


def room(path):
    part = path.relative_to(SOURCE).parts[0]
    return part.removesuffix(".py")


def imports(path):
    """The rooms a file imports, at its top or inside functions."""
    for name in imported(path.read_text()):
        if name.startswith("neuralcollapse."):
            yield name.split(".")[1]


def imported(code):
    """The modules that code imports anywhere, as `import …` or `from … import`."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_one_way(path):
    here = room(path)
    for other in imports(path):
        assert other != "cli" or here in ("cli", "__main__"), "nothing imports the command line"
        if here in GROUND:
            assert other in GROUND
        elif here in ORDER and other in ORDER:
            assert ORDER.index(other) >= ORDER.index(here)


@pytest.mark.parametrize("path", [p for p in FILES if room(p) == "predict"], ids=lambda p: p.name)
def test_predict_knows_neither_torch_nor_measure(path):
    assert "torch" not in {name.split(".")[0] for name in imported(path.read_text())}
    assert "measure" not in set(imports(path))


def test_an_import_is_seen_in_either_form():
    assert [*imported("import torch.nn\nfrom torch import Tensor\ndef f():\n    from torch.nn import Linear")] == [
        "torch.nn", "torch", "torch.nn"]


@pytest.mark.parametrize("code", ["import neuralcollapse", "import neuralcollapse; neuralcollapse.predict([2, 1])",
                                  "import neuralcollapse.cli", "import neuralcollapse.show"])
def test_light_imports_load_neither_torch_nor_pictures(code):
    heavy = "import sys; heavy = {'torch', 'matplotlib', 'plotly', 'sklearn', 'pandas'} & sys.modules.keys(); "
    result = subprocess.run([sys.executable, "-c", f"{code}; {heavy} sys.exit(str(heavy) if heavy else 0)"],
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_training_does_not_wait_for_torchmetrics():
    code = "import neuralcollapse.experiments.train, sys; sys.exit('torchmetrics' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    import neuralcollapse.measure

    assert neuralcollapse.measure.CollapseMetric is neuralcollapse.CollapseMetric
    with pytest.raises(AttributeError, match="has no attribute 'Collapse'"):
        neuralcollapse.measure.Collapse  # noqa: B018  # the access is the test


def test_the_public_names_are_few_and_real():
    assert len(neuralcollapse.__all__) <= 25
    for name in neuralcollapse.__all__:
        assert getattr(neuralcollapse, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'predicct'"):
        neuralcollapse.predicct  # noqa: B018  # the access is the test


def test_a_room_is_its_verb_in_any_order_of_import():
    code = ("import neuralcollapse.measure, neuralcollapse as nc, numpy as np;"
            "from neuralcollapse import measure, predict;"
            "assert callable(nc.measure) and callable(measure) and callable(nc.predict);"
            "from neuralcollapse.experiments import train;"
            "assert nc.train is nc.train and callable(nc.train) and callable(nc.experiments.train) and callable(train);"
            "print(nc.measure(np.eye(4), [0, 0, 1, 1]).measured.k, predict([2, 1]).k)")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "2 2\n"


@pytest.mark.parametrize("name", ["predict", "measure", "simulate", "experiments.train"])
def test_a_room_is_one_thing_however_it_is_imported(name):
    verb = name.split(".")[-1]
    # Pickled as any function is, by name: a pool of processes may be given `nc.predict`. What is read was written here.
    code = (f"import pickle, neuralcollapse as nc; first = nc.{verb};"
            f"import neuralcollapse.{name} as package;"
            f"assert first is package and nc.{verb} is package and package.{verb} is not package;"
            "assert pickle.loads(pickle.dumps(package)) is package and callable(package)")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_modules_inside_a_room_are_imported_as_any_other():
    code = "import neuralcollapse.predict.losses as losses; print(losses.__name__)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "neuralcollapse.predict.losses\n"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_and_functions_stay_easy_to_see_whole(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 330
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body:
                assert body[-1].end_lineno - body[0].lineno < 45, node.name


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_every_module_and_public_thing_has_a_docstring(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
