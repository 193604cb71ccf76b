"""One network in training: its data, model and optimiser on a device, one epoch at a time.

Nothing random outlives an epoch: the weights come from the seed, and each epoch's order (and dropout, if a
model has any) from the seed and the epoch's number. A resumed run therefore needs no random state.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
import os
from typing import Any

from accelerate import Accelerator
from jaxtyping import Float
import numpy as np
import torch
from torch import Tensor, nn

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data import Data, augmentation
from neuralcollapse.experiments.models import build_model
from neuralcollapse.experiments.remedied import drawn, make_loss, put_head
from neuralcollapse.experiments.score import Scored
from neuralcollapse.measure import Measurement, measure_model
from neuralcollapse.measure.wrapped import evaluating

_AT_ONCE = 512
_DISTINCT_COUNTS = 40  # up to which the geometry at a ridge is solved within a fraction of a second


class Session:
    """The network of one run.

    Parameters
    ----------
    config : TrainConfig
    data : Data

    Raises
    ------
    InvalidInput
        A model that cannot be built.
    """

    def __init__(self, config: TrainConfig, data: Data):
        self.config, self.data = config, data
        self.accelerator = Accelerator(cpu=config.device == "cpu")
        torch.manual_seed(config.seed)
        model = build_model(config.model, data.shape, data.counts.k, config.head_bias, **config.model_options)
        model = put_head(model, config, data.counts)
        self.model, self.optimizer = self.accelerator.prepare(model, _optimizer(config, model))
        self.head: nn.Linear = self.accelerator.unwrap_model(self.model).head
        device = self.accelerator.device
        self._loss = make_loss(config, data.counts).to(device)
        self._drawn = torch.from_numpy(drawn(config, data.labels.numpy()))
        self._inputs, self._labels = data.inputs.to(device), data.labels.to(device)
        self._test_inputs, self._test_labels = data.test_inputs.to(device), data.test_labels.to(device)

    def run_epoch(self, epoch: int) -> float:
        """Train through epoch number `epoch` and return its mean loss, penalty included, decay left out."""
        torch.manual_seed(_epoch_seed(self.config.seed, epoch))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(epoch)
        self.model.train()
        total = torch.zeros((), device=self._inputs.device)
        augment = augmentation(self.config.augment)
        features: list[Tensor] = []
        penalised = bool(self.config.feature_penalty)
        with self.head_inputs(features) if penalised else nullcontext():
            for inputs, labels in self._batches():
                if augment is not None:
                    inputs = augment(inputs)
                loss = self._loss(self.model(inputs), labels)
                if penalised:
                    loss = loss + self._penalty(features.pop())
                self.optimizer.zero_grad()
                self.accelerator.backward(loss)
                self.optimizer.step()
                total += loss.detach() * len(labels)
        return float(total) / len(self._drawn)

    def measure(self, epoch: int) -> tuple[dict[str, Any], Measurement]:
        """Loss (without penalties) and accuracy on both parts, and the geometry of the training part; eval mode.

        The training part is gone through once: its loss is taken from the pass that measures the geometry.
        """
        counts, model = self.data.counts, self.accelerator.unwrap_model(self.model)
        with Scored(model, self._test_inputs, self._test_labels, counts.k) as test, evaluating(model):
            for inputs, _ in test:
                model(inputs)
        self.check_loss(test.loss, epoch)
        with Scored(model, self._inputs, self._labels, counts.k) as train:
            measurement = measure_model(model, train, counts=counts, head="head", center=self.config.center,
                                        targets=self.targets)
        recall = test.recall
        return {"train": {"loss": finite(train.loss), "accuracy": train.accuracy},
                "test": {"loss": finite(test.loss), "accuracy": test.accuracy,
                         "balanced_accuracy": finite(recall.mean()),
                         "majority_accuracy": _mean(recall[~counts.minority]),
                         "minority_accuracy": _mean(recall[counts.minority]),
                         "per_class_accuracy": [finite(value) for value in recall]}}, measurement

    @contextmanager
    def head_inputs(self, found: list[Tensor]) -> Iterator[None]:
        """Append the head's input of each forward pass to `found`."""
        hook = self.head.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
        try:
            yield
        finally:
            hook.remove()

    def features(self, inputs: Tensor) -> Tensor:
        """(n, d): the head's inputs, in eval mode."""
        found: list[Tensor] = []
        with self.head_inputs(found), evaluating(self.model), torch.no_grad():
            for part in inputs.to(self._inputs.device).split(_AT_ONCE):
                self.model(part)
        return torch.cat(found)

    def use_loss(self, loss: nn.Module) -> None:
        """Train with another loss of logits and labels than the settings name; it is not part of the state."""
        self._loss = loss.to(self._inputs.device)

    @property
    def targets(self) -> tuple[str, ...]:
        """What the geometry is held against: SELI first, the ETF, and the geometry at the run's own ridge."""
        counts = self.data.counts
        head, features = self.config.ridges(float(counts.n))
        if head > 0 and features > 0 and counts.groups.sizes.size <= _DISTINCT_COUNTS:
            return ("seli", "etf", f"ridge:{np.sqrt(head * features):.6g}")
        return ("seli", "etf")

    def check_loss(self, loss: float, epoch: int) -> None:
        """Raise InvalidInput when training has diverged."""
        if not np.isfinite(loss):
            raise InvalidInput(f"the loss must stay finite, but is not after epoch {epoch}: try a learning_rate below "
                               f"{self.config.learning_rate:g} (what was written before stays)")

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""
        return {"model": self.accelerator.unwrap_model(self.model).state_dict(),
                "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.accelerator.unwrap_model(self.model).load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        n, size = len(self._drawn), self.config.batch_size
        if size is None or size >= n:
            yield self._inputs[self._drawn], self._labels[self._drawn]
            return
        # Even parts: a last batch of one sample would break batch norm and weigh that sample more.
        for place in torch.tensor_split(torch.randperm(n), -(-n // size)):
            index = self._drawn[place]
            yield self._inputs[index], self._labels[index]

    def _penalty(self, features: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
        # (p/2) Σ_i ‖h_i‖² over all n samples, estimated as n times the batch mean.
        scale = 0.5 * self.config.feature_penalty * len(self._labels) / len(features)
        return scale * features.square().sum()


@contextmanager
def reproducible(threads: int | None) -> Iterator[None]:
    """Deterministic kernels and a fixed number of threads; the caller's own and its random state come back."""
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
              torch.is_deterministic_algorithms_warn_only_enabled(), torch.backends.cudnn.benchmark)
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            torch.set_num_threads(threads or before[0])
            if devices:
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
                torch.use_deterministic_algorithms(True, warn_only=True)
                torch.backends.cudnn.benchmark = False
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=before[2])
        torch.backends.cudnn.benchmark = before[3]


def finite(value: float) -> float | None:
    """A number for JSON: None in place of NaN and Inf."""
    return float(value) if np.isfinite(value) else None


def _optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Head weight, head bias and the rest decay differently; every parameter is in exactly one group."""
    head = model.head
    assert isinstance(head, nn.Linear)  # build_model saw to it
    own = {id(parameter) for parameter in head.parameters()}
    head_decay = config.ridges(n=1)[0]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if id(p) not in own], "weight_decay": config.weight_decay},
        {"params": [p for p in head.parameters() if p is head.weight], "weight_decay": head_decay}]
    undecayed = [p for p in head.parameters() if p is not head.weight]  # a bias, the scale of fixed classifiers
    if undecayed:
        groups.append({"params": undecayed, "weight_decay": 0.0})
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.learning_rate, betas=(config.momentum, 0.999))


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _mean(values: Float[np.ndarray, " c"]) -> float | None:
    return finite(values.mean()) if values.size else None
