"""What every check of reliability shares: how it reports, and limits on time and memory of one input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
import json
from pathlib import Path
import resource
import signal
import time
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass
class Check:
    """One check: what was tried, how often, and whatever went wrong."""

    name: str
    what: str
    count: int = 0
    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def fail(self, text: str) -> None:
        """Something that must not happen has."""
        self.failures.append(text[:500])
        print(f"FAILED {self.name}: {text[:500]}", flush=True)

    def close(self) -> None:
        """Write the result beside the others, and say it in a line."""
        RESULTS.mkdir(exist_ok=True)
        seconds = round(time.monotonic() - self.began)
        record = {"name": self.name, "what": self.what, "count": self.count, "failures": len(self.failures),
                  "first_failures": self.failures[:5], "seconds": seconds, "figures": self.figures}
        (RESULTS / f"{self.name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        told = ", ".join(f"{name} {value}" for name, value in self.figures.items())
        print(f"{self.name}: {self.count:,} tried, {len(self.failures)} failed, {seconds} s; {told}", flush=True)


class TooLong(BaseException):
    """One input took longer than it may; no handler of ordinary errors takes it."""


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raise TooLong in whatever takes longer."""
    def stop(*_: object) -> None:
        raise TooLong(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def peak_megabytes() -> int:
    """The largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
