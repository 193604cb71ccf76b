"""The command line: one command per verb, no logic."""

from __future__ import annotations

from dataclasses import asdict
from io import TextIOWrapper
import json
from pathlib import Path
import sys
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
import typer

from neuralcollapse.checks import InvalidInput, parse_numbers
from neuralcollapse.count_options import one_profile, training_counts
from neuralcollapse.predict import GEOMETRIES

if TYPE_CHECKING:
    from neuralcollapse.measure import Measurement

app = typer.Typer(
    help="Predict, measure and steer the geometry that deep classifiers collapse to, balanced or not.",
    rich_markup_mode="rich", pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with:  neuralcollapse predict --counts 10,10,1,1   ·   neuralcollapse train --out runs/first")

# Newer typer carries its own click: take the base of usage errors from whichever it uses.
_UsageProblem: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

_COUNTS, _RIDGE = "Class counts (give one)", "Weight decay"
_DATA, _MODEL = "Data", "Model and training"
_PLACES, _WORK = "Where things are", "How much work"
_JSON = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]


def _print_version(asked: bool) -> bool:
    if asked:
        from neuralcollapse import __version__

        typer.echo(__version__)
        raise typer.Exit
    return asked


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.",
                                                callback=_print_version, is_eager=True)] = False) -> None:
    pass


@app.command(epilog="Examples:  neuralcollapse predict --step k=10,ratio=100,n_min=5   ·   "
                    "neuralcollapse predict --counts 500,500,5,5 --weight-decay 5e-4   ·   "
                    "neuralcollapse predict --counts 500,50,5 --delta 3,2,1 --temperature label --json")
def predict(
    counts: Annotated[str | None, typer.Option(help="Samples per class: 10,10,1,1", rich_help_panel=_COUNTS)] = None,
    step: Annotated[str | None, typer.Option(
        help="(R, ρ)-STEP imbalance: k=10,ratio=10,minority=0.5,n_min=50 (or n_max=…)",
        rich_help_panel=_COUNTS)] = None,
    long_tail: Annotated[str | None, typer.Option(
        help="Exponential long tail: k=100,ratio=100,n_max=500", rich_help_panel=_COUNTS)] = None,
    labels: Annotated[Path | None, typer.Option(
        help="A file of labels to count: .npy, .npz, or text with one a line",
        rich_help_panel=_COUNTS)] = None,
    loss: Annotated[str, typer.Option(help=", ".join(GEOMETRIES.names))] = "ce",
    weight: Annotated[str | None, typer.Option(help="Class weights ω, one number per class")] = None,
    delta: Annotated[str | None, typer.Option(help="Temperatures δ, one number per class")] = None,
    temperature: Annotated[str | None, typer.Option(
        help="What --delta multiplies: 'class' (Δ_c z_c, CDT/VS; the default) or 'label' (δ_y z, LDT)")] = None,
    iota: Annotated[str | None, typer.Option(help="Additive offsets ι, one number per class")] = None,
    ridge: Annotated[float | None, typer.Option(
        help="λ = √(λ_W λ_H), the loss summed over samples  (default: λ → 0)", rich_help_panel=_RIDGE)] = None,
    weight_decay: Annotated[float | None, typer.Option(
        help="Instead of --ridge: w in (w/2)‖W‖² beside a mean loss", rich_help_panel=_RIDGE)] = None,
    feature_penalty: Annotated[float | None, typer.Option(
        help="p in (p/2) Σ_i ‖h_i‖² beside a mean loss  (default: w)", rich_help_panel=_RIDGE)] = None,
    n: Annotated[float | None, typer.Option(
        "--n", help="Training samples of the mean loss  (default: the sum of the counts)",
        rich_help_panel=_RIDGE)] = None,
    bias: Annotated[bool, typer.Option("--bias", help="The head has a bias (with a ridge only).",
                                       rich_help_panel=_RIDGE)] = False,
    bias_ridge: Annotated[float | None, typer.Option(
        help="λ_b in λ_b/2‖b‖², the loss summed  (default: a free bias)", rich_help_panel=_RIDGE)] = None,
    path: Annotated[bool, typer.Option(
        "--path", help="Follow the geometry along λ (with --plot: norms, cosines, distances and thresholds).",
        rich_help_panel=_RIDGE)] = False,
    full: Annotated[bool, typer.Option("--full", help="Write k × k tables above 200 classes too.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the geometry into this file (.png, .pdf, .svg).")] = None,
    as_json: _JSON = False,
) -> None:
    """Predict the geometry from class counts and a loss: at a weight decay, or in its vanishing limit."""
    from neuralcollapse.predict.decay import ridge_from_options, safety_of
    from neuralcollapse.predict.geometry import predict as predict_geometry
    from neuralcollapse.predict.path import ridge_path
    from neuralcollapse.show.figures import save_path, save_prediction
    from neuralcollapse.show.terminal import print_geometry, print_path, print_safety

    parameters: dict[str, Any] = {name: None if text is None else parse_numbers(name, text)
                                  for name, text in {"weight": weight, "delta": delta, "iota": iota}.items()}
    profile = one_profile(counts, step, long_tail, labels)
    ridge = ridge_from_options(ridge, weight_decay, feature_penalty, n, profile)
    parameters.update(temperature=temperature, bias=bias, bias_ridge=bias_ridge)
    if path:
        along = ridge_path(profile, loss=loss, **parameters)
        if plot is not None:
            save_path(along, plot, ridge)
        if as_json:
            _print_json(along.to_dict())
        else:
            print_path(along, Console())
    else:
        geometry = predict_geometry(profile, loss, ridge=ridge, **parameters)
        if plot is not None:
            save_prediction(geometry, plot)
        safety = None if weight_decay is None else safety_of(geometry, feature_penalty, n)
        if as_json:
            _print_json(geometry.to_dict(full) | ({} if safety is None else {"safety": asdict(safety)}))
        else:
            print_geometry(geometry, Console())
            if safety is not None:
                print_safety(safety, Console())
    if plot is not None and not as_json:
        typer.echo(f"\nDrawn into {plot}")


@app.command(epilog="FILE: .npz or .safetensors with features (n, d), labels (n,) and, for a head, weight (k, d) as "
                    "in torch's Linear.weight and bias (k,); .parquet with a column of lists; or .npy features. It is "
                    "read in blocks.  Examples:  neuralcollapse measure epoch-100.npz --target seli --json   ·   "
                    "neuralcollapse measure epoch-1.npz epoch-2.npz epoch-3.npz   ·   "
                    "neuralcollapse measure test.parquet --head model.safetensors:lm_head --counts 500,500,5,5")
def measure(
    files: Annotated[list[Path], typer.Argument(
        metavar="FILE", help="Features, labels and head; several files are epochs, in the order given.")],
    target: Annotated[str, typer.Option(
        help="What to hold it against: seli, etf, ridge:λ, mse, relu-ce, scl.")] = "seli",
    counts: Annotated[str | None, typer.Option(
        help="Training counts that the target follows: 10,10,1,1 or a file of labels  (default: the labels' own)")
    ] = None,
    center: Annotated[str, typer.Option(
        help="What class means are centred on: classes (their mean), samples (the mean of all), none.")] = "classes",
    head: Annotated[str | None, typer.Option(
        help="A file with the head: head.npz, weight.npy or model.safetensors:lm_head",
        rich_help_panel=_PLACES)] = None,
    labels: Annotated[Path | None, typer.Option(help="A file with the labels", rich_help_panel=_PLACES)] = None,
    column: Annotated[str | None, typer.Option(
        help="What features are called  (default: features, embedding or embeddings)", rich_help_panel=_PLACES)] = None,
    label_column: Annotated[str | None, typer.Option(
        help="What labels are called  (default: labels or label)", rich_help_panel=_PLACES)] = None,
    nc4: Annotated[str, typer.Option(
        help="Class means for NC4: second-pass (the file's own), previous (of the file before, in one pass) or none.",
        rich_help_panel=_WORK)] = "second-pass",
    trace_only: Annotated[bool, typer.Option(
        "--trace-only", help="Leave out NC1's pseudo-inverse form, and with it all d × d products.",
        rich_help_panel=_WORK)] = False,
    as_json: _JSON = False,
) -> None:
    """Measure the collapse of saved features and head: NC1–NC4, norms, angles, margins, distance to a prediction."""
    from neuralcollapse.measure import measure_files
    from neuralcollapse.show.reading_files import FileProgress
    from neuralcollapse.show.terminal import print_measurement, print_measurements

    with FileProgress() as progress:
        measured = measure_files(files, head=head, labels=labels, column=column, label_column=label_column,
                                 counts=training_counts(counts), targets=(target,), center=center, nc4=nc4,
                                 scatter=not trace_only, on_rows=progress)
    names = [str(file) for file in files]
    if as_json:
        epochs = [{"file": name, **_contract(each)} for name, each in zip(names, measured, strict=True)]
        _print_json({"epochs": epochs} if len(files) > 1 else _contract(measured[0]))
    elif len(files) > 1:
        print_measurements(names, measured, Console())
    else:
        print_measurement(measured[0], Console())


@app.command(epilog="Examples:  neuralcollapse train --preset demo --out runs/demo   ·   neuralcollapse train "
                    "--dataset mnist5k --model cnn --imbalance long-tail --ratio 100 --epochs 40   ·   "
                    "neuralcollapse train --resume runs/demo")
def train(
    config: Annotated[Path | None, typer.Option(help="A YAML file of settings; flags win over it.")] = None,
    preset: Annotated[str | None, typer.Option(help="A named configuration to start from: demo.")] = None,
    dataset: Annotated[str | None, typer.Option(help="digits, mnist5k, npz:PATH; see `list`  (default: digits)",
                                                rich_help_panel=_DATA)] = None,
    imbalance: Annotated[str | None, typer.Option(help="step, long-tail, none (equal counts) or natural (as they are)"
                                                  "  (default: step)", rich_help_panel=_DATA)] = None,
    ratio: Annotated[float | None, typer.Option(help="Imbalance ratio R = n_max/n_min  (default: 10)",
                                                rich_help_panel=_DATA)] = None,
    minority: Annotated[float | None, typer.Option(help="Share ρ of minority classes (step)  (default: 0.5)",
                                                   rich_help_panel=_DATA)] = None,
    n_max: Annotated[int | None, typer.Option(
        help="Training samples of the largest class  (default: the most there is)", rich_help_panel=_DATA)] = None,
    model: Annotated[str | None, typer.Option(help="mlp, cnn, resnet18, vgg13 (see `list`) or module:factory",
                                              rich_help_panel=_MODEL)] = None,
    loss: Annotated[str | None, typer.Option(help="Training loss  (default: ce)", rich_help_panel=_MODEL)] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training part  (default: 200)",
                                               rich_help_panel=_MODEL)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples per step  (default: 128)",
                                                   rich_help_panel=_MODEL)] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd, adam or adamw  (default: sgd)",
                                                  rich_help_panel=_MODEL)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Step size before the schedule  (default: 0.01)",
                                                        rich_help_panel=_MODEL)] = None,
    weight_decay: Annotated[float | None, typer.Option(
        help="w in (w/2)‖θ‖² beside the mean loss, for all but the head  (default: 5e-4)",
        rich_help_panel=_MODEL)] = None,
    head_weight_decay: Annotated[float | None, typer.Option(
        help="The same for the head; λ_W = n·w  (default: that of --weight-decay)", rich_help_panel=_MODEL)] = None,
    feature_penalty: Annotated[float | None, typer.Option(
        help="p in (p/2) Σ_i ‖h_i‖² beside the mean loss; λ_H = n·p  (default: 0)", rich_help_panel=_MODEL)] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes split, samples, weights and batches  (default: 0)",
                                             rich_help_panel=_MODEL)] = None,
    measure: Annotated[str | None, typer.Option(help="Measured epochs: log or 'every N'  (default: log)",
                                                rich_help_panel=_MODEL)] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads", rich_help_panel=_MODEL)] = None,
    settings: Annotated[list[str] | None, typer.Option(
        "--set", metavar="KEY=VALUE", help="Any other setting of config.yaml, such as model_options.width=256")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder  (default: runs/ and a name made of the settings)")
                   ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.")] = None,
    as_json: _JSON = False,
) -> None:
    """Train a network on imbalanced data, measure its geometry on the way, and write a report."""
    from neuralcollapse.experiments.config import resolve_config, run_name
    from neuralcollapse.experiments.progress import TrainProgress
    from neuralcollapse.experiments.train import train as train_network
    from neuralcollapse.show import verdict, write_report

    if resume is not None and out is not None:
        raise InvalidInput("give an --out for a new run or a --resume to continue one, not both")
    flags = {name: value for name, value in {
        "dataset": dataset, "imbalance": imbalance, "ratio": ratio, "minority": minority, "n_max": n_max,
        "model": model, "loss": loss, "epochs": epochs, "batch_size": batch_size, "optimizer": optimizer,
        "learning_rate": learning_rate, "weight_decay": weight_decay, "head_weight_decay": head_weight_decay,
        "feature_penalty": feature_penalty, "seed": seed, "measure": measure, "threads": threads,
    }.items() if value is not None}
    chosen = resolve_config(config, preset, flags, settings or [], resume)
    folder = resume or out or Path("runs") / run_name(chosen)
    try:
        with TrainProgress() as progress:
            run = train_network(chosen, folder, resume=resume is not None, on_epoch=progress)
    except KeyboardInterrupt:
        typer.echo(f"Stopped. Continue with:  neuralcollapse train --resume {folder}", err=True)
        raise typer.Exit(130) from None
    page = write_report(run)
    if as_json:
        _print_json({"run": str(folder), "report": str(page), "last": run.history[-1]})
    else:
        for sentence in verdict(run):
            typer.echo(f"• {sentence.text}")
        typer.echo(f"\nReport: {page}")


@app.command(epilog="Example:  neuralcollapse report runs/demo")
def report(
    run: Annotated[Path, typer.Argument(help="A run folder; it may still be training.")],
    out: Annotated[Path | None, typer.Option(help="Where to write  (default: report.html in the run folder)")] = None,
) -> None:
    """Write a run's report: one self-contained HTML page that holds it against theory."""
    from neuralcollapse.show import write_report

    typer.echo(f"Report: {write_report(run, out)}")


@app.command("list", epilog="Example:  neuralcollapse list")
def list_registered() -> None:
    """List every loss, metric, data set, model and preset by name, as a Markdown table."""
    from neuralcollapse.citations import markdown_table

    typer.echo(markdown_table())


@app.command(epilog="Example:  neuralcollapse cite seli nc1 demo")
def cite(names: Annotated[list[str], typer.Argument(
        help="Losses, metrics, data sets, models or BibTeX keys, such as: seli nc1 ldt")]) -> None:
    """Print the BibTeX entries behind what you used."""
    from neuralcollapse.citations import citations

    typer.echo("\n\n".join(citations(names)))


def _contract(measurement: Measurement) -> dict[str, Any]:
    values = measurement.to_dict()
    del values["distances"]  # the one target stands under "distance"
    estimate = measurement.lambda_eff()
    if estimate is not None:
        values["lambda_eff"], values["lambda_eff_interval"] = estimate.ridge, list(estimate.interval)
    return values


def _print_json(document: dict[str, Any]) -> None:
    typer.echo(json.dumps(document, allow_nan=False))


def main() -> None:
    """Run the command line; bad input ends with one line on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # ‖μ‖ on a terminal that cannot show it
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="neuralcollapse", standalone_mode=False)
    except InvalidInput as error:
        code = _complain(str(error))
    except _UsageProblem as error:
        code = _complain(_usage(error))
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except MemoryError as error:
        code = _complain(f"not enough memory: {error}", 1)
    except OSError as error:
        code = _complain(f"{error.strerror or error}: '{error.filename}'" if error.filename else str(error))
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: Any) -> str:
    message = " ".join(error.format_message().split()).rstrip(".")
    details = getattr(error.__cause__, "errors", None)  # newer typer leaves out what was given
    if details is not None:
        message = f"{message.split(', unable')[0]}, got {details()[0]['input']!r}"
    context = getattr(error, "ctx", None)
    return message if context is None else f"{message} (see {context.command_path} --help)"


def _complain(message: str, code: int = 2) -> int:
    print(f"neuralcollapse: {message}", file=sys.stderr)
    return code
