"""The field's usual measurement of neural collapse, as its repositories write it: the peer of bench_measure.py.

Three passes over the loader: class means; the within-class covariance (and the loss); the nearest-mean decisions.
Then NC1 by a pseudo-inverse (SVD) of the d × d between-class covariance in float32.
"""

from __future__ import annotations

import torch


def three_passes(features: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor,
                 batch: int = 256) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Class means, within-class covariance and NC4."""
    (n, d), k = features.shape, weight.shape[0]
    means, counts = torch.zeros(k, d), torch.zeros(k)
    for x, y in zip(features.split(batch), labels.split(batch), strict=True):
        for c in y.unique():
            rows = x[y == c]
            means[c] += rows.sum(0)
            counts[c] += len(rows)
    means /= counts[:, None]
    within = torch.zeros(d, d)
    for x, y in zip(features.split(batch), labels.split(batch), strict=True):
        residual = x - means[y]
        within.addmm_(residual.T, residual, alpha=1 / n)
    differ = 0
    for x in features.split(batch):
        differ += int((torch.cdist(x, means).argmin(1) != (x @ weight.T).argmax(1)).sum())
    return means, within, differ / n


def usual_metrics(means: torch.Tensor, within: torch.Tensor, weight: torch.Tensor) -> dict[str, float]:
    """NC1 to NC3 from them."""
    k = len(means)
    centred = means - means.mean(0)
    between = centred.T @ centred / k
    nc1 = float(torch.trace(within @ torch.linalg.pinv(between)) / k)

    def coherence(rows: torch.Tensor) -> float:
        units = torch.nn.functional.normalize(rows)
        cosines = units @ units.T + 1 / (k - 1)
        return float((cosines - torch.diag(cosines.diag())).abs().sum() / (k * (k - 1)))

    norms = [rows.norm(dim=1) for rows in (centred, weight)]
    return {"nc1": nc1, "cv": float(norms[0].std() / norms[0].mean()), "cv_w": float(norms[1].std() / norms[1].mean()),
            "angle": coherence(centred), "angle_w": coherence(weight),
            "nc3": float((weight / weight.norm() - centred / centred.norm()).norm())}
