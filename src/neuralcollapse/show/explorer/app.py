"""The application: a frame with two pages, their styles and scripts, and who may ask for what.

The state of a page is in its URL. A page is built from the URL when it is opened; what is changed on it afterwards is
written back into the address bar, so that a link or a reload shows the same again.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html
from flask import Response, abort, request

from neuralcollapse.show.explorer import runs_page, theory_page
from neuralcollapse.show.explorer.watch import RunShelf
from neuralcollapse.show.markup import colour_variables
from neuralcollapse.show.page import colour_ramp

PAGES = {"/": ("Theory", theory_page), "/runs": ("Runs", runs_page)}
_LONGEST_URL = 20_000
_LARGEST_BODY = 2_000_000


def make_app(shelf: RunShelf, host: str = "127.0.0.1") -> Dash:
    """The explorer of some run folders.

    Parameters
    ----------
    shelf : RunShelf
        The runs it may open.
    host : str
        The name it is served under; requests that name another host are refused, so that a page on the web cannot
        read runs through a name of its own that points here. "0.0.0.0" and "::" take any.
    """
    app = Dash("neuralcollapse", title="neuralcollapse explorer", update_title="", suppress_callback_exceptions=True,
               assets_folder=str(Path(str(files("neuralcollapse.show.explorer"))) / "assets"),
               serve_locally=True, compress=False)
    app.index_string = _index()
    app.layout = _frame(shelf)
    app.clientside_callback(ClientsideFunction("explorer", "dark"), Output("dark", "data"), Input("dark", "id"))
    theory_page.register(app)
    runs_page.register(app, shelf)

    @app.callback(Output("page", "children"), Output("nav", "children"), Input("url", "pathname"),
                  State("url", "search"))
    def _open(pathname: str | None, search: str | None) -> tuple[Any, Any]:
        place = pathname if pathname in PAGES else "/"
        page = PAGES[place][1].layout(search or "", shelf) if pathname in PAGES or pathname is None else _lost()
        return page, _navigation(place)

    _guard(app, host)
    return app


def _frame(shelf: RunShelf) -> Any:
    return html.Div([
        dcc.Location(id="url", refresh="callback-nav"),
        dcc.Store(id="dark"),  # True or False once the browser has said; None before
        html.A("Skip to content", href="#page", className="skip"),
        html.Header([html.Span("neuralcollapse", className="brand"), html.Nav(id="nav")],
                    className="bar"),
        html.Main(id="page", tabIndex="-1"),
    ])


def _navigation(place: str) -> list[Any]:
    return [dcc.Link(name, href=path, className="tab here" if path == place else "tab")
            for path, (name, _) in PAGES.items()]


def _lost() -> Any:
    return html.Section([html.H1("No such page"), html.P("The explorer has two: Theory and Runs, linked above.")])


def _index() -> str:
    """Dash's page, with the palette of the pictures as CSS variables."""
    light, dark = (colour_variables(dark) + colour_ramp(dark) for dark in (False, True))
    style = Template("<style>:root{color-scheme:light dark;$light}@media screen and (prefers-color-scheme:dark)"
                     "{:root{$dark}}</style>").substitute(light=light, dark=dark)
    return ('<!DOCTYPE html><html lang="en"><head>{%metas%}<meta name="viewport" content="width=device-width, '
            'initial-scale=1"><title>{%title%}</title>{%favicon%}{%css%}' + style + "</head><body>{%app_entry%}"
            "<footer>{%config%}{%scripts%}{%renderer%}</footer></body></html>")


def _guard(app: Dash, host: str) -> None:
    """Refuse what is no request of this page, and let the page load nothing from elsewhere."""
    hosts = None if host in ("0.0.0.0", "::") else {host, "127.0.0.1", "localhost", "::1"}
    policy = ("default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; "
              "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src blob:; "
              "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
    app.server.config["MAX_CONTENT_LENGTH"] = _LARGEST_BODY
    hashes: list[str] = []

    @app.server.before_request
    def _check() -> None:
        name = request.host.rpartition(":")[0] if request.host.count(":") == 1 else request.host
        if hosts is not None and name.partition("]")[0].strip("[]") not in hosts:
            abort(403, "this name is not the explorer's")
        if len(request.full_path) > _LONGEST_URL:
            abort(414)

    @app.server.after_request
    def _protect(response: Response) -> Response:
        if not hashes:
            hashes.extend(app.csp_hashes())
        scripts = " ".join(f"{part}" for part in hashes)
        response.headers["Content-Security-Policy"] = policy.format(scripts=scripts)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "same-origin"
        return response
