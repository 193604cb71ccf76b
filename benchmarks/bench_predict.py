"""SELI for a million classes, against a dense eigendecomposition where that is possible."""

import numpy as np

from harness import machine, median_seconds, peak_megabytes, ratio
from neuralcollapse import ClassCounts, predict

MILLION = 10**6


def geometry(values: np.ndarray) -> tuple[float, float]:
    """All norms and Frobenius norms."""
    predicted = predict(ClassCounts(values))
    assert predicted.classifiers.norms.size == predicted.embeddings.norms.size == values.size
    return predicted.classifiers.frobenius, predicted.embeddings.frobenius


def dense(values: np.ndarray) -> np.ndarray:
    """G_W the usual way: the square root of P D P by `eigh`."""
    projected = np.diag(values) - values / values.size - values[:, None] / values.size + values.mean() / values.size
    eigenvalues, vectors = np.linalg.eigh(projected)
    return (vectors * np.sqrt(np.maximum(eigenvalues, 0))) @ vectors.T


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    print(machine())
    profiles = {"2 distinct": np.repeat([1000, 10], MILLION // 2), "100 distinct": rng.integers(1, 101, MILLION),
                "1,500 distinct": rng.integers(1, 1501, MILLION), "all distinct": np.arange(1, MILLION + 1)}
    for name, values in profiles.items():
        print(f"10⁶ classes, {name:>15}: {1e3 * median_seconds(lambda v=values: geometry(v), 3):8.1f} ms")
    head = rng.standard_normal((MILLION, 64), dtype=np.float32)
    predicted = predict(ClassCounts(profiles["all distinct"]))
    distance = median_seconds(lambda: predicted.classifiers.distance(head), 3)
    print(f"distance to a (10⁶, 64) head, all distinct: {distance:.2f} s")
    print(f"peak memory so far: {peak_megabytes():.0f} MB")
    values = np.sort(rng.permutation(np.arange(1.0, 100_001))[:4000])
    times, ours, peer = ratio(lambda: geometry(values), lambda: dense(values), 1)
    print(f"k = 4,000 distinct counts: {1e3 * ours:.2f} ms against {peer:.1f} s of dense eigh: "
          f"{1 / times:,.0f} times faster")


if __name__ == "__main__":
    main()
