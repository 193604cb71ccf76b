"""Named configurations, found by experiment and explained."""

from __future__ import annotations

from collections.abc import Callable

from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.registry import Registry

PRESETS: Registry[Callable[[], TrainConfig]] = Registry("preset")


@PRESETS.register("demo", source="thrampoulidis2022")
def demo() -> TrainConfig:
    """Digits at R = 10 to SELI within seconds: full-batch Adam on the theory's own objective."""
    # With n = 770: λ_W = 1 and λ_H = 1e-4 with the loss summed, so λ = 0.01, near enough to the vanishing ridge.
    # Only their product sets the geometry. A large λ_W/λ_H asks for a small head and large features, and a deep
    # body grows its features faster than a lone linear layer grows its weight: with λ_W = λ_H = 0.1, λ_W‖W‖² had
    # reached a tenth of the λ_H‖H‖² it equals in the end after 1,500 steps. One thread: two gain little here.
    return TrainConfig(
        dataset="digits", imbalance="step", ratio=10, minority=0.5, epochs=2000, batch_size=None,
        model="mlp", model_options={"width": 256, "depth": 2, "features": 128},
        optimizer="adam", learning_rate=5e-3, schedule="cosine",
        weight_decay=0.0, head_weight_decay=1.3e-3, feature_penalty=1.3e-7, threads=1)
