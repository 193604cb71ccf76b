"""One network of the study of robustness: trained on clean or perturbed batches, measured on inputs of every kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float, Int
import numpy as np
import torch
from torch import Tensor

from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data import Data, load_data
from neuralcollapse.experiments.session import Session, reproducible
from neuralcollapse.experiments.studies.adversarial import PixelRange, adversarial_epoch, blurred, pgd, with_noise
from neuralcollapse.measure import measure

EPS = 0.1
TRAINING_STEPS, MEASURING_STEPS = 5, 10
BLUR = 3
RIDGE = 0.3
TRAININGS = ("standard", "adversarial")
_HEAD = 1.0  # λ_W of the summed loss; the preset `demo` says why it is far above λ_H
_OWN: dict[str, dict[str, Any]] = {
    "digits": {"n_max": 100, "epochs": 600, "batch_size": None, "learning_rate": 5e-3, "model": "mlp",
               "model_options": {"width": 128, "depth": 2, "features": 64}},
    # Half the test size: each test image is attacked at every measurement.
    "mnist5k": {"n_max": 50, "epochs": 60, "batch_size": 64, "learning_rate": 3e-3, "model": "cnn",
                "model_options": {"width": 8, "features": 64}, "test_size": 0.1}}
WHITE = {"digits": 16.0, "mnist5k": 255.0}
"""The raw value of a white pixel; black is 0."""
_QUICK = {"n_max": 40, "epochs": 150}
_AT_ONCE = 128  # images whose activations stay in a processor's cache

Perturb = Callable[[Session, Tensor, Tensor, PixelRange, torch.Generator], Tensor]


def _attack(share: float) -> Perturb:
    return lambda session, inputs, labels, pixels, generator: pgd(
        session.model, inputs, labels, pixels, eps=share * EPS, steps=MEASURING_STEPS, generator=generator)


PERTURBATIONS: dict[str, Perturb] = {
    "clean": lambda session, inputs, labels, pixels, generator: inputs,
    # As long as the strongest attack, which moves nearly every pixel by ε.
    "noise": lambda session, inputs, labels, pixels, generator: with_noise(inputs, pixels, EPS, generator),
    "blur": lambda session, inputs, labels, pixels, generator: blurred(inputs, BLUR),
    "PGD ε/2": _attack(0.5), "PGD ε": _attack(1.0)}


def network_config(dataset: str, ratio: float, seed: int, quick: bool) -> TrainConfig:
    """The theory's own objective at λ = 0.3, λ_W = 1, λ_H = λ² with the loss SUMMED; no other decay, no head bias.

    Parameters
    ----------
    dataset : str
        "digits" or "mnist5k".
    ratio : float
        R of STEP counts, half the classes minorities.
    seed : int
    quick : bool
    """
    own = _OWN[dataset] | (_QUICK if quick else {})
    config = TrainConfig(dataset=dataset, ratio=ratio, seed=seed, optimizer="adam", schedule="cosine", weight_decay=0.0,
                         threads=1, device="cpu", **own)
    n = load_data(config).counts.n
    return config.replace(head_weight_decay=_HEAD / n, feature_penalty=RIDGE**2 / _HEAD / n)


def measured_at(epochs: int, quick: bool) -> tuple[int, ...]:
    """The epochs of a run that are measured, log-spaced.

    Examples
    --------
    >>> measured_at(600, quick=False), measured_at(150, quick=True)
    ((1, 5, 24, 121, 600), (1, 12, 150))
    """
    return tuple(sorted({round(epoch) for epoch in np.geomspace(1, epochs, 3 if quick else 5)}))


def network(training: str, config: TrainConfig, quick: bool) -> list[dict[str, Any]]:
    """A row per measured epoch and kind of input.

    Parameters
    ----------
    training : str
        "standard", or "adversarial": every batch replaced by its perturbation.
    config : TrainConfig
    quick : bool
        Fewer epochs are measured.
    """
    data = load_data(config)
    pixels = PixelRange.of(data, WHITE[config.dataset])
    at, rows = measured_at(config.epochs, quick), list[dict[str, Any]]()
    with reproducible(config.threads):
        session = Session(config, data)
        for epoch in range(1, config.epochs + 1):
            loss = session.run_epoch(epoch) if training == "standard" else adversarial_epoch(
                session, epoch, pixels, eps=EPS, steps=TRAINING_STEPS)
            session.check_loss(loss, epoch)
            if epoch in at:
                given = {"dataset": config.dataset, "ratio": config.ratio, "training": training, "seed": config.seed,
                         "epoch": epoch, "loss": loss}
                rows.extend(given | row for row in _measured(session, data, pixels))
    return rows


def _measured(session: Session, data: Data, pixels: PixelRange) -> list[dict[str, Any]]:
    """What every perturbation leaves of the geometry and of the accuracy; majorities are the first half of classes."""
    rows, weight = [], session.head.weight.detach()
    clean = session.features(data.inputs)
    for name, perturb in PERTURBATIONS.items():
        features, test = (_features(session, perturb, inputs, labels, pixels)
                          for inputs, labels in ((data.inputs, data.labels), (data.test_inputs, data.test_labels)))
        found = measure(features, data.labels, weight, counts=data.counts,
                        targets=("seli", "etf", f"ridge:{RIDGE:g}"), nc4=None).to_dict()
        nc1, distances = found["nc1"], list(found["distances"].values())
        row = {"inputs": name, "nc1": nc1["pinv"], "leap": leap(clean, features, data.labels, weight)}
        for target, distance in zip(("seli", "etf", "ridge"), distances, strict=True):
            row |= {f"{target}/{part}": distance[part] for part in ("classifiers", "embeddings")}
        right = (test @ weight.T).argmax(1) == data.test_labels
        recall = [float(right[data.test_labels == c].double().mean()) for c in range(data.counts.k)]
        for key, values in (("variability", nc1["per_class"]), ("margin", found["margins"]["per_class"]["mean"]),
                            ("training", found["accuracy"]["per_class"]), ("test", recall),
                            ("alignment", alignment(clean, features, data.labels))):
            half = len(values) // 2
            row |= {f"{key}/majority": float(np.mean(values[:half])), f"{key}/minority": float(np.mean(values[half:]))}
        rows.append(row)
    return rows


def alignment(clean: Float[Tensor, "n d"], features: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> list[float]:
    """Cosine of each class's centred mean with that of its clean samples.

    Parameters
    ----------
    clean, features : (n, d) tensors
    labels : (n,) tensor
    """
    one, two = (_means(rows, labels) for rows in (clean, features))
    return torch.cosine_similarity(one - one.mean(0), two - two.mean(0)).tolist()


def leap(clean: Float[Tensor, "n d"], features: Float[Tensor, "n d"], labels: Int[Tensor, " n"],
         weight: Float[Tensor, "k d"]) -> float:
    """How near misjudged samples come to the clean mean of the class they are taken for; NaN where there is none.

    The median of ‖h_i − μ_c‖ / ‖μ_y − μ_c‖ with c the class decided on: 0 for a leap onto its mean.

    Parameters
    ----------
    clean, features : (n, d) tensors
    labels : (n,) tensor
    weight : (k, d) tensor
    """
    means, taken = _means(clean, labels), (features @ weight.T).argmax(1)
    wrong = taken != labels
    if not wrong.any():
        return float("nan")
    goal, home = means[taken[wrong]], means[labels[wrong]]
    return float(((features[wrong] - goal).norm(dim=1) / (home - goal).norm(dim=1)).median())


def _features(session: Session, perturb: Perturb, inputs: Tensor, labels: Tensor, pixels: PixelRange) -> Tensor:
    # The same draws at every epoch: what changes is the network.
    generator = torch.Generator().manual_seed(session.config.seed)
    parts = zip(inputs.split(_AT_ONCE), labels.split(_AT_ONCE), strict=True)
    return session.features(torch.cat([perturb(session, *part, pixels, generator) for part in parts]))


def _means(rows: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([rows[labels == c].mean(0) for c in range(int(labels.max()) + 1)])
