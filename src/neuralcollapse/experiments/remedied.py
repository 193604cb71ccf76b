"""What a run trains with against imbalance: the loss, the head and the order of samples that its settings name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Int
import numpy as np
from torch import Tensor, nn

from neuralcollapse.checks import InvalidInput, did_you_mean
from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.steer import (
    REMEDIES,
    Remedy,
    SupConLoss,
    VSLoss,
    advise,
    binding_examples,
    etf_head,
    replace_head,
    seli_head,
)
from neuralcollapse.steer.contrastive import unit


def training_loss(config: TrainConfig, counts: ClassCounts) -> nn.Module:
    """The training loss, a mean over samples: of logits, or of features (`SupConLoss`).

    Raises
    ------
    InvalidInput
        An unknown loss or option, a remedy that is a head, or a loss of features beside a fixed head.

    Examples
    --------
    >>> training_loss(TrainConfig(loss="vs", loss_options={"gamma": 0.1, "tau": 0.75}), ClassCounts([50, 5]))
    VSLoss.vs(ClassCounts(50, 5), gamma=0.1, tau=0.75)
    """
    if config.loss == "ce" and not config.loss_options:
        return nn.CrossEntropyLoss()
    loss = chosen_remedy(config, counts).loss()
    if not isinstance(loss, VSLoss | SupConLoss):
        raise InvalidInput(f"loss '{config.loss}' is a head: give head etf or seli, and a loss of logits")
    if isinstance(loss, SupConLoss) and config.head != "learned":
        raise InvalidInput(f"loss '{config.loss}' trains the features alone and a head beside them: give head learned, "
                           f"got {config.head}")
    return loss


def chosen_remedy(config: TrainConfig, counts: ClassCounts) -> Remedy:
    """The remedy that the settings name, with its parameters; for "auto" the one that `advise` recommends."""
    if config.loss != "auto":
        require_loss(config.loss)
        return Remedy(REMEDIES[config.loss].name, counts, config.loss_options)
    if config.loss_options:
        raise InvalidInput("loss 'auto' chooses its own options from the counts: name a loss, or give no options")
    chosen = advise(counts).recommended
    return Remedy(chosen.name, counts, chosen.parameters)


def put_head(model: nn.Module, config: TrainConfig, counts: ClassCounts) -> nn.Module:
    """The model with the head that the settings ask for: the learned one it has, or a fixed frame."""
    if config.head == "learned":
        return model
    d = model.get_parameter("head.weight").shape[1]
    fixed = (etf_head(counts.k, d, learn_scale=True, seed=config.seed) if config.head == "etf"
             else seli_head(counts, d, learn_scale=True, seed=config.seed))
    replace_head(model, fixed, head="head")
    return model


def require_loss(name: str) -> None:
    """Raise InvalidInput for the name of no loss, in the word of a run's settings."""
    if name not in ("ce", "auto") and name not in REMEDIES:
        raise InvalidInput(f"unknown loss '{name}': {did_you_mean(name, ['auto', *REMEDIES.names])}")


def contrast_features(loss: SupConLoss) -> Callable[[nn.Module, tuple[Tensor]], tuple[Tensor]]:
    """A hook before a head: it is given, and measured on, the features as the contrastive loss compares them."""
    def on_the_sphere(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        features = inputs[0].relu() if loss.nonnegative else inputs[0]
        return (unit(features) if loss.normalize else features,)

    return on_the_sphere


def binding_positions(config: TrainConfig, labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
    """Positions of the samples that stand in every batch: one of each class where batches are bound, else none."""
    if config.sampling != "binding":
        return np.zeros(0, dtype=np.int64)
    return np.array(binding_examples(labels, config.seed), dtype=np.int64)


def epoch_positions(config: TrainConfig, labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
    """Positions of the samples of an epoch: every one once, or every class filled up to the largest at random.

    Raises
    ------
    InvalidInput
        Oversampling without imbalanced-learn.
    """
    everyone = np.arange(labels.size)
    if config.sampling != "oversampled":
        return everyone
    try:
        from imblearn.over_sampling import RandomOverSampler
    except ImportError:
        raise InvalidInput("sampling 'oversampled' needs imbalanced-learn, which is not installed: "
                           "pip install 'neuralcollapse[oversampling]'") from None
    filled: Any = RandomOverSampler(random_state=config.seed).fit_resample(everyone[:, None], labels)[0]
    return np.asarray(filled[:, 0])
