# %% [markdown]
"""Hugging Face Trainer: a tiny vision transformer, built from a configuration, with nothing to download.

python examples/transformers_trainer.py
"""

# %%
import tempfile

import numpy as np
from sklearn.datasets import load_digits
import torch
from transformers import PrinterCallback, Trainer, TrainingArguments, ViTConfig, ViTForImageClassification
from transformers.utils import logging

import neuralcollapse as nc
from neuralcollapse.measure.callbacks.transformers import CollapseCallback

# %%
logging.set_verbosity_error()
torch.set_num_threads(1)
torch.manual_seed(0)
digits = load_digits()
counts = nc.ClassCounts.step(classes=10, ratio=10, minority=0.5, n_min=14)
kept = counts.subsample(digits.target, np.random.default_rng(0))
images = torch.tensor(digits.images[kept, None] / 8 - 1, dtype=torch.float32)
data = [{"pixel_values": image, "labels": int(label)}
        for image, label in zip(images, digits.target[kept], strict=True)]

# %%
model = ViTForImageClassification(ViTConfig(
    image_size=8, patch_size=2, num_channels=1, hidden_size=48, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=96, num_labels=10, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))

# %%
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(folder, num_train_epochs=12, per_device_train_batch_size=64, learning_rate=3e-3,
                                  use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
                                  logging_strategy="no")
    trainer = Trainer(model, arguments, train_dataset=data)
    callback = CollapseCallback(counts, trainer, log=print)
    trainer.add_callback(callback)
    trainer.remove_callback(PrinterCallback)
    trainer.train()

# %%
logged = [entry for entry in trainer.state.log_history if "nc/within_trace" in entry]
print(f"{len(logged)} measurements in the trainer's log, the last at epoch {logged[-1]['epoch']:g}")
print(callback.reports[-1].verdict)
