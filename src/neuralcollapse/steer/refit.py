"""Classifier retraining on frozen features: one convex problem, every class weighing alike."""

from __future__ import annotations

from typing import Any
import warnings

from jaxtyping import Float
import numpy as np
from scipy.optimize import minimize
import torch
from torch import Tensor

from neuralcollapse.checks import NotConverged
from neuralcollapse.steer.amounts import positive
from neuralcollapse.steer.rules import FittedRule, Trained

_ACCURATE = 1e-6  # of the gradient at zero
_ITERATIONS = 5_000


def refit(features: Any, labels: Any, weight: Any = None, bias: Any = None, counts: Any = None, *,
          l2: float = 1e-3) -> FittedRule:
    """A new head on the frozen features, every class weighing alike: the convex form of classifier retraining (cRT).

    min over W, b of (1/k) Σ_c (1/n_c) Σ_{y_i=c} CE(W x_i + b, c) + (l2/2)‖W‖²: a MEAN over classes of means over
    their samples. x_i = (h_i − m)/r with m the mean of class means and r² the mean over classes of ‖h − m‖², so that
    shifting or scaling the features changes nothing; the rule is written back in terms of h. The minimum is unique up
    to a shift of b (here Σ_c b_c = 0 in terms of x), and found by L-BFGS from zero: no seed.

    Parameters
    ----------
    features : (n, d) array or tensor
    labels : (n,) array or tensor
    weight, bias
        Not read, except for the number of classes.
    counts : ClassCounts or (k,) sequence, optional
        Training counts; weights come from the labels given.
    l2 : float
        > 0.

    Returns
    -------
    FittedRule

    Raises
    ------
    InvalidInput
        Parts that do not fit together, a class without features, or an l2 that is not positive.

    References
    ----------
    kang2020, §4.1.

    Examples
    --------
    >>> rule = refit([[0.0], [1.0], [1.1], [5.0]], [0, 0, 0, 1], l2=0.1)
    >>> rule.logits([[2.0], [4.0]]).argmax(1).tolist()
    [0, 1]
    """
    trained = Trained.of("refit", features, labels, weight, bias, counts)
    l2 = positive("l2", l2)
    share = (1 / (len(trained.sizes) * trained.sizes))[trained.labels]
    centre = trained.class_means.mean(0)
    spread = float((share @ (trained.features - centre).square().sum(1)).sqrt()) or 1.0
    found, offset = _balanced_regression((trained.features - centre) / spread, trained.labels, share, l2)
    found = found / spread
    return trained.rule(found, offset - found @ centre, l2=l2)


def _balanced_regression(x: Float[Tensor, "n d"], labels: Tensor, share: Float[Tensor, " n"], l2: float
                         ) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]:
    """W and b at the minimum of Σ_i share_i CE(W x_i + b, y_i) + (l2/2)‖W‖²."""
    k, d = int(labels.max()) + 1, x.shape[1]  # every class has a row
    wanted = torch.nn.functional.one_hot(labels, k).to(x.dtype)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.from_numpy(flat).to(x.device).reshape(k, d + 1)
        weight, offset = point[:, :d], point[:, d]
        log_probabilities = torch.log_softmax(torch.nn.functional.linear(x, weight, offset), 1)
        loss = -(share @ log_probabilities.gather(1, labels[:, None])[:, 0]) + l2 / 2 * weight.square().sum()
        residual = (log_probabilities.exp() - wanted) * share[:, None]
        gradient = torch.cat([residual.T @ x + l2 * weight, residual.sum(0)[:, None]], 1)
        return float(loss), gradient.cpu().numpy().ravel()

    start = np.zeros(k * (d + 1))
    goal = _ACCURATE * float(np.abs(objective(start)[1]).max())
    options = {"maxiter": _ITERATIONS, "maxfun": 2 * _ITERATIONS, "maxcor": 20, "ftol": 0.0, "gtol": goal}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    reached = float(np.abs(found.jac).max())
    if reached > 10 * goal:
        warnings.warn(f"refit: gradient {reached:.1e} instead of {goal:.1e} after {found.nit} iterations", NotConverged,
                      stacklevel=3)
    point = torch.from_numpy(found.x).to(x.device).reshape(k, d + 1)
    return point[:, :d], point[:, d]
