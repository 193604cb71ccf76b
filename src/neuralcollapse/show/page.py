"""A page that stands alone: plotly.js once, the figures as JSON, no network.

The Content-Security-Policy lets nothing load and runs only the two scripts whose hashes it names, so that even
markup smuggled into a run could not act.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from html import escape
from importlib.resources import files
import json
from string import Template
from typing import Any

from neuralcollapse.show.charts import Chart
from neuralcollapse.show.markup import colour_variables, figure
from neuralcollapse.show.palette import COLOURS, diverging_scale


@dataclass
class Page:
    """A page being put together: its figures and whatever else its script needs."""

    title: str
    specs: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)

    def figure(self, chart: Chart | None, identity: str, extra: str = "", titled: bool = True) -> str:
        """The markup of a picture, whose panels the page's script will draw."""
        if chart is None:
            return ""
        for place in range(len(chart.panels)):
            drawn = json.loads(chart.panel(place).plotly().to_json())
            self.specs[f"{identity}-{place}"] = {"data": drawn["data"], "layout": drawn["layout"]}
        return figure(chart, identity, extra, titled)

    def html(self, body: str) -> str:
        """The whole document."""
        from plotly.offline import get_plotlyjs
        library, script = get_plotlyjs().replace("\r\n", "\n"), _asset("page.js")
        return Template(_asset("page.html")).substitute(
            policy=_policy(library, script), title=escape(self.title), style=_style(), body=body,
            library=library, script=script,
            data=json_for_html({"figures": self.specs, "theme": _theme(), **self.data}))


def json_for_html(value: Any) -> str:
    """JSON that may stand inside a script element: no character of it can end the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _policy(*scripts: str) -> str:
    hashes = " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in scripts)
    return (f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
            "base-uri 'none'; form-action 'none'")


def _style() -> str:
    return Template(_asset("page.css")).substitute(
        light=colour_variables(False) + colour_ramp(False), dark=colour_variables(True) + colour_ramp(True))


def colour_ramp(dark: bool) -> str:
    """The scale of the heatmaps as a CSS custom property."""
    # Even steps of strength: the bar shows the square root that the heatmaps use, its labels the true values.
    colours = ",".join(colour for _, colour in diverging_scale(dark))
    return f"--ramp:linear-gradient(90deg,{colours});"


def _theme() -> Mapping[str, Any]:
    return {"dark": dict(COLOURS.values()),
            "scale": [diverging_scale(), diverging_scale(dark=True)]}


def _asset(name: str) -> str:
    return files("neuralcollapse.show").joinpath("assets", name).read_text(encoding="utf-8")
