"""`neuralcollapse simulate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import time
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
import typer

from neuralcollapse.checks import InvalidInput, counted, parse_numbers
from neuralcollapse.cli.app import JSON, app, in_words_of_options, print_json
from neuralcollapse.cli.options import Counts, Labels, LongTail, Step, one_profile

if TYPE_CHECKING:  # it loads torch
    from neuralcollapse.simulate import Progress

MODEL, METHOD = "Model", "Method"
_WORDS = {"step must": "--step-size must", "raise memory, or ask": "ask", "symmetric=True": "--symmetric",
          "round them with .rounded()": "give whole ones"}
_SECONDS_BETWEEN_LINES = 1.0


@app.command(epilog="Examples:  neuralcollapse simulate --step k=10,ratio=100,n_min=1 --method multipliers --symmetric "
                    "--steps 2000   ·   neuralcollapse simulate --counts 10,10,1,1 --method nesterov --ridge 0.1,1 "
                    "--seeds 3 --out runs.npz")
@in_words_of_options(_WORDS)
def simulate(
    counts: Counts = None, step: Step = None, long_tail: LongTail = None, labels: Labels = None,
    method: Annotated[str, typer.Option(
        help="gd, sgd, heavy-ball, nesterov, adam, ngd, ngd-loss, sign, spectral, muon, continuation, multipliers",
        rich_help_panel=METHOD)] = "gd",
    step_size: Annotated[str | None, typer.Option(
        help="η for the summed loss; a list makes a grid  (default: the method's own)", rich_help_panel=METHOD)] = None,
    schedule: Annotated[str, typer.Option(help="constant, sqrt (η/√t), or the exponent of t",
                                          rich_help_panel=METHOD)] = "constant",
    momentum: Annotated[str | None, typer.Option(help="In [0, 1); a list makes a grid  (default: the method's own)",
                                                 rich_help_panel=METHOD)] = None,
    steps: Annotated[int, typer.Option(help="Gradients per run", rich_help_panel=METHOD)] = 1000,
    loss: Annotated[str, typer.Option(help="ce, weighted, la, ldt, cdt, vs, mse, relu-ce",
                                      rich_help_panel=MODEL)] = "ce",
    weight: Annotated[str | None, typer.Option(help="Class weights ω", rich_help_panel=MODEL)] = None,
    delta: Annotated[str | None, typer.Option(help="Temperatures δ", rich_help_panel=MODEL)] = None,
    temperature: Annotated[str | None, typer.Option(help="What --delta multiplies: class or label",
                                                    rich_help_panel=MODEL)] = None,
    iota: Annotated[str | None, typer.Option(help="Additive offsets ι", rich_help_panel=MODEL)] = None,
    ridge: Annotated[str | None, typer.Option(
        help="λ = √(λ_W λ_H), the loss summed over samples; a list makes a grid  (default: 0; multipliers: 0.3·√n_min)",
        rich_help_panel=MODEL)] = None,
    d: Annotated[int | None, typer.Option("--d", help="Feature dimension  (default: 2k)",
                                          rich_help_panel=MODEL)] = None,
    scale: Annotated[str | None, typer.Option(help="Size of the start  (default: 1)", rich_help_panel=MODEL)] = None,
    symmetric: Annotated[bool, typer.Option(
        "--symmetric", help="Start all samples of a class equal: k × k, whatever n is.",
        rich_help_panel=MODEL)] = False,
    relu: Annotated[bool, typer.Option("--relu", help="Keep features non-negative.", rich_help_panel=MODEL)] = False,
    bias: Annotated[bool, typer.Option("--bias", help="A free head bias.", rich_help_panel=MODEL)] = False,
    seeds: Annotated[int, typer.Option(help="Runs from different starts")] = 1,
    out: Annotated[Path | None, typer.Option(help="A new folder for checkpoints and simulation.npz, or an .npz file.")
                   ] = None,
    resume: Annotated[Path | None, typer.Option(
        help="The folder of an interrupted simulation, continued; give the same options.")] = None,
    as_json: JSON = False,
) -> None:
    """Train the unconstrained-features model by a first-order method, and measure how it nears its geometry."""
    from neuralcollapse.show.simulation import print_simulation
    from neuralcollapse.simulate import simulate as run_simulation

    if out is not None and resume is not None:
        raise InvalidInput("give an --out for a new simulation or a --resume to continue one, not both")
    grid = {"step": step_size, "momentum": momentum, "ridge": ridge, "scale": scale}
    vectors = {"weight": weight, "delta": delta, "iota": iota}
    options: dict[str, Any] = {name: parse_numbers(name, text) for name, text in {**grid, **vectors}.items()
                               if text is not None}
    if temperature is not None:
        options["temperature"] = temperature
    file = out if out is not None and out.suffix == ".npz" else None
    if file is not None and not file.parent.is_dir():
        raise InvalidInput(f"cannot write '{file}': there is no folder '{file.parent}'")
    if file is not None and file.exists():
        raise InvalidInput(f"'{file}' exists already: give another name, or remove it")
    folder = resume or (None if file is not None else out)
    try:
        runs = run_simulation(one_profile(counts, step, long_tail, labels), method, loss=loss, steps=steps, d=d,
                              schedule=_schedule(schedule), seeds=seeds, symmetric=symmetric, relu=relu, bias=bias,
                              folder=folder, resume=resume is not None, progress=_reporter(), **options)
    except KeyboardInterrupt:
        if folder is not None:
            typer.echo(f"Stopped. Continue with the same options and --resume {folder} in place of --out", err=True)
        raise typer.Exit(130) from None
    if file is not None:
        runs.save(file)
    if as_json:
        print_json({"method": runs.method, "loss": runs.loss, "rows": runs.to_rows()})
        return
    print_simulation(runs, Console())
    if out is not None:
        typer.echo(f"\nWritten to {file or out / 'simulation.npz'}")


def _schedule(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _reporter() -> Callable[[Progress], None]:
    """About a line a second on stderr; nothing for what takes less."""
    told = [time.monotonic()]
    named: set[str] = set()

    def report(at: Progress) -> None:
        now = time.monotonic()
        for name in at.diverged.keys() - named:
            named.add(name)
            typer.echo(f"{name} diverged: stopped (found after step {at.diverged[name]:,})", err=True)
        if now - told[0] >= _SECONDS_BETWEEN_LINES:
            told[0] = now
            typer.echo(f"step {at.step:,} of {at.steps:,}, {counted(at.running, 'run')}", err=True)
    return report
