"""`neuralcollapse list` and `cite`."""

from __future__ import annotations

from typing import Annotated

import typer

from neuralcollapse.cli.app import app


@app.command("list", epilog="Example:  neuralcollapse list")
def list_registered() -> None:
    """List everything registered by name, from geometries to studies, as a Markdown table."""
    from neuralcollapse.citations import markdown_table

    typer.echo(markdown_table())


@app.command(epilog="Example:  neuralcollapse cite seli nc1 demo")
def cite(names: Annotated[list[str], typer.Argument(
        help="Names that `list` prints, or BibTeX keys, such as: seli nc1 ldt")]) -> None:
    """Print the BibTeX entries behind what you used."""
    from neuralcollapse.citations import citations

    typer.echo("\n\n".join(citations(names)))
