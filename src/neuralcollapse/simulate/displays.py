"""How a simulation shows itself in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralcollapse.checks import counted
from neuralcollapse.notebook import card, number, spread, table
from neuralcollapse.predict.geometry import PARTS

if TYPE_CHECKING:
    from neuralcollapse.simulate.simulation import Simulation

_ROWS = 12


def simulation_html(runs: Simulation) -> str:
    """Where the runs ended, with what varies between them."""
    varying = [name for name in runs.cells[0] if name != "profile" and len({cell[name] for cell in runs.cells}) > 1]
    rows = [[str(c), *(f"{runs.cells[c][name]:.4g}" for name in varying),
             *(number(float(runs[f"{runs.target}/{part}"][c, -1])) for part in PARTS)]
            for c in spread(range(len(runs)), _ROWS)]
    few = "" if len(runs) <= _ROWS else f" {_ROWS} of them are shown."
    return card(f"Simulated: {runs.method} on {runs.loss}, {counted(len(runs), 'run')} of {runs.steps[-1]:,} gradients",
                table(["run", *varying, *PARTS], rows),
                note=f"Last distances to {runs.target}; {len(runs.diverged)} diverged.{few}")
