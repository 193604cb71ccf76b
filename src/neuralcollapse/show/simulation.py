"""A simulation in a terminal: where every run ended, and the way its distance took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from neuralcollapse.console import print_table, sketch
from neuralcollapse.notebook import number

if TYPE_CHECKING:  # it loads torch
    from neuralcollapse.simulate import Simulation

_PARTS = {"D_W": "classifiers", "D_M": "embeddings", "D_Z": "logits"}
_SHOWN = 24  # runs; a larger grid is a file's matter
_WIDTH = 24


def print_simulation(runs: Simulation, console: Console) -> None:
    """A row per run: what varies over the grid, the last distances, and a sketch of D_W over log step."""
    target = runs.target
    console.print(escape(f"Simulated: {runs.method} on {runs.loss}, {len(runs):,} runs of {runs.steps[-1]:,} "
                         f"gradients, {runs.profiles[0].k:,} classes; distances to {target}"), style="bold",
                  highlight=False)
    varying = [name for name in runs.cells[0] if name != "profile" and len({cell[name] for cell in runs.cells}) > 1]
    headings, rows = ["run", *varying, *_PARTS, "margin", "D_W along log step"], []
    for c, cell in enumerate(runs.cells[:_SHOWN]):
        row = [str(c), *(f"{cell[name]:.3g}" for name in varying)]
        if c in runs.diverged:
            rows.append([*row, "diverged", "", "", "", f"found after step {runs.diverged[c]:,}"])
            continue
        row += [number(runs[f"{target}/{part}"][c, -1]) for part in _PARTS.values()]
        rows.append([*row, number(runs["margin"][c, -1]), sketch(console, runs[f"{target}/classifiers"][c], _WIDTH)])
    print_table(console, headings, rows, left=0)
    if len(runs) > _SHOWN:
        console.print(f"  ({len(runs) - _SHOWN:,} more runs: --json or --out has them)", highlight=False)
    ridges, sizes = (", ".join(f"{value:.3g}" for value in sorted({cell[name] for cell in runs.cells}))
                     for name in ("ridge", "step"))
    console.print(f"\nRidge λ {ridges} with the loss summed over samples; step {sizes}. The margin is the smallest "
                  "over ‖W‖‖H‖.", style="dim", highlight=False)
