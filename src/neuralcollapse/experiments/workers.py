"""Processes that joblib keeps for several runs in a row."""

from __future__ import annotations

from collections.abc import Callable
import sys
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def keep_worker() -> None:
    """Keep the process that this runs in, where it is one of joblib's, however much it grows.

    Its loky takes growth by 300 MB after the first task for a leak, replaces the process and warns. The first data set
    and the libraries that a run needs weigh as much.
    """
    loky = sys.modules.get("joblib.externals.loky.process_executor")
    if loky is not None:
        loky.__dict__["_USE_PSUTIL"] = False  # there is no public way; without psutil it never looks


def in_worker(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call a function in one of joblib's processes, which is then kept.

    Examples
    --------
    >>> from joblib import Parallel, delayed
    >>> Parallel(n_jobs=1)(delayed(in_worker)(max, 2, number) for number in (1, 3))
    [2, 3]
    """
    keep_worker()
    return function(*arguments, **named)
