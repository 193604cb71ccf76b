"""Numbers as words: the same rounding in sentences, tables and descriptions of pictures."""

from __future__ import annotations

import json
import re
from typing import Any

from jaxtyping import Float
import numpy as np

from neuralcollapse.predict import RidgeEstimate

SYMBOL = re.compile(r"\b([DΣλ])_([A-Z])(?![A-Za-z])")
"""A letter with its index, such as D_W."""


def number(value: float | None, digits: int = 3) -> str:
    """A number at `digits` significant digits; a dash when missing.

    Examples
    --------
    >>> number(0.12345), number(1234.5), number(2e-7), number(None)
    ('0.123', '1,234', '2e-07', '–')
    >>> number(-1234.0), number(-1.5), number(-2e-7)
    ('−1,234', '−1.50', '−2e-07')
    """
    if value is None or not np.isfinite(value):
        return "–"
    if value < 0:
        return f"−{number(-value, digits)}"
    if value == 0:
        return "0"
    if value >= 100:
        return f"{value:,.0f}" if value < 1e7 else f"{value:.{digits - 1}e}"
    return f"{value:.0e}" if value < 1e-4 else f"{value:#.{digits}g}".rstrip(".")


def percent(value: float | None) -> str:
    """A share as a percentage; a dash when missing.

    Examples
    --------
    >>> percent(0.8912), percent(1.0), percent(0.00042), percent(None)
    ('89.1 %', '100 %', '0.042 %', '–')
    """
    if value is None or not np.isfinite(value):
        return "–"
    hundred = 100 * value
    if hundred == 0 or abs(hundred) >= 99.95:
        return f"{hundred:.0f} %"
    return f"{hundred:.1f} %" if abs(hundred) >= 1 else f"{hundred:.2g} %"


def ratio(value: float) -> str:
    """How many times, for a value of at least 1.

    Examples
    --------
    >>> ratio(2.14), ratio(1.082), ratio(31.4)
    ('2.1×', '1.08×', '31×')
    """
    if value < 1.1:
        return f"{value:.2f}×"
    return f"{value:.1f}×" if value < 9.95 else f"{value:,.0f}×"


def degrees(cosine: float | None) -> str:
    """The angle whose cosine this is; a dash when missing.

    Examples
    --------
    >>> degrees(0.5), degrees(None)
    ('60.0°', '–')
    """
    if cosine is None or not np.isfinite(cosine):
        return "–"
    return f"{np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))):.1f}°"


def with_subscripts(text: str, form: str) -> str:
    r"""Symbols such as D_W and Σ_B set by `form`, in which \1 is the letter and \2 its index.

    Examples
    --------
    >>> with_subscripts("tr Σ_W / tr Σ_B", r"\1<sub>\2</sub>")
    'tr Σ<sub>W</sub> / tr Σ<sub>B</sub>'
    """
    return SYMBOL.sub(form, text)


def raised(power: int) -> str:
    """A whole number as an exponent.

    Examples
    --------
    >>> f"10{raised(-12)}"
    '10⁻¹²'
    """
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def cosine(value: float | None) -> str:
    """A cosine at three decimals; a dash when missing.

    Examples
    --------
    >>> cosine(-0.1111), cosine(-0.0001)
    ('−0.111', '0.000')
    """
    if value is None or not np.isfinite(value):
        return "–"
    return f"{value:.3f}".replace("-0.000", "0.000").replace("-", "−")


def plain(value: float) -> str:
    """A number as a person would have typed it.

    Examples
    --------
    >>> plain(10.0), plain(16.25), plain(1e6)
    ('10', '16.25', '1,000,000')
    """
    return f"{value:,.0f}" if value == round(value) else f"{value:,.4g}"


def setting(value: Any) -> str:
    """A configured value; a dash when there is none.

    Examples
    --------
    >>> setting("ce"), setting(1e-4), setting([1, 2]), setting(None)
    ('ce', '0.0001', '[1, 2]', '–')
    """
    return value if isinstance(value, str) else "–" if value is None else (
        f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False, default=str))


def at_ridge(estimate: RidgeEstimate) -> str:
    """What follows the symbol λ: the nearest one, or that it is the end of those tried.

    Examples
    --------
    >>> from neuralcollapse.predict import RidgeEstimate
    >>> tried = np.array([0.001, 0.1, 10.0])
    >>> at_ridge(RidgeEstimate(0.1, 0.01, (0.08, 0.2), tried, tried))
    '= 0.100'
    >>> at_ridge(RidgeEstimate(0.001, 0.01, (0.001, 0.2), tried, tried))
    '≤ 0.00100 (the smallest tried)'
    """
    if estimate.edge is None:
        return f"= {number(estimate.ridge)}"
    return f"{'≤' if estimate.edge == 'smallest' else '≥'} {number(estimate.ridge)} (the {estimate.edge} tried)"


def trend(epochs: Float[np.ndarray, " e"], values: Float[np.ndarray, " e"]) -> str:
    """A series in a few words: its first and last value."""
    known = np.flatnonzero(np.isfinite(values))
    if known.size == 0:
        return "not measured"
    first, last = known[0], known[-1]
    if known.size == 1:
        return f"{number(float(values[last]))} at epoch {epochs[last]:.0f}"
    return (f"{number(float(values[first]))} at epoch {epochs[first]:.0f}, "
            f"{number(float(values[last]))} at epoch {epochs[last]:.0f}")
