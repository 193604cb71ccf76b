"""`neuralcollapse advise` and `steer`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rich.console import Console
import typer

from neuralcollapse.checks import InvalidInput
from neuralcollapse.cli.app import JSON, app, in_words_of_options, print_json
from neuralcollapse.cli.options import (
    Counts,
    FeaturePenalty,
    Labels,
    LongTail,
    Ridge,
    Step,
    WeightDecay,
    one_profile,
)

PLAN = "Counts planner"


@app.command(epilog="Examples:  neuralcollapse advise --step k=10,ratio=100,n_min=4 --weight-decay 5e-3   ·   "
                    "neuralcollapse advise --counts 500,50,5 --goal 'symmetric geometry'   ·   "
                    "neuralcollapse advise runs/first   ·   neuralcollapse advise --counts 500,50,5 --more-of 2 "
                    "--angle 90")
@in_words_of_options({"cls must": "--more-of must"})
def advise(
    run: Annotated[Path | None, typer.Argument(help="A run folder: its counts, and a verdict on every class")] = None,
    counts: Counts = None, step: Step = None, long_tail: LongTail = None, labels: Labels = None,
    goal: Annotated[str, typer.Option(help="'balanced accuracy', 'symmetric geometry' or 'calibrated'")
                    ] = "balanced accuracy",
    ridge: Ridge = None, weight_decay: WeightDecay = None, feature_penalty: FeaturePenalty = None,
    more_of: Annotated[str | None, typer.Option(
        help="A class, by name or index: how many more samples until it reaches --angle or --margin",
        rich_help_panel=PLAN)] = None,
    angle: Annotated[float | None, typer.Option(help="Predicted degrees from its classifier to the nearest other one",
                                                rich_help_panel=PLAN)] = None,
    margin: Annotated[float | None, typer.Option(help="Predicted margin of its samples, with a ridge",
                                                 rich_help_panel=PLAN)] = None,
    as_json: JSON = False,
) -> None:
    """Say what each remedy would do to the geometry, and which to use; for a run also what became of every class."""
    from neuralcollapse.show.rescue import print_rescue
    from neuralcollapse.steer import advise as advise_counts
    from neuralcollapse.steer import samples_needed

    verdicts = None
    if run is None:
        profile = one_profile(counts, step, long_tail, labels)
    else:
        if any(given is not None for given in (counts, step, long_tail, labels)):
            raise InvalidInput("give a run folder, or class counts, not both")
        from neuralcollapse.experiments import Run
        from neuralcollapse.experiments.frozen import Frozen

        frozen = Frozen.of_run(Run.open(run))
        profile = frozen.counts
        if ridge is None and weight_decay is None:
            ridge = frozen.ridge
    advice = advise_counts(profile, ridge=ridge, weight_decay=weight_decay, feature_penalty=feature_penalty, goal=goal)
    if run is not None:
        verdicts = frozen.rescue(advice.ridge)
    plan = None
    if more_of is not None:
        cls = more_of if more_of in profile.names or not more_of.isdecimal() else int(more_of)
        plan = samples_needed(profile, cls, angle=angle, margin=margin, ridge=ridge, weight_decay=weight_decay,
                              feature_penalty=feature_penalty)
    elif angle is not None or margin is not None:
        raise InvalidInput("--angle and --margin are targets of one class: name it with --more-of")
    if as_json:
        classes = {} if verdicts is None else {"classes": [verdict.to_dict() for verdict in verdicts]}
        planned = {} if plan is None else {"plan": {"class": more_of, "angle": angle, "margin": margin, "more": plan}}
        print_json(advice.to_dict() | classes | planned)
        return
    console = Console()
    if verdicts is not None:
        print_rescue(verdicts, console)
        console.print()
    console.print(advice)
    if plan is not None:
        target = f"angle of {angle:g}°" if angle is not None else f"margin of {margin:g}"
        typer.echo(f"\nClass {more_of} needs {plan:,} more samples for a predicted {target} under cross-entropy.")


@app.command(epilog="Examples:  neuralcollapse steer runs/first --posthoc all   ·   neuralcollapse steer runs/first "
                    "--posthoc logit-adjustment,refit --save heads.safetensors")
def steer(
    run: Annotated[Path, typer.Argument(help="A run folder with a checkpoint")],
    posthoc: Annotated[str, typer.Option(help="Remedies that need no retraining, by name, or all: tau-normalised, "
                                         "logit-adjustment, refit, nearest-class-mean, repair, …; see `list`")] = "all",
    save: Annotated[Path | None, typer.Option(help="Write each remedy's head here: NAME.weight and NAME.bias "
                                              "(.safetensors)")] = None,
    as_json: JSON = False,
) -> None:
    """Apply remedies to a trained network without retraining it, and score each on the run's test part."""
    from neuralcollapse.experiments import Run
    from neuralcollapse.experiments.frozen import Frozen
    from neuralcollapse.show.rescue import print_posthoc
    from neuralcollapse.steer import POSTHOC
    from neuralcollapse.steer.posthoc import save_heads

    if save is not None and save.suffix != ".safetensors":
        raise InvalidInput(f"--save must name a .safetensors file, got '{save}'")
    names = None if posthoc == "all" else [POSTHOC[name.strip()].name for name in posthoc.split(",")]
    frozen = Frozen.of_run(Run.open(run))
    rows = frozen.posthoc(names)
    if save is not None:
        save_heads(rows, save)
    if as_json:
        print_json({"run": str(run), "epoch": frozen.epoch, "rows": [row.to_dict() for row in rows]})
        return
    print_posthoc(rows, frozen.epoch, Console())
    if save is not None:
        typer.echo(f"\nWritten to {save}")
