"""The spectrum of the between-class scatter, from the smaller of k × k and d × d.

    Σ_B = (1/k) Σ_c μ_c μ_cᵀ = Σ_j λ_j u_j u_jᵀ,   tr(Σ_W Σ_B^†) = Σ_j (u_jᵀ Σ_W u_j)/λ_j

so that NC1 needs Σ_W only along the few directions u_j: from a scatter that was kept, or from a second pass over
the samples projected on them.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
import numpy as np

_SMALL = 1e-8  # eigenvalues below this share of the largest keep too few digits in a product M Mᵀ


def effective_rank(values: Float[np.ndarray, " r"]) -> float:
    """Exp of the entropy of positive eigenvalues over their sum (roy2007); NaN of none."""
    if not values.size:
        return float("nan")
    share = values / values.sum()
    return float(np.exp(-np.sum(share * np.log(share))))


@dataclass(frozen=True, eq=False)
class BetweenSpectrum:
    """The directions in which class means differ.

    Attributes
    ----------
    values : (r,) array
        λ_j above `cutoff` times the largest, ascending.
    directions : (r, d) array
        u_j, orthonormal rows.
    cutoff : float
        max(k, d) times the float64 spacing: smaller eigenvalues are rounding, and count as zero.
    gram : (k, k) array or None
        M Mᵀ of the means, where it was formed on the way.
    """

    values: Float[np.ndarray, " r"]
    directions: Float[np.ndarray, "r d"]
    cutoff: float
    gram: Float[np.ndarray, "k k"] | None = None

    @classmethod
    def of(cls, means: Float[np.ndarray, "k d"]) -> BetweenSpectrum:
        """The spectrum of (1/k) Σ_c μ_c μ_cᵀ of means that are centred already."""
        k, d = means.shape
        cutoff = max(k, d) * float(np.finfo(float).eps)
        gram = None
        if k <= d:
            gram = means @ means.T
            values, vectors = np.linalg.eigh(gram / k)
            kept = values > cutoff * max(values[-1], 0.0)
            directions = vectors.T[kept] @ means / np.sqrt(k * values[kept])[:, None]
        else:
            values, vectors = np.linalg.eigh(means.T @ means / k)
            kept = values > cutoff * max(values[-1], 0.0)
            directions = np.ascontiguousarray(vectors.T[kept])
        values = values[kept]
        if values.size and values[0] < _SMALL * values[-1]:  # the rare case pays for its digits
            singular, right = np.linalg.svd(means, full_matrices=False)[1:]
            kept = singular**2 > cutoff * singular[0] ** 2
            values, directions = singular[kept][::-1] ** 2 / k, right[kept][::-1].copy()
        return cls(values, directions, cutoff, gram)

    @property
    def effective_rank(self) -> float:
        """Exp of the entropy of λ_j/Σλ: k − 1 for a simplex, fewer when classes share directions (roy2007)."""
        return effective_rank(self.values)

    def along(self, matrix: Float[np.ndarray, "d d"]) -> Float[np.ndarray, " r"]:
        """u_jᵀ A u_j for every direction."""
        return np.einsum("rd,rd->r", self.directions @ matrix, self.directions)
