"""The geometry against the imbalance ratio R as a picture."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
import numpy as np

from neuralcollapse.show.along import PathSummary, joined
from neuralcollapse.show.charts import AgainstRatio, Mark
from neuralcollapse.show.path_figures import described, shape_panels


def against_ratio(ratios: Sequence[float], summaries: Sequence[PathSummary], marked: float, ridge: str) -> AgainstRatio:
    """Mean norms and cosines of majority and minority, classifiers and embeddings, against R.

    Parameters
    ----------
    ratios : (p,) sequence
        Ascending.
    summaries : sequence of p PathSummary
        Of one geometry each.
    marked : float
        The R to mark.
    ridge : str
        Where along λ this is, such as "λ → 0".

    Returns
    -------
    AgainstRatio
    """
    panels = shape_panels(joined(summaries))
    x: Float[np.ndarray, " p"] = np.array(ratios, dtype=np.float64)
    return AgainstRatio(
        "Norms and angles against R", f"The same profile and loss at other imbalance ratios, {ridge}; means over "
        "majority and minority classes, at unit Frobenius norm of the Gram matrix.", described(panels, "R"), panels, 2,
        x, True, marks=(Mark("your R", marked, "ink", "your R", dashed=False),))
