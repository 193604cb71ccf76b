"""How class counts and Gram matrices show themselves in a notebook; what holds both builds on these."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Int
import numpy as np

from neuralcollapse.notebook import card, matrix, number, spread, table

if TYPE_CHECKING:
    from neuralcollapse.counts import ClassCounts
    from neuralcollapse.gram import Gram

DRAWN = 100
"""Classes up to which a matrix has a pixel for each pair."""

_ROWS = 12


def counts_html(counts: ClassCounts) -> str:
    """A row per class, or one per count where there are many classes."""
    rows = [[label, f"{counts.values[c]:,g}"] for label, c in listed(counts)]
    return card(counts_line(counts), table(["class" if counts.k <= _ROWS else "classes", "samples each"], rows))


def counts_line(counts: ClassCounts) -> str:
    """The profile in a line."""
    spread_ = "balanced" if counts.balanced else f"ratio {counts.ratio:.4g}, {int(counts.minority.sum()):,} minority"
    return f"{counts.k:,} classes, n = {counts.n:,}, {spread_}"


def listed(counts: ClassCounts) -> list[tuple[str, int]]:
    """At most twelve classes with what to call them: all of few, else one of each count, from many samples to few."""
    if counts.k <= _ROWS:
        return list(zip(counts.names, range(counts.k), strict=True))
    groups = counts.groups
    return [(f"{groups.sizes[g]:,} class{'' if groups.sizes[g] == 1 else 'es'}", int(groups.first[g]))
            for g in spread(range(groups.sizes.size - 1, -1, -1), _ROWS)]


def gram_html(gram: Gram) -> str:
    """Its entries as a picture, and the lengths of the vectors."""
    groups = gram.groups
    norms = gram.norms[groups.first]
    rows = [[f"{groups.sizes[g]:,} of length", number(float(norms[g]))]
            for g in spread(np.argsort(-norms, kind="stable").tolist(), _ROWS)]
    return card(f"Gram matrix of {gram.k:,} vectors", drawn("entries", gram), table(["vectors", ""], rows),
                note=drawn_note(gram))


def gram_line(gram: Gram) -> str:
    """Size, groups and the range of the lengths in one line."""
    norms = gram.norms
    return f"Gram({gram.k} vectors in {gram.groups.sizes.size} groups, lengths {norms.min():.3g} to {norms.max():.3g})"


def drawn(title: str, gram: Gram) -> str:
    """A Gram matrix at unit Frobenius norm, of all vectors or of two from each group."""
    classes = _shown(gram)
    return matrix(title, gram.unit().block(classes, classes))


def drawn_note(gram: Gram) -> str:
    """What `drawn` leaves out."""
    if gram.k <= DRAWN:
        return ""
    return f"Drawn: up to two vectors from each of {min(gram.groups.sizes.size, DRAWN // 2)} groups of alike ones."


def _shown(gram: Gram) -> Int[np.ndarray, " p"]:
    if gram.k <= DRAWN:
        return np.arange(gram.k)
    groups = gram.groups
    first = groups.first
    second = first.copy()
    second[groups.index] = np.arange(gram.k)  # the last one of each group
    chosen = spread(range(groups.sizes.size), DRAWN // 2)
    return np.unique(np.concatenate([first[chosen], second[chosen]]))
