"""Data sets and the parts that a run trains and tests on; a new data set is one function in a file that is named here.

Whatever reads a data set gives `Samples`: rows that are fetched by number, labels, names. `load_data` draws from them.
"""

from neuralcollapse.experiments.data import embedded, folder, hub, npz, parquet, text, tokens
from neuralcollapse.experiments.data.augment import augmentation
from neuralcollapse.experiments.data.lazy import LazyInputs
from neuralcollapse.experiments.data.load import Data, load_data
from neuralcollapse.experiments.data.samples import DATASETS, Rows, Samples, load_samples
from neuralcollapse.experiments.data.split import profile

__all__ = ["DATASETS", "Data", "LazyInputs", "Rows", "Samples", "augmentation", "embedded", "folder", "hub",
           "load_data", "load_samples", "npz", "parquet", "profile", "text", "tokens"]
