"""Measuring while something else trains: a plain loop, Lightning, the Hugging Face Trainer, experiment trackers.

    from neuralcollapse.measure.callbacks import Watch                            # three lines in your own loop
    from neuralcollapse.measure.callbacks.lightning import CollapseCallback       # lightning and pytorch_lightning
    from neuralcollapse.measure.callbacks.transformers import CollapseCallback    # transformers.Trainer

Each works alike: the epoch's own forward passes are measured as they happen (or a data loader, at the end of the
epoch), scalars and pictures go to the trackers, and merging minority classes raise an alert.
"""

from neuralcollapse.measure.callbacks.alert import MergingAlert, MinoritiesMerging
from neuralcollapse.measure.callbacks.common import Report, Watch
from neuralcollapse.measure.callbacks.pictures import gram_picture
from neuralcollapse.measure.callbacks.trackers import log_to

__all__ = ["MergingAlert", "MinoritiesMerging", "Report", "Watch", "gram_picture", "log_to"]
