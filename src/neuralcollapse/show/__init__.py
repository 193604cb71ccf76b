"""SHOW: runs and predictions as pictures, sentences and a report. Draws with plotly or matplotlib, on demand."""

from neuralcollapse.show.figures import prediction_figure, save_prediction, summary_figure
from neuralcollapse.show.report import write_report
from neuralcollapse.show.sentences import Sentence, verdict

__all__ = ["Sentence", "prediction_figure", "save_prediction", "summary_figure", "verdict", "write_report"]
