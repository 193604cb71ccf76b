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
from neuralcollapse.steer.amounts import below_one, not_negative, positive, whole
from neuralcollapse.steer.binding import BatchBinding, BindingBatchSampler, binding_examples
from neuralcollapse.steer.codes import frame, spherical_code
from neuralcollapse.steer.contrastive import SupConLoss
from neuralcollapse.steer.cosine import CosineHead
from neuralcollapse.steer.counting import class_counts
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
    "gamma_for": (gamma_for, {"counts": COUNTS, "target": 1.0},
                  ["counts", "target", "tau", "ridge?", "largest", "remedy"]),
    "tau_for": (tau_for, {"counts": COUNTS, "target": 1.0, "ridge": 0.1}, ["target", "gamma", "ridge", "largest"]),
}
VECTORS = {"VSLoss": (VSLoss, {"counts": COUNTS}), "AdjustedCrossEntropy": (AdjustedCrossEntropy, {"k": 2})}
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
                if bad != "none" or not argument.endswith("?"):  # there None is to leave it out
                    found.append((name, argument, bad, refused(call, **right | {argument.rstrip("?"): value})))
    for name, (call, right) in VECTORS.items():
        for argument in ("weight", "delta", "iota", "margin"):
            found += [(name, argument, bad, refused(call, **right, **{argument: value}))
                      for bad, value in WRONG_VECTORS.items()]
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


@pytest.mark.parametrize("name", [*CALLS, "forward"])
def test_what_is_no_number_is_refused_in_one_line(found, name):
    tried = [row for row in found if row[0] == name]
    assert tried
    assert not [row for row in tried if row[3]]


@pytest.mark.parametrize("name", CALLS)
def test_the_numbers_beside_them_are_right(name):
    call, right, _ = CALLS[name]
    missing = {"AdjustedCrossEntropy": {"k": 2}, "from_counts": {"counts": COUNTS}, "set_epoch": {"epoch": 1}}
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


if __name__ == "__main__":
    print(json.dumps(outcomes()))
