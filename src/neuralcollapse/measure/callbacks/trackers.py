"""Scalars, pictures and alerts to experiment trackers: accelerate's, and what Lightning's loggers are made of.

TensorBoard, W&B, MLflow and trackio each take pictures in their own way, and two of them know alerts. Whatever a
tracker cannot take is left out; the alert is a Python warning as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
import sys
from typing import TYPE_CHECKING, Any

from jaxtyping import UInt8
import numpy as np

from neuralcollapse.measure.callbacks.common import Report
from neuralcollapse.measure.measurement import Measurement

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pictures = Callable[[Measurement], Mapping[str, "Figure"]]

ALERT = "nc/alert"
TITLE = "Minority classes are merging"


def log_to(tracker: Any, report: Report, step: int | None = None, figures: Pictures | None = None) -> None:
    """Send a report to the trackers of accelerate.

    Parameters
    ----------
    tracker : accelerate.Accelerator or accelerate.tracking.GeneralTracker
        An Accelerator stands for all of its trackers; only its main process sends anything.
    report : Report
    step : int, optional
        The tracker's step; the epoch when left out.
    figures : callable, optional
        A Measurement to matplotlib figures by name, such as `gram_picture`; none when left out.

    Examples
    --------
    >>> import torch
    >>> from neuralcollapse.measure.callbacks import Watch
    >>> class Printed:
    ...     name, tracker = "mine", None
    ...     def log(self, values, step):
    ...         print(step, values["nc/accuracy"])
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.eye(2))
    >>> log_to(Printed(), Watch(model, [1, 1]).end_epoch([(torch.eye(2), torch.tensor([0, 1]))]))
    1 1.0
    """
    if not getattr(tracker, "is_main_process", True):
        return
    step = report.epoch if step is None else step
    pictures = {} if figures is None else figures(report.measurement)
    for one in getattr(tracker, "trackers", [tracker]):
        one.log(report.scalars(), step=step)
        for name, figure in pictures.items():
            _log_picture(one, name, figure, step)
        if report.alert is not None and not send_alert(one.tracker, report.alert, step) and one.name == "tensorboard":
            one.log({ALERT: report.alert}, step=step)


def send_alert(run: Any, text: str, step: int) -> bool:
    """Raise an alert in a tracker's own run where it knows alerts (W&B, trackio); whether it does."""
    if not callable(getattr(run, "alert", None)):
        return False
    run.alert(title=TITLE, text=f"step {step}: {text}")
    return True


def alert_active(text: str, step: int) -> None:
    """Raise an alert in the W&B or trackio run that is active in this process, where there is one."""
    wandb, trackio = sys.modules.get("wandb"), sys.modules.get("trackio")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        send_alert(wandb.run, text, step)
    if trackio is not None and _trackio_run(trackio) is not None:
        send_alert(trackio, text, step)


def pixels(figure: Figure) -> UInt8[np.ndarray, "height width 3"]:
    """A figure as red, green and blue."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _log_picture(tracker: Any, name: str, figure: Figure, step: int) -> None:
    if callable(getattr(tracker, "log_figure", None)):  # MLflow
        tracker.log_figure(figure, f"{name}-{step}.png")
    elif tracker.name == "trackio":
        tracker.log({name: import_module("trackio").Image(pixels(figure))}, step=step)
    elif callable(getattr(tracker, "log_images", None)):
        # A batch of one. TensorBoard has to be told that channels come last; aim takes one picture by itself.
        options = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
        image = pixels(figure)
        tracker.log_images({name: image if tracker.name == "aim" else image[None]}, step=step, **options)


def _trackio_run(trackio: Any) -> Any:
    current = getattr(getattr(trackio, "context_vars", None), "current_run", None)
    return None if current is None else current.get()
