# %% [markdown]
"""A plain PyTorch loop, watched with three added lines.

Digits with five classes of 140 images and five of 14. Weight decay on the head and a penalty on the features lead the
network to the geometry that theory predicts from these counts (SELI), which is no simplex.

    python examples/plain_loop.py
"""

# %%
import numpy as np
from sklearn.datasets import load_digits
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import neuralcollapse as nc

EPOCHS = 40

# %%
torch.set_num_threads(1)  # so small a network gains nothing from more
torch.manual_seed(0)
digits = load_digits()
counts = nc.ClassCounts.step(classes=10, ratio=10, minority=0.5, n_min=14)
kept = counts.subsample(digits.target, np.random.default_rng(0))
pixels = torch.tensor((digits.data[kept] - digits.data.mean()) / digits.data.std(), dtype=torch.float32)
loader = DataLoader(TensorDataset(pixels, torch.tensor(digits.target[kept])), batch_size=64, shuffle=True)

# %%
body = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 32))
head = nn.Linear(32, 10, bias=False)
model = nn.Sequential(body, head)
optimiser = torch.optim.Adam([{"params": body.parameters()}, {"params": head.parameters(), "weight_decay": 0.01}],
                             lr=3e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)

# %%
watch = nc.Watch(model, counts, epochs=EPOCHS, log=print)                       # 1
for _ in range(EPOCHS):
    for images, labels in loader:
        features = body(images)
        loss = cross_entropy(model(images), labels) + 0.005 * features.square().sum(1).mean()
        watch.add(labels)                                                       # 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    schedule.step()
    report = watch.end_epoch()                                                  # 3

# %%
print(report.verdict)
