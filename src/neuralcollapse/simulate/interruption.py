"""Ctrl-C and SIGTERM taken between steps, so that the state that is saved is whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import signal
import threading
from types import FrameType
from typing import Any


@contextmanager
def between_steps() -> Iterator[Callable[[], None]]:
    """Hold back the first SIGINT or SIGTERM until the function given is called, which raises KeyboardInterrupt.

    A second one interrupts at once. Only the main thread receives signals: elsewhere nothing is held back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    asked: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    def interrupted() -> None:
        if asked:
            raise KeyboardInterrupt

    before: dict[int, Any] = {number: signal.signal(number, hold) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
