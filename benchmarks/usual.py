"""The field's usual measurement of neural collapse: the peers of bench_measure.py.

Two of them. `published` is how the notebooks and repositories that follow Papyan et al. (2020) do it: three passes,
in each a Python loop over the classes of a batch, outer products summed one sample at a time, the nearest mean sample
by sample, and a truncated SVD of the d × d between-class covariance. `tidy` is the same three passes without loops.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse.linalg import svds
import torch

BATCH = 256


def published(features: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor) -> dict[str, float]:
    """NC1 to NC4."""
    (n, d), k = features.shape, weight.shape[0]
    batches = list(zip(features.split(BATCH), labels.split(BATCH), strict=True))
    means, counts = torch.zeros(k, d), torch.zeros(k)
    for x, y in batches:
        for c in range(k):
            rows = x[y == c]
            if len(rows):
                means[c] += rows.sum(0)
                counts[c] += len(rows)
    means /= counts[:, None]
    within, agree = torch.zeros(d, d), 0
    for x, y in batches:
        decided = (x @ weight.T).argmax(1)
        for c in range(k):
            mine = (y == c).nonzero()[:, 0]
            if not len(mine):
                continue
            residual = x[mine] - means[c]
            within += torch.matmul(residual[:, :, None], residual[:, None, :]).sum(0)
            distances = torch.stack([(h - means).norm(dim=1) for h in x[mine]])
            agree += int((distances.argmin(1) == decided[mine]).sum())
    within /= n
    centred = means - means.mean(0)
    between = centred.T @ centred / k
    vectors, values, _ = svds(between.numpy(), k=k - 1)
    nc1 = float(np.trace(within.numpy() @ vectors @ np.diag(1 / values) @ vectors.T)) / k
    return {"nc1": nc1, "nc4": 1 - agree / n} | _arrangement(centred, weight)


def tidy(features: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor) -> dict[str, float]:
    """The same in whole-batch products, with a pseudo-inverse."""
    (n, d), k = features.shape, weight.shape[0]
    batches = list(zip(features.split(BATCH), labels.split(BATCH), strict=True))
    means = torch.zeros(k, d)
    for x, y in batches:
        means.index_add_(0, y, x)
    means /= torch.bincount(labels, minlength=k)[:, None]
    within = torch.zeros(d, d)
    for x, y in batches:
        residual = x - means[y]
        within.addmm_(residual.T, residual, alpha=1 / n)
    differ = 0
    for x, _ in batches:
        differ += int((torch.cdist(x, means).argmin(1) != (x @ weight.T).argmax(1)).sum())
    centred = means - means.mean(0)
    nc1 = float(torch.trace(within @ torch.linalg.pinv(centred.T @ centred / k)) / k)
    return {"nc1": nc1, "nc4": differ / n} | _arrangement(centred, weight)


def _arrangement(centred: torch.Tensor, weight: torch.Tensor) -> dict[str, float]:
    k = len(centred)

    def coherence(rows: torch.Tensor) -> float:
        units = torch.nn.functional.normalize(rows)
        cosines = units @ units.T + 1 / (k - 1)
        return float((cosines - torch.diag(cosines.diag())).abs().sum() / (k * (k - 1)))

    norms = [rows.norm(dim=1) for rows in (centred, weight)]
    return {"cv": float(norms[0].std() / norms[0].mean()), "cv_w": float(norms[1].std() / norms[1].mean()),
            "angle": coherence(centred), "angle_w": coherence(weight),
            "nc3": float((weight / weight.norm() - centred / centred.norm()).norm())}
