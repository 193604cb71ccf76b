"""What data sets there are, where each is, what one holds; and what is kept on disk of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuralcollapse.experiments.config import parse_setting
from neuralcollapse.experiments.data.cache import cache_folder, cached
from neuralcollapse.experiments.data.samples import DATASETS, load_samples
from neuralcollapse.registry import Entry

EMBEDDED, GIVEN = "embedded", "where you say"
HELD, DOWNLOAD = "in the hub's cache here", "to be downloaded from the hub"


def overview() -> dict[str, Any]:
    """Every registered data set with where it is, the hub's cache, and the decoded images that are kept.

    Examples
    --------
    >>> overview()["data_sets"][0]["where"]
    'embedded'
    """
    library = _hub_cache()
    names = [{"name": f"{entry.name}:{entry.options['argument']}" if "argument" in entry.options else entry.name,
              "where": _where(entry, library), "summary": entry.summary} for entry in DATASETS]
    return {"data_sets": names, "hub_cache": None if library is None else
            {"folder": str(library), "bytes": _bytes_below(library)},
            "decoded": {"folder": str(cache_folder()), "entries": cached()}}


def describe(name: str, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Samples, shape, classes and counts of one data set.

    Parameters
    ----------
    name : str
        As in the setting `dataset`.
    settings : sequence of "key=value"
        Its options.

    Raises
    ------
    InvalidInput
        A data set that cannot be read, or a setting that is no "key=value".

    Examples
    --------
    >>> describe("digits")["counts"]
    [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    """
    samples = load_samples(name, dict(parse_setting(text) for text in settings))
    n, *shape = samples.inputs.shape
    counts = None if samples.labels is None else np.bincount(samples.labels, minlength=len(samples.names)).tolist()
    return {"dataset": name, "samples": n, "shape": shape, "holds": "token ids" if samples.tokens else
            "images" if len(shape) == 3 else "features",
            "own_test_part": None if samples.test is None else int(samples.test.size),
            "classes": None if counts is None else len(counts),
            "names": None if counts is None else list(samples.names), "counts": counts}


def _where(entry: Entry[Any], library: Path | None) -> str:
    if "argument" in entry.options:
        return GIVEN
    if "hub" not in entry.options:
        return EMBEDDED
    owner, _, name = entry.options["hub"].partition("/")
    held = library is not None and any(library.glob(f"{owner}___{name}/*"))
    return HELD if held else DOWNLOAD


def _hub_cache() -> Path | None:
    try:
        import datasets
    except ImportError:
        return None
    return Path(datasets.config.HF_DATASETS_CACHE)


def _bytes_below(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
