"""Colours and names as every picture uses them.

The Okabe–Ito palette, darkened until each colour stands out from white (3 : 1, and 4.5 : 1 where it is also text) and
from the others of its legend when red and green look alike. A colour means one thing throughout: ink is measured,
blue is SELI, vermillion is the simplex ETF; green goes with majority classes or classifiers, purple with
minority classes or embeddings. Markers and dashes repeat what colour says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuralcollapse.show.wording import number

# role: (on white, on a dark page)
COLOURS = {
    "ink": ("#3b4248", "#c9d1d6"),
    "bar": ("#858f97", "#6d7a83"),
    "blue": ("#0072B2", "#56B4E9"),
    "vermillion": ("#BF4B00", "#EB7A3A"),
    "green": ("#007F5F", "#2BC49A"),
    "purple": ("#A4508B", "#D98CBF"),
    "orange": ("#B88A00", "#EBC14A"),
}
MARKERS = {  # name here: (plotly, matplotlib)
    "circle": ("circle", "o"), "square": ("square", "s"), "diamond": ("diamond", "D"),
    "triangle": ("triangle-up", "^"), "cross": ("x", "X"),
}
TARGET_MARKERS = ("circle", "square", "triangle", "diamond", "cross")  # of the predicted geometries, in turn
TARGET_NAMES = {"seli": "SELI", "ce": "SELI", "etf": "simplex ETF", "loss": "limit of its loss"}
TARGET_COLOURS = {"seli": "blue", "ce": "blue", "etf": "vermillion", "loss": "green"}

# Blue for negative, vermillion for positive, the page itself for zero.
_NEGATIVE = ("#003f66", "#0072B2", "#6fb1d9")
_POSITIVE = ("#f2a46f", "#D55E00", "#7a2f00")
_NEGATIVE_DARK = ("#bfe3ff", "#56B4E9", "#1f5a85")
_POSITIVE_DARK = ("#96450f", "#F0883E", "#ffe0c7")


def diverging_scale(dark: bool = False, steps: int = 16) -> list[tuple[float, str]]:
    """Colour stops on [0, 1] with zero at 1/2, in which colour follows the signed square root of the value.

    The off-diagonal entries of a Gram matrix are about k times smaller than its diagonal: on a linear scale they
    would all look like zero. The colour bar still shows true values.
    """
    middle = "#15191c" if dark else "#ffffff"
    negative, positive = (_NEGATIVE_DARK, _POSITIVE_DARK) if dark else (_NEGATIVE, _POSITIVE)
    anchors = np.array([_rgb(colour) for colour in (*negative, middle, *positive)])
    strength = np.linspace(-1, 1, 2 * steps + 1)
    positions = (np.sign(strength) * strength**2 + 1) / 2
    places = np.linspace(-1, 1, len(anchors))
    channels = np.stack([np.interp(strength, places, anchors[:, channel]) for channel in range(3)], axis=1)
    return [(round(float(at), 5), "#" + "".join(f"{round(part):02x}" for part in rgb))
            for at, rgb in zip(positions, channels, strict=True)]


def target_name(target: str) -> str:
    """How a predicted geometry is called in pictures and tables."""
    if target.startswith("ridge:"):
        return f"λ = {_short(target.removeprefix('ridge:'))}"
    return TARGET_NAMES.get(target, target)


def target_colour(target: str) -> str:
    """The colour of a predicted geometry."""
    return TARGET_COLOURS.get(target, "orange" if target.startswith("ridge:") else "green")


def in_a_sentence(target: str) -> str:
    """How a predicted geometry is called in a sentence."""
    if target.startswith("ridge:"):
        return f"the geometry at {target_name(target)}"
    return f"the {target_name(target)}" if target in ("etf", "loss") else target_name(target)


def short_names(names: Sequence[str], width: int = 18) -> list[str]:
    """Names that fit beside an axis: one line, shortened in the middle, and no two alike."""
    short = []
    for name in names:
        line = " ".join(str(name).split()) or "(no name)"
        short.append(line if len(line) <= width else f"{line[:width - 7]}…{line[-6:]}")
    twice = {name for name in short if short.count(name) > 1} if len(set(short)) < len(short) else set()
    return [f"{name} ({c})" if name in twice else name for c, name in enumerate(short)]


def _short(ridge: str) -> str:
    try:
        return number(float(ridge))
    except ValueError:  # written by a newer version
        return ridge


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[start:start + 2], 16) for start in (1, 3, 5))
