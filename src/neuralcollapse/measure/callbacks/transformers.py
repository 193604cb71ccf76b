"""CollapseCallback for the Hugging Face Trainer."""

from __future__ import annotations

from importlib.util import find_spec
from math import ceil
from typing import TYPE_CHECKING, Any

from torch import Tensor

from neuralcollapse.checks import InvalidInput, shown
from neuralcollapse.measure.callbacks.common import Report, Watch, is_main_process
from neuralcollapse.measure.callbacks.trackers import Pictures, alert_active, pixels

if TYPE_CHECKING or find_spec("transformers") is not None:
    from transformers import TrainerCallback
else:
    TrainerCallback = object

_SOURCES = ("training", "train", "eval")


class CollapseCallback(TrainerCallback):
    """Measure neural collapse while a `transformers.Trainer` trains.

    Parameters
    ----------
    counts : ClassCounts or anything `ClassCounts.from_counts` takes
        Training samples (or tokens) per class.
    trainer : transformers.Trainer, optional
        The one it is added to: scalars then go through `Trainer.log` to every tracker of `report_to`. A callback
        knows nothing of its trainer, and writes to `state.log_history` alone when left out.
    on : str
        "training": the epoch's own forward passes, at the cost of a percent; "train": a pass over the training data
        in eval mode at the end of the epoch; "eval": over the evaluation data, whenever that is evaluated.
    figures : callable, optional
        A Measurement to matplotlib figures by name, such as `gram_picture`; to TensorBoard and W&B where those run.
    **options
        `Watch`'s own: every, head, targets, center, ignore_index, next_token (True for causal
        language models), alert, stop and log.

    Attributes
    ----------
    reports : list of Report
        Those of this training.

    Raises
    ------
    InvalidInput
        transformers is not installed, an unknown `on`, a model that is not given its labels; and as `Watch`.
    """

    def __init__(self, counts: Any, trainer: Any = None, *, on: str = "training", figures: Pictures | None = None,
                 **options: Any):
        if TrainerCallback is object:
            raise InvalidInput("transformers is not installed: pip install 'neuralcollapse[transformers]'")
        if on not in _SOURCES:
            raise InvalidInput(f"on must be one of {', '.join(_SOURCES)}, got {shown(on)!r}")
        super().__init__()
        self.counts, self.trainer, self.on, self.figures = counts, trainer, on, figures
        self.reports: list[Report] = []
        self._options = options
        self._watch: Watch | None = None
        self._labels: Tensor | None = None
        self._hook: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Find the head, and listen for the labels that the model is given."""
        self.reports = []
        self._watch = Watch(model, self.counts, **self._options | {"epochs": ceil(args.num_train_epochs) or None})
        if self.on == "training":
            self._hook = model.register_forward_pre_hook(self._hear, with_kwargs=True)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Listen, where this epoch is measured."""
        self._watching.start_epoch(int((state.epoch or 0) + 1e-6) + 1)

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the features that the head has just seen, once per accumulated batch."""
        self._add()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the features that the head has just seen."""
        self._add()

    def on_epoch_end(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        """Report, unless evaluation does."""
        if self.on != "eval":
            self._report(args, state, control, train_dataloader if self.on == "train" else None)

    def on_evaluate(self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **kwargs: Any) -> None:
        """Report on the data that have just been evaluated."""
        if self.on == "eval" and self._watch is not None:
            self._watch.start_epoch(max(ceil((state.epoch or 0) - 1e-6), 1))
            self._report(args, state, control, eval_dataloader)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the model as it was."""
        self._watching.close()
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    @property
    def _watching(self) -> Watch:
        assert self._watch is not None  # set when training begins
        return self._watch

    def _hear(self, model: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if model.training:
            self._labels = kwargs.get("labels")

    def _add(self) -> None:
        if self.on != "training" or not self._watching.due:
            return
        if self._labels is None:
            raise InvalidInput("the model must be called with labels=, which label smoothing and compute_loss_func "
                               "take away: measure with on='train'")
        self._watching.add(self._labels)
        self._labels = None

    def _report(self, args: Any, state: Any, control: Any, batches: Any) -> None:
        report = self._watching.end_epoch(batches)
        if report is None:
            return
        self.reports.append(report)
        if self.trainer is None:
            state.log_history.append({**report.scalars(), "epoch": state.epoch, "step": state.global_step})
        else:
            asked = control.should_log  # the epoch's own log is still to come, and logging here would answer it
            self.trainer.log(report.scalars())
            control.should_log = asked
        if is_main_process():
            self._send(report, state.global_step)
        if self._watching.stopped:
            control.should_training_stop = True

    def _send(self, report: Report, step: int) -> None:
        """Pictures and the alert to the trackers that are running."""
        if report.alert is not None:
            alert_active(report.alert, step)
        pictures = {} if self.figures is None or self.trainer is None else self.figures(report.measurement)
        for callback in self.trainer.callback_handler.callbacks if pictures else ():
            writer, wandb = getattr(callback, "tb_writer", None), getattr(callback, "_wandb", None)
            for name, figure in pictures.items():
                if writer is not None:
                    writer.add_image(name, pixels(figure), global_step=step, dataformats="HWC")
                elif wandb is not None and wandb.run is not None:
                    wandb.log({name: wandb.Image(pixels(figure))})
