"""What is shipped: everything the package needs, everything the tests need, and a description that a registry takes."""

from email.parser import Parser
from pathlib import Path
import re
import subprocess
import sys
import tarfile
import zipfile

import pytest

import neuralcollapse

ROOT = Path(__file__).parents[1]


def tracked():
    done = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                          capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")  # an unpacked sdist: nothing says what belongs to the project
    return {name for name in done.stdout.splitlines() if (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel and an sdist, built in this environment, without a network."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)], check=True,
                   capture_output=True)
    return folder


def test_a_registry_takes_both(built):
    done = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir())],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert len(list(built.iterdir())) == 2


def test_the_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        metadata = next(name for name in wheel.namelist() if name.endswith("METADATA"))
        about = Parser().parsestr(wheel.read(metadata).decode())
    assert names == {name.removeprefix("src/") for name in tracked() if name.startswith("src/")}
    assert "neuralcollapse/py.typed" in names
    assert about["Version"] == neuralcollapse.__version__
    assert about["Requires-Python"] == ">=3.11"
    assert {"lightning", "transformers", "parquet", "hub", "explore", "cluster"} <= set(about.get_all("Provides-Extra"))


def test_the_sdist_holds_the_whole_project(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert names - {"PKG-INFO"} == tracked()


def test_versions_are_semantic():
    number = r"(0|[1-9]\d*)"
    assert re.fullmatch(rf"{number}\.{number}\.{number}(\.dev\d+|rc\d+)?", neuralcollapse.__version__)
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == "Unreleased"
    assert all(re.fullmatch(rf"{number}\.{number}\.{number} \(\d{{4}}-\d\d-\d\d\)", one) for one in headings[1:])
