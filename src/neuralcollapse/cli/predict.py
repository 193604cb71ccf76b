"""`neuralcollapse predict`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
import typer

from neuralcollapse.checks import InvalidInput, parse_numbers
from neuralcollapse.cli.app import JSON, app, print_json
from neuralcollapse.cli.options import (
    RIDGE_PANEL,
    Counts,
    FeaturePenalty,
    Labels,
    LongTail,
    Ridge,
    Step,
    WeightDecay,
    one_profile,
)
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import GEOMETRIES, ridge_from_weight_decay


@app.command(epilog="Examples:  neuralcollapse predict --step k=10,ratio=100,n_min=5   ·   "
                    "neuralcollapse predict --counts 500,500,5,5 --weight-decay 5e-4   ·   "
                    "neuralcollapse predict --counts 500,50,5 --delta 3,2,1 --temperature label --json")
def predict(
    counts: Counts = None, step: Step = None, long_tail: LongTail = None, labels: Labels = None,
    loss: Annotated[str, typer.Option(help=", ".join(GEOMETRIES.names))] = "ce",
    weight: Annotated[str | None, typer.Option(help="Class weights ω, one number per class")] = None,
    delta: Annotated[str | None, typer.Option(help="Temperatures δ, one number per class")] = None,
    temperature: Annotated[str | None, typer.Option(
        help="What --delta multiplies: 'class' (Δ_c z_c, CDT/VS; the default) or 'label' (δ_y z, LDT)")] = None,
    iota: Annotated[str | None, typer.Option(help="Additive offsets ι, one number per class")] = None,
    ridge: Ridge = None, weight_decay: WeightDecay = None, feature_penalty: FeaturePenalty = None,
    n: Annotated[float | None, typer.Option(
        "--n", help="Training samples of the mean loss  (default: the sum of the counts)",
        rich_help_panel=RIDGE_PANEL)] = None,
    bias: Annotated[bool, typer.Option("--bias", help="The head has a bias (with a ridge only).",
                                       rich_help_panel=RIDGE_PANEL)] = False,
    bias_ridge: Annotated[float | None, typer.Option(
        help="λ_b in λ_b/2‖b‖², the loss summed  (default: a free bias)", rich_help_panel=RIDGE_PANEL)] = None,
    norm: Annotated[str | None, typer.Option(
        help="The optimiser's norm, as λ → 0: nuclear (gradient descent), spectral (Muon) or max (Adam)")] = None,
    path: Annotated[bool, typer.Option(
        "--path", help="Follow the geometry along λ (with --plot: norms, cosines, distances and thresholds).",
        rich_help_panel=RIDGE_PANEL)] = False,
    full: Annotated[bool, typer.Option("--full", help="With --json: k × k tables above 200 classes too.")] = False,
    plot: Annotated[Path | None, typer.Option(
        help="Draw the geometry into this file (.png, .pdf, .svg, .jpg, .html).")] = None,
    as_json: JSON = False,
) -> None:
    """Predict the geometry from class counts and a loss: at a weight decay, or in its vanishing limit."""
    from neuralcollapse.predict.geometry import predict as predict_geometry
    from neuralcollapse.predict.path import ridge_path
    from neuralcollapse.predict.weight_decay import safety_of
    from neuralcollapse.show.figures import save_path, save_prediction
    from neuralcollapse.show.terminal import print_geometry, print_path, print_safety

    parameters: dict[str, Any] = {name: None if text is None else parse_numbers(name, text)
                                  for name, text in {"weight": weight, "delta": delta, "iota": iota}.items()}
    profile = one_profile(counts, step, long_tail, labels)
    ridge = _ridge(ridge, weight_decay, feature_penalty, n, profile)
    parameters.update(temperature=temperature, bias=bias, bias_ridge=bias_ridge)
    if temperature in ("class", "label") and delta is None:
        raise InvalidInput(f"--temperature says what --delta multiplies: give --delta, got --temperature {temperature} "
                           "alone")
    if path:
        if ridge is not None and plot is None:
            raise InvalidInput("--path follows all λ; --ridge or --weight-decay is marked in its --plot: give --plot, "
                               "or leave them out")
        if norm is not None:
            raise InvalidInput("--path follows a ridge, --norm is about the limit without one: give one of them")
        along = ridge_path(profile, loss=loss, **parameters)
        if plot is not None:
            save_path(along, plot, ridge)
        if as_json:
            print_json(along.to_dict())
        else:
            print_path(along, Console())
    else:
        geometry = predict_geometry(profile, loss, ridge=ridge, norm=norm, **parameters)
        if plot is not None:
            save_prediction(geometry, plot)
        safety = None if weight_decay is None else safety_of(geometry, feature_penalty, n)
        if as_json:
            print_json(geometry.to_dict(full) | ({} if safety is None else {"safety": asdict(safety)}))
        else:
            print_geometry(geometry, Console())
            if safety is not None:
                print_safety(safety, Console())
    if plot is not None and not as_json:
        typer.echo(f"\nDrawn into {plot}")


def _ridge(ridge: float | None, weight_decay: float | None, feature_penalty: float | None, n: float | None,
           counts: ClassCounts) -> float | None:
    """λ from either way of saying it; None when neither is."""
    if weight_decay is None:
        if feature_penalty is not None or n is not None:
            raise InvalidInput("--feature-penalty and --n go with --weight-decay: give it too, or --ridge alone")
        return ridge
    if ridge is not None:
        raise InvalidInput(f"give --ridge or --weight-decay, not both, got {ridge:g} and {weight_decay:g}")
    return ridge_from_weight_decay(weight_decay, feature_penalty, counts.n if n is None else n).ridge
