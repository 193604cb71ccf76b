# %% [markdown]
"""Lightning: a callback that sees minority classes merge, and stops the run, while accuracy still rises.

The weight decay is too strong: theory says that classes of 14 images share one classifier from λ = √14 on, and here
λ = √(λ_W λ_H) = 4.4. Works alike with `import pytorch_lightning as pl`.

    python examples/lightning_callback.py
"""

# %%
import logging
import tempfile
import warnings

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger
import numpy as np
from sklearn.datasets import load_digits
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import neuralcollapse as nc
from neuralcollapse.measure.callbacks import MinoritiesMerging
from neuralcollapse.measure.callbacks.lightning import CollapseCallback

WEIGHT_DECAY, FEATURE_PENALTY = 0.05, 0.5

# %%
class Classifier(pl.LightningModule):
    """A small MLP with ridges on its head and on its features."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 32))
        self.head = nn.Linear(32, 10, bias=False)

    def training_step(self, batch, batch_index):
        """Cross-entropy and half the squared norm of the features."""
        images, labels = batch
        features = self.body(images)
        logits = self.head(features)
        self.log("accuracy", (logits.argmax(1) == labels).float().mean(), on_step=False, on_epoch=True)
        return cross_entropy(logits, labels) + FEATURE_PENALTY / 2 * features.square().sum(1).mean()

    def configure_optimizers(self):
        """Adam, with weight decay on the head alone."""
        return torch.optim.Adam([{"params": self.body.parameters()},
                                 {"params": self.head.parameters(), "weight_decay": WEIGHT_DECAY}], lr=3e-3)

# %%
warnings.simplefilter("ignore")  # Lightning's advice on workers and log intervals,
warnings.simplefilter("always", MinoritiesMerging)  # but not this one
logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.ERROR)
torch.set_num_threads(1)
pl.seed_everything(0, verbose=False)
digits = load_digits()
counts = nc.ClassCounts.step(classes=10, ratio=10, minority=0.5, n_min=14)
kept = counts.subsample(digits.target, np.random.default_rng(0))
pixels = torch.tensor((digits.data[kept] - digits.data.mean()) / digits.data.std(), dtype=torch.float32)
loader = DataLoader(TensorDataset(pixels, torch.tensor(digits.target[kept])), batch_size=64, shuffle=True)

# %%
callback = CollapseCallback(counts, every=1, stop=True, log=print)
with tempfile.TemporaryDirectory() as folder:
    trainer = pl.Trainer(max_epochs=40, accelerator="cpu", logger=CSVLogger(folder), callbacks=[callback],
                         enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    trainer.fit(Classifier(), loader)

# %%
accuracy = trainer.callback_metrics["accuracy"]
print(f"stopped after epoch {trainer.current_epoch} of 40 at an accuracy of {accuracy:.2f}")
print(f"logged: {', '.join(sorted(name for name in trainer.callback_metrics if name.startswith('nc/seli')))}")
