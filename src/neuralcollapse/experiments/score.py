"""Loss and accuracy of a model, taken from the forward passes that something else makes."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any

from jaxtyping import Float, Int
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuralcollapse.experiments.batches import labelled_rows, read_ahead
from neuralcollapse.measure.sharing import processes, summed

# Inputs per batch: activations that stay in a CPU's cache ran twice as fast as batches of 1,024 images.
_BYTES = {"cpu": 2**19}
_BYTES_ELSEWHERE = 2**25
_FEWEST = 64
_LOGIT_BYTES = 2**26  # of a batch at the most: a vocabulary at every position would fill the memory


class Scored:
    """Labelled batches in their stored order, keeping the score of the model that runs over them.

    Parameters
    ----------
    model : torch.nn.Module
        Watched inside a `with`.
    inputs, labels : (n, …) and (n,) or (n, length) tensors
        Positions labelled −100 have no label. Inputs may be read only when asked for.
    classes : int
        k.
    own : slice, optional
        The samples that this process goes through; all when left out.

    Examples
    --------
    >>> model = nn.Linear(2, 2, bias=False)
    >>> _ = nn.init.eye_(model.weight)
    >>> with Scored(model, torch.tensor([[9.0, 0.0], [8.0, 1.0]]), torch.tensor([0, 1]), classes=2) as scored:
    ...     for inputs, _ in scored:
    ...         _ = model(inputs)
    >>> scored.recall.tolist(), round(scored.loss, 2)
    ([1.0, 0.0], 3.5)
    """

    def __init__(self, model: nn.Module, inputs: Any, labels: Int[Tensor, "n ..."], classes: int,
                 own: slice | None = None):
        self._model, self._inputs, self._labels = model, inputs, labels
        self._own = own or slice(0, len(labels))
        self._current = labels[:0]
        self._loss = 0.0
        self._correct, self._seen = (torch.zeros(classes, dtype=torch.long, device=labels.device) for _ in range(2))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        rows, end = self._rows(), self._own.stop
        parts = [slice(start, min(start + rows, end)) for start in range(self._own.start, end, rows)]
        for inputs, part in zip(read_ahead(self._inputs, parts), parts, strict=True):
            self._current = self._labels[part]
            yield inputs, self._current

    def _rows(self) -> int:
        budget = _BYTES.get(self._inputs.device.type, _BYTES_ELSEWHERE)
        rows = max(_FEWEST, budget // (self._inputs[0].numel() * self._inputs.element_size()))
        return min(rows, max(1, _LOGIT_BYTES // (4 * self._seen.numel() * max(1, self._labels[0].numel()))))

    def __enter__(self) -> Scored:
        self._hook = self._model.register_forward_hook(self._score)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._hook.remove()

    def _score(self, _: nn.Module, __: Any, logits: Tensor) -> None:
        k = self._seen.numel()
        labels, logits = labelled_rows(self._current, logits.detach().float())
        self._loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        self._seen += torch.bincount(labels, minlength=k)
        self._correct += torch.bincount(labels[logits.argmax(dim=1) == labels], minlength=k)

    def share(self) -> Scored:
        """Take the scores of all processes together; each of them calls this."""
        if processes() > 1:
            loss = torch.tensor(self._loss, dtype=torch.float64, device=self._seen.device)
            self._loss, self._seen, self._correct = float(summed(loss)), summed(self._seen), summed(self._correct)
        return self

    # A sample that was seen twice counts twice in sums and in `seen`: the means below stay what they are.

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return self._loss / float(self._seen.sum())

    @property
    def wrong(self) -> int:
        """How many samples were not decided rightly."""
        return int(self._seen.sum() - self._correct.sum())

    @property
    def accuracy(self) -> float:
        """Share of samples decided rightly."""
        return int(self._correct.sum()) / int(self._seen.sum())

    @property
    def recall(self) -> Float[np.ndarray, " k"]:
        """Share of each class's samples decided rightly; NaN for a class without any."""
        correct, seen = self._correct.cpu().numpy(), self._seen.cpu().numpy()
        return np.divide(correct, seen, out=np.full(seen.shape, np.nan), where=seen > 0)
