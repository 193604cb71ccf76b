"""The page of predictions: counts, loss and λ in, geometry out."""

from __future__ import annotations

from typing import Any

from dash import Dash, html

from neuralcollapse.show.explorer.watch import RunShelf


def layout(search: str, shelf: RunShelf) -> Any:
    """The page for a URL's query."""
    return html.Section([html.H1("Theory")])


def register(app: Dash) -> None:
    """Add what the controls do."""
