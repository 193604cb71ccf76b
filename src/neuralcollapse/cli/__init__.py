"""The command line: one command per verb, no logic."""

# Imported to add their commands, which are listed in this order, not the alphabet's (I001).
from neuralcollapse.cli import predict as _predict  # noqa: I001  # the order of --help
from neuralcollapse.cli import measure as _measure
from neuralcollapse.cli import train as _train
from neuralcollapse.cli import sweep as _sweep
from neuralcollapse.cli import explore as _explore
from neuralcollapse.cli import data as _data
from neuralcollapse.cli import steer as _steer
from neuralcollapse.cli import simulate as _simulate
from neuralcollapse.cli import study as _study
from neuralcollapse.cli import about as _about
from neuralcollapse.cli.app import app, main

__all__ = ["app", "main"]
del _about, _data, _explore, _measure, _predict, _simulate, _steer, _study, _sweep, _train
