"""Whatever is no number, given where one is wanted, is refused in one line: by every constructor and function."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import predict
from neuralcollapse.steer.adjusted import AdjustedCrossEntropy
from neuralcollapse.steer.advise import advise
from neuralcollapse.steer.amounts import below_one, not_negative, positive, whole
from neuralcollapse.steer.binding import BatchBinding, BindingBatchSampler, binding_examples
from neuralcollapse.steer.class_probe import probe_recall, rescue_features
from neuralcollapse.steer.codes import frame, spherical_code
from neuralcollapse.steer.contrastive import SupConLoss
from neuralcollapse.steer.cosine import CosineHead
from neuralcollapse.steer.counting import class_counts
from neuralcollapse.steer.dot_regression import DotRegressionLoss
from neuralcollapse.steer.heads import GeometryHead, etf_head, geometry_head, seli_head
from neuralcollapse.steer.losses import VSLoss
from neuralcollapse.steer.planner import samples_needed, samples_to_part
from neuralcollapse.steer.posthoc import logit_adjustment, nearest_class_mean, tau_normalised
from neuralcollapse.steer.recipes import class_weights, count_powers, label_margins, log_priors
from neuralcollapse.steer.refit import refit
from neuralcollapse.steer.repair import predicted_norms, repair
from neuralcollapse.steer.rescue import rescue
from neuralcollapse.steer.ridge import FeaturePenalty, RidgeSchedule, check_weight_decay, parameter_groups
from neuralcollapse.steer.sampling import BalancedBatchSampler, ClassAwareSampler

COUNTS, LABELS, MODEL = ClassCounts([6, 2]), [0, 0, 1], nn.Linear(2, 2)
SELI, DATA = predict([6, 2]), TensorDataset(torch.zeros(3), torch.tensor(LABELS))
BALANCED = {"classes_per_batch": 2, "samples_per_class": 1}
SCHEDULE = {"start": 8.0, "end": 1.0, "steps": 3, "n": 8}


def optimiser():
    return torch.optim.SGD(parameter_groups(MODEL, 1e-3), lr=0.1)


LABELS_OF_FEATURES = [0, 0, 0, 1, 1]
FEATURES = np.eye(2)[LABELS_OF_FEATURES]
HELD = (FEATURES, LABELS_OF_FEATURES)
HEAD = {"features": None, "labels": None, "weight": np.eye(2), "counts": COUNTS}
LOST = {"counts": COUNTS, "weight": np.eye(2), "means": np.eye(2), "geometry": SELI, "margins": [1, 1],
        "confusions": np.eye(2), "probe": [1, 1]}


# What takes numbers: the call, the arguments that are right, and which of them are numbers.
CALLS = {
    "VSLoss": (VSLoss, {"counts": COUNTS}, ["focal", "label_smoothing", "ignore_index", "reduction", "temperature"]),
    "AdjustedCrossEntropy": (AdjustedCrossEntropy, {}, ["k"]),
    "weighted": (VSLoss.weighted, {"counts": COUNTS, "scheme": "effective-number"}, ["beta", "scheme"]),
    "logit_adjusted": (VSLoss.logit_adjusted, {"counts": COUNTS}, ["tau"]),
    "ldt": (VSLoss.ldt, {"counts": COUNTS}, ["gamma"]),
    "cdt": (VSLoss.cdt, {"counts": COUNTS, "gamma": 0.1}, ["gamma"]),
    "vs": (VSLoss.vs, {"counts": COUNTS, "gamma": 0.1, "tau": 1}, ["gamma", "tau"]),
    "ldam": (VSLoss.ldam, {"counts": COUNTS}, ["max_margin", "scale"]),
    "focal": (VSLoss.focal, {"counts": COUNTS}, ["gamma"]), "auto": (VSLoss.auto, {"counts": COUNTS}, ["reduction"]),
    "reweighted": (VSLoss.ce(COUNTS).reweighted, {}, ["beta", "scheme"]),
    "class_weights": (class_weights, {"counts": COUNTS, "scheme": "effective-number"}, ["beta"]),
    "log_priors": (log_priors, {"counts": COUNTS}, ["tau"]),
    "count_powers": (count_powers, {"counts": COUNTS, "gamma": 0.1}, ["gamma"]),
    "label_margins": (label_margins, {"counts": COUNTS}, ["max_margin"]),
    "from_counts": (ClassCounts.from_counts, {}, ["counts"]),
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
    "sequence": (ClassAwareSampler(LABELS).sequence, {}, ["epoch"]),
    "advise": (advise, {"counts": COUNTS}, ["counts", "ridge?", "goal"]),
    "advise at a weight decay": (advise, {"counts": COUNTS, "weight_decay": 1e-3},
                                 ["weight_decay?", "feature_penalty?", "n?", "ridge?"]),
    "samples_needed": (samples_needed, {"counts": COUNTS, "cls": 1, "norm": 0.5}, ["counts", "cls", "norm"]),
    "samples_needed at a ridge": (samples_needed, {"counts": COUNTS, "cls": 1, "margin": 0.5, "ridge": 0.1},
                                  ["margin", "ridge", "weight_decay?", "feature_penalty?"]),
    "samples_needed at a weight decay": (samples_needed, {"counts": COUNTS, "cls": 1, "norm": 0.5,
                                                          "weight_decay": 1e-3}, ["feature_penalty?", "ridge?"]),
    "samples_to_part": (samples_to_part, {"counts": COUNTS, "cls": 1, "ridge": 1.45}, ["cls", "ridge"]),
    "probe_recall": (probe_recall, {"features": FEATURES, "labels": LABELS_OF_FEATURES},
                     ["features", "labels", "classes?", "folds", "regularisation", "seed"]),
    "rescue": (rescue, LOST, ["weight", "means", "margins", "confusions", "merging?", "feature_penalty?", "level?"]),
    "rescue_features": (rescue_features, {"train": HELD, "held_out": HELD, "weight": np.eye(2), "ridge": 0.1},
                        ["ridge?"]),
    "refit": (refit, {"features": FEATURES, "labels": LABELS_OF_FEATURES}, ["l2"]),
    "tau_normalised": (tau_normalised, {**HEAD}, ["tau±"]), "logit_adjustment": (logit_adjustment, {**HEAD}, ["tau±"]),
    "predicted_norms": (predicted_norms, {**HEAD}, ["tau±"]),
    "repair": (repair, {**HEAD, "ridge": 0.1}, ["tau±"]),
}
VECTORS = {"VSLoss": (VSLoss, {"counts": COUNTS}), "AdjustedCrossEntropy": (AdjustedCrossEntropy, {"k": 2})}
FLAGS = {
    "VSLoss": (VSLoss.ce, {"counts": COUNTS}, ["exact"]), "for_trainer": (VSLoss.ce(COUNTS).for_trainer, {}, ["shift"]),
    "SupConLoss": (SupConLoss, {}, ["nonnegative", "prototype_anchors", "normalize", "gather"]),
    "CosineHead": (CosineHead, {"k": 2, "d": 2}, ["learn_scale"]),
    "GeometryHead": (GeometryHead, {"geometry": SELI, "d": 2}, ["learn", "learn_scale", "bias"]),
    "nearest_class_mean": (nearest_class_mean, {"features": FEATURES, "labels": LABELS_OF_FEATURES}, ["cosine"]),
}
STATES = {"ClassAwareSampler": ClassAwareSampler(LABELS), "RidgeSchedule": RidgeSchedule(optimiser(), **SCHEDULE)}
BAD = {"text": "many", "text that reads like a number": "0.5", "none": None, "nan": math.nan, "inf": math.inf,
       "negative": -1.5, "true": True, "list": [0.5, None], "complex": 0.5 + 1j, "array": np.array([0.5, math.nan]),
       "tensor": torch.tensor([0.5, math.nan])}


WRONG_VECTORS = {"text": "many", "texts": ["1", "2"], "truth values": [True, False], "complex": [1j, 2],
                 "none among them": [1, None], "nan": [math.nan, 1], "a matrix": [[1, 2]], "one number": 3.0,
                 "rows": [1, [2]], "inf": np.array([1.0, math.inf]), "a mapping to text": {"0": "x", "1": 1}}


def refused(call, **arguments):
    """Whether a call is refused in one line; else what it does instead."""
    try:
        call(**arguments)
    except InvalidInput as error:
        return "" if "\n" not in str(error) else f"several lines: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def outcomes():
    """Every wrong value in every place, and where it was not refused in one line."""
    found = []
    for name, (call, right, numbers) in CALLS.items():
        for argument in numbers:
            for bad, value in BAD.items():
                # With "?" None is to leave it out, with "±" numbers below 0 are right too.
                if (bad, argument[-1]) not in (("none", "?"), ("negative", "±")):
                    found.append((name, argument, bad, refused(call, **right | {argument.rstrip("?±"): value})))
    for name, (call, right) in VECTORS.items():
        for argument in ("weight", "delta", "iota", "margin"):
            found += [(name, argument, bad, refused(call, **right, **{argument: value}))
                      for bad, value in WRONG_VECTORS.items()]
    for name, (call, right, flags) in FLAGS.items():
        found += [(f"{name} flags", argument, str(bad), refused(call, **right, **{argument: bad}))
                  for argument in flags for bad in ("False", "true", None, 0.5, [True])]
    found += [(f"{name} state", "state", str(bad), refused(schedule.load_state_dict, state=bad))
              for name, schedule in STATES.items() for bad in ({}, {"epoch": 1}, None, 3)]
    loss, (logits, labels) = VSLoss.ce(COUNTS), (torch.zeros(2, 2), torch.tensor([0, 1]))
    found += [("forward", "num_items_in_batch", bad, refused(loss, logits=logits, target=labels,
                                                             num_items_in_batch=value))
              for bad, value in BAD.items() if value is not None]
    return found


@pytest.fixture(scope="module")
def found():
    """In a process of its own: here types are checked on the way in (conftest.py), and a user's are not."""
    made = subprocess.run([sys.executable, "-W", "error", __file__], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout)


@pytest.mark.parametrize("name", [*CALLS, *(f"{name} flags" for name in FLAGS), *(f"{name} state" for name in STATES),
                                  "forward"])
def test_what_is_no_number_is_refused_in_one_line(found, name):
    tried = [row for row in found if row[0] == name]
    assert tried
    assert not [row for row in tried if row[3]]


@pytest.mark.parametrize("name", CALLS)
def test_the_numbers_beside_them_are_right(name):
    call, right, _ = CALLS[name]
    missing = {"AdjustedCrossEntropy": {"k": 2}, "from_counts": {"counts": COUNTS}, "set_epoch": {"epoch": 1},
               "sequence": {"epoch": 1}}
    made = call(**right, **missing.get(name, {}))
    assert (made is None) == (name == "set_epoch")


@pytest.mark.parametrize("three", [3, np.int64(3), np.float32(3), np.array(3.0), torch.tensor(3)])
def test_a_number_of_any_library_is_a_number(three):
    assert positive("scale", three) == not_negative("tau", three) == 3.0
    assert below_one("beta", three / 4) == 0.75


@pytest.mark.parametrize("three", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_a_whole_number_of_any_library_is_one(three):
    assert whole("k", three, 3) == 3
    with pytest.raises(InvalidInput, match=r"^k must be a whole number ≥ 4, got 3$"):
        whole("k", three, 4)


def test_what_a_module_trains_is_taken_as_it_is():
    weight, bias = torch.nn.Parameter(torch.eye(2)), torch.nn.Parameter(torch.ones(2))
    found = rescue(**LOST | {"weight": weight, "means": weight, "margins": bias, "probe": bias, "confusions": weight})
    assert found == rescue(**LOST)
    assert probe_recall(weight[LABELS_OF_FEATURES], torch.tensor(LABELS_OF_FEATURES)).tolist() == [1, 1]


if __name__ == "__main__":
    print(json.dumps(outcomes()))
