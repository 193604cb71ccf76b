"""Where a run stands: the last finished epoch, when training error became zero, and where it will therefore end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from neuralcollapse.experiments.config import TrainConfig


@dataclass
class Clock:
    """What a checkpoint knows beside the state of the network.

    Attributes
    ----------
    epoch : int
        The last finished one, 0 before the first.
    train, measure : float
        Seconds spent so far; looking for zero error counts as measuring.
    zero_error : int or None
        The first epoch after which every training sample was decided rightly, where `terminal_epochs` asks for it.
    """

    epoch: int = 0
    train: float = 0.0
    measure: float = 0.0
    zero_error: int | None = None

    def last(self, config: TrainConfig) -> int:
        """The epoch the run ends with, as far as it is known.

        Examples
        --------
        >>> Clock(epoch=7, zero_error=5).last(TrainConfig(epochs=100, terminal_epochs=20))
        25
        """
        if config.terminal_epochs is None or self.zero_error is None:
            return config.epochs
        return min(config.epochs, self.zero_error + config.terminal_epochs)

    def due(self, config: TrainConfig) -> bool:
        """Whether the network is measured after this epoch."""
        return self.epoch in (*config.measured_epochs, self.zero_error, self.last(config))

    def terminal(self, config: TrainConfig) -> dict[str, Any]:
        """What a record of the history says about the terminal phase; nothing where no setting asks for one."""
        if config.terminal_epochs is None:
            return {}
        known = self.zero_error is not None or self.epoch == config.epochs
        return {"terminal": {"zero_error_epoch": self.zero_error, "last_epoch": self.last(config) if known else None}}
