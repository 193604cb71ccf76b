"""What the tests of the command line share: one way to call it in this process."""

import sys
from typing import NamedTuple

import pytest

from neuralcollapse.cli import main


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch, capsys):
    """`main` in this process, for tables of many calls."""
    # A line a second of progress: on a busy machine even small simulations may earn one.
    monkeypatch.setattr("neuralcollapse.cli.simulate._SECONDS_BETWEEN_LINES", float("inf"))

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["neuralcollapse", *map(str, args)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return Result(stopped.value.code, *capsys.readouterr())
    return call
