"""Every picture: one function each, which prepares the numbers once for plotly and matplotlib.

distances(run).plotly()            a plotly Figure
distances(run).matplotlib()        the same as a matplotlib Figure
curves(read_runs(folders))         many runs on common axes
save_prediction(geometry, file)    a file
save_path(path, file)              the same for a path along the ridge
"""

from neuralcollapse.show.class_figures import accuracies, margins, norms
from neuralcollapse.show.comparison_figures import curves
from neuralcollapse.show.path_figures import path_charts, path_figure, save_path
from neuralcollapse.show.prediction import (
    predicted_grams,
    predicted_norms,
    prediction_charts,
    prediction_figure,
    save_prediction,
)
from neuralcollapse.show.run_figures import collapse, distances, grams, summary_figure, training

__all__ = [
    "accuracies", "collapse", "curves", "distances", "grams", "margins", "norms", "path_charts", "path_figure",
    "predicted_grams", "predicted_norms", "prediction_charts", "prediction_figure", "save_path", "save_prediction",
    "summary_figure", "training",
]
