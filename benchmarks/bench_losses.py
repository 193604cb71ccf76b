"""The loss family against F.cross_entropy, forward and backward: in a step with a Linear head, and bare.

The step is a head of 512 features, its loss and all gradients: what a training loop pays once the backbone is left out.
Bare is the loss on logits that are there already, where each pass over them shows.
Usage: bench_losses.py [device, default cpu]
"""

from collections.abc import Callable
import sys

import torch
from torch import nn
from torch.nn import functional as F

from harness import machine, ratio, wait
from neuralcollapse import ClassCounts
from neuralcollapse.steer.losses import VSLoss

FEATURES = 512
CASES = ((128, 100, 201), (256, 1_000, 101), (4_096, 32_000, 3))


def losses(k: int) -> dict[str, VSLoss]:
    """The constructors that differ in what they do to the logits."""
    counts = ClassCounts.long_tail(k, 100, 5_000)
    return {"weighted": VSLoss.weighted(counts), "logit_adjusted": VSLoss.logit_adjusted(counts),
            "cdt": VSLoss.cdt(counts, 0.2), "vs": VSLoss.vs(counts, 0.2, 1.0), "ldt": VSLoss.ldt(counts),
            "ldam": VSLoss.ldam(counts), "focal": VSLoss.focal(counts)}


def step(criterion: Callable[..., torch.Tensor], leaves: list[torch.Tensor], logits: Callable[[], torch.Tensor],
         labels: torch.Tensor) -> Callable[[], None]:
    """Forward and backward of one batch."""
    def run() -> None:
        for leaf in leaves:
            leaf.grad = None
        criterion(logits(), labels).backward()
        wait(labels.device.type)
    return run


def main() -> None:
    """Print the table."""
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    print(machine(device), "| torch threads:", torch.get_num_threads(), flush=True)
    for n, k, repeats in CASES:
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(0, k, (n,), generator=generator).to(device)
        features = torch.randn(n, FEATURES, generator=generator).to(device).requires_grad_()
        head = nn.Linear(FEATURES, k).to(device)
        ready = torch.randn(n, k, generator=generator).to(device).requires_grad_()
        ways = {"step": ([features, *head.parameters()], lambda head=head, x=features: head(x)),
                "bare": ([ready], lambda ready=ready: ready)}
        print(f"n = {n:,}, k = {k:,}")
        for name, loss in losses(k).items():
            parts = []
            for way, (leaves, logits) in ways.items():
                times, ours, peer = ratio(step(loss.to(device), leaves, logits, labels),
                                          step(F.cross_entropy, leaves, logits, labels), repeats)
                parts.append(f"{way} {times:.2f}× ({1e3 * ours:.3f} against {1e3 * peer:.3f} ms)")
            print(f"  {name:>14}: {', '.join(parts)}", flush=True)


if __name__ == "__main__":
    main()
