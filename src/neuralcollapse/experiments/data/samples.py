"""What a data set is: rows that can be fetched, labels, class names; and the registry of data sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Int
import numpy as np

from neuralcollapse.checks import InvalidInput, did_you_mean, shown
from neuralcollapse.registry import Entry, Registry

TEST_PARTS = ("test", "validation", "valid", "val")
"""What a data set's own test part may be called, the first that there is."""


@runtime_checkable
class Rows(Protocol):
    """Samples that are fetched by number: an array is one, and so is whatever reads or decodes them when asked."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *sample)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of what is fetched."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, index: Any, /) -> Any:
        """The rows of an int array, as an array."""


@dataclass(frozen=True)
class Samples:
    """A whole data set of N samples.

    Parameters
    ----------
    inputs : rows
        Of one shape: images (channels, height, width), features (d,) or token ids (length,).
    labels : (N,) array or None
        None for next-token data: every token is predicted from those before it.
    names : tuple of str
        Names of the classes; of the token ids for next-token data, where it may be empty.
    test : (m,) array or None
        Which samples are the data set's own test part; None when one is to be drawn.
    tokens : bool
        Whether the inputs are token ids.
    most : int or None
        At most so many tokens become classes of next-token data, the most frequent ones.
    """

    inputs: Rows
    labels: Int[np.ndarray, " N"] | None
    names: tuple[str, ...]
    test: Int[np.ndarray, " m"] | None = None
    tokens: bool = False
    most: int | None = None


DATASETS: Registry[Callable[..., Samples]] = Registry("data set")


def load_samples(name: str, options: Mapping[str, Any] | None = None) -> Samples:
    """A registered data set; one that is read from somewhere is called "NAME:PATH".

    Parameters
    ----------
    name : str
    options : mapping
        What the data set takes by keyword: names of columns, a size, ….

    Raises
    ------
    InvalidInput
        An unknown data set or option, or something that cannot be read as it.

    Examples
    --------
    >>> load_samples("digits").inputs.shape
    (1797, 1, 8, 8)
    """
    key, colon, path = name.partition(":")
    entry = DATASETS[key]
    needs = entry.options.get("argument")
    if bool(needs) != bool(colon and path):
        form = f"'{key}:{needs}'" if needs else f"'{key}'"
        raise InvalidInput(f"data set '{key}' must be given as {form}, got '{name}'")
    options = dict(options or {})
    _check_options(entry, options)
    return entry.function(path, **options) if needs else entry.function(**options)


def _check_options(entry: Entry[Callable[..., Samples]], options: Mapping[str, Any]) -> None:
    allowed = {name: parameter for name, parameter in entry.parameters.items()
               if parameter.kind is Parameter.KEYWORD_ONLY}
    for option, value in options.items():
        if not allowed:
            raise InvalidInput(f"data set '{entry.name}' takes no options, got '{option}'")
        if option not in allowed:
            raise InvalidInput(f"unknown option '{option}' of data set '{entry.name}': "
                               f"{did_you_mean(option, allowed)}")
        # An option is a whole number or text; which of the two, its annotation tells.
        if "int" in str(allowed[option].annotation):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidInput(f"data option '{option}' must be a whole number ≥ 1, got {shown(value)}")
        elif not isinstance(value, str):
            raise InvalidInput(f"data option '{option}' must be text, got {shown(value)}")
