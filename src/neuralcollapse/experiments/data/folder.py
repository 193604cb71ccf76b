"""A folder of images, one subfolder per class, as ImageNet is laid out.

Walked here and not by Hugging Face's `imagefolder`, which takes any folder or file with a word such as "train",
"test" or "val" in its name for a part of the data: a class of trains would silently become the training part.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from neuralcollapse.checks import InvalidInput, shown
from neuralcollapse.experiments.data.images import DecodedImages, Files
from neuralcollapse.experiments.data.samples import DATASETS, TEST_PARTS, Samples


@DATASETS.register("folder", argument="PATH")
def folder(path: str, *, size: int | None = None, test: str | None = None) -> Samples:
    """A folder of images with one subfolder per class; or with `train` and `test` (or `val`) above those.

    Parameters
    ----------
    path : str
    size : int, optional
        Side that images are brought to; without it all must have one size.
    test : str, optional
        Which subfolder is the test part; "none" draws one from `train`.

    Raises
    ------
    InvalidInput
        No such folder, fewer than two classes, a class without images, or images that cannot be read.
    """
    root = Path(path).expanduser()
    inner = _subfolders(root, path)
    parts = [root]
    if "train" in inner and _subfolders(root / "train", path):
        found = [name for name in ([test] if test else TEST_PARTS) if name in inner]
        if test not in (None, "none") and not found:
            raise InvalidInput(f"'{path}' must have the subfolder '{test}', got {shown(', '.join(inner))}")
        parts = [root / "train", *(root / name for name in found[:1])]
    elif test is not None:
        raise InvalidInput(f"data option 'test' needs a folder with a subfolder 'train', got '{path}' with "
                           f"{shown(', '.join(inner))}")
    names = _subfolders(parts[0], path)
    files, labels = _images(parts[0], names)
    more, more_labels = _images(parts[1], names) if len(parts) > 1 else ([], [])
    own = None if len(parts) == 1 else len(files) + np.arange(len(more))
    images = DecodedImages(Files(root, files + more), size)
    return Samples(images, np.array(labels + more_labels, dtype=np.int64), tuple(names), own)


def _subfolders(folder: Path, path: str) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise InvalidInput(f"cannot read the data set '{path}': {error.strerror}") from None


def _images(part: Path, names: list[str]) -> tuple[list[Path], list[int]]:
    """Every image below a folder of classes, with its class; InvalidInput for other classes and empty ones."""
    inner = _subfolders(part, str(part))
    strange = [name for name in inner if name not in names]
    if strange:
        raise InvalidInput(f"'{part}' must have no other classes than the training part, got '{strange[0]}'")
    if len(names) < 2:
        raise InvalidInput(f"'{part}' must have a subfolder for each of at least two classes, got "
                           f"{', '.join(names) or 'none'}")
    known, files, labels = tuple(Image.registered_extensions()), [], []
    for label, name in enumerate(names):
        below = sorted(Path(place) / file for place, _, inside in os.walk(part / name) for file in inside
                       if file.lower().endswith(known) and not file.startswith("."))
        if not below:
            raise InvalidInput(f"class folder '{part / name}' must hold images, got none")
        files += below
        labels += [label] * len(below)
    return files, labels
