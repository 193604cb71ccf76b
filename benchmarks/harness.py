"""Timing by ratio: two routes in turn in one run, the median of the pairwise ratios (machines drift, ratios do not)."""

from __future__ import annotations

from collections.abc import Callable
import os
from pathlib import Path
import platform
import statistics
import time


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def median_seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """Median wall time after one warm-up."""
    call()
    return statistics.median(seconds(call) for _ in range(repeats))


def ratio(ours: Callable[[], object], peer: Callable[[], object], repeats: int = 5) -> tuple[float, float, float]:
    """Median of ours/peer over alternating pairs, and both medians in seconds."""
    ours()
    peer()
    pairs = [(seconds(ours), seconds(peer)) for _ in range(repeats)]
    return (statistics.median(a / b for a, b in pairs), *(statistics.median(side) for side in zip(*pairs, strict=True)))


def peak_megabytes() -> float:
    """Largest resident size of this process so far, or since `forget_peak`."""
    status = Path("/proc/self/status").read_text()  # getrusage would report the parent's too
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def forget_peak() -> float:
    """Start `peak_megabytes` anew; returns the resident size now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_megabytes()


def wait(device: str) -> None:
    """Until an accelerator has done what it was given; a CPU has."""
    if device != "cpu":
        import torch

        torch.accelerator.synchronize()


def machine(device: str = "cpu") -> str:
    """Processor and cores, and the accelerator used, for the heading of a result."""
    name = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                 if line.startswith("model name")), platform.processor())
    heading = f"{name}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"
    if device == "cpu":
        return heading
    import torch

    return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}; {heading}"
