"""Logarithmic axes: when epochs want one, and ticks labelled as a person would write them."""

from __future__ import annotations

from jaxtyping import Float
import numpy as np

from neuralcollapse.show.wording import raised


def log_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Ticks of a logarithmic axis as a person would write them: 1-2-5 over a short range, else whole decades.

    Examples
    --------
    >>> log_ticks(0.04, 0.7)[1], log_ticks(1e-6, 2)[1]
    (['0.05', '0.1', '0.2', '0.5'], ['10⁻⁶', '10⁻⁴', '0.01', '1'])
    """
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    decades = np.log10(high / low)
    steps = (1, 2, 5) if decades < 1.6 else (1, 3) if decades < 2.4 else (1,)
    stride = int(np.ceil(decades / 5)) if steps == (1,) else 1
    values = [step * 10.0**power for power in range(first, last + 1, stride) for step in steps]
    shown = [value for value in values if low * 0.999 <= value <= high * 1.001]
    return shown, [_tick_label(value) for value in shown]


def _tick_label(value: float) -> str:
    if 1e-3 <= value < 1e5:
        return f"{value:g}"
    mantissa, power = f"{value:.0e}".split("e")
    return f"10{raised(int(power))}" if mantissa == "1" else f"{mantissa}·10{raised(int(power))}"


def log_spaced(epochs: Float[np.ndarray, " e"]) -> bool:
    """Whether measured epochs are dense at the start and sparse later, as with the default schedule."""
    return bool(epochs.size >= 4 and epochs[-1] >= 16 and np.median(epochs) < 0.4 * epochs[-1])
