"""Images that were decoded once, kept on disk as bytes: an epoch over them then costs no decoding.

One folder per set of images at one size, `$XDG_CACHE_HOME/neuralcollapse/decoded/KEY`:

    about.json     what it holds: source, shape, how many of how many
    pixels.u8      N × channels × height × width bytes, sparse: what was never drawn takes no room
    held.npy       which of the N are in it, replaced as a whole after their pixels are on disk

The key covers the names, sizes and times of the source: changed images are decoded anew. Only sets that do not fit in
memory are kept; and only where they take up at most half of the room that is free, and 32 GiB. Others are decoded
whenever they are fetched.
"""

from __future__ import annotations

from hashlib import sha256
import json
import os
from pathlib import Path
import shutil
from typing import Any

from jaxtyping import Bool, Int, UInt8
import numpy as np

from neuralcollapse.checks import UNREADABLE
from neuralcollapse.experiments.data.images import DecodedImages
from neuralcollapse.experiments.data.lazy import chunks
from neuralcollapse.experiments.data.samples import Rows
from neuralcollapse.files import replacing

# ImageNet at 64×64 takes 15 GiB.
_LARGEST = 32 * 2**30
_ABOUT, _PIXELS, _HELD = "about.json", "pixels.u8", "held.npy"


def cache_folder() -> Path:
    """Where decoded images are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "neuralcollapse" / "decoded"


def decoded_once(rows: Rows, index: Int[np.ndarray, " n"]) -> Rows:
    """The rows, with those of an index read from the cache; the rows themselves where they are no images or too many.

    Raises
    ------
    InvalidInput
        An image that cannot be decoded.
    """
    if not isinstance(rows, DecodedImages):
        return rows
    try:
        cache = _Cache(rows)
        if cache.missing_bytes(index) > min(_LARGEST, shutil.disk_usage(cache.folder).free // 2):
            return rows
        cache.add(index)
        return cache.pixels()
    except OSError:  # a home that cannot be written, a quota: slower, and nothing else is different
        return rows


def cached() -> list[dict[str, Any]]:
    """What the cache holds: source, shape, how many images, bytes on disk, folder."""
    found = []
    for about in sorted(cache_folder().glob(f"*/{_ABOUT}")):
        try:
            content = json.loads(about.read_text(encoding="utf-8"))
            size = sum(file.stat().st_blocks * 512 for file in about.parent.iterdir())
        except (OSError, ValueError):
            continue  # being written or removed
        found.append({**content, "bytes": size, "folder": str(about.parent)})
    return found


def clear_cache() -> int:
    """Remove everything that the cache holds; how many bytes that was."""
    freed = sum(entry["bytes"] for entry in cached())
    shutil.rmtree(cache_folder(), ignore_errors=True)
    return freed


class _Cache:
    """The folder of one set of images."""

    def __init__(self, images: DecodedImages):
        self._images = images
        key = sha256(f"{images.shape} {images.encoded.fingerprint()}".encode()).hexdigest()[:16]
        self.folder = cache_folder() / key
        self.folder.mkdir(parents=True, exist_ok=True)
        self._size = int(np.prod(images.shape[1:]))

    def held(self) -> Bool[np.ndarray, " N"]:
        """Which images are in it."""
        try:
            held = np.load(self.folder / _HELD, allow_pickle=False)
        except UNREADABLE:
            held = np.zeros(0, bool)
        return held if held.shape == (len(self._images),) else np.zeros(len(self._images), bool)

    def missing_bytes(self, index: Int[np.ndarray, " n"]) -> int:
        """What adding an index would take."""
        return int((~self.held()[index]).sum()) * self._size

    def add(self, index: Int[np.ndarray, " n"]) -> None:
        """Decode what is not in it yet; after an interruption what was decoded before is kept."""
        index = np.sort(index[~self.held()[index]])
        # Written as a file and read as a map: a full disk is then an error, where a map would end the process.
        with (self.folder / _PIXELS).open("ab"):
            pass
        with (self.folder / _PIXELS).open("r+b", buffering=0) as file:
            file.truncate(len(self._images) * self._size)
            start = 0
            for chunk in chunks(self._images, index):
                some = index[start : start + len(chunk)]
                for i, row in zip(some.tolist(), chunk, strict=True):
                    file.seek(i * self._size)
                    file.write(row.tobytes())
                os.fsync(file.fileno())
                self._mark(some)
                start += len(chunk)

    def pixels(self) -> UInt8[np.ndarray, "N c h w"]:
        """All images as a map of the file; those that were not added are zero."""
        return np.memmap(self.folder / _PIXELS, np.uint8, "r", shape=self._images.shape)

    def _mark(self, index: Int[np.ndarray, " n"]) -> None:
        held = self.held()
        held[index] = True
        about = {"source": self._images.encoded.where, "shape": list(self._images.shape[1:]),
                 "images": int(held.sum()), "of": len(held)}
        for name, write in ((_HELD, lambda file: np.save(file, held)),
                            (_ABOUT, lambda file: file.write(json.dumps(about).encode()))):
            with replacing(self.folder / name, durable=False) as part, part.open("wb") as file:
                write(file)
