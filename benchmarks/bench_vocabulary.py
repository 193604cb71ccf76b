"""A vocabulary-sized head, 128,000 × 1,024, held against SELI for Zipf counts: time, and memory beside the head's."""

import numpy as np

from harness import forget_peak, machine, median_seconds, peak_megabytes
from neuralcollapse import predict

K, D = 128_000, 1_024


def main() -> None:
    """Print the line."""
    print(machine())
    predict([2, 1]).classifiers.distance(np.eye(2))  # the libraries are loaded
    base = forget_peak()
    head = np.random.default_rng(0).standard_normal((K, D), dtype=np.float32)
    counts = np.maximum(1e9 / np.arange(1, K + 1), 1).astype(np.int64)

    def distance() -> float:
        return predict(counts).classifiers.distance(head)

    seconds = median_seconds(distance, 3)
    share = (peak_megabytes() - base) / (head.nbytes / 2**20)
    print(f"k = {K:,}, d = {D:,}, {np.unique(counts).size:,} distinct counts: {seconds:.2f} s, "
          f"peak memory {share:.2f}× the head (the head included)")


if __name__ == "__main__":
    main()
