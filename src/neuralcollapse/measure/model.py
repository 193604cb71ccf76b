"""Measure a model on labelled batches: one pass over them, or two where its features are too many to keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jaxtyping import Float, Shaped
import torch
from torch import Tensor, nn

from neuralcollapse.checks import InvalidInput
from neuralcollapse.measure.decisions import Head
from neuralcollapse.measure.heads import (
    check_input,
    features_last,
    find_heads,
    is_plain,
    output_count,
    over_positions,
    read_head_of,
    several_heads,
)
from neuralcollapse.measure.labelled import Classes, labelled
from neuralcollapse.measure.measurement import Measurement
from neuralcollapse.measure.passes import SECOND_PASS, Block, measure_blocks
from neuralcollapse.measure.probe import Probe
from neuralcollapse.measure.wrapped import evaluating, hooks_firing, unwrapped
from neuralcollapse.predict.targets import Targets

_KEPT_BYTES = 256 * 2**20  # features kept for the second pass; beyond it the model runs twice

FeaturesOf = Callable[[nn.Module, Any], Tensor]


def measure_model(model: nn.Module, batches: Iterable[Any], *, counts: Any, names: Sequence[str] | None = None,
                  head: str | nn.Module | None = None, features: str | FeaturesOf | None = None,
                  targets: Targets = ("seli", "etf"), center: str = "classes",
                  nc4: str | Measurement | None = SECOND_PASS, scatter: bool = True,
                  ignore_index: int = -100, next_token: bool = False,
                  device: torch.device | str | None = None, shared: bool = False) -> Measurement:
    """Measure a model on labelled batches, in eval mode and without gradients; its mode is restored.

    Margins, accuracy and NC4's decisions come from the logits that the model computes anyway; logits in half precision
    say only which class is the label's strongest rival, and the two are compared anew from their rows of the head.

    Parameters
    ----------
    model : torch.nn.Module
        Compiled models run uncompiled, data parallel ones in this process alone. Sharded ones (FSDP) run in all
        processes, each of which must be given as many batches and measures its own.
    batches : iterable of (inputs, labels) or of dict
        Inputs are a tensor, a tuple of arguments or a dict of keywords. A dict, as Hugging Face's collators give, is
        keywords beside its "labels" (or "label"). Gone through once, and a second time when the features do not fit in
        256 MiB (NC4 needs the means).
    counts : ClassCounts, or (k,) array of numbers or mapping to them
        The training counts: k, the predictions and the majority/minority split follow them. Numbers may be zeros:
        classes that never occur are left out of head, decisions and targets, so that a vocabulary is measured on the
        tokens of its corpus.
    names : (k,) sequence of str, optional
        Class names, where `counts` has none; the classes' numbers when left out.
    head : str or torch.nn.Module, optional
        The classifying layer or its name; found as in `Probe` when left out.
    features : str or callable, optional
        Where the head's input comes from when the head itself cannot tell: the name of a module whose output it is,
        or a function (model, inputs) → features, (n, d) or (batch, sequence, d), that is called in place of the model.
    targets, center, nc4, scatter
        As in `measure`.
    ignore_index : int
        Positions with this label are left out.
    next_token : bool
        A language model: features at one position go with the label at the next. Labels are the inputs' own ids (as
        in Hugging Face's causal models): a dict without "labels" gives its "input_ids", where "attention_mask" is not
        0 at either of the two positions.
    device : torch.device, optional
        Where inputs are moved to; where the model is when left out.
    shared : bool
        The batches are this process's share of the samples, and every process of torch.distributed calls this: all of
        them get the measurement of the whole.

    Returns
    -------
    Measurement

    Raises
    ------
    InvalidInput
        No batch at all, several layers that could be the head, one whose outputs are not one per class, labels that
        do not fit the features, labels out of range, non-finite features, batches that can be gone through only once.

    Notes
    -----
    A 1×1 convolution is a head whose samples are the positions of its input: labels (n, h, w) name each of them;
    labels (n,) go with the mean over positions, which is exact where the model averages the logits afterwards.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> data = [(torch.randn(6, 4), torch.tensor([0, 0, 0, 0, 1, 1]))]
    >>> measure_model(model, data, counts=[4, 2]).measured.seen.tolist()
    [4, 2]
    """
    classes = Classes.of(counts, names)
    if not isinstance(model, nn.Module):
        raise InvalidInput(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not (hasattr(batches, "__iter__") or hasattr(batches, "__getitem__")):
        raise InvalidInput(f"batches must be a DataLoader or a list of batches, got {type(batches).__name__}")
    place = torch.device(device) if device is not None else _device_of(model)
    run = _run_of(model, head, features, classes.outputs)
    with evaluating(model), hooks_firing():
        blocks = _ModelBlocks(run, batches, classes, place, keep=nc4 == SECOND_PASS, ignore_index=ignore_index,
                              next_token=next_token)
        return measure_blocks(blocks, classes.counts.k, blocks.head, nc4=nc4, scatter=scatter, counts=classes.counts,
                              targets=targets, center=center, shared=shared)


class _Forwards:
    """The model's own forward pass, with a probe at its head."""

    def __init__(self, model: nn.Module, head: str | nn.Module | None, features: str | None, outputs: int):
        self.model = unwrapped(model)
        self._probe = Probe(self.model, head, features, classes=outputs)

    def __call__(self, inputs: Any) -> tuple[Tensor, Tensor | None]:
        """Features and, where they are known, logits."""
        with self._probe:
            _call(self.model, inputs)
        features, logits = self._probe.features(), self._probe.logits()
        # A model spread over devices may move the features as it calls its head.
        return (features, None) if logits is None else (features.to(logits.device), logits)

    @property
    def layer(self) -> nn.Module:
        """The head, after the first call."""
        return self._probe.head


class _Calls:
    """A function of the user's in place of the model."""

    def __init__(self, model: nn.Module, head: str | nn.Module | None, features: FeaturesOf, outputs: int):
        self.model, self._features = unwrapped(model), features
        heads = find_heads(self.model, head, outputs)
        if len(heads) > 1:
            raise several_heads(heads)
        (self._name, self.layer), = heads.items()

    def __call__(self, inputs: Any) -> tuple[Tensor, None]:
        """Features; logits are computed from the head."""
        features = self._features(self.model, inputs)
        if not isinstance(features, Tensor):
            raise InvalidInput(f"features must return a tensor, got {type(features).__name__}")
        features = features_last(self.layer, features.detach())
        check_input(self.layer, self._name, features)
        return features, None


def _run_of(model: nn.Module, head: str | nn.Module | None, features: str | FeaturesOf | None,
            outputs: int) -> _Forwards | _Calls:
    if features is None or isinstance(features, str):
        return _Forwards(model, head, features, outputs)
    return _Calls(model, head, features, outputs)


class _ModelBlocks:
    """A model's features batch by batch, kept for the second pass while they are small."""

    def __init__(self, run: _Forwards | _Calls, batches: Iterable[Any], classes: Classes, place: torch.device, *,
                 keep: bool, ignore_index: int, next_token: bool):
        self._run_model, self._batches, self._classes, self._place = run, batches, classes, place
        self._keep, self._ignore, self._next = keep, ignore_index, next_token
        self._kept: list[Block] | None = None
        self._rows: int | None = None
        self.head: Head | None = None  # known as soon as the model has run
        self._started: Iterator[Block] | None = self._run()
        first = next(self._started, None)
        if first is None:
            raise InvalidInput("batches must hold at least one batch, got none")
        self._first: list[Block] = [first]

    def __iter__(self) -> Iterator[Block]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Block] | None = [] if self._keep else None
        size = rows = 0
        for block in self._blocks():
            if not len(block.labels):
                continue
            rows += len(block.labels)
            size += sum(part.nbytes for part in (block.features, block.labels, *(block.decided or ())))
            if size > _KEPT_BYTES:
                kept = None
            if kept is not None:
                kept.append(block._replace(features=_alone(block.features)))
            yield block
        self._check_rows(rows)
        self._kept = kept

    def _blocks(self) -> Iterator[Block]:
        if self._started is None:
            yield from self._run()
            return
        started, self._started = self._started, None
        while self._first:
            yield self._first.pop()
        yield from started

    def _check_rows(self, rows: int) -> None:
        if self._rows is not None and self._rows != rows:
            raise InvalidInput("batches must give the same samples each time they are gone through, as a list or a "
                               f"DataLoader does: {self._rows} the first time, {rows} the second; or give nc4=None")
        if not rows:
            raise InvalidInput(f"batches must hold labels other than ignore_index={self._ignore}, got none")
        self._rows = rows

    def _run(self) -> Iterator[Block]:
        for batch in self._batches:
            inputs, labels = _read(batch, self._next, self._ignore)
            features, logits = self._run_model(_moved(inputs, self._place))
            layer = self._run_model.layer
            if self.head is None:
                self.head = self._read_head(layer).to(features.device)
            yield labelled(features, labels, logits, self._classes, head=self.head if is_plain(layer) else None,
                           pool=over_positions(layer), ignore_index=self._ignore, next_token=self._next)

    def _read_head(self, layer: nn.Module) -> Head:
        if output_count(layer) != self._classes.outputs:
            raise InvalidInput(f"the head must have one output per class, expected {self._classes.outputs}, got "
                               f"{output_count(layer)}")
        return self._classes.head(read_head_of(self._run_model.model, layer))


def _device_of(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _alone(features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Features that do not keep the whole of what they are a part of, such as every position beside the first."""
    return features if features.untyped_storage().nbytes() <= features.nbytes else features.clone()


def _read(batch: Any, next_token: bool, ignore_index: int) -> tuple[Any, Any]:
    """Inputs and labels of a batch."""
    if isinstance(batch, Mapping):
        named = "label" if "labels" not in batch and not next_token else "labels"  # a data set's own name for them
        inputs = {name: value for name, value in batch.items() if name != named}
        if named in batch:
            return inputs, batch[named]
        if next_token and "input_ids" in batch:
            return inputs, _own_labels(batch, ignore_index)
        wanted = "'labels' or 'input_ids'" if next_token else "'labels' or 'label'"
        raise InvalidInput(f"a batch that is a dict must hold {wanted}, got {', '.join(map(str, batch)) or 'nothing'}")
    if not isinstance(batch, list | tuple) or len(batch) != 2:
        given = f"{len(batch)} parts" if isinstance(batch, list | tuple) else type(batch).__name__
        raise InvalidInput(f"batches must give (inputs, labels) or a dict with 'labels', got {given}")
    return batch[0], batch[1]


def _own_labels(batch: Mapping[str, Any], ignore_index: int) -> Shaped[Tensor, "b s"]:
    """A text's own tokens, where they and the ones before them are not padding."""
    tokens = torch.as_tensor(batch["input_ids"])
    mask = batch.get("attention_mask")
    if mask is None:
        return tokens
    present = torch.as_tensor(mask) != 0
    before = torch.nn.functional.pad(present[:, :-1], (1, 0), value=True)
    return tokens.masked_fill(~(present & before), ignore_index)


def _moved(value: Any, place: torch.device) -> Any:
    """Every tensor of a batch on a device."""
    if isinstance(value, Tensor):
        return value.to(place)
    if isinstance(value, Mapping):
        return {name: _moved(part, place) for name, part in value.items()}
    return type(value)(_moved(part, place) for part in value) if type(value) in (list, tuple) else value


def _call(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, list | tuple) else model(inputs)
