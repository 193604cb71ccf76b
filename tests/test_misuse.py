"""Arguments of the wrong kind, as a user gives them: without the test run's checks of annotations."""

import subprocess
import sys

from neuralcollapse.checks import did_you_mean

CALLS = r"""
import numpy as np
import torch
import neuralcollapse as nc

C = [5, 5, 2]
model = torch.nn.Sequential(torch.nn.Linear(2, 3))
X, y = np.eye(3, 2), np.array([0, 1, 2])
calls = {
    "measure_model(None)": lambda: nc.measure_model(model, None, counts=C),
    "targets": lambda: nc.measure(X, y, np.eye(3, 2), targets=(nc.predict(C),)),
    "target": lambda: nc.measure(X, y, np.eye(3, 2), targets=nc.predict(C)),
    "judge": lambda: nc.judge(nc.measure(X, y).to_dict()),
    "loss": lambda: nc.VSLoss.ce(C)(X, y),
    "factors": lambda: nc.predict(C).factors(d=8.5),
    "watch": lambda: nc.Watch(model, C, epochs=0),
    "train": lambda: nc.train({"epochs": 2}, "never"),
    "watch head": lambda: nc.Watch(model, C, head=3),
}
for name, call in calls.items():
    try:
        call()
    except nc.InvalidInput as error:
        print(f"{name}: {error}")
assert nc.predict(C).factors(d=8.0)[0].shape == (3, 8)
"""
TOLD = """
measure_model(None): batches must be a DataLoader or a list of batches, got NoneType
targets: targets must be names, or a mapping of names to geometries such as {'mine': geometry}, got Geometry
target: targets must be names, or a mapping of names to geometries such as {'mine': geometry}, got Geometry
judge: measurement must be what measure or measure_model gave, got dict
loss: logits and labels must be tensors, got ndarray and ndarray
factors: d must be a whole number, got '8.5'
watch: epochs must be a whole number of at least 1, got '0'
train: train needs a TrainConfig, got dict: give TrainConfig(…)
watch head: head must be a layer of the model or its name, got int
"""


def test_each_is_refused_in_one_line():
    result = subprocess.run([sys.executable, "-c", CALLS], capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == (TOLD.strip(), "")


def test_a_message_names_each_known_name_once_and_no_more_than_forty():
    names = [f"name{i:03}" for i in range(90)]
    told = did_you_mean("name050", names + names)
    assert told == f"did you mean 'name050'? known: {', '.join(names[:40])}, … (50 more)"
    assert did_you_mean("?", ["b", "a", "b"]) == "known: a, b"
