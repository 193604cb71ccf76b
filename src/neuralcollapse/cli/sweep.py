"""`neuralcollapse sweep` and `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuralcollapse.checks import InvalidInput
from neuralcollapse.cli.app import JSON, app, print_json
from neuralcollapse.files import make_folder


@app.command(epilog="Examples:  neuralcollapse sweep grid.yaml --out runs/grid   ·   neuralcollapse sweep grid.yaml "
                    "--jobs 4   ·   neuralcollapse sweep grid.yaml --scheduler tcp://10.0.0.1:8786   ·   "
                    "neuralcollapse compare runs/grid")
def sweep(
    file: Annotated[Path, typer.Argument(
        help="A YAML file: `base` settings that all runs share (or a `preset`), a `grid` from settings to lists, "
             "optionally `cells` (a list of settings that vary together) and `seeds` (how many, or a list). "
             "Inner settings are called as in loss_options.gamma.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the runs  (default: runs/ and the file's name)")] = None,
    jobs: Annotated[int | None, typer.Option(
        help="Processes on this machine, among which its cores are divided  (default: one per core, fewer where the "
             "settings give threads)")] = None,
    scheduler: Annotated[str | None, typer.Option(
        metavar="ADDRESS", help="Train on the workers of the Dask scheduler at this address instead. They must see "
                                "the folder of the sweep under the same path; start them with --nthreads 1 and as "
                                "many --nworkers as fit: each trains one run at a time.")] = None,
    as_json: JSON = False,
) -> None:
    """Train every cell of a grid, several at once; run it again to train what is missing.

    Finished cells are kept, unfinished ones go on, failed ones are tried again. The exit code is 1 when cells failed.
    """
    from neuralcollapse.experiments.sweeps import sweep as train_all
    from neuralcollapse.experiments.sweeps.progress import SweepProgress, summary

    folder = out or Path("runs") / file.stem
    try:
        with SweepProgress() as progress:
            result = train_all(file, folder, jobs=jobs, scheduler=scheduler, progress=progress)
    except KeyboardInterrupt:
        where = "" if scheduler is None else f" --scheduler {scheduler}"
        typer.echo(f"Stopped. Continue with:  neuralcollapse sweep {file} --out {folder}{where}", err=True)
        raise typer.Exit(130) from None
    if as_json:
        print_json(result.to_dict())
    else:
        typer.echo(summary(result.cells))
        typer.echo(f"Hold them side by side with:  neuralcollapse compare {folder}")
    if result.failed:
        typer.echo(f"neuralcollapse: {len(result.failed)} of {len(result.cells)} cells failed: see "
                   f"{folder / 'failed'}; the same command tries them again", err=True)
        raise typer.Exit(1)


@app.command(epilog="Examples:  neuralcollapse compare runs/grid   ·   neuralcollapse compare runs/first runs/second "
                    "--out compared")
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of them such as a sweep's; runs may "
                                                    "still be training.")],
    out: Annotated[Path, typer.Option(help="Folder for runs.parquet and report.html")] = Path("compare"),
    as_json: JSON = False,
) -> None:
    """Collect runs into one Parquet table (a row per run) and one self-contained report.

    A folder that cannot be read is named, and the others are compared.
    """
    from neuralcollapse.experiments.comparison import read_runs, runs_table, write_table
    from neuralcollapse.show.comparison import write_comparison

    found = read_runs(runs)
    if not found.runs:
        raise InvalidInput(f"compare needs at least one run: {'; '.join(found.problems)}")
    for problem in found.problems:
        typer.echo(f"neuralcollapse: left out: {problem}", err=True)
    if (out / "report.html").exists() and not (out / "runs.parquet").exists():
        raise InvalidInput(f"'{out}' holds a report.html of something else: give another --out")
    make_folder(out)
    table = write_table(runs_table(found), out / "runs.parquet")
    page = write_comparison(found, out / "report.html")
    if as_json:
        print_json({"runs": len(found.runs), "problems": found.problems, "differing": found.differing,
                    "table": str(table), "report": str(page)})
    else:
        typer.echo("1 run" if len(found.runs) == 1 else
                   f"{len(found.runs)} runs, which differ in {', '.join(found.differing) or 'nothing'}")
        typer.echo(f"Table:  {table}\nReport: {page}")
