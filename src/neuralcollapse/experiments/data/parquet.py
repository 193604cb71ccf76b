"""Parquet tables of images, features or token ids, read through the memory-mapped Arrow of Hugging Face `datasets`."""

from __future__ import annotations

from neuralcollapse.experiments.data.samples import DATASETS, Samples


@DATASETS.register("parquet", argument="PATH", source="lhoest2021")
def parquet(path: str, *, inputs: str | None = None, labels: str | None = None, size: int | None = None,
            test: str | None = None) -> Samples:
    """A .parquet file with a column of images (encoded bytes), of lists of numbers or of token ids, and one of labels.

    Parameters
    ----------
    path : str
    inputs, labels : str, optional
        Columns; found by kind and name when left out.
    size : int, optional
        Side that images are brought to; without it all must have one size.
    test : str, optional
        Another file, the test part.

    Raises
    ------
    InvalidInput
        A file that cannot be read, or columns that cannot be used.
    """
    from neuralcollapse.experiments.data.columns import read_parquet, samples_of

    parts = {"train": read_parquet(path)}
    if test not in (None, "none"):
        parts["test"] = read_parquet(test)
    return samples_of(path, parts, inputs, labels, size, test="test" if "test" in parts else "none")
