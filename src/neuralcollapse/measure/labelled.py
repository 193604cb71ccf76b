"""Rows from what a model computes and its labels: positions flattened, ignored ones and unused classes left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
import numpy as np
import torch
from torch import Tensor

from neuralcollapse.checks import InvalidInput, as_array, check_labels, shown
from neuralcollapse.counts import ClassCounts
from neuralcollapse.given_counts import in_order
from neuralcollapse.measure.decisions import LOGITS_AT_ONCE, Decided, Head, decide_from_logits
from neuralcollapse.measure.passes import Block


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes that are measured: all of a head's outputs, or those with a count.

    Attributes
    ----------
    outputs : int
        Outputs of the head.
    counts : ClassCounts
        Of the classes that are measured.
    kept : (k,) int64 tensor or None
        Their outputs, ascending; None for all.
    """

    outputs: int
    counts: ClassCounts
    kept: Int[Tensor, " k"] | None = None

    @classmethod
    def of(cls, counts: Any, names: Sequence[str] | None = None) -> Classes:
        """From a ClassCounts or from numbers, one per output of the head (or by class), 0 for one that never occurs."""
        if isinstance(counts, ClassCounts | str):
            declared = ClassCounts.from_counts(counts, names)
            return cls(declared.k, declared)
        given, names = in_order(as_array(counts), names)
        values = np.asarray(given)
        if values.ndim != 1 or values.dtype.kind not in "fiu" or values.all():
            declared = ClassCounts(values, names)
            return cls(declared.k, declared)
        if names is not None and len(names) != values.size:
            raise InvalidInput(f"names must be one per class, expected {values.size}, got {len(names)}")
        kept = np.flatnonzero(values)
        known = [str(c) if names is None else names[c] for c in kept.tolist()]
        return cls(values.size, ClassCounts(values[kept], known), torch.from_numpy(kept))

    def head(self, head: Head) -> Head:
        """The head's rows of these classes."""
        if self.kept is None:
            return head
        kept = self.kept.to(head.weight.device)
        return Head(head.weight[kept], None if head.bias is None else head.bias[kept])

    def numbered(self, labels: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Labels as positions among these classes.

        Raises
        ------
        InvalidInput
            A label whose class has no count.
        """
        if self.kept is None or not len(labels):
            return labels
        place = torch.full((self.outputs,), -1, device=labels.device)
        place[self.kept.to(labels.device)] = torch.arange(len(self.kept), device=labels.device)
        inside = (labels >= 0) & (labels < self.outputs)
        numbered = torch.where(inside, place[labels.clamp(0, self.outputs - 1)], -1)
        if bool((numbered < 0).any()):
            c = int(labels[numbered < 0][0])
            raise InvalidInput(f"labels must be classes with a count in 0 … {self.outputs - 1}, got {c}"
                               + (", whose count is 0" if 0 <= c < self.outputs else ""))
        return numbered

    def decide(self, logits: Float[Tensor, "n outputs"], features: Float[Tensor, "m d"], labels: Int[Tensor, " m"],
               rows: Int[Tensor, " m"] | None, head: Head | None) -> Decided:
        """What the logits decide among these classes on some of their rows, a few at a time.

        Parameters
        ----------
        logits : (n, outputs) tensor
        features, labels : (m, d), (m,) tensors
            Of the rows that are looked at; labels are positions among these classes.
        rows : (m,) tensor or None
            Which rows of the logits these are; all when None.
        head : Head or None
            What made the logits, if it is linear.
        """
        kept = None if self.kept is None else self.kept.to(logits.device)
        usable = labels.clamp(0, self.counts.k - 1)  # a bad label is reported by whoever counts them
        step = max(1, LOGITS_AT_ONCE // max(self.outputs, features.shape[1]))
        parts = []
        for start in range(0, max(len(labels), 1), step):
            part = slice(start, start + step)
            some = logits[part] if rows is None else logits[rows[part]]
            some = some if kept is None else some[:, kept]
            # Logits in half precision tie too often to tell who wins: they are formed anew.
            parts.append(decide_from_logits(some, usable[part]) if head is None or some.element_size() > 2 else
                         head.decide(features[part], usable[part]))
        return Decided(*(torch.cat(part) for part in zip(*parts, strict=True)))


def whole_labels(labels: Any) -> Int[Tensor, ...]:
    """Labels as a tensor of whole numbers, from floats too where they are whole; InvalidInput otherwise."""
    try:
        tensor = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        check_labels(np.ravel(np.asarray(labels)))
        raise
    whole = not (tensor.is_floating_point() or tensor.is_complex()) or (
        not tensor.is_complex() and bool((torch.isfinite(tensor) & (tensor == tensor.trunc())).all()))
    if not whole:
        raise InvalidInput(f"labels must be whole numbers, got {tensor.dtype} ({shown(tensor.flatten()[:5].tolist())})")
    return tensor.long()


def labelled(features: Float[Tensor, "... d"], labels: Any,
             logits: Float[Tensor, "... outputs"] | None, classes: Classes, *, head: Head | None = None,
             pool: bool = False, ignore_index: int = -100, next_token: bool = False) -> Block:
    """One row a labelled position.

    Parameters
    ----------
    features : (..., d) tensor
    labels : (...) tensor, array or list of whole numbers
        Shaped as the features' positions, or all of them in a row; (n,) where positions are pooled.
    logits : (..., outputs) tensor or None
        What the head made of the features.
    classes : Classes
    head : Head, optional
        The rows of these classes of what made the logits, if it is linear: for margins of logits in half precision.
    pool : bool
        With labels (n,), take the mean over positions.
    ignore_index : int
        Positions with this label are left out.
    next_token : bool
        The label of a position is that of the position after it.

    Raises
    ------
    InvalidInput
        Labels that are not whole numbers or do not fit the features' positions, or of a class without a count.
    """
    labels, positions = whole_labels(labels).to(features.device), features.shape[:-1]
    if pool and len(positions) > 1 and labels.shape == positions[:1]:
        features, logits = _pooled(features), None if logits is None else _pooled(logits)
    elif labels.shape != positions and labels.shape != (positions.numel(),):
        either = f"{tuple(positions[:1])} or {tuple(positions)}" if pool else f"{tuple(positions)}"
        raise InvalidInput(f"labels must have shape {either}, one per sample of the head's input, got "
                           f"{tuple(labels.shape)}")
    if next_token:
        labels = _shifted(labels, ignore_index)
    features, labels = features.flatten(0, -2), labels.flatten()
    used = labels != ignore_index
    rows = None if bool(used.all()) else used.nonzero()[:, 0]
    if rows is not None:
        features, labels = features[rows], labels[rows]
    labels = classes.numbered(labels)
    if logits is None or logits.shape[-1] != classes.outputs:  # a shard of them, under tensor parallelism
        return Block(features, labels)
    return Block(features, labels, classes.decide(logits.flatten(0, -2), features, labels, rows, head))


def _pooled(values: Float[Tensor, "n ... d"]) -> Float[Tensor, "n d"]:
    """The mean over positions."""
    return values.flatten(1, -2).mean(1, dtype=torch.promote_types(values.dtype, torch.float32))


def _shifted(labels: Int[Tensor, ...], ignore_index: int) -> Int[Tensor, "b s"]:
    """The next position's label; none at the last."""
    if labels.ndim != 2:
        raise InvalidInput(f"labels must have shape (batch, sequence) with next_token=True, got {tuple(labels.shape)}")
    return torch.nn.functional.pad(labels[:, 1:], (0, 1), value=ignore_index)
