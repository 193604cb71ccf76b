"""The page of runs: what they measured, held against what is predicted, also while they train."""

from __future__ import annotations

from typing import Any

from dash import Dash, html

from neuralcollapse.show.explorer.watch import RunShelf


def layout(search: str, shelf: RunShelf) -> Any:
    """The page for a URL's query."""
    return html.Section([html.H1("Runs")])


def register(app: Dash, shelf: RunShelf) -> None:
    """Add what the controls do."""
