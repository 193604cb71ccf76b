"""STUDIES: questions with a grid of runs for an answer; each writes data, a table and a figure into a folder."""

from neuralcollapse.experiments.studies import convergence as _convergence
from neuralcollapse.experiments.studies import geometry_vs_ratio as _geometry_vs_ratio
from neuralcollapse.experiments.studies import loss_geometries as _loss_geometries
from neuralcollapse.experiments.studies import optimisers as _optimisers
from neuralcollapse.experiments.studies import rates as _rates
from neuralcollapse.experiments.studies import ridge_path as _ridge_path
from neuralcollapse.experiments.studies import robustness as _robustness
from neuralcollapse.experiments.studies import steering as _steering
from neuralcollapse.experiments.studies import ufm_convergence as _ufm_convergence
from neuralcollapse.experiments.studies import vocabulary as _vocabulary
from neuralcollapse.experiments.studies.study import STUDIES, run_study

__all__ = ["STUDIES", "run_study"]
del (_convergence, _geometry_vs_ratio, _loss_geometries, _optimisers, _rates, _ridge_path, _robustness, _steering,
     _ufm_convergence, _vocabulary)
