"""`neuralcollapse study`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from neuralcollapse.checks import parse_numbers
from neuralcollapse.cli.app import JSON, app, print_json


@app.command(epilog="Examples:  neuralcollapse study rates --out studies/rates --quick   ·   "
                    "neuralcollapse study rates --out studies/rates --ratios 1,30,300 --seeds 10 --seed 100   ·   "
                    "neuralcollapse study steering --out studies/steering --jobs 2")
def study(
    name: Annotated[str, typer.Argument(help="Which study, such as geometry-vs-ratio; `list` names them")],
    out: Annotated[Path, typer.Option(help="A folder for data, figures and table.md")],
    quick: Annotated[bool, typer.Option("--quick", help="A small setting, to see that it works: a minute or two.")
                     ] = False,
    ratios: Annotated[str | None, typer.Option(help="Imbalance ratios: 1,10,100  (default: the study's own)")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many starts  (default: the study's own)")] = None,
    seed: Annotated[int, typer.Option(help="The first of them")] = 0,
    steps: Annotated[int | None, typer.Option(help="Gradients per run  (default: the study's own)")] = None,
    jobs: Annotated[int, typer.Option(help="Processes, for a study that trains networks")] = 1,
    as_json: JSON = False,
) -> None:
    """Run a study: a grid of simulations that answers a question, as data, figures and a table."""
    from neuralcollapse.experiments.studies import run_study

    levels = None if ratios is None else parse_numbers("ratios", ratios)
    table = run_study(name, out, quick=quick, seeds=seeds, seed=seed, ratios=levels, steps=steps, jobs=jobs,
                      progress=lambda line: typer.echo(line, err=True))
    if as_json:
        print_json(json.loads((out / "study.json").read_text(encoding="utf-8")) | {"table": str(table)})
    else:
        typer.echo(table.read_text(encoding="utf-8"))
        typer.echo(f"Written to {out}")
