"""Features, labels and head on disk: `.npz` or `.safetensors`, never pickle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Shaped
import numpy as np

from neuralcollapse.checks import UNREADABLE, InvalidInput, why_unreadable
from neuralcollapse.measure.measurement import Measurement, measure

_NEEDED = ("features", "labels", "weight")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What one measurement needs.

    Attributes
    ----------
    features : (n, d) float array
    labels : (n,) array of whole numbers
    weight : (k, d) float array
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
    weight: Shaped[np.ndarray, ...]
    bias: Shaped[np.ndarray, ...] | None = None

    def save(self, path: Path | str) -> None:
        """Write to `.npz` or `.safetensors`, by the name's ending."""
        path = Path(path)
        arrays = {name: np.ascontiguousarray(array) for name, array in vars(self).items() if array is not None}
        if path.suffix == ".npz":
            np.savez(path, allow_pickle=False, **arrays)
        elif path.suffix == ".safetensors":
            from safetensors.numpy import save_file

            save_file(arrays, path)
        else:
            raise InvalidInput(f"a snapshot's name must end in .npz or .safetensors, got '{path.name}'")

    @classmethod
    def load(cls, path: Path | str) -> Snapshot:
        """Read a snapshot; InvalidInput names what is missing or malformed."""
        path = Path(path)
        arrays = _read_arrays(path)
        missing = [name for name in _NEEDED if name not in arrays]
        if missing:
            raise InvalidInput(f"{path.name} must hold features (n, d), labels (n,), weight (k, d) and optionally "
                               f"bias (k,): {', '.join(missing)} missing, got {', '.join(sorted(arrays)) or 'nothing'}")
        for name in ("features", "weight", "bias"):
            if name in arrays and arrays[name].dtype.kind not in "fiu":
                raise InvalidInput(f"{name} in {path.name} must hold real numbers, got {arrays[name].dtype}")
        return cls(arrays["features"], arrays["labels"], arrays["weight"], arrays.get("bias"))

    def measure(self, **options: Any) -> Measurement:
        """`measure` of these arrays."""
        return measure(self.features, self.labels, self.weight, self.bias, **options)


def _read_arrays(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InvalidInput(f"no such file: '{path}'")
    if path.suffix not in (".npz", ".safetensors"):
        raise InvalidInput(f"a snapshot must be a .npz or .safetensors file, got '{path.name}'")
    try:
        if path.suffix == ".npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        return _read_safetensors(path)
    except UNREADABLE as error:
        raise InvalidInput(f"'{path.name}' cannot be read as {path.suffix} arrays: {why_unreadable(error)}") from None


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:  # through torch, since NumPy has no bfloat16
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    return {name: (t.float() if t.is_floating_point() and t.element_size() < 4 else t).numpy()
            for name, t in tensors.items()}
