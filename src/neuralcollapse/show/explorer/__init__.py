"""EXPLORE: predictions and run folders in a browser, on this machine."""

from neuralcollapse.show.explorer.serve import explore

__all__ = ["explore"]
