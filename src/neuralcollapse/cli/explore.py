"""`neuralcollapse explore`."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
import webbrowser

import typer

from neuralcollapse.cli.app import app


@app.command(epilog="Examples:  neuralcollapse explore   ·   neuralcollapse explore runs/demo runs/second   ·   "
                    "neuralcollapse explore runs --port 9000 --no-browser")
def explore(
    runs: Annotated[list[Path] | None, typer.Argument(
        help="Run folders, or folders of them; runs may still be training.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; any other than 127.0.0.1 lets other machines in."
                                      )] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.", min=0, max=65535)] = 8050,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
) -> None:
    """Look at predictions and runs in a browser, on this machine.

    With runs it opens on their page, which follows them while they train; without, on that of predictions.
    """
    from neuralcollapse.show.explorer import explore as serve

    def ready(address: str) -> None:
        if not _only_here(host):
            typer.echo(f"Warning: anyone who reaches this machine at {host} can see these runs.", err=True)
        typer.echo(f"Explorer: {address}   (stop with Ctrl-C)")
        if browser:
            webbrowser.open(address)

    serve(runs or [], host=host, port=port, ready=ready)


def _only_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
