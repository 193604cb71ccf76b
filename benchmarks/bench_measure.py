"""Measuring, against bare scatter products, against reading the features, and against the field's three passes.

Usage: bench_measure.py [part [device]]: small, medium or large (on any device), peak or loop; without, all on the CPU.
"""

import os
import subprocess
import sys

import torch

from harness import forget_peak, machine, median_seconds, peak_megabytes, ratio, wait
from neuralcollapse import ClassCounts, CollapseMetric, measure, measure_model
from neuralcollapse.experiments.models import build_model
from usual import published, tidy

CASES = {"small": (50_000, 512, 10), "medium": (50_000, 512, 100), "large": (50_000, 2_048, 1_000)}
BATCH = 256


def made(n: int, d: int, k: int, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor, torch.nn.Linear]:
    """Features around class means, their labels, and a head that follows the means."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, k, (n,), generator=generator)
    means = torch.randn(k, d, generator=generator)
    features = torch.randn(n, d, generator=generator).mul_(0.1).add_(means[labels])
    head = torch.nn.Linear(d, k)
    head.weight.data.copy_(means)
    return features.to(device), labels.to(device), head.to(device)


def streamed(features: torch.Tensor, labels: torch.Tensor, k: int, head: torch.nn.Linear | None = None,
             logits: torch.Tensor | None = None, scatter: bool = True) -> CollapseMetric:
    """One pass of CollapseMetric in batches."""
    metric = CollapseMetric(k, features.shape[1], head, scatter=scatter).to(features.device)
    parts = logits.split(BATCH) if logits is not None else [None] * -(-len(features) // BATCH)
    for x, y, z in zip(features.split(BATCH), labels.split(BATCH), parts, strict=True):
        metric.update(x, y, z)
    _ = metric.metric_state  # reading the states puts what is buffered into them: a part of the pass
    wait(features.device.type)
    return metric


def compare(name: str, device: str = "cpu") -> None:
    """Print the lines of one case."""
    n, d, k = CASES[name]
    features, labels, head = made(n, d, k, device)
    repeats = 7 if name != "large" else 3

    def products() -> None:
        scatter = torch.zeros(d, d, device=device)
        for x in features.split(BATCH):
            scatter.addmm_(x.T, x)
        wait(device)

    def read() -> None:
        for x in features.split(BATCH):
            x.sum()
        wait(device)

    print(f"n = {n:,}, d = {d:,}, k = {k:,}")
    with torch.no_grad():
        logits = head(features)
    _, _, floor = ratio(products, products, 1)
    print(f"  bare per-batch products: {floor:.3f} s; reading: {median_seconds(read):.4f} s")
    for what, run in {
        "features alone": lambda: streamed(features, labels, k),
        "features and logits at hand (as in a loop)": lambda: streamed(features, labels, k, head, logits),
        "features and head, logits formed too": lambda: streamed(features, labels, k, head),
    }.items():
        times, ours, _ = ratio(run, products, repeats)
        print(f"  one pass, {what}: {ours:.3f} s, {times:.2f}× the products")
    for what, run in {"in batches": lambda: streamed(features, labels, k, scatter=False),
                      "from an array": lambda: measure(features, labels, scatter=False)}.items():
        times, ours, _ = ratio(run, read, repeats)
        print(f"  traces only, {what}: {ours:.4f} s, {times:.1f}× reading the features")
    del logits
    metric = streamed(features, labels, k, head)
    final = median_seconds(lambda: metric.measurement().to_dict(), 3)
    print(f"  the final metrics: {1e3 * final:.1f} ms")

    if device != "cpu":
        return  # the usual three passes are code for the CPU
    weight = head.weight.detach()
    ours = measure(features, labels, weight).to_dict()
    for peer in (tidy, published) if name != "large" else (tidy,):  # `published` takes many minutes there
        times, fast, slow = ratio(lambda: measure(features, labels, weight, targets=("seli",)).to_dict(),
                                  lambda peer=peer: peer(features, labels, weight), repeats if peer is tidy else 1)
        nc1 = peer(features, labels, weight)["nc1"] if name == "small" else float("nan")
        print(f"  measure (NC1–NC4, margins, distances): {fast:.2f} s against {slow:.2f} s of the usual three passes, "
              f"{peer.__name__}: {1 / times:.1f}× as fast (NC1 {ours['nc1']['pinv']:.6g}, theirs {nc1:.6g})",
              flush=True)


def peak() -> None:
    """Peak memory at d = 2,048, beyond features and head."""
    features, labels, head = made(*CASES["large"])
    features[:BATCH].T @ features[:BATCH]  # the BLAS library's own buffers
    before = forget_peak()
    for nc4 in ("second-pass", None):
        measure(features, labels, head.weight.detach(), nc4=nc4).to_dict()
        print(f"peak memory beyond features and head, d = 2,048, k = 1,000, "
              f"{'one pass' if nc4 is None else 'two passes'}: {peak_megabytes() - before:.0f} MB")


def loop() -> None:
    """What a measured epoch costs beside the forward passes that it needs."""
    torch.manual_seed(0)
    for name, shape, n, size in (("resnet18", (3, 32, 32), 512, 128), ("cnn", (1, 28, 28), 4_000, 64)):
        images, labels = torch.randn(n, *shape), torch.arange(n) % 10
        model = build_model(name, shape, 10, head_bias=False).eval()
        batches = list(zip(images.split(size), labels.split(size), strict=True))
        counts = ClassCounts.from_labels(labels.numpy())

        def forward(model: torch.nn.Module = model, batches: list = batches) -> None:
            with torch.no_grad():
                for x, _ in batches:
                    model(x)

        def measured(model: torch.nn.Module = model, batches: list = batches, counts: ClassCounts = counts) -> None:
            measure_model(model, batches, counts=counts).scalars()

        times, ours, floor = ratio(measured, forward, 7)
        print(f"a measured epoch, {name}, {len(batches)} batches of {size}: {ours:.3f} s against {floor:.3f} s of its "
              f"forward passes: {100 * (times - 1):+.1f} %", flush=True)


def main() -> None:
    """Print the table."""
    if len(sys.argv) > 1:
        if len(sys.argv) > 2:
            print(machine(sys.argv[2]), flush=True)
        {"peak": peak, "loop": loop}.get(sys.argv[1], lambda: compare(*sys.argv[1:]))()
        return
    print(machine(), "| torch threads:", torch.get_num_threads(), flush=True)
    for part in (*CASES, "peak", "loop"):  # each in a process of its own: what one leaves behind does not slow the next
        subprocess.run([sys.executable, __file__, part], check=True, env=os.environ)


if __name__ == "__main__":
    main()
