"""One pass of CollapseMetric against the bare scatter products S += xᵀx over the same batches."""

import torch

from harness import machine, median_seconds, peak_megabytes, ratio
from neuralcollapse import CollapseMetric

CASES = ((50_000, 512, 10), (50_000, 512, 100))
BATCH = 256


def main() -> None:
    """Print the table."""
    print(machine(), "| torch threads:", torch.get_num_threads())
    for n, d, k in CASES:
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(0, k, (n,), generator=generator)
        features = torch.randn(k, d, generator=generator)[labels] + 0.1 * torch.randn(n, d, generator=generator)
        head = torch.nn.Linear(d, k)

        def products(features: torch.Tensor = features, d: int = d) -> None:
            scatter = torch.zeros(d, d)
            for x in features.split(BATCH):
                scatter.addmm_(x.T, x)

        def measured(features: torch.Tensor = features, labels: torch.Tensor = labels, d: int = d, k: int = k,
                     head: torch.nn.Linear | None = head) -> None:
            metric = CollapseMetric(k, d, head)
            for x, y in zip(features.split(BATCH), labels.split(BATCH), strict=True):
                metric.update(x, y)
            metric.compute()

        with_head, ours, floor = ratio(measured, products, 7)
        features_only, _, _ = ratio(lambda run=measured: run(head=None), products, 7)
        metric = CollapseMetric(k, d, head)
        metric.update(features[:5000], labels[:5000])
        final = median_seconds(lambda m=metric: m.measurement().to_dict())
        print(f"n = {n:,}, d = {d}, k = {k:>4}: {ours:.3f} s against {floor:.3f} s of products: {with_head:.2f}× "
              f"(features alone {features_only:.2f}×); the final metrics {1e3 * final:.1f} ms")
    print(f"peak memory: {peak_megabytes():.0f} MB")


if __name__ == "__main__":
    main()
