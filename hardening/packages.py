"""Wheel and sdist: built, checked by twine, and each installed in an empty environment and used there.

Without `--python` the environment is one of the Python that runs this. Give other interpreters to try them too:
    python hardening/packages.py --python python3.12 python3.13
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
import subprocess
import sys
import tempfile

from harness import Check

ROOT = Path(__file__).parent.parent
# As a new user does: what it is, a prediction, a run, its report, every name, and a part that is an extra.
EVERY_NAME = ("import importlib, neuralcollapse as nc; [getattr(nc, name) for name in nc.__all__]; "
              "[getattr(importlib.import_module(f'neuralcollapse.{room}'), name) "
              "for room in ('predict', 'measure', 'simulate', 'steer', 'experiments', 'show') "
              "for name in importlib.import_module(f'neuralcollapse.{room}').__all__]")
USES = (("neuralcollapse", "--version"),
        ("neuralcollapse", "predict", "--counts", "10,10,1,1", "--ridge", "0.5"),
        ("neuralcollapse", "train", "--preset", "demo", "--set", "epochs=3", "--out", "run"),
        ("neuralcollapse", "report", "run"),
        ("neuralcollapse", "list"),
        ("python", "-c", EVERY_NAME))
MISSING = (("neuralcollapse", "explore"), "neuralcollapse: the explorer needs Dash, which is not installed: "
                                          "pip install 'neuralcollapse[explore]'\n")


def said(command: list[str], place: Path | None = None, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit code and everything that was printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place, env=environment)
    return done.returncode, done.stdout + done.stderr


def try_installed(bin_folder: Path, place: Path, label: str, check: Check) -> None:
    """Use what is installed there, from a folder that is not the checkout."""
    place.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    for words in USES:
        code, text = said([str(bin_folder / words[0]), *words[1:]], place, environment)
        check.count += 1
        if code:
            check.fail(f"{label}: {' '.join(words)} ended with {code}: {text[-300:]}")
    code, text = said([str(bin_folder / MISSING[0][0]), *MISSING[0][1:]], place, environment)
    check.count += 1
    if (code, text) != (2, MISSING[1]):
        check.fail(f"{label}: a missing extra ended with {code}: {text[-300:]}")


def try_python(python: str, files: list[Path], folder: Path, constraints: bool, check: Check) -> None:
    """An empty environment of that Python: each file installed with what it depends on, used, and removed again."""
    version = said([python, "-c", "import platform; print(platform.python_version(), end='')"])[1]
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    bin_folder = folder / "bin"
    pip = [str(bin_folder / "python"), "-m", "pip", "--disable-pip-version-check", "-q"]
    pinned = ["-c", str(ROOT / "constraints.txt")] if constraints else []
    for file in files:
        label = f"Python {version}, {file.suffix.removeprefix('.')}"
        code, text = said([*pip, "install", *pinned, str(file)])
        check.count += 1
        if code:
            check.fail(f"{label}: pip install ended with {code}: {text[-300:]}")
            continue
        try_installed(bin_folder, folder / file.suffix, label, check)
        said([*pip, "uninstall", "-y", "neuralcollapse"])
    check.figures[f"Python {version}"] = "wheel and sdist"


def main(pythons: list[str]) -> Check:
    """Build, check, install, use."""
    check = Check("packages", "wheel and sdist: `twine check --strict`, pip install into an empty environment, a "
                              "prediction, a run, its report, every public name, a missing extra")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        subprocess.run([sys.executable, "-m", "build", "--outdir", str(place), str(ROOT)], check=True,
                       stdout=subprocess.DEVNULL)
        files = sorted(place.iterdir(), reverse=True)
        code, text = said([sys.executable, "-m", "twine", "check", "--strict", *map(str, files)])
        check.count += len(files)
        if code:
            check.fail(text)
        for number, python in enumerate(pythons):
            # constraints.txt pins what the tests were run with, a CPU build of torch for this Python among it.
            try_python(python, files, place / str(number), python == sys.executable, check)
    check.close()
    return check


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--python", nargs="+", default=[sys.executable], metavar="PATH")
    options.add_argument("--many", help="ignored: every check takes it")
    sys.exit(bool(main(options.parse_args().python).failures))
