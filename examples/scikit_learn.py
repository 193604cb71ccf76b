# %% [markdown]
"""scikit-learn: the geometry of a fitted linear classifier, from its own arrays.

Logistic regression on the raw pixels of digits, five classes of 140 images and five of 14. Pixels do not collapse;
the classifiers feel the imbalance all the same.

    python examples/scikit_learn.py
"""

# %%
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import neuralcollapse as nc

digits = load_digits()
counts = nc.ClassCounts.step(classes=10, ratio=10, minority=0.5, n_min=14)
kept = counts.subsample(digits.target, np.random.default_rng(0))
features, labels = digits.data[kept] / 16, digits.target[kept]
classifier = LogisticRegression(C=1.0, max_iter=500).fit(features, labels)

result = nc.measure(features, labels, classifier)
values = result.to_dict()
lengths, predicted = np.array(values["norms"]["classifiers"]), nc.predict(counts).classifiers.norms
print(f"accuracy {values['accuracy']['overall']:.2f}, NC1 {values['nc1']['trace']:.2f}")
print(f"minority classifiers are {lengths[5:].mean() / lengths[:5].mean():.2f} times as long as majority ones, "
      f"SELI says {predicted[-1] / predicted[0]:.2f}")
print(nc.judge(result))
