"""`neuralcollapse data`."""

from __future__ import annotations

from typing import Annotated

from rich.console import Console
import typer

from neuralcollapse.checks import InvalidInput
from neuralcollapse.cli.app import JSON, app, print_json


@app.command(epilog="Examples:  neuralcollapse data   ·   neuralcollapse data folder:birds --set size=64   ·   "
                    "neuralcollapse data --clear")
def data(
    name: Annotated[str | None, typer.Argument(help="A data set, to say what it holds  (default: list all)")] = None,
    settings: Annotated[list[str] | None, typer.Option(
        "--set", metavar="KEY=VALUE", help="An option of the data set, such as size=64 or labels=fine_label")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove the decoded images that are kept.")] = False,
    as_json: JSON = False,
) -> None:
    """Say which data sets there are and where, what one holds, and what is kept on disk."""
    from neuralcollapse.experiments.data.cache import clear_cache
    from neuralcollapse.experiments.data.describe import describe, overview
    from neuralcollapse.show.data_sets import print_data_set, print_overview

    if name is None and settings:
        raise InvalidInput("--set is for one data set: give its name")
    if clear and name is not None:
        raise InvalidInput(f"--clear removes all decoded images: give it without a data set, got {name!r}")
    if clear:
        clear_cache()
    found = overview() if name is None else describe(name, settings or [])
    if as_json:
        print_json(found)
    else:
        (print_overview if name is None else print_data_set)(found, Console())
