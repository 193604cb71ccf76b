"""Every example runs as a user would run it and prints what it promises."""

from importlib.util import find_spec
import os
from pathlib import Path
import re
import subprocess
import sys

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NUMBER = r"[-+0-9.e]+"

# What each needs beside the base install, and the lines it has to print, in order.
EXPECTED = {
    "plain_loop.py": ((), [
        rf"epoch 1  NC1 {NUMBER}  D_W {NUMBER}  D_M {NUMBER}  accuracy {NUMBER}  not collapsed",
        rf"epoch 40  NC1 {NUMBER}  D_W {NUMBER}  D_M {NUMBER}  accuracy 1  healthy collapse",
        r"healthy collapse: .* the geometry is the predicted one: .* from seli, 9 of 9 dimensions filled\."]),
    "lightning_callback.py": (("lightning",), [
        rf"epoch 1  NC1 {NUMBER}  D_W {NUMBER}  D_M {NUMBER}  accuracy {NUMBER}  not collapsed",
        rf"epoch \d  NC1 {NUMBER}  D_W {NUMBER}  D_M {NUMBER}  accuracy {NUMBER}  minority collapse",
        r"stopped after epoch [3-9] of 40 at an accuracy of 0\.9\d",
        r"logged: nc/seli/classifiers, nc/seli/embeddings, nc/seli/logits"]),
    "transformers_trainer.py": (("transformers",), [
        rf"epoch 12  NC1 {NUMBER}  D_W {NUMBER}  D_M {NUMBER}  accuracy 0\.{NUMBER}  \w+ \w+",
        r"7 measurements in the trainer's log, the last at epoch 12",
        r"(not collapsed|minority collapse): .*"]),
    "accelerate_trackers.py": (("tensorboard",), [
        rf"epoch 8  NC1 {NUMBER}  D_W {NUMBER}  D_M {NUMBER}  accuracy 0\.9\d*  not collapsed",
        r"TensorBoard holds \d\d scalars, such as nc/within, nc/within_trace, .*",
        r"and 6 pictures of nc/grams"]),
    "language_model_head.py": ((), [
        r"12 tokens, \d+ to \d+ times each",
        rf"before: accuracy 0\.\d+, NC1 {NUMBER}, head to SELI 0\.[4-9]\d, to the simplex 0\.\d+",
        rf"after : accuracy (1\.00|0\.9\d), NC1 {NUMBER}, head to SELI 0\.[01]\d, to the simplex 0\.[3-9]\d",
        r"healthy collapse: .*"]),
    "scikit_learn.py": ((), [
        r"accuracy 0\.9\d, NC1 1\.\d+",
        r"minority classifiers are 0\.[67]\d times as long as majority ones, SELI says 0\.61",
        r"not collapsed: Samples still spread about their class means .*"]),
}
# What it has to say on stderr.
WARNED = {"lightning_callback.py": r"epoch [3-9]: minority classifiers are merging: mean minority cosine 0\.\d\d where "
                                   r"0\.03 is predicted"}


def test_every_example_is_here():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_example_runs_and_prints_what_it_promises(name, tmp_path):
    needs, lines = EXPECTED[name]
    for package in needs:
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    done = subprocess.run([sys.executable, str(EXAMPLES / name)], capture_output=True, text=True, cwd=tmp_path,
                          env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"})
    assert done.returncode == 0, done.stderr
    printed = iter(done.stdout.splitlines())
    for line in lines:
        assert any(re.fullmatch(line, one) for one in printed), f"{line}\nin\n{done.stdout}"
    assert re.search(WARNED.get(name, ""), done.stderr), done.stderr
    assert not list(tmp_path.iterdir())  # what they write goes to a temporary folder


def test_the_plain_loop_takes_three_added_lines():
    marked = [line for line in (EXAMPLES / "plain_loop.py").read_text().splitlines() if re.search(r"# \d$", line)]
    assert [line.rsplit("# ")[-1] for line in marked] == ["1", "2", "3"]
    assert all("watch" in line for line in marked)


def test_every_notebook_is_what_make_notebooks_gives():
    jupytext = pytest.importorskip("jupytext")
    made = {path.stem: path for path in (EXAMPLES / "notebooks").glob("*.ipynb")}
    assert made.keys() == {Path(name).stem for name in EXPECTED}
    for stem, path in made.items():
        script, notebook = jupytext.read(EXAMPLES / f"{stem}.py"), jupytext.read(path)
        assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
            (cell.cell_type, cell.source) for cell in script.cells], "run `make notebooks`"


@pytest.mark.parametrize("stem", ["plain_loop", "scikit_learn"])
def test_a_notebook_runs_in_a_kernel_and_prints_what_the_script_does(stem, tmp_path):
    pytest.importorskip("ipykernel")
    code = (f"import nbformat; from nbclient import NotebookClient; import sys; "
            f"notebook = nbformat.read({str(EXAMPLES / 'notebooks' / f'{stem}.ipynb')!r}, 4); "
            "NotebookClient(notebook, timeout=300, kernel_name='python3').execute(); "
            "print(''.join(out.get('text', '') for cell in notebook.cells for out in cell.get('outputs', ())))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
                          env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUTF8": "1", "IPYTHONDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    printed = iter(done.stdout.splitlines())
    for line in EXPECTED[f"{stem}.py"][1]:
        assert any(re.fullmatch(line, one) for one in printed), f"{line}\nin\n{done.stdout}"
