"""STUDIES: questions with a grid of runs for an answer; each writes data, a table and a figure into a folder."""

from neuralcollapse.experiments.studies import convergence as _convergence
from neuralcollapse.experiments.studies import optimisers as _optimisers
from neuralcollapse.experiments.studies import rates as _rates
from neuralcollapse.experiments.studies import steering as _steering
from neuralcollapse.experiments.studies.study import STUDIES, run_study

__all__ = ["STUDIES", "run_study"]
del _convergence, _optimisers, _rates, _steering
