# %% [markdown]
"""accelerate: scalars and pictures of the geometry in TensorBoard; W&B, MLflow and trackio by another `log_with`.

python examples/accelerate_trackers.py
"""

# %%
import tempfile

from accelerate import Accelerator
import numpy as np
from sklearn.datasets import load_digits
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import neuralcollapse as nc
from neuralcollapse.measure.callbacks import gram_picture, log_to

# %%
torch.set_num_threads(1)
torch.manual_seed(0)
digits = load_digits()
counts = nc.ClassCounts.step(classes=10, ratio=10, minority=0.5, n_min=14)
kept = counts.subsample(digits.target, np.random.default_rng(0))
pixels = torch.tensor((digits.data[kept] - digits.data.mean()) / digits.data.std(), dtype=torch.float32)
loader = DataLoader(TensorDataset(pixels, torch.tensor(digits.target[kept])), batch_size=64, shuffle=True)
model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10))

# %%
with tempfile.TemporaryDirectory() as folder:
    accelerator = Accelerator(cpu=True, log_with="tensorboard", project_dir=folder)  # or "wandb", "mlflow", "trackio"
    accelerator.init_trackers("digits")
    model, optimiser, loader = accelerator.prepare(model, torch.optim.Adam(model.parameters(), lr=3e-3), loader)

    watch = nc.Watch(model, counts, epochs=8, log=lambda report: log_to(accelerator, report, figures=gram_picture))
    for _ in range(8):
        for images, labels in loader:
            loss = cross_entropy(model(images), labels)
            watch.add(labels)
            optimiser.zero_grad()
            accelerator.backward(loss)
            optimiser.step()
        report = watch.end_epoch()
    accelerator.end_training()

    events = EventAccumulator(f"{folder}/digits", {"images": 0})  # 0: keep all of them
    events.Reload()
    tags = events.Tags()

print(report)
print(f"TensorBoard holds {len(tags['scalars'])} scalars, such as {', '.join(tags['scalars'][:3])}")
print(f"and {len(events.Images('nc/grams'))} pictures of {', '.join(tags['images'])}")
