"""A checkpoint: weights, optimiser and the clock, read without unpickling anything but tensors and plain values.

What else the next epoch depends on is not state: the schedule, the order of the samples and every random number
follow from the settings and the epoch's number, and an epoch is always gone through as a whole.
"""

from __future__ import annotations

from dataclasses import asdict
from io import BytesIO
from pickle import UnpicklingError

import torch

from neuralcollapse.experiments.clock import Clock
from neuralcollapse.experiments.session import Session

_UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, AttributeError, UnpicklingError)


def pack(session: Session, clock: Clock) -> bytes:
    """What a run continues from after the clock's epoch."""
    state = BytesIO()
    torch.save({"clock": asdict(clock), **session.state()}, state)
    return state.getvalue()


def unpack(session: Session, content: bytes) -> Clock | None:
    """Put a checkpoint into `session`; None for one that cannot be read."""
    try:
        saved = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
        clock = Clock(**saved["clock"])
        session.restore(saved)
    except _UNREADABLE:
        return None
    return clock
