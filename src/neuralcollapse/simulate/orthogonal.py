"""The nearest orthogonal matrices of many matrices: exactly, and as Muon approximates them."""

from __future__ import annotations

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # the quintic of jordan2024
_NEWTON_SCHULZ_STEPS = 5


def polar_factor(matrices: Tensor) -> Tensor:
    """UVᵀ of each (…, p, q) matrix UΣVᵀ over the directions that its arithmetic resolves.

    Examples
    --------
    >>> polar_factor(torch.tensor([[0.0, -3.0], [0.0, 0.0]]))
    tensor([[ 0., -1.],
            [ 0.,  0.]])
    """
    # A diverged run must not stop the others; it is found by its parameters.
    left, values, right = torch.linalg.svd(matrices.nan_to_num(0.0, 0.0, 0.0), full_matrices=False)
    least = values[..., :1] * torch.finfo(matrices.dtype).eps * max(matrices.shape[-2:]) * 8
    return (left * (values > least).unsqueeze(-2)) @ right


def newton_schulz(matrices: Tensor) -> Tensor:
    """Muon's approximate UVᵀ of each (…, p, q) matrix: singular values between about 0.7 and 1.2."""
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    X = matrices.mT if tall else matrices
    X = X / torch.linalg.matrix_norm(X, keepdim=True).clamp(min=torch.finfo(X.dtype).tiny)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        square = X @ X.mT
        X = a * X + (b * square + c * square @ square) @ X
    return X.mT if tall else X
