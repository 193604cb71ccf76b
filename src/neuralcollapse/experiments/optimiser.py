"""The optimiser of a run: head weight, head bias and the rest decay differently."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from neuralcollapse.experiments.config import TrainConfig


def make_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser that the settings name; every parameter is in exactly one group.

    Parameters
    ----------
    config : TrainConfig
    model : torch.nn.Module
        With its `head`, outside any wrapper.
    """
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
