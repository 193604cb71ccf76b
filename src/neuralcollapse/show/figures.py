"""Every picture: one function each, which prepares the numbers once for plotly and matplotlib.

distances(run).plotly()            a plotly Figure
distances(run).matplotlib()        the same as a matplotlib Figure
save_prediction(geometry, path)    a file
"""

from neuralcollapse.show.prediction import (
    predicted_grams,
    predicted_norms,
    prediction_charts,
    prediction_figure,
    save_prediction,
)
from neuralcollapse.show.run_figures import (
    accuracies,
    collapse,
    distances,
    grams,
    norms,
    summary_figure,
    training,
)

__all__ = [
    "accuracies", "collapse", "distances", "grams", "norms", "predicted_grams", "predicted_norms",
    "prediction_charts", "prediction_figure", "save_prediction", "summary_figure", "training",
]
