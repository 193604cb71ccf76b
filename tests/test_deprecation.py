"""What is given up works for a while, says so once a call, and is gone in the version it was announced for."""

import importlib
import pkgutil
import subprocess
import sys
import warnings

import pytest

import neuralcollapse
from neuralcollapse import deprecation
from neuralcollapse.checks import InvalidInput
from neuralcollapse.deprecation import Deprecation, deprecated, overdue, renamed_argument


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """What these tests give up is not the library's."""
    monkeypatch.setattr(deprecation, "DEPRECATIONS", [])


def test_a_deprecated_class_warns_when_it_is_made_and_names_the_caller():
    @deprecated(since="0.2", removal="0.3", instead="use `Geometry`")
    class Shape:
        def __init__(self, k):
            self.k = k

    with pytest.warns(FutureWarning, match=r"Shape is deprecated since 0.2 and goes in 0.3: use `Geometry`") as caught:
        assert Shape(3).k == 3
    assert caught[0].filename == __file__
    assert Shape.__deprecated__


def test_an_argument_may_be_called_by_its_old_name():
    @renamed_argument("lam", "ridge", since="0.2", removal="1.0")
    def objective(counts, ridge=0.0):
        """Docstring."""
        return counts, ridge

    assert objective.__doc__ == "Docstring."
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert objective(1, 2) == objective(1, ridge=2) == (1, 2)
    with pytest.warns(FutureWarning, match="call it ridge"):
        assert objective(1, lam=2) == (1, 2)
    for both in (lambda: objective(1, 2, lam=2), lambda: objective(1, ridge=2, lam=2)):
        with pytest.raises(InvalidInput, match="lam is the old name of ridge: give ridge alone"):
            both()


def test_a_warning_names_the_line_that_calls():
    code = """
from neuralcollapse.deprecation import renamed_argument
@renamed_argument("lam", "ridge", since="0.2", removal="0.3")
def objective(ridge):
    return ridge
objective(lam=2)  # here
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.startswith("<string>:6: FutureWarning: lam of objective is deprecated since 0.2 and goes in 0.3")


def test_a_removal_may_not_come_early():
    with pytest.raises(ValueError, match=r"must stay for one minor version at least: since 0\.2, removal 0\.2"):
        deprecated(since="0.2", removal="0.2", instead="nothing")(len)
    with pytest.raises(ValueError, match="has no argument ridge"):
        renamed_argument("lam", "ridge", since="0.2", removal="0.3")(lambda counts: counts)


@pytest.mark.parametrize(("version", "late"), [("0.3.1.dev0", ["a"]), ("0.10.0", ["a", "b"]), ("0.2.9", [])])
def test_what_has_outlived_its_day_is_found(version, late):
    given = [Deprecation(what, "0.1", removal, "") for what, removal in (("a", "0.3"), ("b", "0.10"), ("c", "1.0"))]
    assert [one.what for one in overdue(version, given)] == late


def test_nothing_of_ours_has(monkeypatch):
    monkeypatch.undo()
    for module in pkgutil.walk_packages(neuralcollapse.__path__, "neuralcollapse."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert overdue(neuralcollapse.__version__) == []
