"""How a public name or argument is given up: it works for one more minor version at least, and says what replaces it.

A warning is a FutureWarning, which Python shows by default: it is meant for those who call the library. CONTRIBUTING
has the rule, and `tests/test_deprecation.py` fails once something has outlived the version it was to go in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
import inspect
from typing import Any, TypeVar, cast
import warnings

from typing_extensions import deprecated as marked

from neuralcollapse.checks import InvalidInput

T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True)
class Deprecation:
    """What is given up, since which version, and in which it goes."""

    what: str
    since: str
    removal: str
    instead: str

    def __str__(self) -> str:
        return f"{self.what} is deprecated since {self.since} and goes in {self.removal}: {self.instead}"


DEPRECATIONS: list[Deprecation] = []
"""All that are in force, in the order of import."""


def deprecated(*, since: str, removal: str, instead: str) -> Callable[[T], T]:
    """Mark a function or class that is to go; type checkers and editors see it too (PEP 702).

    Parameters
    ----------
    since, removal : str
        Versions such as "0.2", `removal` at least one minor version after `since`.
    instead : str
        What to do, such as "use `predict`".

    Raises
    ------
    ValueError
        A removal that comes too early.

    Examples
    --------
    >>> import warnings
    >>> @deprecated(since="0.2", removal="0.4", instead="use `predict`")
    ... def foretell(counts):
    ...     return counts
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     foretell(3)
    3
    >>> print(caught[0].category.__name__, caught[0].message)
    FutureWarning foretell is deprecated since 0.2 and goes in 0.4: use `predict`
    >>> _ = DEPRECATIONS.pop()
    """
    def mark(thing: T) -> T:
        return marked(str(_noted(thing.__qualname__, since, removal, instead)), category=FutureWarning)(thing)
    return mark


def renamed_argument(old: str, new: str, *, since: str, removal: str) -> Callable[[T], T]:
    """Let a function take an argument by its old name for a while.

    Raises
    ------
    ValueError
        A new name that the function does not have, or a removal that comes too early.
    InvalidInput
        When called: both names given.

    Examples
    --------
    >>> import warnings
    >>> @renamed_argument("lam", "ridge", since="0.2", removal="0.4")
    ... def doubled(ridge):
    ...     return 2 * ridge
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     doubled(lam=3)
    6
    >>> print(caught[0].message)
    lam of doubled is deprecated since 0.2 and goes in 0.4: call it ridge
    >>> _ = DEPRECATIONS.pop()
    """
    def mark(function: T) -> T:
        if new not in inspect.signature(function).parameters:
            raise ValueError(f"{function.__qualname__} has no argument {new}")
        notice = _noted(f"{old} of {function.__qualname__}", since, removal, f"call it {new}")

        @wraps(function)
        def taking_both(*given: Any, **named: Any) -> Any:
            if old in named:
                if new in inspect.signature(function).bind_partial(*given).arguments or new in named:
                    raise InvalidInput(f"{old} is the old name of {new}: give {new} alone")
                warnings.warn(str(notice), FutureWarning, stacklevel=2)
                named[new] = named.pop(old)
            return function(*given, **named)
        return cast(T, taking_both)
    return mark


def overdue(version: str, deprecations: Iterable[Deprecation] | None = None) -> list[Deprecation]:
    """Those that were to be gone in `version`."""
    return [one for one in (DEPRECATIONS if deprecations is None else deprecations)
            if _minor(one.removal) <= _minor(version)]


def _noted(what: str, since: str, removal: str, instead: str) -> Deprecation:
    if _minor(removal) <= _minor(since):
        raise ValueError(f"{what} must stay for one minor version at least: since {since}, removal {removal}")
    notice = Deprecation(what, since, removal, instead)
    DEPRECATIONS.append(notice)
    return notice


def _minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
