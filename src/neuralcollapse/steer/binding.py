"""Batch-binding: the same few examples, one per class, in every batch of a contrastive loss (kini2023, §5).

With batches of a fixed partition the loss sees only pairs that share a batch. Its minimisers on ReLU features are all
orthogonal frames exactly when the batches of every class hang together and every two classes meet in one of them; the
binding examples see to both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler, default_collate

from neuralcollapse.checks import InvalidInput, check_labels, shown
from neuralcollapse.steer.amounts import given, whole


def binding_examples(labels: Any, seed: int = 0, *, k: int | None = None) -> list[int]:
    """One example of each class, drawn once and for all.

    Parameters
    ----------
    labels : (n,) array, tensor or list of class indices
        Of the whole data set, by sample.
    seed : int
    k : int, optional
        Number of classes; the largest label + 1 when left out.

    Returns
    -------
    list of k int
        Indices into the data set, by class.

    Raises
    ------
    InvalidInput
        Labels that are not 0 … k−1, or a class without an example.

    Examples
    --------
    >>> binding_examples([0, 1, 2], seed=3)
    [0, 1, 2]
    """
    index = _labels(labels, None if k is None else whole("k", k, 1))
    order = np.random.default_rng(whole("seed", seed, 0)).permutation(index.size)
    present, first = np.unique(index[order], return_index=True)
    wanted = int(index.max()) + 1 if k is None else int(k)
    if present.size < wanted:
        missing = int(np.setdiff1d(np.arange(wanted), present)[0])
        raise InvalidInput(f"every class needs an example to bind batches with, and class {missing} has none: pass the "
                           "labels of the whole data set, numbered 0 … k−1 without gaps")
    return [int(i) for i in order[first]]


class BindingBatchSampler(Sampler[list[int]]):
    """Batches of another batch sampler, each with the binding examples that it lacks at its end.

    Parameters
    ----------
    batches : batch sampler, or sequence of lists of indices
        Such as `torch.utils.data.BatchSampler(sampler, batch_size, drop_last)`.
    labels : (n,) array, tensor or list of class indices
        Of the whole data set, by sample.
    examples : sequence of k int, optional
        Indices into the data set, one of each class in any order; `binding_examples(labels, seed)` when left out.
    seed : int

    Raises
    ------
    InvalidInput
        A class without an example, examples outside the data set or two of one class, batches that are no sequence.

    Notes
    -----
    It goes to `DataLoader(batch_sampler=…)`. Batches differ in size, by up to k: accelerate then wants
    `even_batches=False`. Processes that gather features for the loss each bring the examples. Lightning in several
    processes needs `use_distributed_sampler=False`, or `BatchBinding`.

    References
    ----------
    kini2023, §5.2.

    Examples
    --------
    >>> list(BindingBatchSampler([[0, 1], [2, 3]], labels=[0, 0, 1, 1], examples=[0, 2]))
    [[0, 1, 2], [2, 3, 0]]
    """

    def __init__(self, batches: Iterable[list[int]], labels: Any, examples: Sequence[int] | None = None, *,
                 seed: int = 0):
        if not hasattr(batches, "__len__") or not hasattr(batches, "__iter__"):
            raise InvalidInput("batches must be a batch sampler or a sequence of lists of indices, got "
                               f"{type(batches).__name__}")
        self.batches = batches
        self.examples = _examples(labels, examples, seed)

    @property
    def sampler(self) -> Any:
        """Where Lightning and accelerate look for `set_epoch`."""
        return self

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]  # a loader's batch sampler has a length, its type does not

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            held = set(batch)
            yield [*batch, *(i for i in self.examples if i not in held)]

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on to the batch sampler and the sampler beneath it, where they know it."""
        beneath = {id(part): part for part in (self.batches, getattr(self.batches, "sampler", None))}
        for part in beneath.values():
            if callable(set_epoch := getattr(part, "set_epoch", None)):
                set_epoch(epoch)


class BatchBinding:
    """A collate function that adds the binding examples of a data set to every batch.

    For loaders whose batches someone else makes (a sampler that accelerate or Lightning replaces). It sees samples, not
    their indices: an example that is in a batch already comes twice, as a positive of itself.

    Parameters
    ----------
    dataset : data set by index
        The examples are taken from it anew for every batch, with its augmentations.
    labels : (n,) array, tensor or list of class indices
    examples : sequence of k int, optional
        As for `BindingBatchSampler`.
    seed : int
    collate : callable
        What makes a batch of a list of samples.

    Raises
    ------
    InvalidInput
        As `BindingBatchSampler`; labels that are not one per sample of the data set.

    References
    ----------
    kini2023, §5.2.

    Examples
    --------
    >>> import torch
    >>> data = torch.utils.data.TensorDataset(torch.arange(4.0), torch.tensor([0, 0, 1, 1]))
    >>> binding = BatchBinding(data, data.tensors[1], examples=[0, 2])
    >>> [y.tolist() for _, y in torch.utils.data.DataLoader(data, batch_size=2, collate_fn=binding)]
    [[0, 0, 0, 1], [1, 1, 0, 1]]
    """

    def __init__(self, dataset: Any, labels: Any, examples: Sequence[int] | None = None, *, seed: int = 0,
                 collate: Callable[[list[Any]], Any] = default_collate):
        if len(dataset) != len(labels):
            raise InvalidInput(f"labels must be one per sample of the data set, expected {len(dataset)}, got "
                               f"{len(labels)}")
        self.dataset, self.collate = dataset, collate
        self.examples = _examples(labels, examples, seed)

    def __call__(self, samples: list[Any]) -> Any:
        return self.collate([*samples, *(self.dataset[i] for i in self.examples)])


def _examples(labels: Any, examples: Sequence[int] | None, seed: int) -> list[int]:
    drawn = binding_examples(labels, seed)
    if examples is None:
        return drawn
    index = _labels(labels)
    if isinstance(examples, str) or not isinstance(examples, Iterable):
        raise InvalidInput(f"examples must be a list of indices, one of each class, got {given(examples)}")
    chosen = [whole("examples", i, 0) for i in examples]
    outside = next((i for i in chosen if i >= index.size), None)
    if outside is not None:
        raise InvalidInput(f"examples must be indices below {index.size}, the number of labels, got {outside}")
    if sorted(index[chosen].tolist()) != list(range(len(drawn))):
        raise InvalidInput(f"examples must be one of each class 0 … {len(drawn) - 1}, got classes "
                           f"{shown(index[chosen])}")
    return chosen


def _labels(labels: Any, k: int | None = None) -> np.ndarray:
    return check_labels(labels, k)
