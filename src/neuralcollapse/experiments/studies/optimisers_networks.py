"""Small real networks under the same optimisers: multilayer perceptrons on the digits, deep into the terminal phase."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data import Data, load_data
from neuralcollapse.experiments.models import build_model
from neuralcollapse.measure import measure
from neuralcollapse.predict import NORMS, predict
from neuralcollapse.simulate import exact_cross_entropy
from neuralcollapse.simulate.margins import NAMES, margins

NETWORK_RATIOS = (1.0, 10.0, 50.0)
NETWORK_STEPS = 3_000
_WIDTH, _DEPTH, _FEATURES = 128, 1, 18
_N_MAX = 100


def _muon(matrices: list[Tensor], vectors: list[Tensor]) -> list[torch.optim.Optimizer]:
    if not hasattr(torch.optim, "Muon"):
        raise InvalidInput(f"the study of optimisers needs torch ≥ 2.9 for its Muon, got torch {torch.__version__}")
    return [torch.optim.Muon(matrices, lr=0.1, weight_decay=0.0), torch.optim.Adam(vectors, lr=0.003)]


# Label: (optimisers of the matrices and the biases, whether gradients are normalised first). Step sizes were chosen
# among three, a factor of three apart, on one seed at R = 10; all fall like 1/√t.
OPTIMISERS: dict[str, tuple[Callable[[list[Tensor], list[Tensor]], list[torch.optim.Optimizer]], bool]] = {
    "sgd": (lambda m, v: [torch.optim.SGD([*m, *v], lr=0.1, momentum=0.9)], False),
    "normalised sgd": (lambda m, v: [torch.optim.SGD([*m, *v], lr=0.1, momentum=0.9)], True),
    "muon": (_muon, True),
    # Adam without memory is g/|g|: sign descent. Its ε must not count beside a normalised gradient.
    "sign": (lambda m, v: [torch.optim.Adam([*m, *v], lr=0.003, betas=(0.0, 0.0), eps=1e-200)], True),
    "adam": (lambda m, v: [torch.optim.Adam([*m, *v], lr=0.003, eps=1e-200)], False),
}


def network_rows(ratios: tuple[float, ...], seeds: tuple[int, ...], steps: int,
                 tell: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """One row per ratio, optimiser and seed: shares of the best margins, distances, accuracies.

    Parameters
    ----------
    ratios : tuple of float
        STEP imbalance ratios, with at most 100 training samples per class.
    seeds : tuple of int
        Of the split, the drawn samples and the weights.
    steps : int
    tell : callable
        Given a line per network.
    """
    for ratio in ratios:
        for seed in seeds:
            data = load_data(TrainConfig(dataset="digits", ratio=ratio, n_max=_N_MAX, seed=seed))
            for label in OPTIMISERS:
                row = observed(_trained(data, label, seed, steps), data)
                tell(f"network: R = {ratio:g}, seed {seed}, {label}: training accuracy {row['training_accuracy']:.3f}")
                yield {"method": label, "ratio": ratio, "seed": seed, **row}


def _trained(data: Data, label: str, seed: int, steps: int) -> nn.Module:
    """After so many full-batch steps on exact cross-entropy, in float64: the loss goes far below 1e-16."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model("mlp", data.shape, data.counts.k, width=_WIDTH, depth=_DEPTH, features=_FEATURES).double()
    parameters = list(model.parameters())
    make, normalised = OPTIMISERS[label]
    used = make([p for p in parameters if p.ndim == 2], [p for p in parameters if p.ndim != 2])
    schedules = [torch.optim.lr_scheduler.LambdaLR(one, lambda t: (t + 1) ** -0.5) for one in used]
    inputs = data.inputs[:].double()
    for _ in range(steps):
        for one in used:
            one.zero_grad()
        logits = model(inputs)
        (log_cross_entropy if normalised else exact_cross_entropy)(logits, data.labels).backward()
        if normalised:
            size = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            for p in parameters:
                if p.grad is not None:
                    p.grad.div_(size)
        for one, schedule in zip(used, schedules, strict=True):
            one.step()
            schedule.step()
    return model


def log_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Logarithm of the summed loss, whose gradient has the loss's own direction, also where that underflows.

    Examples
    --------
    >>> log_cross_entropy(torch.tensor([[2000.0, 0.0, 0.0]], dtype=torch.float64), torch.tensor([0]))
    tensor(-1999.3069, dtype=torch.float64)
    """
    index = labels[:, None]
    odds = logits.scatter(1, index, float("-inf")).logsumexp(1) - logits.gather(1, index)[:, 0]
    # Below −40, ln log(1 + e^a) is a to the last bit of float64.
    each = torch.where(odds < -40, odds, nn.functional.softplus(odds.clamp(min=-40)).log())
    return each.logsumexp(0)


@torch.no_grad()
def observed(model: nn.Module, data: Data) -> dict[str, Any]:
    """Shares of the best margins, distances to SELI and to the simplex, and accuracies of a network."""
    features = model.get_submodule("body")(data.inputs[:].double())
    head = model.get_parameter("head.weight")
    logits, index = features @ head.T, data.labels[:, None]
    gap = (logits.gather(1, index) - logits.scatter(1, index, float("-inf")).amax(1, keepdim=True)).min()
    found = margins(gap[None], head[None], features.T[None], features.new_ones(1, 1, len(features)))
    distances = measure(features, data.labels, head, targets=("seli", "etf"), nc4=None, scatter=False).to_dict()
    correct = model(data.test_inputs[:].double()).argmax(1) == data.test_labels
    return {**{norm: found[NAMES[norm]].item() / largest_margin(data.counts, norm) for norm in NORMS.names},
            **{f"{target}/{part}": value for target, parts in distances["distances"].items()
               for part, value in parts.items()},
            "training_accuracy": (logits.argmax(1) == data.labels).double().mean().item(),
            "balanced_accuracy": correct.double().mean().item()}  # every class is tested as often


def largest_margin(counts: ClassCounts, norm: str) -> float:
    """What `predict` gives as the best margin in a norm."""
    margin = predict(counts, norm=norm).margin
    assert margin is not None  # every geometry of a norm has one
    return margin
