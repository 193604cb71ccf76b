"""A loss as Hugging Face's Trainer calls it: outputs, labels, and how many labels the accumulated batch has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from neuralcollapse.checks import InvalidInput


@dataclass(frozen=True)
class TrainerLoss:
    """What `VSLoss.for_trainer` gives to `transformers.Trainer(compute_loss_func=…)`.

    Logits (…, k) meet labels (…): of sequences, or of every token. The Trainer divides nothing by itself when it has a
    loss function, so the number of labels over all micro-batches, which it passes, is what the sum is divided by. It
    counts entries, k for every row of probabilities, and with several GPUs in one process gives the number for each.

    Parameters
    ----------
    loss : VSLoss
    shift : bool
        The label of a position is that of the position after it.
    """

    loss: nn.Module
    shift: bool = False

    def __call__(self, outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """The loss of a micro-batch.

        Parameters
        ----------
        outputs : tensor, mapping with "logits", object with `.logits`, or tuple that begins with the logits
        labels : (...) tensor, or (..., k) of class probabilities, not with `shift`
        num_items_in_batch : int or tensor, optional
            As the Trainer counts: entries of `labels` that are not ignored.

        Raises
        ------
        InvalidInput
            No labels, outputs without logits, or probabilities to be shifted.
        """
        if labels is None:
            raise InvalidInput("the loss needs labels, got None: the Trainer takes them from the batch's 'labels'")
        logits = _logits(outputs)
        held = next(self.loss.buffers(), None)
        if held is not None and held.device != logits.device:
            self.loss.to(logits.device)  # the Trainer moves the model, and knows nothing of this
        labels = labels.to(logits.device)
        mixed = labels.is_floating_point()
        if self.shift and mixed:
            raise InvalidInput("shift=True needs labels that are class indices, got probabilities of shape "
                               f"{tuple(labels.shape)}, of which the last position cannot be ignored: shift them "
                               "yourself and pass logits[:, :-1] to the loss")
        items: Tensor | float | None = num_items_in_batch
        if isinstance(items, Tensor) and items.ndim:
            items = items.flatten()[0]
        if mixed and items is not None:
            items = items / logits.shape[-1]
        if self.shift:
            # The labels move, not the logits: these may fill the memory.
            # A module's attributes are typed as tensors and modules; this one is an int.
            labels = F.pad(labels[..., 1:], (0, 1), value=self.loss.ignore_index)  # type: ignore[arg-type]
        flat = labels.flatten(0, -2) if mixed else labels.flatten()
        found: Tensor = self.loss(logits.flatten(0, -2), flat, num_items_in_batch=items)
        return found


def _logits(outputs: Any) -> Tensor:
    found = outputs if isinstance(outputs, Tensor) else outputs.get("logits") if isinstance(outputs, Mapping) else (
        outputs[0] if isinstance(outputs, tuple | list) and outputs else getattr(outputs, "logits", None))
    if not isinstance(found, Tensor):
        raise InvalidInput(f"the model's outputs must have logits, got {type(outputs).__name__}: pass a model whose "
                           "output has .logits")
    return found
