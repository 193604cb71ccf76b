"""The margins that optimisers may maximise: one smallest gap, held against the size of W and H in three norms.

    nuclear     gap/(‖W‖_F ‖H‖_F)          gradient descent
    spectral    gap/(‖W‖₂ ‖H‖₂)            spectral descent, Muon
    max         gap/(d·max|W|·max|H|)      sign descent, Adam

with gap = min_i (z_y − max_{c≠y} z_c) and H over all samples. None exceeds the `margin` of `predict(counts, norm=…)`,
which is what the best W and H attain (`theory.md` §5; fan2025).
"""

from __future__ import annotations

import torch
from torch import Tensor

NAMES = {"nuclear": "margin", "spectral": "margin/spectral", "max": "margin/max"}
"""What each norm's margin is called among a simulation's quantities."""


def margins(gap: Tensor, W: Tensor, H: Tensor, samples: Tensor) -> dict[str, Tensor]:
    """The margin of every run in every norm.

    Parameters
    ----------
    gap : (B,) float64 tensor
    W : (B, k, d) float64 tensor
    H : (B, d, n) float64 tensor
    samples : (1 or B, 1, n) float64 tensor
        How many samples each column of H stands for; 0 for padding.

    Returns
    -------
    dict of str to (B,) tensor

    Examples
    --------
    >>> eye = torch.eye(2, dtype=torch.float64)[None]
    >>> found = margins(torch.ones(1, dtype=torch.float64), eye, eye, torch.ones(1, 1, 2, dtype=torch.float64))
    >>> {name: round(value.item(), 6) for name, value in found.items()}
    {'margin': 0.5, 'margin/spectral': 1.0, 'margin/max': 0.5}
    """
    counted = H * samples.sqrt()
    frobenius = torch.linalg.vector_norm(W, dim=(1, 2)) * torch.linalg.vector_norm(counted, dim=(1, 2))
    # A run that diverged must not stop the others: eigvalsh raises on NaN.
    largest = [torch.linalg.eigvalsh(gram.nan_to_num())[:, -1].clamp(min=0).sqrt()
               for gram in (W @ W.mT, counted @ counted.mT)]
    entries = W.shape[2] * W.abs().amax((1, 2)) * torch.where(samples > 0, H, 0).abs().amax((1, 2))
    return {NAMES["nuclear"]: gap / frobenius, NAMES["spectral"]: gap / (largest[0] * largest[1]),
            NAMES["max"]: gap / entries}
