"""`neuralcollapse measure`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
import typer

from neuralcollapse.cli.app import JSON, app, print_json
from neuralcollapse.cli.options import training_counts

if TYPE_CHECKING:
    from neuralcollapse.measure import Measurement

PLACES, WORK = "Where things are", "How much work"


@app.command(epilog="FILE: .npz or .safetensors with features (n, d), labels (n,) and, for a head, weight (k, d) as "
                    "in torch's Linear.weight and bias (k,); .parquet with a column of lists; or .npy features. It is "
                    "read in blocks.  Examples:  neuralcollapse measure epoch-100.npz --target seli --json   ·   "
                    "neuralcollapse measure epoch-1.npz epoch-2.npz epoch-3.npz   ·   "
                    "neuralcollapse measure test.parquet --head model.safetensors:lm_head --counts 500,500,5,5")
def measure(
    files: Annotated[list[Path], typer.Argument(
        metavar="FILE", help="Features, labels and head; several files are epochs, in the order given.")],
    target: Annotated[list[str] | None, typer.Option(
        help="What to hold it against: seli (the default), etf, ridge:λ, mse, relu-ce, scl; repeat it for several.")
    ] = None,
    counts: Annotated[str | None, typer.Option(
        help="Training counts that the target follows: 10,10,1,1 or a file of labels  (default: the labels' own)")
    ] = None,
    center: Annotated[str, typer.Option(
        help="What class means are centred on: classes (their mean), samples (the mean of all), none.")] = "classes",
    head: Annotated[str | None, typer.Option(
        help="A file with the head: head.npz, weight.npy or model.safetensors:lm_head",
        rich_help_panel=PLACES)] = None,
    labels: Annotated[Path | None, typer.Option(
        help="A file with the labels, an array: .npy, .npz, .safetensors, .parquet", rich_help_panel=PLACES)] = None,
    column: Annotated[str | None, typer.Option(
        help="What features are called  (default: features, embedding or embeddings)", rich_help_panel=PLACES)] = None,
    label_column: Annotated[str | None, typer.Option(
        help="What labels are called  (default: labels or label)", rich_help_panel=PLACES)] = None,
    nc4: Annotated[str, typer.Option(
        help="Class means for NC4: second-pass (the file's own), previous (of the file before, in one pass) or none.",
        rich_help_panel=WORK)] = "second-pass",
    trace_only: Annotated[bool, typer.Option(
        "--trace-only", help="Leave out NC1's pseudo-inverse form, and with it all d × d products.",
        rich_help_panel=WORK)] = False,
    as_json: JSON = False,
) -> None:
    """Measure the collapse of saved features and head: NC1–NC4, norms, angles, margins, distance to a prediction."""
    from neuralcollapse.measure import measure_files
    from neuralcollapse.show.reading_files import FileProgress
    from neuralcollapse.show.terminal import print_measurement, print_measurements

    with FileProgress() as progress:
        measured = measure_files(files, head=head, labels=labels, column=column, label_column=label_column,
                                 counts=training_counts(counts), targets=tuple(target or ("seli",)),
                                 center=center, nc4=nc4, scatter=not trace_only, on_rows=progress)
    names = [str(file) for file in files]
    if as_json:
        epochs = [{"file": name, **_contract(each)} for name, each in zip(names, measured, strict=True)]
        print_json({"epochs": epochs} if len(files) > 1 else _contract(measured[0]))
    elif len(files) > 1:
        print_measurements(names, measured, Console())
    else:
        print_measurement(measured[0], Console())


def _contract(measurement: Measurement) -> dict[str, Any]:
    values = measurement.to_dict()
    if len(values["distances"]) == 1:
        del values["distances"]  # the one target stands under "distance"
    estimate = measurement.lambda_eff()
    if estimate is not None:
        values["lambda_eff"], values["lambda_eff_interval"] = estimate.ridge, list(estimate.interval)
    return values
