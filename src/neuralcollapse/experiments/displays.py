"""How a run shows itself in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuralcollapse.displays import counts_line
from neuralcollapse.experiments.records import look
from neuralcollapse.notebook import card, matrix, number, table

if TYPE_CHECKING:
    from neuralcollapse.experiments.run import Run

_NUMBERS = {"training loss": ("train", "loss"), "training accuracy": ("train", "accuracy"),
            "test accuracy, balanced": ("test", "balanced_accuracy"),
            "test accuracy, minority": ("test", "minority_accuracy"), "NC1 (pinv)": ("measurement", "nc1", "pinv"),
            "NC3": ("measurement", "nc3"), "NC4": ("measurement", "nc4")}
_PARTS = ("classifiers", "embeddings", "logits")


def run_html(run: Run) -> str:
    """What was trained, where it stands, and its last measured numbers."""
    state = "finished" if run.finished else f"epoch {run.measured_epochs[-1]} of {run.last_epoch}" if run.history else \
        "nothing measured yet"
    title = f"{run.name} · {run.config.get('model')} on {run.data.get('dataset')} · {state}"
    if not run.history:
        return card(title, note=f"{counts_line(run.counts)}. {run.path}")
    last, epoch = run.history[-1], run.measured_epochs[-1]
    numbers = [[name, number(look(last, *path))] for name, path in _NUMBERS.items()]
    distances: Any = (last.get("measurement") or {}).get("distances") or {}
    rows = [[target, *(number(look(far, part)) for part in _PARTS)] for target, far in distances.items()]
    kept = run.grams(epoch) or {}
    pictures = [matrix("class means" if part == "embeddings" else part, kept[part]) for part in _PARTS if part in kept]
    return card(title, *pictures, table([f"epoch {epoch}", ""], numbers), table(["distance to", *_PARTS], rows),
                note=f"{counts_line(run.counts)}. {run.path}")
