"""One small network of the study of losses: a multilayer perceptron on the digits under the theory's own penalties."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data import load_data
from neuralcollapse.experiments.presets import PRESETS
from neuralcollapse.experiments.remedied import chosen_remedy
from neuralcollapse.experiments.session import Session, reproducible
from neuralcollapse.experiments.studies.study import distances
from neuralcollapse.predict import predict

RIDGE = 0.3
_HEAD = 1.0  # λ_W of the summed loss; the preset `demo` says why it is far above λ_H


def network_config(loss: str, options: dict[str, Any], ratio: float, seed: int, epochs: int) -> TrainConfig:
    """The demo's settings with a loss, at λ = 0.3: below every loss's collapse, and reached in 1,500 epochs.

    Parameters
    ----------
    loss, options
        A remedy and its parameters.
    ratio : float
    seed : int
    epochs : int
    """
    config = PRESETS["demo"].function().replace(
        loss=loss, loss_options=options, ratio=ratio, seed=seed, epochs=epochs, n_max=140,
        model_options={"width": 128, "depth": 2, "features": 64}, device="cpu")
    n = load_data(config).counts.n
    return config.replace(head_weight_decay=_HEAD / n, feature_penalty=RIDGE**2 / _HEAD / n)


def network(config: TrainConfig) -> dict[str, Any]:
    """Distances of a trained network to its loss's own geometry at its ridge, to the loss's limit and to SELI.

    Class means are about the origin, as the model has them.

    Parameters
    ----------
    config : TrainConfig
    """
    data = load_data(config)
    with reproducible(config.threads):
        session = Session(config, data)
        for epoch in range(1, config.epochs + 1):
            session.check_loss(session.run_epoch(epoch), epoch)
        accuracy = session.measure(config.epochs)[0]["train"]["accuracy"]
        features = session.features(data.inputs).double().cpu().numpy()
        weight = session.head.weight.detach().double().cpu().numpy()
    labels = data.labels.numpy()
    means = np.stack([features[labels == c].mean(0) for c in range(data.counts.k)])
    lambda_w, lambda_h = config.ridges(float(data.counts.n))
    ridge = float(np.sqrt(lambda_w * lambda_h))
    made = chosen_remedy(config, data.counts)
    found: dict[str, Any] = {"ridge": ridge}
    for name, geometry in (("own", made.geometry(ridge=ridge)), ("limit", made.geometry()),
                           ("seli", predict(data.counts))):
        found |= {f"{name}/{part}": value for part, value in distances(geometry, weight, means).items()}
    balance = lambda_w * np.sum(weight**2) / (lambda_h * np.sum(features**2))
    return found | {"training_accuracy": accuracy, "balance": float(balance)}
