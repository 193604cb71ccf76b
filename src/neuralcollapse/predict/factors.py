"""Classifiers W and class means M from a geometry's Gram matrices, up to one rotation."""

from __future__ import annotations

from jaxtyping import Float
import numpy as np

from neuralcollapse.counts import ClassCounts
from neuralcollapse.gram import DiagonalPlusLowRank, Gram

_ROUNDING = 8 * np.finfo(float).eps  # per class: what a spectrum has beside its rank


def balanced_factors(logits: DiagonalPlusLowRank, counts: ClassCounts
                     ) -> tuple[Float[np.ndarray, "k r"], Float[np.ndarray, "k r"]]:
    """A = C D^{1/2} = VΛUᵀ gives W = VΛ^{1/2} and M = D^{-1/2}UΛ^{1/2} (theory.md §1)."""
    root_counts = np.sqrt(counts.values)
    left, singular, right = np.linalg.svd(logits.dense() * root_counts)
    r = int(np.sum(singular > singular[0] * logits.k * _ROUNDING)) if singular[0] > 0 else 0
    spread = np.sqrt(singular[:r])
    return left[:, :r] * spread, right[:r].T * spread / root_counts[:, None]


def joint_factors(classifiers: Gram, embeddings: Gram, logits: DiagonalPlusLowRank
                  ) -> tuple[Float[np.ndarray, "k r"], Float[np.ndarray, "k r"]]:
    """W and M as the halves of one factor of the Gram matrix of all 2k vectors."""
    k, cross = logits.k, logits.dense()
    joint = np.block([[classifiers.dense(), cross], [cross.T, embeddings.dense()]])
    values, vectors = np.linalg.eigh(joint)
    kept = values > values[-1] * 2 * k * _ROUNDING
    factor = vectors[:, kept] * np.sqrt(values[kept])
    return factor[:k], factor[k:]
