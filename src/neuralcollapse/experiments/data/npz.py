"""Data sets in an .npz file. It is read whole: for more than memory holds there are Parquet and folders."""

from __future__ import annotations

from jaxtyping import Shaped
import numpy as np

from neuralcollapse.checks import UNREADABLE, InvalidInput, shown
from neuralcollapse.experiments.data.labels import encode_labels
from neuralcollapse.experiments.data.samples import DATASETS, Samples


@DATASETS.register("npz", argument="PATH")
def npz(path: str) -> Samples:
    """An .npz file with `X` or `features`, `y` or `labels`, and `names` if it likes; read into memory.

    Inputs are (N, d) features, (N, h, w) images, or images with their 1 or 3 channels first or last.
    """
    arrays = read_npz(path)
    inputs, labels = pick(path, arrays, "X", "features"), pick(path, arrays, "y", "labels")
    if inputs.dtype.kind not in "fiub" or inputs.ndim not in (2, 3, 4) or inputs.size == 0:
        raise InvalidInput(f"'{path}' must hold numbers of shape (N, d), (N, h, w) or (N, c, h, w), "
                           f"got {inputs.dtype} of shape {inputs.shape}")
    inputs = channels_first(inputs)
    if inputs.dtype != np.uint8:
        with np.errstate(over="ignore"):  # what is too large for float32 becomes Inf and is refused below
            inputs = inputs.astype(np.float32)
        require_finite_rows(inputs, path)
    return Samples(inputs, *encode_labels(path, labels, len(inputs), arrays.get("names")))


def read_npz(path: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file.

    Raises
    ------
    InvalidInput
        A file that is not there or holds anything else.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise InvalidInput(f"cannot read the data set '{path}': {error.strerror or shown(error)}") from None
    except UNREADABLE:
        raise InvalidInput(f"the data set '{path}' must be an .npz file of plain arrays, nothing pickled: "
                           "it could not be read as one") from None


def pick(path: str, arrays: dict[str, np.ndarray], *names: str) -> np.ndarray:
    """The first array that goes by one of the names; InvalidInput when there is none."""
    for name in names:
        if name in arrays:
            return arrays[name]
    raise InvalidInput(f"'{path}' must hold an array {' or '.join(map(repr, names))}, "
                       f"got {', '.join(arrays) or 'none'}")


def channels_first(inputs: Shaped[np.ndarray, "N ..."]) -> Shaped[np.ndarray, "N ..."]:
    """Images as (N, channels, height, width), wherever their 1 or 3 channels are; features as they are."""
    if inputs.ndim == 3:
        return inputs[:, None]
    if inputs.ndim == 4 and inputs.shape[1] not in (1, 3) and inputs.shape[3] in (1, 3):
        return np.moveaxis(inputs, 3, 1)
    return inputs


def require_finite_rows(inputs: Shaped[np.ndarray, "N ..."], path: str) -> None:
    """Raise InvalidInput that names the first sample with NaN or Inf."""
    finite = np.isfinite(inputs.reshape(len(inputs), -1)).all(axis=1)
    if not finite.all():
        raise InvalidInput(f"inputs of '{path}' must be finite, got NaN or Inf in sample "
                           f"{int(finite.argmin())} ({int((~finite).sum())} of {finite.size} samples)")
