"""Features, labels and head on disk and in memory: `.npz` or `.safetensors`, never pickle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Shaped
import numpy as np
import torch
from torch import Tensor

from neuralcollapse.checks import InvalidInput
from neuralcollapse.files import replacing, writing
from neuralcollapse.measure.arrays import measure
from neuralcollapse.measure.files import load_snapshot
from neuralcollapse.measure.measurement import Measurement


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What one measurement needs. For files larger than memory see `measure_file`.

    Attributes
    ----------
    features : (n, d) float array
        Tensors are taken too, of any device, and copied into arrays, bfloat16 into float32: what a network makes of
        its weights later does not change them.
    labels : (n,) array of whole numbers
    weight : (k, d) float array or None
        `Linear.weight`.
    bias : (k,) float array or None

    Examples
    --------
    >>> import tempfile
    >>> snapshot = Snapshot(np.eye(4), np.array([0, 0, 1, 1]), np.ones((2, 4)))
    >>> path = Path(tempfile.mkdtemp()) / "epoch-3.npz"
    >>> snapshot.save(path)
    >>> Snapshot.load(path).labels.tolist()
    [0, 0, 1, 1]
    """

    # As read from a file: whether they fit together is for `measure` to say, in words.
    features: Shaped[np.ndarray, ...]
    labels: Shaped[np.ndarray, ...]
    weight: Shaped[np.ndarray, ...] | None = None
    bias: Shaped[np.ndarray, ...] | None = None

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            if isinstance(values, Tensor):
                kind = torch.float32 if values.dtype is torch.bfloat16 else values.dtype
                object.__setattr__(self, name, values.detach().to("cpu", kind, copy=True).numpy())

    def save(self, path: Path | str) -> None:
        """Write to `.npz` or `.safetensors`, by the name's ending.

        Raises
        ------
        InvalidInput
            Another ending, or a place that cannot be written.
        """
        path = Path(path)
        arrays = {name: np.ascontiguousarray(array) for name, array in vars(self).items() if array is not None}
        if path.suffix not in (".npz", ".safetensors"):
            raise InvalidInput(f"a snapshot's name must end in .npz or .safetensors, got '{path.name}'")
        with writing(path), replacing(path) as part, part.open("wb") as file:
            if path.suffix == ".npz":
                np.savez(file, allow_pickle=False, **arrays)
            else:
                from safetensors.numpy import save

                file.write(save(arrays))

    @classmethod
    def load(cls, path: Path | str) -> Snapshot:
        """Read a snapshot; InvalidInput names what is missing or malformed."""
        return cls(*load_snapshot(path))

    def measure(self, **options: Any) -> Measurement:
        """`measure` of these arrays."""
        return measure(self.features, self.labels, self.weight, self.bias, **options)
