"""What is chosen on the page of predictions, and how it is written: as a URL, as Python, as a command."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
import shlex
from typing import Any
from urllib.parse import urlencode

from neuralcollapse.counts import ClassCounts
from neuralcollapse.groups import refine
from neuralcollapse.predict import GEOMETRIES, Geometry
from neuralcollapse.predict.geometry import Setting, geometry_at
from neuralcollapse.show.explorer.class_rules import expression, numbers_of, plain_text, vector

PROFILES = {"step": "STEP", "long-tail": "long tail", "counts": "typed counts"}
CHOICES = {"temperature": ("class", "label")}
VECTORS = tuple(dict.fromkeys(name for entry in GEOMETRIES for name in entry.parameters
                              if name not in ("counts", "at", *CHOICES)))
DRAWN = {"four": "four classes", "all": "all classes"}
MOST_GROUPS = 400  # kinds of classes up to which a finite λ is solved here: memory grows with their cube
_LISTED = 1_000  # classes up to which a command lists one number each


@dataclass(frozen=True)
class TheoryState:
    """Everything that can be chosen.

    Attributes
    ----------
    profile : str
        "step", "long-tail" or "counts".
    k, ratio, minority, n_min, n_max : numbers
        Of the profiles: n_min is STEP's, n_max the long tail's.
    counts : str
        The typed counts.
    loss : str
    parameters : tuple of (name, text)
        The loss's own, as they were typed.
    ridge : float or None
        λ; None is the limit.
    drawn : str
        Which classes the drawing shows beyond four: "four" or "all".
    """

    profile: str = "step"
    k: int = 10
    ratio: float = 100.0
    minority: float = 0.5
    n_min: float = 5.0
    n_max: float = 500.0
    counts: str = "500, 200, 100, 20, 10, 5"
    loss: str = "ce"
    parameters: tuple[tuple[str, str], ...] = ()
    ridge: float | None = None
    drawn: str = "four"

    # -- what it means ------------------------------------------------------------------------------

    def class_counts(self) -> ClassCounts:
        """The class counts; a share of minorities that is no whole number of classes is rounded to the nearest."""
        return _counts(self.profile, self.k, self.ratio, self.minority, self.n_min, self.n_max, self.counts)

    def arguments(self) -> dict[str, Any]:
        """The loss's parameters as `predict` takes them."""
        counts = self.class_counts()
        return {name: text if name in CHOICES else vector(name, text, counts) for name, text in self.parameters}

    def geometry(self, start: object = None) -> Geometry:
        """The prediction, from a neighbouring solution where one is given."""
        return geometry_at(self.class_counts(), self.loss, Setting(self.ridge, start=start), self.arguments())

    def at(self, ridge: float | None) -> TheoryState:
        """The same at another λ."""
        return replace(self, ridge=ridge)

    def with_ratio(self, ratio: float) -> TheoryState:
        """The same at another imbalance ratio."""
        return replace(self, ratio=ratio)

    @property
    def solvable_at_a_ridge(self) -> bool:
        """Whether there are few enough kinds of classes for a certified solution in this page."""
        return bool(GEOMETRIES[self.loss].options.get("frame")) or self.groups <= MOST_GROUPS

    @property
    def groups(self) -> int:
        """Kinds of classes: those that differ in count or in a parameter."""
        counts = self.class_counts()
        vectors = [vector(name, text, counts) for name, text in self.parameters if name not in CHOICES]
        return int(refine(counts.groups, *vectors).sizes.size)

    @property
    def problem(self) -> TheoryState:
        """The state without what changes no number."""
        return replace(self, drawn=TheoryState.drawn)

    # -- how it is written --------------------------------------------------------------------------

    def query(self) -> str:
        """The URL's query: what differs from the default."""
        plain = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "parameters"}
        changed = {name: f"{value:.12g}" if isinstance(value, float) else str(value)
                   for name, value in plain.items() if value != getattr(TheoryState, name)}
        return urlencode(changed | dict(self.parameters))

    def python(self) -> str:
        """Python that gives the same geometry."""
        arguments = [repr(self.loss)] if self.loss != "ce" else []
        arguments += [f"{name}={text!r}" if name in CHOICES else f"{name}={expression(name, text, self.class_counts())}"
                      for name, text in self.parameters]
        arguments += [] if self.ridge is None else [f"ridge={self.ridge!r}"]
        numpy = "import numpy as np\n" if any("np." in argument for argument in arguments) else ""
        return (f"{numpy}from neuralcollapse import ClassCounts, predict\n"
                f"counts = {self._profile_expression()}\n"
                f"geometry = predict({', '.join(['counts', *arguments])})")

    def command(self) -> str:
        """The command that prints the same geometry; empty where it would list more numbers than a line should."""
        counts = self.class_counts()
        words = ["neuralcollapse", "predict", *self._profile_option()]
        words += ["--loss", self.loss] if self.loss != "ce" else []
        for name, text in self.parameters:
            if name not in CHOICES and counts.k > _LISTED:
                return ""
            value = text if name in CHOICES else ",".join(plain_text(x) for x in vector(name, text, counts).tolist())
            words.append(f"--{name}={value}")
        words += [] if self.ridge is None else ["--ridge", repr(self.ridge)]
        return shlex.join(words)

    def _profile_expression(self) -> str:
        if self.profile == "step":
            return (f"ClassCounts.step({self.k}, {plain_text(self.ratio)}, {self.share!r}, "
                    f"n_min={plain_text(self.n_min)})")
        if self.profile == "long-tail":
            return f"ClassCounts.long_tail({self.k}, {plain_text(self.ratio)}, n_max={plain_text(self.n_max)})"
        return f"ClassCounts([{', '.join(plain_text(n) for n in self.class_counts().values.tolist())}])"

    def _profile_option(self) -> list[str]:
        if self.profile == "step":
            return ["--step", f"k={self.k},ratio={plain_text(self.ratio)},minority={self.share!r},"
                              f"n_min={plain_text(self.n_min)}"]
        if self.profile == "long-tail":
            return ["--long-tail", f"k={self.k},ratio={plain_text(self.ratio)},n_max={plain_text(self.n_max)}"]
        return ["--counts", ",".join(plain_text(n) for n in self.class_counts().values.tolist())]

    @property
    def share(self) -> float:
        """ρ as a whole number of classes."""
        return _nearest_share(self.k, self.minority)


DEFAULT = TheoryState()


@lru_cache(maxsize=8)
def _counts(profile: str, k: int, ratio: float, minority: float, n_min: float, n_max: float, text: str) -> ClassCounts:
    if profile == "step":
        return ClassCounts.step(k, ratio, _nearest_share(k, minority), n_min=n_min)
    if profile == "long-tail":
        return ClassCounts.long_tail(k, ratio, n_max)
    return ClassCounts(numbers_of(text))


def _nearest_share(k: int, minority: float) -> float:
    return round(minority * k) / k
