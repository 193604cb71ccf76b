"""Data sets in a terminal: which there are, what one holds, what is kept on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_CLASSES_LISTED = 20


def print_overview(overview: Mapping[str, Any], console: Console) -> None:
    """Every data set with where it is, and what the caches hold (`experiments.data.describe.overview`)."""
    table = Table("data set", "where", "what it is", box=None, pad_edge=False)
    for entry in overview["data_sets"]:
        table.add_row(*(escape(entry[key]) for key in ("name", "where", "summary")))
    console.print(table)
    library, decoded = overview["hub_cache"], overview["decoded"]
    if library is None:
        console.print("\nData sets from the hub and Parquet need: pip install 'neuralcollapse\\[hub]'")
    else:
        console.print(f"\nHub's cache: {_size(library['bytes'])} in {escape(library['folder'])}")
    console.print(f"Decoded images: {_size(sum(entry['bytes'] for entry in decoded['entries']))} in "
                  f"{escape(decoded['folder'])}")
    for entry in decoded["entries"]:
        shape = "×".join(map(str, entry["shape"]))
        console.print(f"  {escape(entry['source'])}: {entry['images']:,} of {entry['of']:,} at {shape}, "
                      f"{_size(entry['bytes'])}")


def print_data_set(described: Mapping[str, Any], console: Console) -> None:
    """Size, shape and classes of one data set (`experiments.data.describe.describe`)."""
    own = described["own_test_part"]
    shape = "×".join(map(str, described["shape"]))
    console.print(f"{escape(described['dataset'])}: {described['samples']:,} samples, {described['holds']} of shape "
                  f"{shape}" + ("" if own is None else f", {own:,} of them its own test part"))
    counts = described["counts"]
    if counts is None:
        console.print("No labels: every token is predicted from those before it.")
        return
    console.print(f"{len(counts)} classes of {min(counts):,} to {max(counts):,} samples")
    for name, count in list(zip(described["names"], counts, strict=True))[:_CLASSES_LISTED]:
        console.print(f"  {escape(name)}: {count:,}")
    if len(counts) > _CLASSES_LISTED:
        console.print(f"  … {len(counts) - _CLASSES_LISTED} more")


def _size(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size < 2**30 else f"{size / 2**30:,.1f} GiB"
