# %% [markdown]
"""A language model's head against the geometry of its token counts.

A vocabulary is imbalanced by nature: here 12 tokens under a law like Zipf's. The text follows a fixed rule (each token
from the two before it), which a tiny transformer can learn; its head then moves from where it was initialised to SELI
of the token counts, and away from the simplex that balanced classes would lead to.

    python examples/language_model_head.py
"""

# %%
import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import neuralcollapse as nc

VOCABULARY, LENGTH, WIDTH, RIDGE = 12, 8, 64, 0.03
EPOCHS = 60

# %%
class LanguageModel(nn.Module):
    """Two causal transformer layers and a linear head of its own."""

    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def features(self, tokens):
        """(batch, sequence) tokens to what the head sees, (batch, sequence, width)."""
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        return self.body(self.tokens(tokens) + self.places(torch.arange(length)), mask, is_causal=True)

    def forward(self, tokens):
        """Logits, (batch, sequence, vocabulary)."""
        return self.head(self.features(tokens))

# %%
torch.set_num_threads(1)
torch.manual_seed(0)
rng = np.random.default_rng(0)
zipf = 1 / np.arange(1, VOCABULARY + 1) ** 0.8
rule = rng.choice(VOCABULARY, size=(VOCABULARY, VOCABULARY), p=zipf / zipf.sum())
text = np.empty((512, LENGTH), dtype=np.int64)
text[:, :2] = rng.integers(VOCABULARY, size=(512, 2))
for t in range(2, LENGTH):
    text[:, t] = rule[text[:, t - 2], text[:, t - 1]]

tokens = torch.from_numpy(text)
labels = tokens.clone()
labels[:, :2] = -100  # nothing determines the first two
counts = np.bincount(text[:, 2:].ravel(), minlength=VOCABULARY)  # tokens that never occur are left out
model = LanguageModel()
batches = list(zip(tokens.split(64), labels.split(64), strict=True))

# %%
def look(when):
    """Print where the head is."""
    result = nc.measure_model(model, batches, counts=counts, next_token=True)
    values = result.to_dict()
    print(f"{when}: accuracy {values['accuracy']['overall']:.2f}, NC1 {values['nc1']['trace']:.2g}, head to SELI "
          f"{values['distances']['seli']['classifiers']:.2f}, to the simplex "
          f"{values['distances']['etf']['classifiers']:.2f}")
    return result

# %%
print(f"{np.count_nonzero(counts)} tokens, {counts.max()} to {counts[counts > 0].min()} times each")
look("before")
optimiser = torch.optim.Adam([{"params": model.body.parameters()}, {"params": model.tokens.parameters()},
                              {"params": model.places.parameters()},
                              {"params": model.head.parameters(), "weight_decay": RIDGE}], lr=3e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
for _ in range(EPOCHS):
    for some, wanted in batches:
        features = model.features(some)[:, 1:-1].flatten(0, 1)
        loss = (cross_entropy(model.head(features), wanted[:, 2:].flatten())
                + RIDGE / 2 * features.square().sum(1).mean())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    schedule.step()
print(nc.judge(look("after ")))
