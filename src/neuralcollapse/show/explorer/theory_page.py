"""The page of predictions: counts, loss and λ in, geometry out.

The state is one text, the URL's query: the controls write it, everything shown reads it. What is dear is asked for
again a moment after each answer that is not complete (`again` in explorer.js), never by a clock that could run ahead.
"""

from __future__ import annotations

from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from neuralcollapse.predict import Geometry
from neuralcollapse.show.explorer.frame import attribute, called
from neuralcollapse.show.explorer.theory_controls import (
    FIELDS,
    PARAMETERS,
    VALUES,
    about_loss,
    controls,
    drawn_choice,
    hidden,
    message_list,
    no_parameters,
    ridge_name,
    ridge_of_slider,
    slider_range,
    slider_value,
)
from neuralcollapse.show.explorer.theory_parts import (
    along_ratio,
    along_ridge,
    drawn,
    facts,
    heading,
    matrices,
    numbers,
    provenance,
)
from neuralcollapse.show.explorer.theory_reading import from_query, needs, read, why_no_ridge
from neuralcollapse.show.explorer.theory_solver import Solver, ridge_at, ridge_steps
from neuralcollapse.show.explorer.theory_state import CHOICES, TheoryState
from neuralcollapse.show.explorer.watch import RunShelf

_PATIENCE = 0.08  # seconds a control waits for a solution before it says that one is on its way
_RATIOS_PER_DECADE = 8
_SMALLEST_TOP = 1_000  # R up to which the figure reaches at least


def layout(search: str, shelf: RunShelf) -> Any:
    """The page for a URL's query."""
    state, messages = from_query(search)
    return html.Div([
        dcc.Store(id="theory-state", data=state.query()), dcc.Store(id="theory-answered"),
        dcc.Store(id="theory-pictured"), dcc.Store(id="theory-followed"), dcc.Store(id="theory-again"),
        dcc.Store(id="theory-again-solving"), dcc.Store(id="theory-polling"),
        html.Div([html.H1("What geometry do these classes collapse to?", className="unseen"),
                  controls(state, messages)], className="side"),
        html.Div([
            html.P(heading(state), id="theory-heading", className="subtitle", role="status",
                   **attribute("aria-live", "polite")),
            html.Div(id="theory-facts"),
            _part("drawing", "Drawing", html.Div(drawn_choice(state)), html.Div(id="theory-drawing")),
            _part("matrices", "Gram matrices, norms and singular values", html.Div(id="theory-matrices")),
            _part("along", "Along R and along λ", html.P(id="theory-progress", className="progress", role="status",
                                                          **attribute("aria-live", "polite")),
                  html.Div(id="theory-along-ratio"), html.Div(id="theory-along-ridge")),
            _part("numbers", "Numbers", _copy("theory-tsv", "Copy the table"), html.Div(id="theory-numbers")),
            _part("same", "The same elsewhere", *_same(state)),
        ], className="shown", id="theory-shown"),
    ], className="theory")


def register(app: Dash) -> None:
    """Add what the controls do."""
    solver = Solver()
    _take_controls(app)
    _answer(app, solver)
    _follow(app, solver)
    app.clientside_callback(ClientsideFunction("explorer", "address"), Output("theory-link", "children"),
                            Input("theory-state", "data"))
    app.clientside_callback(ClientsideFunction("explorer", "again"), Output("theory-polling", "data"),
                            Input("theory-followed", "data"))


def _part(name: str, title: str, *body: Any) -> Any:
    return html.Section([html.H2(title, id=f"theory-{name}-title"), *body],
                        **attribute("aria-labelledby", f"theory-{name}-title"))


def _same(state: TheoryState) -> list[Any]:
    boxes = {"python": ("Python", state.python()), "command": ("Command line", state.command()), "link": ("Link", "")}
    return [html.Div([html.Div([html.H3(title), _copy(f"theory-{name}", f"Copy: {title}")], className="copy-head"),
                      html.Pre(text, id=f"theory-{name}", tabIndex="0", **called(title))], className="copy-box")
            for name, (title, text) in boxes.items()]


def _copy(target: str, title: str) -> Any:
    return html.Button("Copy", type="button", className="copy", **attribute("data-copies", target), **called(title))


# -- controls ---------------------------------------------------------------------------------------


def _take_controls(app: Dash) -> None:
    """Whatever is changed becomes the state, or a message says why not."""
    outputs = [Output("theory-state", "data"), Output("theory-messages", "children"),
               Output("theory-heading", "children"), Output("theory-about-loss", "children"),
               Output("theory-hint", "hidden"), Output("theory-drawn-field", "hidden"),
               Output("theory-python", "children"), Output("theory-command", "children"),
               Output("theory-slider", "min"), Output("theory-slider", "max"), Output("theory-slider", "marks"),
               Output("theory-slider", "value"), Output("theory-slider", "disabled"), Output("theory-ridge", "value"),
               *(Output(f"theory-{name}-field", "hidden") for name in (*FIELDS, *PARAMETERS)),
               *(Output(f"theory-{name}", "value") for name in PARAMETERS)]

    @app.callback(outputs, [Input(f"theory-{name}", "value") for name in VALUES], Input("theory-slider", "value"),
                  State("theory-state", "data"), prevent_initial_call=True)
    def _changed(*given: Any) -> list[Any]:
        *typed, position, query = given
        before = from_query(query)[0]
        values = dict(zip(VALUES, typed, strict=True))
        kept = {name: getattr(before, name) for name in FIELDS if values[name] in (None, "")}
        moved = ctx.triggered_id == "theory-slider"
        if moved:
            values["ridge"] = ridge_of_slider(position, before)
        new_loss = ctx.triggered_id == "theory-loss"
        if new_loss:  # it starts neutral
            values |= {name: None for name in PARAMETERS if name not in needs(values["loss"])}
        state, messages = read(values | kept, before)
        first, last, marks = slider_range(state)
        command = state.command() or "Too long for a line at this many classes: use Python."
        typed_now = dict(state.parameters)
        same = state.query() == query  # a control of another profile: nothing to do
        return [no_update if same else state.query(), message_list(messages), heading(state), about_loss(state),
                no_parameters(state), state.class_counts().k <= 4, state.python(), command,
                first, last, marks, no_update if moved else slider_value(state), bool(why_no_ridge(state.loss)),
                _ridge_text(state, moved), *hidden(state),
                *(_parameter_text(name, typed_now) if new_loss else no_update for name in PARAMETERS)]


def _ridge_text(state: TheoryState, moved: bool) -> Any:
    """What stands in the field of λ: what was typed stays, be it wrong, so that it can be mended."""
    if not moved:
        return no_update
    return "" if state.ridge is None else f"{state.ridge:.12g}"


def _parameter_text(name: str, now: dict[str, str]) -> str:
    """What stands in the field of a parameter once the loss is chosen; later it is the typist's alone."""
    return now.get(name, CHOICES.get(name, ("",))[0])


# -- what is shown ----------------------------------------------------------------------------------


def _answer(app: Dash, solver: Solver) -> None:
    """The geometry asked for, in two requests: a heavy one does not hold the other back."""

    def geometry_of(query: str, dark: bool | None, shown: str | None) -> tuple[str, TheoryState, Geometry | str | None]:
        if dark is None:
            raise PreventUpdate
        key = f"{query}|{dark}"
        if ctx.triggered_id == "theory-again-solving" and shown == key:
            raise PreventUpdate
        state = from_query(query)[0]
        return key, state, solver.geometry(state, _PATIENCE)

    @app.callback(Output("theory-facts", "children"), Output("theory-drawing", "children"),
                  Output("theory-numbers", "children"), Output("theory-shown", "className"),
                  Output("theory-answered", "data"), Input("theory-state", "data"), Input("dark", "data"),
                  Input("theory-again-solving", "data"), State("theory-answered", "data"))
    def _numbers(query: str, dark: bool | None, _: Any, shown: str | None) -> tuple[Any, ...]:
        key, state, geometry = geometry_of(query, dark, shown)
        if geometry is None:
            return no_update, no_update, no_update, "shown pending", ""
        if isinstance(geometry, str):
            return _sorry(geometry), [], [], "shown", key
        return ([facts(geometry), *provenance(geometry)], drawn(geometry, state, bool(dark)), numbers(geometry),
                "shown", key)

    @app.callback(Output("theory-matrices", "children"), Output("theory-pictured", "data"),
                  Input("theory-state", "data"), Input("dark", "data"), Input("theory-again-solving", "data"),
                  State("theory-pictured", "data"))
    def _matrices(query: str, dark: bool | None, _: Any, shown: str | None) -> tuple[Any, ...]:
        key, state, geometry = geometry_of(query, dark, shown)
        if geometry is None:
            return no_update, ""
        if isinstance(geometry, str):
            return [], key
        limit = solver.geometry(state.at(None)) if state.ridge is not None else None
        return matrices(geometry, limit if isinstance(limit, Geometry) else None, bool(dark)), key


def _sorry(reason: str) -> Any:
    return html.P(f"This could not be solved: {reason}", className="note")


def _follow(app: Dash, solver: Solver) -> None:
    """The curves along R and λ, with the points there are so far."""

    @app.callback(Output("theory-along-ratio", "children"), Output("theory-along-ridge", "children"),
                  Output("theory-progress", "children"), Output("theory-followed", "data"),
                  Input("theory-state", "data"), Input("dark", "data"), Input("theory-again", "data"),
                  State("theory-followed", "data"))
    def _curves(query: str, dark: bool | None, _: Any, shown: dict[str, Any] | None) -> tuple[Any, ...]:
        if dark is None:
            raise PreventUpdate
        state = from_query(query)[0]
        ratios, ridges = _ratio_points(state), _ridge_points(state)
        found = solver.along([state, *_alternately(list(ridges.values()), list(ratios.values()))])
        parts = [{x: found[one.problem] for x, one in points.items() if one.problem in found}
                 for points in (ratios, ridges)]
        solving = solver.geometry(state) is None
        done, of = [len(part) for part in parts], [len(ratios), len(ridges)]
        more = solving or done != of
        answer = {"query": query, "dark": dark, "done": done, "more": more, "solving": solving}
        progress = _progress(state, solving, done, of) if more else ""
        if shown is not None and all(shown[name] == answer[name] for name in ("query", "dark", "done")):
            return no_update, no_update, progress, answer | {"asked": shown.get("asked", 0) + 1}
        some = _any_at_a_ridge(solver, state, ridges)
        return (along_ratio(state, parts[0], bool(dark)),
                along_ridge(state, parts[1], some, bool(dark)) or _no_path(state), progress, answer)


def _any_at_a_ridge(solver: Solver, state: TheoryState, ridges: dict[float, TheoryState]) -> Geometry | None:
    """One of the path: its thresholds are those of all."""
    for one in ([state] if state.ridge is not None else []) + list(ridges.values())[::-1]:
        geometry = solver.remembered(one)
        if geometry is not None:
            return geometry
    return None


def _no_path(state: TheoryState) -> list[Any]:
    reason = why_no_ridge(state.loss)
    return [html.P(f"No curve along λ: {reason}.", className="note")] if reason else []


def _progress(state: TheoryState, solving: bool, done: list[int], of: list[int]) -> str:
    parts = [f"solving {ridge_name(state.ridge)}"] if solving else []
    for name, have, all_of in zip(("R", "λ"), done, of, strict=True):
        if have < all_of:
            parts.append(f"along {name} {have} of {all_of} points")
    return f"Computing: {', '.join(parts)} …"


def _ratio_points(state: TheoryState) -> dict[float, TheoryState]:
    """The same profile at other R: eight to a decade, and the R chosen; none for typed counts."""
    if state.profile == "counts":
        return {}
    top = max(_SMALLEST_TOP, state.ratio)
    if state.profile == "long-tail":
        top = min(top, state.n_max)
    steps = range(round(_RATIOS_PER_DECADE * 6) + 1)
    grid = {float(f"{10 ** (step / _RATIOS_PER_DECADE):.3g}") for step in steps}
    return {ratio: state.with_ratio(ratio) for ratio in sorted({*grid, state.ratio}) if ratio <= top * 1.001}


def _ridge_points(state: TheoryState) -> dict[float, TheoryState]:
    """The same at every λ of the slider, from the largest down: little has opened there, and each starts the next."""
    if why_no_ridge(state.loss) or not state.solvable_at_a_ridge:
        return {}
    low, high = ridge_steps(state)
    grid = {ridge_at(step) for step in range(low, high + 1)}
    return {ridge: state.at(ridge) for ridge in sorted({*grid, *([state.ridge] if state.ridge else [])}, reverse=True)}


def _alternately(one: list[TheoryState], two: list[TheoryState]) -> list[TheoryState]:
    both = [part for pair in zip(one, two, strict=False) for part in pair]
    return both + one[len(two):] + two[len(one):]
