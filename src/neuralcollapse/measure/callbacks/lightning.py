"""CollapseCallback for Lightning's Trainer, from `lightning` and from `pytorch_lightning` alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
import sys
from typing import Any

from torch import Tensor

from neuralcollapse.checks import InvalidInput
from neuralcollapse.measure.callbacks.common import Report, Watch, labels_of
from neuralcollapse.measure.callbacks.trackers import ALERT, Pictures, pixels, send_alert


class CollapseCallback:
    """Measure neural collapse during `Trainer.fit`.

    Scalars go through `LightningModule.log_dict`, so that loggers, checkpoints and early stopping see them; pictures
    and alerts to the loggers that take them (TensorBoard, W&B, MLflow).

    Parameters
    ----------
    counts : ClassCounts or anything `ClassCounts.from_counts` takes
        Training samples per class.
    batches : iterable, optional
        A data loader to measure at the end of the epoch, by the module's `forward`; the epoch's own training passes
        when left out.
    labels : callable, optional
        A batch to its labels; the second of a pair or the entry called "labels", "label", "y" or "target" when left
        out.
    figures : callable, optional
        A Measurement to matplotlib figures by name, such as `gram_picture`.
    **options
        `Watch`'s own: every, head, targets, center, ignore_index, next_token, alert, stop (which sets
        `Trainer.should_stop`) and log.

    Attributes
    ----------
    reports : list of Report
        Those of this fit.

    Raises
    ------
    InvalidInput
        Lightning is not installed; and as `Watch`, when fitting starts.
    """

    _complete = False  # whether the packages' own Callback is among the bases

    # A Trainer knows callbacks by the class of its own package, which is known once the user has imported it.
    def __new__(cls, *args: Any, **kwargs: Any) -> CollapseCallback:
        """A callback for every Lightning package that is in use."""
        if cls._complete:
            return object.__new__(cls)
        return object.__new__(_completed(cls, tuple(_packages())))  # type: ignore[arg-type]  # classes are hashable

    def __init__(self, counts: Any, *, batches: Iterable[Any] | None = None,
                 labels: Callable[[Any], Tensor] = labels_of, figures: Pictures | None = None, **options: Any):
        super().__init__()
        self.counts, self.batches, self.labels, self.figures = counts, batches, labels, figures
        self.reports: list[Report] = []
        self._options = options
        self._watch: Watch | None = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the head."""
        epochs = trainer.max_epochs if (trainer.max_epochs or 0) > 0 else None
        self.reports = []
        self._watch = Watch(pl_module, self.counts, **self._options | {"epochs": epochs})

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Listen, where this epoch is measured."""
        self._watching.start_epoch(trainer.current_epoch + 1)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add the features that the head has just seen."""
        if self.batches is None and self._watching.due:
            self._watching.add(self.labels(batch))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Report."""
        watch = self._watching
        report = watch.end_epoch(self.batches)
        if report is None:
            return
        self.reports.append(report)
        # Every process has the same numbers: their mean changes nothing, and Lightning asks for it.
        pl_module.log_dict(report.scalars(), on_step=False, on_epoch=True, sync_dist=True)
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                _send(logger, report, trainer.global_step, self.figures)
        if watch.stopped:
            trainer.should_stop = True

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leave the model as it was, whatever happened."""
        if self._watch is not None:
            self._watch.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _bare, (type(self).__mro__[1],), vars(self)

    @property
    def _watching(self) -> Watch:
        assert self._watch is not None  # set when fitting starts
        return self._watch


def _packages() -> list[str]:
    """The Lightning packages that are imported, else those that are installed."""
    modules = ("lightning.pytorch", "pytorch_lightning")
    found = ([name for name in modules if name in sys.modules]
             or [name for name in modules if find_spec(name.partition(".")[0]) is not None])
    if not found:
        raise InvalidInput("Lightning is not installed: pip install 'neuralcollapse[lightning]'")
    return found


@cache
def _completed(cls: type[CollapseCallback], packages: tuple[str, ...]) -> type[CollapseCallback]:
    bases = [import_module(name).Callback for name in packages]
    return type(cls.__name__, (cls, *bases), {"__doc__": cls.__doc__, "__module__": cls.__module__, "_complete": True})


def _bare(cls: type[CollapseCallback]) -> CollapseCallback:
    """An instance without its attributes, for unpickling."""
    return cls.__new__(cls)


def _send(logger: Any, report: Report, step: int, figures: Pictures | None) -> None:
    """Pictures and the alert, as the logger takes them."""
    run = logger.experiment
    for name, figure in ({} if figures is None else figures(report.measurement)).items():
        if callable(getattr(run, "add_image", None)):  # TensorBoard
            run.add_image(name, pixels(figure), global_step=step, dataformats="HWC")
        elif callable(getattr(logger, "log_image", None)):  # W&B
            logger.log_image(name, [pixels(figure)], step=step)
        elif callable(getattr(run, "log_figure", None)) and hasattr(logger, "run_id"):  # MLflow
            run.log_figure(logger.run_id, figure, f"{name}-{step}.png")
    if report.alert is not None and not send_alert(run, report.alert, step) and hasattr(run, "add_text"):
        run.add_text(ALERT, report.alert, global_step=step)
