"""One cell of the study of steering: a small network under one remedy, scored, and its post-hoc repairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data import load_data
from neuralcollapse.experiments.remedied import chosen_remedy
from neuralcollapse.experiments.session import Session, reproducible
from neuralcollapse.steer import evaluate_posthoc, scores

_SCORED = ("overall", "balanced", "majority", "minority", "ece", "nll", "seli/classifiers", "seli/embeddings",
           "etf/classifiers", "etf/embeddings", "training_accuracy")

POSTHOC_OF: dict[str, tuple[str, ...] | None] = {"ce": None, "scl": ("nearest-class-mean", "refit")}
"""What is tried after training, by remedy; None for every post-hoc remedy."""


def cell(name: str, config: TrainConfig) -> list[dict[str, Any]]:
    """A row for the remedy, and one for each remedy after training where there are any.

    Parameters
    ----------
    name : str
        What the rows are called.
    config : TrainConfig
    """
    data = load_data(config)
    with reproducible(config.threads):
        session = Session(config, data)
        if name == "class weights":
            # As people do it, with each batch's mean over its own weights.
            weight = torch.tensor(data.counts.n / (data.counts.k * data.counts.values), dtype=torch.float32)
            session.use_loss(nn.CrossEntropyLoss(weight))
        for epoch in range(1, config.epochs + 1):
            session.run_epoch(epoch)
        given = {"dataset": config.dataset, "profile": config.imbalance, "ratio": config.ratio, "remedy": name,
                 "seed": config.seed, "gamma": config.loss_options.get("gamma"),
                 "tau": config.loss_options.get("tau"), "line": _line(config, data.counts)}
        # Running statistics of batch norm count as well: a network that diverged is a result, not an error.
        if not all(torch.isfinite(value).all() for value in session.model.state_dict().values()):
            return [given | dict.fromkeys(_SCORED)]
        values, measurement = session.measure(config.epochs)
        train, test = (session.features(inputs) for inputs in (data.inputs, data.test_inputs))
    distances = measurement.to_dict()["distances"]
    geometry = {f"{target}/{part}": distances[target][part] for target in ("seli", "etf")
                for part in ("classifiers", "embeddings")}
    logits = session.head(test).detach()
    own = _scored(logits, data.test_labels, data.counts) | geometry | {"training_accuracy": values["train"]["accuracy"]}
    rows = [given | {key: own[key] for key in _SCORED}]
    if name in POSTHOC_OF:
        rows.extend(_posthoc(given, session, (train, data.labels), (test, data.test_labels)))
    return rows


def _line(config: TrainConfig, counts: ClassCounts) -> str:
    return chosen_remedy(config, counts).line


def _posthoc(given: dict[str, Any], session: Session, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]
             ) -> Iterator[dict[str, Any]]:
    counts, name = session.data.counts, given["remedy"]
    for row in evaluate_posthoc(train, test, session.head.weight, session.head.bias, POSTHOC_OF[name], counts)[1:]:
        scored = {} if row.rule is None else _scored(row.rule.logits(test[0]), test[1], counts)
        yield given | dict.fromkeys(_SCORED) | scored | {"remedy": f"{name}, then {row.name}"}


def _scored(logits: Tensor, labels: Tensor, counts: ClassCounts) -> dict[str, Any]:
    """The scores on a test part with every class equally often; overall accuracy is that of the training mix."""
    right = logits.argmax(1) == labels.to(logits.device)
    recall = [right[labels == c].double().mean().item() for c in range(counts.k)]
    return scores(logits, labels, counts).to_dict() | {"overall": float(counts.values @ recall / counts.n)}
