"""Whatever is no number, given where one is wanted, is refused in one line that names it: every constructor, every one."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import predict
from neuralcollapse.steer.adjusted import AdjustedCrossEntropy
from neuralcollapse.steer.binding import BatchBinding, BindingBatchSampler, binding_examples
from neuralcollapse.steer.codes import frame, spherical_code
from neuralcollapse.steer.contrastive import SupConLoss
from neuralcollapse.steer.cosine import CosineHead
from neuralcollapse.steer.counting import as_counts, class_counts
from neuralcollapse.steer.dot_regression import DotRegressionLoss
from neuralcollapse.steer.heads import GeometryHead, etf_head, geometry_head, seli_head
from neuralcollapse.steer.losses import VSLoss
from neuralcollapse.steer.margin_targets import gamma_for, tau_for
from neuralcollapse.steer.recipes import class_weights, count_powers, label_margins, log_priors
from neuralcollapse.steer.ridge import FeaturePenalty, RidgeSchedule, check_weight_decay, parameter_groups
from neuralcollapse.steer.sampling import BalancedBatchSampler, ClassAwareSampler

COUNTS, LABELS, MODEL = ClassCounts([6, 2]), [0, 0, 1], nn.Linear(2, 2)
SELI, DATA = predict([6, 2]), TensorDataset(torch.zeros(3), torch.tensor(LABELS))
BALANCED = {"classes_per_batch": 2, "samples_per_class": 1}
SCHEDULE = {"start": 8.0, "end": 1.0, "steps": 3, "n": 8}


def optimiser():
    return torch.optim.SGD(parameter_groups(MODEL, 1e-3), lr=0.1)


# What takes numbers: the call, the arguments that are right, and which of them are numbers.
CALLS = {
    "VSLoss": (VSLoss, {"counts": COUNTS}, ["focal", "label_smoothing", "ignore_index", "reduction", "temperature"]),
    "AdjustedCrossEntropy": (AdjustedCrossEntropy, {}, ["k"]),
    "weighted": (VSLoss.weighted, {"counts": COUNTS, "scheme": "effective-number"}, ["beta", "scheme"]),
    "logit_adjusted": (VSLoss.logit_adjusted, {"counts": COUNTS}, ["tau"]),
    "ldt": (VSLoss.ldt, {"counts": COUNTS}, ["gamma"]), "cdt": (VSLoss.cdt, {"counts": COUNTS}, ["gamma"]),
    "vs": (VSLoss.vs, {"counts": COUNTS, "gamma": 0.1, "tau": 1}, ["gamma", "tau"]),
    "ldam": (VSLoss.ldam, {"counts": COUNTS}, ["max_margin", "scale"]),
    "focal": (VSLoss.focal, {"counts": COUNTS}, ["gamma"]), "auto": (VSLoss.auto, {"counts": COUNTS}, ["reduction"]),
    "reweighted": (VSLoss.ce(COUNTS).reweighted, {}, ["beta", "scheme"]),
    "class_weights": (class_weights, {"counts": COUNTS, "scheme": "effective-number"}, ["beta"]),
    "log_priors": (log_priors, {"counts": COUNTS}, ["tau"]), "count_powers": (count_powers, {"counts": COUNTS}, ["gamma"]),
    "label_margins": (label_margins, {"counts": COUNTS}, ["max_margin"]), "as_counts": (as_counts, {}, ["counts"]),
    "class_counts": (class_counts, {"source": LABELS}, ["k?", "absent?", "ignore_index"]),
    "ClassAwareSampler": (ClassAwareSampler, {"labels": LABELS, "rank": 0, "world_size": 1},
                          ["balance", "num_samples?", "seed", "rank", "world_size"]),
    "set_epoch": (ClassAwareSampler(LABELS).set_epoch, {}, ["epoch"]),
    "BalancedBatchSampler": (BalancedBatchSampler, {"labels": LABELS, "rank": 0, "world_size": 1, **BALANCED},
                             ["classes_per_batch", "samples_per_class", "batches?", "seed", "rank", "world_size"]),
    "binding_examples": (binding_examples, {"labels": LABELS}, ["seed", "k?"]),
    "BindingBatchSampler": (BindingBatchSampler, {"batches": [[0]], "labels": LABELS}, ["seed", "examples?"]),
    "BatchBinding": (BatchBinding, {"dataset": DATA, "labels": LABELS}, ["seed", "examples?"]),
    "spherical_code": (spherical_code, {"k": 9, "d": 3, "starts": 1}, ["k", "d", "seed", "starts?"]),
    "frame": (frame, {"geometry": SELI, "d": 2}, ["geometry", "d", "seed"]),
    "GeometryHead": (GeometryHead, {"geometry": SELI, "d": 2}, ["geometry", "d", "scale", "seed"]),
    "geometry_head": (geometry_head, {"geometry": SELI, "d": 2}, ["geometry", "d"]),
    "etf_head": (etf_head, {"k": 2, "d": 2}, ["k", "d", "scale"]),
    "seli_head": (seli_head, {"counts": COUNTS, "d": 2}, ["counts", "d", "scale"]),
    "CosineHead": (CosineHead, {"k": 2, "d": 2}, ["k", "d", "scale"]),
    "DotRegressionLoss": (DotRegressionLoss, {"head": MODEL}, ["head", "feature_energy", "reduction", "ignore_index"]),
    "SupConLoss": (SupConLoss, {}, ["temperature", "prototype_copies", "ignore_index", "reduction"]),
    "FeaturePenalty": (FeaturePenalty, {"model": MODEL, "p": 0.1, "n": 8}, ["p", "n"]),
    "parameter_groups": (parameter_groups, {"model": MODEL, "weight_decay": 0.1}, ["weight_decay", "backbone_decay?"]),
    "parameter_groups of a ridge": (parameter_groups, {"model": MODEL, "ridge": 0.1, "counts": COUNTS},
                                    ["ridge", "feature_penalty?"]),
    "check_weight_decay": (check_weight_decay, {"counts": COUNTS, "weight_decay": 1e-3},
                           ["counts", "weight_decay", "feature_penalty?"]),
    "RidgeSchedule": (lambda **options: RidgeSchedule(optimiser(), **options), SCHEDULE,
                      ["start", "end", "steps", "n", "kind"]),
    "gamma_for": (gamma_for, {"counts": COUNTS, "target": 1.0}, ["counts", "target", "tau", "ridge?", "largest", "remedy"]),
    "tau_for": (tau_for, {"counts": COUNTS, "target": 1.0, "ridge": 0.1}, ["target", "gamma", "ridge", "largest"]),
}
VECTORS = {"VSLoss": (VSLoss, {"counts": COUNTS}), "AdjustedCrossEntropy": (AdjustedCrossEntropy, {"k": 2})}
BAD = {"text": "many", "text that reads like a number": "0.5", "none": None, "nan": math.nan, "inf": math.inf,
       "negative": -1.5, "true": True, "list": [0.5, 0.5, 0.5], "complex": 0.5 + 1j, "array": np.array([0.5, math.nan]),
       "tensor": torch.tensor([0.5, math.nan])}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", CALLS)
def test_what_is_no_number_is_refused_in_one_line(name, bad):
    call, right, numbers = CALLS[name]
    for argument in numbers:
        if bad == "none" and argument.endswith("?"):  # where None is to leave it out
            continue
        with pytest.raises(InvalidInput) as error:
            call(**{**right, argument.rstrip("?"): BAD[bad]})
        assert "\n" not in str(error.value), argument


@pytest.mark.parametrize("vector", ["weight", "delta", "iota", "margin"])
@pytest.mark.parametrize("bad", ["many", ["1", "2"], [True, False], [1j, 2], [1, None], [math.nan, 1], [[1, 2]], 3.0,
                                 [1, [2]], np.array([1.0, math.inf]), {"0": "x", "1": 1}])
@pytest.mark.parametrize("name", VECTORS)
def test_what_is_no_vector_of_numbers_is_refused_in_one_line(name, bad, vector):
    call, right = VECTORS[name]
    with pytest.raises(InvalidInput, match=f"^{vector} must be [^\n]*$"):
        call(**right, **{vector: bad})


@pytest.mark.parametrize("name", CALLS)
def test_numbers_of_numpy_and_torch_are_numbers(name):
    """The right arguments pass, as they are and as arrays without axes."""
    call, right, numbers = CALLS[name]
    call(**({"k": 2} if name == "AdjustedCrossEntropy" else {"counts": COUNTS} if name == "as_counts" else
            {"epoch": 1} if name == "set_epoch" else right))
    of_numpy = {argument: np.int64(value) if isinstance(value, int) else np.float64(value)
                for argument, value in right.items() if argument in numbers and isinstance(value, int | float)}
    call(**({"k": np.int64(2)} if name == "AdjustedCrossEntropy" else {"counts": COUNTS} if name == "as_counts" else
            {"epoch": torch.tensor(1)} if name == "set_epoch" else right | of_numpy))
