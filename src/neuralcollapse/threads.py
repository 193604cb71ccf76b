"""As many BLAS threads as a product or a run should have: one for small products.

OpenBLAS's spinning threads cost more than they give on tall, narrow or small matrices, and when another
process holds a core a product of 37 columns was seen to take 30 s instead of 0.1 s.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from importlib import import_module

from threadpoolctl import ThreadpoolController


def one_blas_thread() -> AbstractContextManager[object]:
    """A context in which NumPy's and SciPy's BLAS use one thread.

    Examples
    --------
    >>> with one_blas_thread():
    ...     pass
    """
    return _controller().limit(limits=1, user_api="blas")


def blas_threads(count: int) -> AbstractContextManager[object]:
    """A context in which NumPy's and SciPy's BLAS use `count` threads.

    Examples
    --------
    >>> with blas_threads(2):
    ...     pass
    """
    return _found().limit(limits=count, user_api="blas")  # anew: others may have been loaded since


@cache
def _controller() -> ThreadpoolController:
    return _found()


def _found() -> ThreadpoolController:
    """A controller of the libraries that are loaded now; SciPy brings a BLAS of its own and is loaded first."""
    import_module("scipy.linalg")
    return ThreadpoolController()
