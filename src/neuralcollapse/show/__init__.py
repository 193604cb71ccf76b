"""SHOW: runs and predictions as pictures, sentences and a report. Draws with plotly or matplotlib, on demand."""

from neuralcollapse.show.comparison import write_comparison
from neuralcollapse.show.explorer import explore
from neuralcollapse.show.figures import prediction_figure, save_prediction, summary_figure
from neuralcollapse.show.path_figures import path_figure, save_path
from neuralcollapse.show.report import write_report
from neuralcollapse.show.sentences import Sentence, verdict

__all__ = ["Sentence", "explore", "path_figure", "prediction_figure", "save_path", "save_prediction", "summary_figure",
           "verdict", "write_comparison", "write_report"]
