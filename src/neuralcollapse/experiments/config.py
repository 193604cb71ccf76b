"""What to train: one flat set of settings, from YAML, keyword arguments or both.

The objective, with n training samples, loss ℓ, features h_i at the input of the head and head weight W:

    (1/n) Σ_i ℓ_i + (head_weight_decay/2) ‖W‖² + (feature_penalty/2) Σ_i ‖h_i‖² + (weight_decay/2) ‖other‖²

n times it is the sum-normalised objective of `theory.md` §1 with λ_W = n·head_weight_decay and
λ_H = n·feature_penalty. A mini-batch replaces each sum over samples by n times its batch mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
import yaml

from neuralcollapse.checks import InvalidInput, did_you_mean, shown

# How many epochs `measure="log"` picks, before those that round to the same one are merged: enough for a smooth curve.
# Measuring one costs half an epoch of training (forward passes over both parts), so one in twelve costs 4 %.
_LOG_POINTS = 30
_FEWEST_LOG_POINTS = 5
_EPOCHS_PER_LOG_POINT = 12


class TrainConfig(BaseModel):
    """The settings of one training run.

    Raises
    ------
    InvalidInput
        An unknown setting (with the nearest known one) or a value outside its range, on one line.

    Examples
    --------
    >>> config = TrainConfig(epochs=3, head_weight_decay=1e-3, feature_penalty=1e-5)
    >>> config.ridges(n=1000)
    (1.0, 0.01)
    >>> TrainConfig(epoch=3)
    Traceback (most recent call last):
        ...
    neuralcollapse.checks.InvalidInput: unknown setting 'epoch': did you mean 'epochs'? known: ...
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=(),
                              use_attribute_docstrings=True)

    dataset: str = "digits"
    """A registered data set: digits, cifar10, hf:NAME, folder:PATH, parquet:PATH, npz:PATH, tokens:PATH, …"""
    data_options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the data set: the names of its columns and splits, the size of its images, …."""
    imbalance: Literal["step", "long-tail", "none", "natural"] = "step"
    """Profile of the training part: (R, ρ)-STEP, exponential long tail, equal counts, or the data set's own counts."""
    ratio: float = Field(10.0, ge=1)
    """Imbalance ratio R = n_max/n_min (step and long-tail)."""
    minority: float = Field(0.5, ge=0, le=1)
    """Share ρ of minority classes (step)."""
    n_max: int | None = Field(None, ge=1)
    """Training samples of the largest class; null: the most the data set allows."""
    test_size: float = Field(0.2, gt=0, lt=1)
    """Share of the smallest class held out for testing; every class gives as many samples. A data set's own test
    part is used whole instead."""
    augment: Literal["none", "standard"] = "none"
    """standard: a random crop, padded by an eighth of the side, and a flip, in each epoch; the theory wants none."""

    model: str = "mlp"
    """A registered model, timm:NAME, transformers:NAME or module:factory."""
    model_options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the model."""
    head_bias: bool = False
    """Give the head a bias, never decayed; the theory has none."""
    loss: str = "ce"
    """Training loss, a mean over samples: a remedy such as logit-adjusted or vs, or auto: what `advise` recommends
    for the counts."""
    loss_options: dict[str, Any] = Field(default_factory=dict)
    """Parameters of the loss: gamma, tau, …."""
    head: Literal["learned", "etf", "seli"] = "learned"
    """etf and seli fix the classifiers in that frame, with one learned scale."""
    sampling: Literal["natural", "oversampled", "binding"] = "natural"
    """oversampled repeats random samples until every class has as many as the largest; binding puts the same one
    example of each class into every batch, for a contrastive loss."""

    epochs: int = Field(200, ge=1)
    """Passes over the training part; the most, with terminal_epochs."""
    terminal_epochs: int | None = Field(None, ge=0)
    """Epochs after training error has reached zero, then training stops; the schedule stays that of `epochs`. null:
    always `epochs`."""
    batch_size: int | None = Field(128, ge=1)
    """Largest batch; the batches of an epoch differ by at most one sample. null: one full batch."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """adamw decouples the decay, so its stationary points are not the objective's."""
    learning_rate: float = Field(0.01, gt=0)
    """Step size before the schedule."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of sgd; β₁ of adam and adamw."""
    weight_decay: float = Field(5e-4, ge=0)
    """w in (w/2)‖θ‖² added to the mean loss, for all parameters but the head."""
    head_weight_decay: float | None = Field(None, ge=0)
    """w in (w/2)‖W‖² added to the mean loss; λ_W = n·w with the loss summed over n samples. null: weight_decay."""
    feature_penalty: float = Field(0.0, ge=0)
    """p in (p/2) Σ_i ‖h_i‖² added to the mean loss; λ_H = n·p with the loss summed over n samples."""
    schedule: Literal["constant", "cosine", "step"] = "step"
    """Learning rate: constant, half a cosine, or ×decay after each milestone."""
    milestones: list[int] | None = None
    """Epochs after which the step schedule decays; null: a third and two thirds."""
    decay: float = Field(0.1, gt=0, le=1)
    """Factor of the step schedule."""
    label_noise: float = Field(0.0, ge=0, lt=1)
    """Share of the training labels replaced by another class; counts follow the noisy labels, test labels stay."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """Of the forward and backward passes in training (autocast); weights, loss and measurements are float32."""

    seed: int = Field(0, ge=0)
    """Fixes the split, the drawn samples, the weights, the batches."""
    measure: str | list[int] = "log"
    """Measured epochs: 'log' (5 to 30, log-spaced), 'every N' or a list; the first and the last, and the one of
    zero error that terminal_epochs waits for, are always measured."""
    center: Literal["classes", "samples", "none"] = "classes"
    """Centre of the class means: their own mean (zero in every SELI geometry), the mean of samples, or the origin."""
    checkpoint_every: float = Field(60.0, ge=0)
    """Seconds of training after which the end of an epoch is saved that is not measured; measured ones always are.
    Results do not depend on it."""
    threads: int | None = Field(None, ge=1)
    """CPU threads; runs repeat exactly at equal threads."""
    device: Literal["auto", "cpu"] = "auto"
    """An accelerator if there is one, or the CPU."""

    def __init__(self, **settings: Any):
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise InvalidInput(_first_problem(error, type(self))) from None

    @classmethod
    def from_yaml(cls, path: str | Path, **overrides: Any) -> TrainConfig:
        """Read a YAML mapping of settings; `overrides` win over the file.

        Parameters
        ----------
        path : path of the file
        **overrides : settings

        Raises
        ------
        InvalidInput
            A file that cannot be read or is no YAML mapping, or a setting that is not valid.
        """
        return cls(**{**read_mapping(path), **overrides})

    def replace(self, **overrides: Any) -> TrainConfig:
        """These settings with some of them changed, validated again."""
        return type(self)(**{**self.model_dump(), **overrides})

    def to_yaml(self) -> str:
        """Every setting, resolved, as YAML."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)

    def ridges(self, n: float) -> tuple[float, float]:
        """(λ_W, λ_H) of the objective with the loss summed over n samples."""
        head = self.weight_decay if self.head_weight_decay is None else self.head_weight_decay
        return n * head, n * self.feature_penalty

    @property
    def measured_epochs(self) -> list[int]:
        """The epochs, counted from 1, after which the network is measured; ascending.

        With `terminal_epochs` also the one in which zero error was found, and the last.
        """
        if isinstance(self.measure, list):
            chosen = self.measure
        elif self.measure == "log":
            points = min(max(self.epochs // _EPOCHS_PER_LOG_POINT, _FEWEST_LOG_POINTS), _LOG_POINTS)
            chosen = np.rint(np.geomspace(1, self.epochs, points)).astype(int).tolist()
        else:
            step = int(self.measure.split()[1])
            chosen = list(range(step, self.epochs + 1, step))
        return sorted({1, *chosen, self.epochs})

    def learning_rate_at(self, epoch: int) -> float:
        """The step size during `epoch`, counted from 1."""
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + float(np.cos(np.pi * (epoch - 1) / self.epochs)))
        if self.schedule == "step":
            thirds = [max(1, self.epochs // 3), max(1, 2 * self.epochs // 3)]
            milestones = thirds if self.milestones is None else self.milestones
            return self.learning_rate * self.decay ** sum(epoch > m for m in milestones)
        return self.learning_rate

    @field_validator("measure", mode="before")
    @classmethod
    def _measure(cls, value: Any) -> Any:
        expected = f"must be 'log', 'every N' or a list of epochs, got {shown(value)}"
        if isinstance(value, str) and value.replace(",", " ").replace(" ", "").isdigit():
            value = [int(epoch) for epoch in value.replace(",", " ").split()]
        if isinstance(value, str):
            words = value.split()
            every = len(words) == 2 and words[0] == "every" and words[1].isdigit() and int(words[1]) > 0
            if value != "log" and not every:
                raise ValueError(expected)
        elif not isinstance(value, list) or not all(isinstance(e, int) and e > 0 for e in value):
            raise ValueError(expected)
        return value

    def model_post_init(self, context: Any, /) -> None:
        """Settings that must agree with each other."""
        for name in ("measure", "milestones"):
            listed = getattr(self, name)
            outside = [e for e in listed if not 1 <= e <= self.epochs] if isinstance(listed, list) else []
            if outside:
                raise ValueError(f"{name} must lie within the {self.epochs} epoch{'s' * (self.epochs > 1)} of the run, "
                                 f"got {outside[0]}: set {name}=[…] too")


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, empty for an empty file."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InvalidInput(f"cannot read the configuration '{path}': {reason}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise InvalidInput(f"the configuration '{path}' must be YAML, got {problem}{where}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InvalidInput(f"the configuration '{path}' must map settings to values, got {shown(content)}")
    return content


def _first_problem(error: ValidationError, config: type[TrainConfig]) -> str:
    first = error.errors()[0]
    name = "".join(f"[{part}]" if isinstance(part, int) else str(part) for part in first["loc"][:2])
    if first["type"] == "extra_forbidden":
        return f"unknown setting '{name}': {did_you_mean(name, config.model_fields)}"
    if first["type"] == "value_error":
        return f"{name} {first['ctx']['error']}".strip()
    expected = first["msg"].removeprefix("Input should be ").split(", unable")[0].split(", got")[0]
    for pydantics, ours in _WORDS.items():
        expected = expected.replace(pydantics, ours)
    given = first["input"]
    return f"{name} must be {expected}, got {shown(repr(given) if isinstance(given, str) else given)}"


_WORDS = {"greater than or equal to": "at least", "less than or equal to": "at most",
          "a valid integer": "a whole number", "a valid number": "a number",
          "a valid boolean": "true or false", "a valid dictionary": "a mapping",
          "a valid string": "text", "a valid list": "a list"}


def resolve_config(file: Path | None, preset: str | None, flags: dict[str, Any], settings: list[str],
                   resume: Path | None) -> TrainConfig | None:
    """What a command line asks for: a preset or file, then flags, then `key=value` settings, the later winning.

    None when a run is resumed without any: the folder's own configuration then holds.
    """
    if file is not None and preset is not None:
        raise InvalidInput("give a --config or a --preset, not both")
    base: dict[str, Any] = {}
    if preset is not None:
        from neuralcollapse.experiments.presets import PRESETS

        base = PRESETS[preset].function().model_dump()
    elif file is not None:
        base = read_mapping(file)
    elif resume is not None:
        if not (flags or settings):
            return None
        from neuralcollapse.experiments.run import Run

        base = Run.open(resume).config
    given = {**base, **flags}
    for text in settings:
        given = apply(given, dict([parse_setting(text)]))
    return TrainConfig(**given)


def run_name(config: TrainConfig | None) -> str:
    """A folder name that tells runs apart: data set, imbalance, model, seed."""
    assert config is not None
    profile = config.imbalance if config.imbalance in ("none", "natural") else f"{config.imbalance}-{config.ratio:g}"
    words = (Path(config.dataset.partition(":")[2] or config.dataset).stem, profile, config.model.rpartition(":")[2],
             f"seed-{config.seed}")
    return "-".join(words)


def parse_setting(text: str) -> tuple[str, Any]:
    """The key and the value of one "key=value" of a command line; values are YAML.

    Examples
    --------
    >>> parse_setting("loss_options.gamma=0.5")
    ('loss_options.gamma', 0.5)
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput(f"--set takes KEY=VALUE, got {shown(text)!r}")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise InvalidInput(f"the value of {key.strip()} must be YAML, got {shown(value)!r}") from None


def apply(base: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings over others; `table.key` changes one entry of a table.

    Examples
    --------
    >>> apply({"loss_options": {"gamma": 0.5}}, {"loss_options.tau": 1.0, "epochs": 3})
    {'loss_options': {'gamma': 0.5, 'tau': 1.0}, 'epochs': 3}
    """
    changed = dict(base)
    for key, value in settings.items():
        name, _, inner = key.partition(".")
        if name not in TrainConfig.model_fields:
            raise InvalidInput(f"unknown setting '{name}': {did_you_mean(name, TrainConfig.model_fields)}")
        if not inner:
            changed[name] = value
            continue
        table = changed.get(name, TrainConfig.model_fields[name].get_default(call_default_factory=True))
        if not isinstance(table, dict):
            raise InvalidInput(f"{name} has no inner settings, got {key}")
        changed[name] = {**table, inner: value}
    return changed
