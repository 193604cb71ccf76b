"""`neuralcollapse train` and `report`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from neuralcollapse.checks import InvalidInput
from neuralcollapse.cli.app import JSON, app, in_words_of_options, print_json

DATA, MODEL = "Data", "Model and training"


@app.command(epilog="Examples:  neuralcollapse train --preset demo --out runs/demo   ·   neuralcollapse train "
                    "--dataset mnist5k --model cnn --imbalance long-tail --ratio 100 --epochs 40   ·   "
                    "neuralcollapse train --resume runs/demo")
@in_words_of_options({"remedy '": "loss '"})
def train(
    config: Annotated[Path | None, typer.Option(help="A YAML file of settings; flags win over it.")] = None,
    preset: Annotated[str | None, typer.Option(
        help="A named configuration to start from: demo, terminal-phase, cifar10, …; see `list`.")] = None,
    dataset: Annotated[str | None, typer.Option(
        help="digits, mnist5k, cifar10, …, hf:NAME, folder:PATH, parquet:PATH, npz:PATH, tokens:PATH, text:PATH; see "
             "`data`. Its options: --set data_options.size=64  (default: digits)", rich_help_panel=DATA)] = None,
    imbalance: Annotated[str | None, typer.Option(help="step, long-tail, none (equal counts) or natural (as they are)"
                                                  "  (default: step)", rich_help_panel=DATA)] = None,
    ratio: Annotated[float | None, typer.Option(help="Imbalance ratio R = n_max/n_min  (default: 10)",
                                                rich_help_panel=DATA)] = None,
    minority: Annotated[float | None, typer.Option(help="Share ρ of minority classes (step)  (default: 0.5)",
                                                   rich_help_panel=DATA)] = None,
    n_max: Annotated[int | None, typer.Option(
        help="Training samples of the largest class  (default: the most there is)", rich_help_panel=DATA)] = None,
    model: Annotated[str | None, typer.Option(help="mlp, cnn, resnet18, … (see `list`), timm:NAME, "
                                              "transformers:NAME, module:factory", rich_help_panel=MODEL)] = None,
    loss: Annotated[str | None, typer.Option(
        help="ce, logit-adjusted, vs, …; auto: what `advise` recommends  (default: ce)", rich_help_panel=MODEL)] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training part  (default: 200)",
                                               rich_help_panel=MODEL)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples per step  (default: 128)",
                                                   rich_help_panel=MODEL)] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd, adam or adamw  (default: sgd)",
                                                  rich_help_panel=MODEL)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Step size before the schedule  (default: 0.01)",
                                                        rich_help_panel=MODEL)] = None,
    weight_decay: Annotated[float | None, typer.Option(
        help="w in (w/2)‖θ‖² beside the mean loss, for all but the head  (default: 5e-4)",
        rich_help_panel=MODEL)] = None,
    head_weight_decay: Annotated[float | None, typer.Option(
        help="The same for the head; λ_W = n·w  (default: that of --weight-decay)", rich_help_panel=MODEL)] = None,
    feature_penalty: Annotated[float | None, typer.Option(
        help="p in (p/2) Σ_i ‖h_i‖² beside the mean loss; λ_H = n·p  (default: 0)", rich_help_panel=MODEL)] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes split, samples, weights and batches  (default: 0)",
                                             rich_help_panel=MODEL)] = None,
    measure: Annotated[str | None, typer.Option(help="Measured epochs: log or 'every N'  (default: log)",
                                                rich_help_panel=MODEL)] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads", rich_help_panel=MODEL)] = None,
    settings: Annotated[list[str] | None, typer.Option(
        "--set", metavar="KEY=VALUE", help="Any other setting of config.yaml, such as model_options.width=256")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder  (default: runs/ and a name made of the settings)")
                   ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.")] = None,
    as_json: JSON = False,
) -> None:
    """Train a network on imbalanced data, measure its geometry on the way, and write a report."""
    from neuralcollapse.experiments.config import resolve_config, run_name
    from neuralcollapse.experiments.processes import rank
    from neuralcollapse.experiments.progress import TrainProgress
    from neuralcollapse.experiments.run import CONFIG, Run
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
    progress = TrainProgress() if rank() == 0 else None
    finished = resume is not None and Run.open(resume).finished
    try:
        with progress or nullcontext():
            run = train_network(chosen, folder, resume=resume is not None, on_epoch=progress)
    except KeyboardInterrupt:
        typer.echo(f"Stopped. Continue with:  neuralcollapse train --resume {folder}" if (folder / CONFIG).is_file()
                   else "Stopped; nothing was written yet.", err=True)
        raise typer.Exit(130) from None
    if progress is None:
        return
    if finished:
        typer.echo(f"'{folder}' is finished already", err=True)
    page = write_report(run)
    if as_json:
        print_json({"run": str(folder), "report": str(page), "last": run.history[-1]})
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
