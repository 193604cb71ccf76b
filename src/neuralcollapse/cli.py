"""The command line: one command per verb, no logic."""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
import sys
from typing import Annotated, Any

from rich.console import Console
import typer

from neuralcollapse.checks import InvalidInput, parse_fields, parse_numbers
from neuralcollapse.counts import ClassCounts
from neuralcollapse.label_files import counts_from_file

app = typer.Typer(
    help="Predict, measure and steer the geometry that deep classifiers collapse to, balanced or not.",
    no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with:  neuralcollapse predict --counts 10,10,1,1   ·   neuralcollapse train --out runs/first")

# Newer typer carries its own click: take the base of usage errors from whichever it uses.
_UsageProblem: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

_JSON = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]


def _print_version(asked: bool) -> None:
    if asked:
        from neuralcollapse import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.",
                                                callback=_print_version, is_eager=True)] = False) -> None:
    pass


@app.command(epilog="Examples:  neuralcollapse predict --step k=10,ratio=100,n_min=5   ·   "
                    "neuralcollapse predict --counts 500,50,5 --delta 3,2,1 --temperature label --json")
def predict(
    counts: Annotated[str | None, typer.Option(help="Samples per class: 10,10,1,1", rich_help_panel="Class counts "
                                               "(give one)")] = None,
    step: Annotated[str | None, typer.Option(
        help="(R, ρ)-STEP imbalance: k=10,ratio=10,minority=0.5,n_min=50 (or n_max=…)",
        rich_help_panel="Class counts (give one)")] = None,
    long_tail: Annotated[str | None, typer.Option(
        help="Exponential long tail: k=100,ratio=100,n_max=500", rich_help_panel="Class counts (give one)")] = None,
    labels: Annotated[Path | None, typer.Option(
        help="A file of labels to count: .npy, .npz, or text with one a line",
        rich_help_panel="Class counts (give one)")] = None,
    loss: Annotated[str, typer.Option(help="ce (also seli), weighted, la, ldt, cdt, vs, etf")] = "ce",
    weight: Annotated[str | None, typer.Option(help="Class weights ω, one number per class")] = None,
    delta: Annotated[str | None, typer.Option(help="Temperatures δ, one number per class")] = None,
    temperature: Annotated[str | None, typer.Option(
        help="What --delta multiplies: 'class' (Δ_c z_c, CDT/VS; the default) or 'label' (δ_y z, LDT)")] = None,
    iota: Annotated[str | None, typer.Option(help="Additive offsets ι, one number per class")] = None,
    full: Annotated[bool, typer.Option("--full", help="Write k × k tables above 200 classes too.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the geometry into this file (.png, .pdf, .svg).")] = None,
    as_json: _JSON = False,
) -> None:
    """Predict the geometry from class counts and a loss, in the limit of vanishing ridge."""
    from neuralcollapse.predict import predict as predict_geometry

    numbers = {name: None if text is None else parse_numbers(name, text)
               for name, text in {"weight": weight, "delta": delta, "iota": iota}.items()}
    profile = _one_profile(counts, step, long_tail, labels)
    geometry = predict_geometry(profile, loss, temperature=temperature, **numbers)
    if plot is not None:
        from neuralcollapse.show.figures import save_prediction

        save_prediction(geometry, plot)
    if as_json:
        _print_json(geometry.to_dict(full))
    else:
        from neuralcollapse.show.terminal import print_geometry

        print_geometry(geometry, Console())
        if plot is not None:
            typer.echo(f"\nDrawn into {plot}")


@app.command(epilog="FILE holds features (n, d), labels (n,), weight (k, d) as in torch's Linear.weight, and "
                    "optionally bias (k,).  Example:  neuralcollapse measure epoch-100.npz --target seli --json")
def measure(
    file: Annotated[Path, typer.Argument(help="A .npz or .safetensors snapshot of features, labels and head.")],
    target: Annotated[str, typer.Option(help="The geometry to hold it against: seli, etf.")] = "seli",
    center: Annotated[str, typer.Option(
        help="What class means are centred on: classes (their mean), samples (the mean of all), none.")] = "classes",
    as_json: _JSON = False,
) -> None:
    """Measure the collapse of saved features and head: NC1–NC4, norms, angles, margins, distance to a prediction."""
    from neuralcollapse.measure import Snapshot

    measurement = Snapshot.load(file).measure(targets=(target,), center=center)
    if as_json:
        values = measurement.to_dict()
        del values["distances"]  # the one target stands under "distance"
        _print_json(values)
    else:
        from neuralcollapse.show.terminal import print_measurement

        print_measurement(measurement, Console())


@app.command()
def cite(names: Annotated[list[str], typer.Argument(
        help="Losses, metrics, data sets, models or BibTeX keys, such as: seli nc1 ldt")]) -> None:
    """Print the BibTeX entries behind what you used."""
    from neuralcollapse.citations import citations

    typer.echo("\n\n".join(citations(names)))


def _one_profile(counts: str | None, step: str | None, long_tail: str | None, labels: Path | None) -> ClassCounts:
    """The class counts from whichever one of the four options was given."""
    given = {"--counts": counts, "--step": step, "--long-tail": long_tail, "--labels": labels}
    chosen = [name for name, value in given.items() if value is not None]
    if len(chosen) != 1:
        raise InvalidInput(f"give exactly one of {', '.join(given)}, got {', '.join(chosen) or 'none'}")
    if counts is not None:
        return ClassCounts.from_counts(counts)
    if step is not None:
        return _from_profile(ClassCounts.step, step, {"k": "classes"}, "ratio", "minority", "n_min", "n_max")
    if long_tail is not None:
        return _from_profile(ClassCounts.long_tail, long_tail, {"k": "classes"}, "ratio", "n_max")
    assert labels is not None
    return counts_from_file(labels)


def _from_profile(make: Callable[..., ClassCounts], text: str, renamed: dict[str, str], *names: str) -> ClassCounts:
    fields = parse_fields(text, (*renamed, *names))
    arguments: dict[str, Any] = {renamed.get(name, name): value for name, value in fields.items()}
    for short, name in (*renamed.items(), ("ratio", "ratio")):
        if name not in arguments:
            raise InvalidInput(f"{make.__name__.replace('_', '-')} needs {short}=…, got {text!r}")
    if "n_max" in names and len(names) == 2 and "n_max" not in arguments:
        raise InvalidInput(f"long-tail needs n_max=…, got {text!r}")
    return make(**arguments)


def _print_json(document: dict[str, Any]) -> None:
    typer.echo(json.dumps(document, allow_nan=False))


def main() -> None:
    """Run the command line; bad input ends with one line on stderr and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except InvalidInput as error:
        code = _complain(str(error))
    except _UsageProblem as error:
        code = _complain(_usage(error))
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except OSError as error:
        code = _complain(f"{error.strerror or error}: '{error.filename}'" if error.filename else str(error))
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: Any) -> str:
    message = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    return message if context is None else f"{message} (see {context.command_path} --help)"


def _complain(message: str) -> int:
    print(f"neuralcollapse: {message}", file=sys.stderr)
    return 2
