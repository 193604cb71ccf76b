"""A head of scaled cosines: lengths of features and classifiers do not count (wang2017)."""

from __future__ import annotations

from jaxtyping import Float
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuralcollapse.simulate.residual import HALF
from neuralcollapse.steer.amounts import flag, positive, sizes

_ZERO = 1e-12  # length below which a vector has no direction


class CosineHead(nn.Linear):
    """A head that sees directions only: logits are scaled cosines.

        z_c = s · ⟨w_c, h⟩ / (‖w_c‖ ‖h‖)

    A feature shorter than 1e-12 has no direction: its logits are 0 and it gets no gradient. Half precisions are
    normalised in float32.

    Parameters
    ----------
    k, d : int
        Number of classes and feature dimension.
    scale : float
        s > 0.
    learn_scale : bool
        Whether s is trained, as e^`log_scale`; it is part of the state dict in either case.
    device, dtype
        As in `nn.Linear`.

    Raises
    ------
    InvalidInput
        k < 2, d < 1 or a scale ≤ 0.

    Notes
    -----
    `.weight` is s·w_c/‖w_c‖, made anew at each call: to set the classifiers, copy into what `named_parameters` gives.

    References
    ----------
    wang2017.

    Examples
    --------
    >>> head = CosineHead(3, 8, scale=16)
    >>> bool((head(100 * torch.randn(5, 8)).abs() <= 16.001).all())
    True
    """

    def __init__(self, k: int, d: int, *, scale: float = 16.0, learn_scale: bool = False,
                 device: torch.device | str | None = None, dtype: torch.dtype | None = None):
        k, d = sizes(k, d)
        scale = positive("scale", scale)
        super().__init__(d, k, bias=False, device=device, dtype=dtype)
        start = torch.full((), float(np.log(scale)), device=device, dtype=dtype)
        self.log_scale = nn.Parameter(start, flag("learn_scale", learn_scale))

    @property
    def weight(self) -> Float[Tensor, "k d"]:  # type: ignore[override]  # nn.Linear has a parameter here; only the directions and s act
        """s·w_c/‖w_c‖, row by class."""
        own = nn.Module.__getattr__(self, "weight")
        assert isinstance(own, Tensor)
        return directions(own) * self.log_scale.exp() if "log_scale" in self._parameters else own

    def reset_parameters(self) -> None:
        """Draw new directions, uniformly."""
        own = self._parameters["weight"]
        assert own is not None
        nn.init.normal_(own)

    def forward(self, input: Float[Tensor, "... d"]) -> Float[Tensor, "... k"]:
        """Logits, (..., k), of features (..., d)."""
        return F.linear(directions(input), self.weight)


def directions(vectors: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
    """v/‖v‖; 0, and no gradient, for a vector shorter than 1e-12. Half precisions are computed in float32."""
    wide = vectors.float() if vectors.dtype in HALF else vectors
    lengths = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    return torch.where(lengths > _ZERO, wide / lengths.clamp_min(_ZERO), 0).to(vectors.dtype)
