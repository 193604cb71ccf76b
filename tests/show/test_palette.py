"""Colours by their numbers: contrast as WCAG counts it, and legends as colour-blind readers see them."""

from __future__ import annotations

from importlib.resources import files
from itertools import combinations
import re

import numpy as np
import pytest

from neuralcollapse.show.palette import COLOURS

# Linear RGB as dichromats see it (Machado, Oliveira & Fernandes 2009, severity 1).
SEEN_BY = {
    "everyone": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                            [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                              [-0.011820, 0.042940, 0.968881]])}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = TO_XYZ.sum(axis=1)
LABELS = ("ink", "blue", "purple", "vermillion")  # also written in: the marks along λ


def linear(colour):
    channels = np.array([int(colour[i:i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one, two):
    dark, light = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, two))
    return (light + 0.05) / (dark + 0.05)


def lab(rgb):
    share = TO_XYZ @ np.clip(rgb, 0, 1) / WHITE
    x, y, z = np.where(share > 216 / 24389, np.cbrt(share), (24389 / 27 * share + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def style(dark):
    text = files("neuralcollapse.show").joinpath("assets", "page.css").read_text()
    return dict(re.findall(r"--(\w+): (#\w{6});", re.findall(r":root \{(.*?)\}", text, re.S)[dark]))


def test_the_extremes():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)  # the lightest grey that passes as text
    np.testing.assert_allclose(lab(linear("#ffffff")), [100, 0, 0], atol=0.01)
    assert lab(linear("#808080"))[0] == pytest.approx(53.6, abs=0.05)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_and_graphics_stand_out(dark):
    colours = style(dark)
    for name in ("text", "quiet", "accent"):
        assert min(contrast(colours[name], colours[behind]) for behind in ("page", "raised")) >= 4.5, name
    for name, pair in COLOURS.items():
        assert contrast(pair[dark], colours["page"]) >= (4.5 if name in LABELS else 3), name


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("seen", SEEN_BY)
def test_no_two_colours_of_a_legend_look_alike(dark, seen):
    """12 in CIELAB is five times what is just noticed; markers and dashes tell apart as well."""
    for one, two in combinations(COLOURS, 2):
        apart = np.linalg.norm(lab(SEEN_BY[seen] @ linear(COLOURS[one][dark]))
                               - lab(SEEN_BY[seen] @ linear(COLOURS[two][dark])))
        assert apart >= 12, (one, two, apart)
