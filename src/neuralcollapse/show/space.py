"""The geometry as arrows in three dimensions: exact where it spans no more, else a stated projection."""

from __future__ import annotations

from jaxtyping import Float, Int
import numpy as np

from neuralcollapse.predict import Geometry
from neuralcollapse.show.charts import Arrows, Space, SpacePanel
from neuralcollapse.show.prediction import geometry_name
from neuralcollapse.show.wording import number, percent, plain

_MOST = 60  # classes drawn
_EXACT = 1e-9


def drawing(geometry: Geometry, four: bool = False) -> Space | None:
    """Classifiers and class means as arrows from the origin, in three dimensions.

    Drawn are the three directions that hold most of ‖W‖² + ‖M‖², both scaled to norm 1: the leading singular
    directions of all of them. Up to four classes whose vectors add up to zero they hold everything.

    Parameters
    ----------
    geometry : Geometry
    four : bool
        Draw the two most and the two least frequent classes only.

    Returns
    -------
    Space or None
        None where every vector is zero.
    """
    chosen = _chosen(geometry, four)
    ends, share = _projected(geometry, chosen)
    if ends is None:
        return None
    few = np.asarray(geometry.counts.minority)[chosen]
    arrows = []
    for place, (letter, part) in enumerate((("w", "classifiers"), ("μ", "embeddings"))):
        norms = getattr(geometry, part).norms[chosen]
        for minority, colour in ((False, "green"), (True, "purple")):
            members = np.flatnonzero(few == minority)
            if members.size:
                group = "minority" if minority else "majority" if few.any() else "all classes"
                arrows.append(Arrows(f"{letter}, {group}", ends[place][members],
                                     tuple(_label(geometry, letter, int(chosen[i]), float(norms[i])) for i in members),
                                     colour, "diamond" if place else "circle", dashed=bool(place)))
    return Space("The geometry in three dimensions", _caption(geometry.k, chosen.size, share),
                 f"{geometry_name(geometry)} for {geometry.counts!r}: {chosen.size} classifiers and as many class "
                 "means as arrows from the origin.",
                 (SpacePanel("Classifiers w and class means μ", tuple(arrows)),), 1)


def _chosen(geometry: Geometry, four: bool) -> Int[np.ndarray, " c"]:
    order = np.argsort(-geometry.counts.values, kind="stable")
    if four and order.size > 4:
        return order[[0, 1, -2, -1]]
    if order.size > _MOST:
        return order[np.linspace(0, order.size - 1, _MOST).astype(int)]
    return order


def _projected(geometry: Geometry, chosen: Int[np.ndarray, " c"]
               ) -> tuple[tuple[Float[np.ndarray, "c 3"], Float[np.ndarray, "c 3"]] | None, float]:
    """Both sets of vectors, from the Gram matrix of all of them, and the share of its trace that is kept."""
    w, m = (getattr(geometry, part).block(chosen, chosen) for part in ("classifiers", "embeddings"))
    sizes = [float(np.sqrt(gram.trace())) for gram in (w, m)]
    if not min(sizes) > 0:
        return None, 0.0
    cross = geometry.logits.block(chosen, chosen) / (sizes[0] * sizes[1])
    joint = np.block([[w / sizes[0]**2, cross], [cross.T, m / sizes[1]**2]])
    values, vectors = np.linalg.eigh(joint)
    kept = np.argsort(-values)[:3]
    ends = vectors[:, kept] * np.sqrt(np.maximum(values[kept], 0.0))
    ends *= np.where(ends[np.abs(ends).argmax(axis=0), np.arange(ends.shape[1])] < 0, -1.0, 1.0)
    ends = np.pad(ends, ((0, 0), (0, 3 - ends.shape[1]))) / np.linalg.norm(ends, axis=1).max()
    share = float(values[kept].sum() / joint.trace())
    return (ends[:chosen.size], ends[chosen.size:]), share


def _label(geometry: Geometry, letter: str, c: int, norm: float) -> str:
    counts = geometry.counts
    return f"{letter} of class {counts.names[c]}, n = {plain(counts.values[c])}, length {number(norm)}"


def _caption(k: int, drawn: int, share: float) -> str:
    many = ("All classes" if drawn == k else "The two most and the two least frequent classes" if drawn == 4
            else f"{drawn} of {k:,} classes, from the most to the least frequent")
    held = ("exact: they span no more than three dimensions" if share > 1 - _EXACT else
            "projected on the three leading singular directions of all arrows drawn, which hold "
            f"{percent(share)} of their squared length")
    return f"{many}, {held}. W and M are scaled alike. Drag to rotate."
