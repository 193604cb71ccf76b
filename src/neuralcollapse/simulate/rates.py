"""How fast distances decay: fits of three laws against the step, with intervals over seeds, and the time to a distance.

    power law         ln D = a − p·ln t            (a rate p)
    logarithmic law   ln D = a − q·ln ln t         (q = 1: D proportional to 1/ln t)
    geometric law     ln D = a − r·t               (what optimisation calls linear convergence)

All are straight lines after a change of abscissa and have two parameters, so the one that leaves the smallest
residual is the best description of the steps looked at. That is a description, not a proof of an asymptotic law.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Real
import numpy as np
from scipy import stats

from neuralcollapse.checks import InvalidInput, positive_number, shown
from neuralcollapse.simulate.simulation import Simulation

_FEWEST = 5  # snapshots, below which lines cannot be told apart
LAWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "power": np.log, "logarithmic": lambda t: np.log(np.log(t)), "geometric": lambda t: t}
"""The abscissa in which each law is a straight line."""


@dataclass(frozen=True)
class Line:
    """A law fitted to one decay.

    Attributes
    ----------
    law : str
        "power", "logarithmic" or "geometric".
    rate : float
        Minus the slope: D falls like t^{-rate}, (ln t)^{-rate} or e^{-rate·t}.
    residual : float
        Root mean square of what is left of ln D: 0.1 is about ten per cent.
    """

    law: str
    rate: float
    residual: float


@dataclass(frozen=True)
class Decay:
    """A law's rate over several runs.

    Attributes
    ----------
    law : str
        The one asked for, else the one with the smallest median residual.
    rate : float
        Mean over the runs.
    interval : (float, float)
        Student's t interval of that mean at the level asked for; (NaN, NaN) for a single run.
    residual : float
        Median root mean square residual in ln D.
    other : float
        The smallest of the other laws'.
    runs : int
        Runs that could be fitted: not diverged, and with enough snapshots above the floor.
    """

    law: str
    rate: float
    interval: tuple[float, float]
    residual: float
    other: float
    runs: int


def fit_decay(steps: Real[np.ndarray, " s"], values: Float[np.ndarray, " s"], law: str, *, since: float = 10,
              floor: float = 1e-12) -> Line | None:
    """Least squares of one law over the snapshots from step `since` on that lie above `floor`.

    A distance that has reached rounding is no decay any more: everything after the first snapshot below `floor` is
    left out.

    Parameters
    ----------
    steps : (s,) array
    values : (s,) array
        Distances; NaN is left out.
    law : "power", "logarithmic" or "geometric"
    since : float
        At least 3, where ln ln t is positive.
    floor : float

    Returns
    -------
    Line or None
        None where fewer than five snapshots are left.

    Raises
    ------
    InvalidInput
        An unknown law, `since` below 3.

    Examples
    --------
    >>> t = np.geomspace(10, 1e4, 20)
    >>> line = fit_decay(t, 3 / t**0.5, "power")
    >>> round(line.rate, 6)
    0.5
    """
    _check_law(law)
    if since < 3:
        raise InvalidInput(f"since must be at least 3, where ln ln t is positive, got {since}")
    below = np.flatnonzero(values <= floor)
    end = below[0] if below.size else steps.size
    use = (steps >= since) & np.isfinite(values) & (np.arange(steps.size) < end)
    if use.sum() < _FEWEST:
        return None
    abscissa = LAWS[law](steps[use].astype(np.float64))
    ordinate = np.log(values[use])
    slope, at_zero = np.polyfit(abscissa, ordinate, 1)
    residual = float(np.sqrt(np.mean((ordinate - at_zero - slope * abscissa) ** 2)))
    return Line(law, -float(slope), residual)


def decay(steps: Real[np.ndarray, " s"], values: Float[np.ndarray, "runs s"], *, since: float = 10,
          floor: float = 1e-12, level: float = 0.95, law: str | None = None) -> Decay | None:
    """The law that describes several runs of one setting (its seeds), and its rate with a t interval over them.

    Parameters
    ----------
    steps : (s,) array
    values : (runs, s) array
    since, floor : float
        As in `fit_decay`.
    level : float
    law : str, optional
        The law to fit, whether or not it leaves the smallest residual.

    Returns
    -------
    Decay or None
        None where no run could be fitted.

    Raises
    ------
    InvalidInput
        An unknown law, `since` below 3.

    Examples
    --------
    >>> t = np.geomspace(10, 1e4, 20)
    >>> found = decay(t, np.stack([2 / np.log(t), 5 / np.log(t)]))
    >>> found.law, round(found.rate, 6), found.runs
    ('logarithmic', 1.0, 2)
    """
    if law is not None:
        _check_law(law)
    fits = {name: [fit_decay(steps, row, name, since=since, floor=floor) for row in values] for name in LAWS}
    lines = {name: [line for line in found if line is not None] for name, found in fits.items()}
    if not lines["power"]:
        return None
    residuals = {name: float(np.median([line.residual for line in found])) for name, found in lines.items()}
    law = min(residuals, key=residuals.__getitem__) if law is None else law
    rates = np.array([line.rate for line in lines[law]])
    other = min(residual for name, residual in residuals.items() if name != law)
    return Decay(law, float(rates.mean()), mean_interval(rates, level), residuals[law], other, rates.size)


def mean_interval(values: Float[np.ndarray, " n"], level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean; (NaN, NaN) for a single value.

    Examples
    --------
    >>> low, high = mean_interval(np.array([1.0, 2.0, 3.0]))
    >>> round(low, 4), round(high, 4)
    (-0.4841, 4.4841)
    """
    if values.size < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf((1 + level) / 2, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size)
    return float(values.mean() - half), float(values.mean() + half)


def time_to(simulation: Simulation, quantity: str | Sequence[str], epsilon: float) -> Float[np.ndarray, " cells"]:
    """The first snapshot from which on a distance stays at or below ε, per cell.

    Parameters
    ----------
    simulation : Simulation
    quantity : str or sequence of str
        Such as "seli/classifiers"; of several, the largest counts.
    epsilon : float

    Returns
    -------
    (cells,) array
        In steps; ∞ where the run ends above ε or diverged: censored at the simulation's last step. Exact up to the
        spacing of the snapshots.

    Raises
    ------
    InvalidInput
        An unknown quantity, or ε that is not positive.

    Examples
    --------
    >>> from neuralcollapse.simulate import simulate
    >>> runs = simulate([4, 4, 1, 1], "multipliers", steps=500, symmetric=True, snapshots=range(0, 501, 10))
    >>> bool(time_to(runs, ["seli/classifiers", "seli/embeddings", "seli/logits"], 1e-3)[0] <= 500)
    True
    """
    epsilon = positive_number("epsilon", epsilon)
    names = [quantity] if isinstance(quantity, str) else list(quantity)
    largest = np.max([simulation[name] for name in names], axis=0)
    above = ~(largest <= epsilon)  # NaN counts as above
    last = np.where(above.any(1), above.shape[1] - 1 - above[:, ::-1].argmax(1), -1)
    steps = np.append(simulation.steps.astype(np.float64), np.inf)
    return np.asarray(steps[last + 1])


def _check_law(law: str) -> None:
    if law not in LAWS:
        raise InvalidInput(f"law must be one of {', '.join(LAWS)}, got {shown(law)!r}")
