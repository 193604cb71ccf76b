"""One network in training: its data, model and optimiser on a device, one epoch at a time.

Nothing random outlives an epoch: the weights come from the seed, and each epoch's order (and dropout, if a
model has any) from the seed and the epoch's number. A resumed run therefore needs no random state.

In several processes each takes its part of every batch, and the gradient is that of the whole batch's mean: a run is
the one-process run up to the order of summation. Batch norm is the exception on CPUs, where torch has none across
processes: each normalises by its own part, and the first one's running statistics are kept. On GPUs it is shared.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
import os
from typing import Any, cast

from jaxtyping import Float, Int
import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from neuralcollapse.checks import InvalidInput, finite_or_none
from neuralcollapse.experiments.batches import Batches, epoch_seed, labelled_rows, own_stretch
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data import Data, augmentation
from neuralcollapse.experiments.expected import Expected
from neuralcollapse.experiments.label_noise import with_label_noise
from neuralcollapse.experiments.models import build_model
from neuralcollapse.experiments.optimiser import make_optimizer
from neuralcollapse.experiments.processes import join_processes, rank
from neuralcollapse.experiments.remedied import (
    binding_positions,
    contrast_features,
    epoch_positions,
    put_head,
    training_loss,
)
from neuralcollapse.experiments.score import Scored
from neuralcollapse.measure import Measurement, measure_model
from neuralcollapse.measure.sharing import processes, summed
from neuralcollapse.measure.wrapped import evaluating
from neuralcollapse.predict import Geometry
from neuralcollapse.steer import SupConLoss
from neuralcollapse.threads import blas_threads

_AT_ONCE = 512
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Session:
    """The network of one run.

    Parameters
    ----------
    config : TrainConfig
    data : Data
        Label noise is put on it here, where the settings ask for some: `session.data` has it.

    Raises
    ------
    InvalidInput
        A model that cannot be built, more processes than samples in a batch.
    """

    def __init__(self, config: TrainConfig, data: Data):
        self.config = config
        self.data, self.noise = with_label_noise(config, data)
        data = self.data
        place = join_processes(config.device)
        self.device = device = place.device
        torch.manual_seed(config.seed)
        model = build_model(config.model, data.shape, data.counts.k, config.head_bias,
                            tokens=data.tokens, next_token=data.labels.ndim > 1,
                            **config.model_options)
        model = put_head(model, config, data.counts)
        self._loss = training_loss(config, data.counts).to(device)
        if isinstance(self._loss, SupConLoss):
            model.get_submodule("head").register_forward_pre_hook(contrast_features(self._loss))
        if len(data.shape) == 3:  # convolutions, norms and pooling: 1.3 to 1.6 times as fast on a CPU
            # torch's annotations leave this form of `to` out.
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if processes() > 1 and device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self._plain: nn.Module = model.to(device)
        self.model = place.shared(self._plain)
        self.head = cast(nn.Linear, self._plain.head)
        self.optimizer = make_optimizer(config, self._plain)
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self._inputs, self._labels = data.inputs.to(device), data.labels.to(device)
        self._test_inputs, self._test_labels = data.test_inputs.to(device), data.test_labels.to(device)
        self._batches = Batches(self._labels, *_drawn(config, data.labels), config.batch_size, rank(), processes())
        self._wrong: int | None = None  # samples that the last epoch misjudged as it trained on them

    def run_epoch(self, epoch: int) -> float:
        """Train through epoch number `epoch` and return its mean loss, penalty included, decay left out."""
        torch.manual_seed(epoch_seed(self.config.seed, epoch, 1 + rank()))  # dropout differs between processes
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(epoch)
        self.model.train()
        total, wrong, seen = (torch.zeros((), device=self._labels.device) for _ in range(3))
        augment = augmentation(self.config.augment)
        features: list[Tensor] = []
        with self.head_inputs(features, detached=isinstance(self._loss, SupConLoss)):
            for inputs, labels, own, whole in self._batches.epoch(self._inputs, epoch_seed(self.config.seed, epoch)):
                with self._autocast(), _lone_sample_named(len(inputs)):
                    logits = self.model(inputs if augment is None else augment(inputs))
                labels, logits, rows = labelled_rows(labels, _single(logits), _single(_only(features)))
                share = own * processes() / whole
                loss = self._objective(logits, labels, rows, share)
                self.optimizer.zero_grad()
                # Gradients are averaged over processes: weighted by its rows, each adds its part of the batch's mean.
                self._scaler.scale(loss * share).backward()
                self._scaler.step(self.optimizer)
                self._scaler.update()
                total += loss.detach() * own
                seen += own
                if self.config.terminal_epochs is not None:
                    wrong += (logits.detach().argmax(1) != labels).sum()
        return self._close_epoch(total, wrong, seen)

    def measure(self, epoch: int) -> tuple[dict[str, Any], Measurement]:
        """Loss (without penalties) and accuracy on both parts, and the geometry of the training part; eval mode.

        In float32 whatever the precision of training. The training part is gone through once: its loss is taken from
        the pass that measures the geometry.
        """
        counts, model = self.data.counts, self._plain
        with self._exact():
            test = self._scored(self._test_inputs, self._test_labels)
            self.check_loss(test.loss, epoch)
            with self._score_of(self._inputs, self._labels) as train:
                measurement = measure_model(model, train, counts=counts, head="head", center=self.config.center,
                                            targets=self.targets, shared=processes() > 1)
            train.share()
        recall = test.recall
        return {"train": {"loss": finite_or_none(train.loss), "accuracy": train.accuracy},
                "test": {"loss": finite_or_none(test.loss), "accuracy": test.accuracy,
                         "balanced_accuracy": finite_or_none(recall.mean()),
                         "majority_accuracy": _mean(recall[~counts.minority]),
                         "minority_accuracy": _mean(recall[counts.minority]),
                         "per_class_accuracy": [finite_or_none(value) for value in recall]}}, measurement

    def fits_every_sample(self) -> bool:
        """Whether training error is zero after the last epoch, where `terminal_epochs` waits for that.

        A pass in eval mode decides; it is made once no more than one sample in a thousand was misjudged while the epoch
        trained on it.
        """
        if self._wrong is None or self._wrong > self._batches.positions / 1000:
            return False
        with self._exact():
            return self._scored(self._inputs, self._labels).wrong == 0

    @contextmanager
    def head_inputs(self, found: list[Tensor], detached: bool = False) -> Iterator[None]:
        """Append the head's input of each forward pass to `found`; `detached` keeps its gradient from the features."""
        def take(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
            found.append(inputs[0])
            return (inputs[0].detach(),) if detached else None

        hook = self.head.register_forward_pre_hook(take)
        try:
            yield
        finally:
            hook.remove()

    def features(self, inputs: Any) -> Tensor:
        """(n, d), or (n, length, d) for tokens: the head's inputs, in eval mode and float32."""
        found: list[Tensor] = []
        with self.head_inputs(found), evaluating(self._plain), torch.no_grad(), self._exact():
            for part in inputs.to(self._labels.device).split(_AT_ONCE):
                self._plain(part)
        return torch.cat(found)

    def use_loss(self, loss: nn.Module) -> None:
        """Train with another loss of logits and labels than the settings name; it is not part of the state.

        A loss that divides by anything but the number of samples is exact in one process only.
        """
        self._loss = loss.to(self._labels.device)

    @cached_property
    def targets(self) -> dict[str, Geometry]:
        """What the geometry is held against, its own prediction first: `Expected.targets`."""
        return Expected.of(self.config, self.data.counts).targets(self.config.ridges(float(self.data.counts.n)))

    def check_loss(self, loss: float, epoch: int) -> None:
        """Raise InvalidInput when training has diverged."""
        if not np.isfinite(loss):
            raise InvalidInput(f"the loss must stay finite, but is not after epoch {epoch}: try a learning_rate below "
                               f"{self.config.learning_rate:g} (what was written before stays)")

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on; schedule, order and dropout follow from the epoch's number."""
        return {"model": self._plain.state_dict(), "optimizer": self.optimizer.state_dict(),
                "scaler": self._scaler.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._plain.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state.get("scaler"):
            self._scaler.load_state_dict(state["scaler"])

    def _objective(self, logits: Float[Tensor, "b k"], labels: Int[Tensor, " b"],
                   features: Float[Tensor, "b d"], share: float) -> Float[Tensor, ""]:
        """Mean over samples of the loss, and of the penalty on the features."""
        if not len(labels):  # this process's part of a batch of texts may have no label
            return logits.sum() * 0.0
        if isinstance(self._loss, SupConLoss):  # it is of the whole batch by itself; the head learns beside it
            loss = F.cross_entropy(logits, labels) + self._loss(features, labels) / share
        else:
            loss = self._loss(logits, labels)
        return loss + self._penalty(features) if self.config.feature_penalty else loss

    def _penalty(self, features: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
        # (p/2) Σ_i ‖h_i‖² over all n samples, estimated as n times the batch mean.
        scale = 0.5 * self.config.feature_penalty * float(self.data.counts.n) / len(features)
        return scale * features.square().sum()

    def _close_epoch(self, total: Tensor, wrong: Tensor, seen: Tensor) -> float:
        if processes() > 1:
            total, wrong, seen = summed(torch.stack([total, wrong, seen]))
            for buffer in self._plain.buffers():  # each process has gone on from its own part since the last step
                distributed.broadcast(buffer, 0)
        self._wrong = None if self.config.terminal_epochs is None else int(wrong)
        return float(total) / float(seen)

    def _score_of(self, inputs: Any, labels: Int[Tensor, "n ..."]) -> Scored:
        return Scored(self._plain, inputs, labels, self.data.counts.k, own_stretch(len(labels), rank(), processes()))

    def _scored(self, inputs: Any, labels: Int[Tensor, "n ..."]) -> Scored:
        with self._score_of(inputs, labels) as scored, evaluating(self._plain):
            for part, _ in scored:
                self._plain(part)
        return scored.share()

    def _autocast(self) -> AbstractContextManager[Any]:
        half = _HALF.get(self.config.precision)
        return nullcontext() if half is None else torch.autocast(self._labels.device.type, half)

    def _exact(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._labels.device.type, enabled=False)


@contextmanager
def reproducible(threads: int | None) -> Iterator[None]:
    """Deterministic kernels and a fixed number of threads; the caller's own and its random state come back.

    NumPy's BLAS has as many threads as torch: its spinning ones, on top of torch's, cost more than they give.
    """
    cuda = torch.backends.cudnn
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
              torch.is_deterministic_algorithms_warn_only_enabled(), cuda.benchmark, cuda.allow_tf32)
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices), blas_threads(threads or before[0]):
            torch.set_num_threads(threads or before[0])
            if devices:
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
                torch.use_deterministic_algorithms(True, warn_only=True)
                cuda.benchmark = cuda.allow_tf32 = False  # float32 convolutions in float32, not in TF32
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=before[2])
        cuda.benchmark = before[3]
        if devices:
            cuda.allow_tf32 = before[4]


@contextmanager
def _lone_sample_named(samples: int) -> Iterator[None]:
    """In place of torch's word on batch norm over one value, what to change."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InvalidInput(f"batch norm needs at least 2 samples in each process's part of a batch, got {samples}: "
                           "give a larger batch_size, or a model without batch norm") from None


def _drawn(config: TrainConfig, labels: Int[Tensor, "n ..."]) -> tuple[Int[Tensor, " m"], Int[Tensor, " b"]]:
    """Positions of the samples of an epoch, and of those in every batch."""
    if labels.ndim == 1:
        every, common = (torch.from_numpy(at(config, labels.numpy())) for at in
                         (epoch_positions, binding_positions))
        return every, common
    if config.sampling != "natural":
        raise InvalidInput(f"sampling '{config.sampling}' needs one label a sample, got one at each position")
    return torch.arange(len(labels)), torch.arange(0)


def _only(found: list[Tensor]) -> Tensor:
    if len(found) != 1:
        raise InvalidInput(f"the model must call its head once in a forward pass, got {len(found)} calls")
    return found.pop()


def _single(values: Tensor) -> Tensor:
    """In single precision at least."""
    return values if values.element_size() >= 4 else values.float()


def _mean(values: Float[np.ndarray, " c"]) -> float | None:
    return finite_or_none(values.mean()) if values.size else None
