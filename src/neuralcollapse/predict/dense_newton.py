"""The Newton system of a few groups, formed and solved densely: a fraction of what many small products would cost.

In coordinates X = LᵀTR with L = [V, V⊥] and R = [U, U⊥] around T = VΛUᵀ the tangent space of the matrices of rank r is
all of X but the block (V⊥, U⊥), and the nuclear norm's curvature couples single entries (`newton.py` has the formula).
"""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
import numpy as np

from neuralcollapse.predict.symmetry import Point, Probabilities, ReducedProblem


class Frame(NamedTuple):
    """The factors T = VΛUᵀ of the point and what the Newton system needs beside the loss."""

    left: Float[np.ndarray, "g r"]
    singular: Float[np.ndarray, " r"]
    right: Float[np.ndarray, "g r"]
    normal: Float[np.ndarray, "g g"]
    active: np.ndarray


def newton_direction(problem: ReducedProblem, frame: Frame, probabilities: Probabilities, ridge: float,
                     tangent: Point) -> Point | None:
    """The Newton step without a bias, or None where the system is singular."""
    g, r = problem.g, frame.singular.size
    left = frame.left
    if r < g - 1:  # V with the null vector does not span everything yet
        complete = np.linalg.qr(np.column_stack([left, problem.null]), mode="complete")[0]
        left = np.column_stack([left, complete[:, r + 1:]])
    right = np.column_stack([frame.right, np.linalg.qr(frame.right, mode="complete")[0][:, r:]])
    inside = np.ones((g - 1, g), dtype=bool)
    inside[r:, r:] = False
    used = np.flatnonzero(np.concatenate([inside.ravel(), frame.active]))
    hessian = _loss_curvature(problem, probabilities, left, right)
    _add_nuclear_curvature(hessian, frame.singular, left.T @ frame.normal @ right, ridge)
    gradient = np.concatenate([(left.T @ tangent.between @ right).ravel(), tangent.within])[used]
    system = hessian[used[:, None], used]
    scale = 1 / np.sqrt(np.maximum(system.diagonal(), 1e-300))  # the probabilities spread over many decades
    try:
        step = -scale * np.linalg.solve(system * np.multiply.outer(scale, scale), scale * gradient)
    except np.linalg.LinAlgError:
        return None
    full = np.zeros(hessian.shape[0])
    full[used] = step
    if not np.isfinite(step).all():
        return None
    return Point(left @ full[:-g].reshape(g - 1, g) @ right.T, full[-g:], np.zeros(g))


def _loss_curvature(problem: ReducedProblem, probabilities: Probabilities, left: Float[np.ndarray, "g q"],
                    right: Float[np.ndarray, "g g"]) -> Float[np.ndarray, "m m"]:
    """Hessian of the loss in (X, p): block diagonal over columns of T, rotated."""
    g, q = problem.g, left.shape[1]
    jacobian, off = problem.jacobian, probabilities.off.T
    mean = off[:, None, :] @ jacobian
    blocks = jacobian.transpose(0, 2, 1) @ (off[:, :, None] * jacobian) - mean.transpose(0, 2, 1) @ mean
    blocks *= problem.mass[:, None, None]
    rotated = left.T @ blocks[:, :g, :g] @ left
    pairs = (right[:, :, None] * right[:, None, :]).reshape(g, g * g)
    between = (rotated.reshape(g, q * q).T @ pairs).reshape(q, q, g, g).transpose(0, 2, 1, 3).reshape(q * g, q * g)
    cross = ((blocks[:, :g, g] @ left)[:, :, None] * right[:, None, :]).reshape(g, q * g).T
    size = q * g
    hessian = np.zeros((size + g, size + g))
    hessian[:size, :size], hessian[:size, size:], hessian[size:, :size] = between, cross, cross.T
    np.fill_diagonal(hessian[size:, size:], blocks[:, g, g])
    return hessian


def _add_nuclear_curvature(hessian: Float[np.ndarray, "m m"], singular: Float[np.ndarray, " r"],
                           normal: Float[np.ndarray, "q g"], ridge: float) -> None:
    (q, g), r = normal.shape, singular.size
    place = np.arange(q * g).reshape(q, g)
    core = place[:r, :r]
    rate = ridge / np.add.outer(singular, singular)
    np.fill_diagonal(rate, 0.0)
    hessian[core, core] += rate
    hessian[core, core.T] -= rate
    up, side = place[r:, :r], place[:r, r:]
    hessian[up, up] += ridge / singular
    hessian[side, side] += (ridge / singular)[:, None]
    # ⟨Γ, YΛ⁻¹Xᵀ⟩: an entry of Y and one of X that share the singular direction between them.
    coupling = normal[r:, None, r:] / singular[None, :, None]
    rows, columns = up[:, :, None], side[None, :, :]
    hessian[rows, columns] += coupling
    hessian[columns, rows] += coupling
