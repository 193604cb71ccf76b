"""STEER: change the geometry a network collapses to, chosen from the class counts."""

from neuralcollapse.steer.advise import Advice, advise
from neuralcollapse.steer.binding import BatchBinding, BindingBatchSampler, binding_examples
from neuralcollapse.steer.codes import SphericalCode, frame, spherical_code
from neuralcollapse.steer.contrastive import SupConLoss
from neuralcollapse.steer.cosine import CosineHead
from neuralcollapse.steer.counting import class_counts
from neuralcollapse.steer.dot_regression import DotRegressionLoss
from neuralcollapse.steer.heads import GeometryHead, etf_head, geometry_head, replace_head, seli_head
from neuralcollapse.steer.losses import VSLoss
from neuralcollapse.steer.planner import samples_needed
from neuralcollapse.steer.posthoc import PosthocRow, evaluate_posthoc
from neuralcollapse.steer.remedies import REMEDIES, Remedy
from neuralcollapse.steer.rescue import ClassVerdict, rescue
from neuralcollapse.steer.ridge import (
    FeaturePenalty,
    MinorityCollapseWarning,
    RidgeSchedule,
    check_weight_decay,
    parameter_groups,
)
from neuralcollapse.steer.rules import POSTHOC, FittedRule
from neuralcollapse.steer.sampling import BalancedBatchSampler, ClassAwareSampler
from neuralcollapse.steer.scores import Scores, scores

__all__ = ["POSTHOC", "REMEDIES", "Advice", "BalancedBatchSampler", "BatchBinding", "BindingBatchSampler",
           "ClassAwareSampler", "ClassVerdict", "CosineHead", "DotRegressionLoss", "FeaturePenalty", "FittedRule",
           "GeometryHead", "MinorityCollapseWarning", "PosthocRow", "Remedy", "RidgeSchedule", "Scores",
           "SphericalCode", "SupConLoss", "VSLoss", "advise", "binding_examples", "check_weight_decay", "class_counts",
           "etf_head", "evaluate_posthoc", "frame", "geometry_head", "parameter_groups", "replace_head", "rescue",
           "samples_needed", "scores", "seli_head", "spherical_code"]
