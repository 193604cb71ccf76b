"""Options that several commands share: class counts, whichever way they are given, and the weight decay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.label_files import counts_from_file

_PANEL = "Class counts (give one)"

Counts = Annotated[str | None, typer.Option(help="Samples per class: 10,10,1,1", rich_help_panel=_PANEL)]
Step = Annotated[str | None, typer.Option(
    help="(R, ρ)-STEP imbalance: k=10,ratio=10,minority=0.5,n_min=50 (or n_max=…)", rich_help_panel=_PANEL)]
LongTail = Annotated[str | None, typer.Option(help="Exponential long tail: k=100,ratio=100,n_max=500",
                                              rich_help_panel=_PANEL)]
Labels = Annotated[Path | None, typer.Option(help="A file of labels to count: .npy, .npz, or text with one a line",
                                             rich_help_panel=_PANEL)]


RIDGE_PANEL = "Weight decay"

Ridge = Annotated[float | None, typer.Option(help="λ = √(λ_W λ_H), the loss summed over samples  (default: λ → 0)",
                                             rich_help_panel=RIDGE_PANEL)]
WeightDecay = Annotated[float | None, typer.Option(help="Instead of --ridge: w in (w/2)‖W‖² beside a mean loss",
                                                   rich_help_panel=RIDGE_PANEL)]
FeaturePenalty = Annotated[float | None, typer.Option(
    help="p in (p/2) Σ_i ‖h_i‖² beside a mean loss  (default: w)", rich_help_panel=RIDGE_PANEL)]


def one_profile(counts: str | None, step: str | None, long_tail: str | None, labels: Path | None) -> ClassCounts:
    """The class counts from the one of four options that was given.

    Parameters
    ----------
    counts : str
        "10,10,1,1"
    step : str
        "k=10,ratio=10,minority=0.5,n_min=50", or n_max.
    long_tail : str
        "k=100,ratio=100,n_max=500"
    labels : Path
        A file of labels to count.

    Raises
    ------
    InvalidInput
        None of them or several, or one that cannot be read.
    """
    given = {"--counts": counts, "--step": step, "--long-tail": long_tail, "--labels": labels}
    chosen = [name for name, value in given.items() if value is not None]
    if len(chosen) != 1:
        raise InvalidInput(f"give exactly one of {', '.join(given)}, got {', '.join(chosen) or 'none'}")
    if counts is not None:
        return ClassCounts.from_counts(counts)
    if step is not None:
        return _from_profile(ClassCounts.step, step, ("k", "ratio"), "minority", "n_min", "n_max")
    if long_tail is not None:
        return _from_profile(ClassCounts.long_tail, long_tail, ("k", "ratio", "n_max"))
    assert labels is not None
    return counts_from_file(labels)


def training_counts(text: str | None) -> ClassCounts | None:
    """The counts of a comma list, or of the labels in the file of that name."""
    if text is None:
        return None
    return counts_from_file(text) if Path(text).is_file() else ClassCounts.from_counts(text)


def _from_profile(make: Callable[..., ClassCounts], text: str, required: Sequence[str], *optional: str) -> ClassCounts:
    fields: dict[str, Any] = dict(_parse_fields(text, (*required, *optional)))
    missing = next((name for name in required if name not in fields), None)
    if missing is not None:
        raise InvalidInput(f"{make.__name__.replace('_', '-')} needs {missing}=…, got {text!r}")
    return make(classes=fields.pop("k"), **fields)


def _parse_fields(text: str, fields: Iterable[str]) -> dict[str, float]:
    """Read "k=10,ratio=10,n_min=50" into numbers; only names in `fields` are allowed."""
    known = list(fields)
    parsed: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or name.strip() not in known:
            raise InvalidInput(f"expected {','.join(f'{f}=…' for f in known)}, got {part!r}")
        if name.strip() in parsed:
            raise InvalidInput(f"{name.strip()} must be given once, got {text!r}")
        try:
            parsed[name.strip()] = float(value)
        except ValueError:
            raise InvalidInput(f"{name.strip()} must be a number, got {value!r}") from None
    return parsed
