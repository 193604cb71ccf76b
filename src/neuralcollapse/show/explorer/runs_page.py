"""The page of runs: what they measured, held against what is predicted, also while they train.

What is open: `runs-chosen` (the run in detail), `runs-others` (those compared with it), the slider (a place among its
measured epochs). Every two seconds the browser asks whether a file has changed; only then, and only what shows a run
that changed, is drawn again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate
import plotly.graph_objects as go

from neuralcollapse.checks import shown
from neuralcollapse.show.explorer.frame import called
from neuralcollapse.show.explorer.run_opened import OpenedRun, Unreadable, key_of
from neuralcollapse.show.explorer.run_parts import (
    comparison,
    epoch_marks,
    epoch_pictures,
    epoch_position,
    epoch_tables,
    nearest,
    run_curves,
    run_head,
    run_list,
)
from neuralcollapse.show.explorer.run_state import RunsState, read_state
from neuralcollapse.show.explorer.watch import RunShelf

_ASK = 2_000  # milliseconds between looks at the folders
_MOST_COMPARED = 24
_NONE = ("No run folders were given. Start the explorer with some, also of runs that still train:  "
         "neuralcollapse explore runs/demo runs/second")


def layout(search: str, shelf: RunShelf) -> Any:
    """The page for a URL's query."""
    if not shelf.given:
        return html.Section([html.H1("Runs"), html.P(_NONE)])
    names = list(shelf.folders)
    state, said = read_state(search, names)
    chosen = state.run or next((name for name in names if isinstance(shelf.open(name), OpenedRun)), None)
    stored = {"chosen": chosen, "others": list(state.others), "seen": "", "drawn": {"epoch": state.epoch},
              "compared": "", "query": None, "link": None, "position": None, "line": None}
    return html.Div([
        *(dcc.Store(id=f"runs-{name}", data=data) for name, data in stored.items()),
        dcc.Interval(id="runs-tick", interval=_ASK),
        html.Section([html.H1("Runs"), html.Div([html.P(text) for text in said], className="messages", role="status"),
                      html.Div(id="runs-list")], className="list"),
        html.Section(id="run-head", **called("The run in detail")),
        html.Div([html.Label(["Epoch ", html.Output(id="run-epoch-shown")], id="run-epoch-label"),
                  dcc.Slider(id="run-epoch", min=0, max=1, step=1, value=0, marks={}, updatemode="drag",
                             included=False, allow_direct_input=False)],
                 id="run-slider", hidden=True, className="slider epochs", role="group", **called("Epoch")),
        html.Section([html.Div(id="run-numbers"), html.Div(id="run-nearest", className="nearest"),
                      html.Div(id="run-pictures")],
                     **called("At this epoch")),
        html.Section(id="run-curves", **called("Over training")),
        html.Section(id="runs-comparison", **called("Comparison")),
    ], className="page-of-runs")


def register(app: Dash, shelf: RunShelf) -> None:
    """Add what the controls do."""
    # Libraries are loaded where they are first used, which is now and not when a control is.
    go.Figure({"data": [{"type": "scatter"}, {"type": "bar"}, {"type": "heatmap"}]}).to_json()
    for name in list(shelf.folders)[:1]:
        shelf.open(name)
    _register_list(app, shelf)
    _register_run(app, shelf)
    _register_epoch(app, shelf)

    @app.callback(Output("runs-comparison", "children"), Output("runs-compared", "data"),
                  Input("runs-chosen", "data"), Input("runs-others", "data"), Input("runs-seen", "data"),
                  Input("dark", "data"), State("runs-compared", "data"))
    def _compare(chosen: str | None, others: list[str], seen: str, dark: bool | None, before: str) -> tuple[Any, Any]:
        names = [name for name in (chosen, *others) if name is not None][:_MOST_COMPARED]
        runs = [run for name in names if isinstance(run := shelf.open(name), OpenedRun)]
        now = f"{dark} " + " ".join(run.version for run in runs)
        if dark is None or now == before:
            raise PreventUpdate
        return _shown(comparison, runs, dark), now

    app.clientside_callback(ClientsideFunction("explorer", "address"), Output("runs-link", "data"),
                            Input("runs-query", "data"), prevent_initial_call=True)
    app.clientside_callback(ClientsideFunction("runs", "mark"), Output("runs-line", "data"),
                            Input("runs-position", "data"), Input("run-epoch-shown", "children"),
                            prevent_initial_call=True)


def _register_list(app: Dash, shelf: RunShelf) -> None:
    @app.callback(Output("runs-seen", "data"), Input("runs-tick", "n_intervals"), State("runs-seen", "data"))
    def _look_again(ticks: int | None, seen: str) -> Any:
        now = shelf.signature()
        return no_update if now == seen else now

    @app.callback(Output("runs-list", "children"), Input("runs-seen", "data"), Input("runs-chosen", "data"),
                  Input("runs-others", "data"))
    def _list(seen: str, chosen: str | None, others: list[str]) -> Any:
        return run_list([shelf.open(name) for name in shelf.folders], chosen, others)

    @app.callback(Output("runs-chosen", "data"), Input({"type": "runs-look", "run": ALL}, "n_clicks"),
                  Input("runs-seen", "data"), State("runs-chosen", "data"), prevent_initial_call=True)
    def _choose(clicks: list[int], seen: str, chosen: str | None) -> Any:
        if isinstance(ctx.triggered_id, dict) and ctx.triggered[0]["value"]:
            return next((name for name in shelf.folders if key_of(name) == ctx.triggered_id["run"]), no_update)
        if chosen is None:  # the first run that can be read
            return next((name for name in shelf.folders if isinstance(shelf.open(name), OpenedRun)), no_update)
        return no_update

    @app.callback(Output("runs-others", "data"), Input({"type": "runs-compare", "run": ALL}, "value"),
                  State("runs-chosen", "data"), State("runs-others", "data"), prevent_initial_call=True)
    def _choose_others(ticked: list[list[str]], chosen: str | None, before: list[str]) -> Any:
        names = [name for box in ticked for name in box if name != chosen]
        return no_update if names == before else names


def _register_run(app: Dash, shelf: RunShelf) -> None:
    @app.callback(Output("run-head", "children"), Output("run-curves", "children"), Output("run-slider", "hidden"),
                  Output("run-epoch", "max"), Output("run-epoch", "marks"), Output("run-epoch", "value"),
                  Output("runs-drawn", "data"),
                  Input("runs-chosen", "data"), Input("runs-seen", "data"), Input("dark", "data"),
                  State("run-epoch", "value"), State("runs-drawn", "data"))
    def _draw_run(chosen: str | None, seen: str, dark: bool | None, place: int, drawn: dict[str, Any]
                  ) -> tuple[Any, ...]:
        if chosen is None or dark is None:
            raise PreventUpdate
        run = shelf.open(chosen)
        if isinstance(run, Unreadable):
            return html.P(f"{chosen}: {run.problem}", className="problem"), [], True, 1, {}, 0, \
                {"run": chosen, "last": 0}
        epochs, last = run.epochs, max(len(run.epochs) - 1, 0)
        now = {"run": chosen, "version": run.version, "dark": dark, "last": last}
        if now == drawn:
            raise PreventUpdate
        if drawn.get("run") != chosen:
            place = run.place(drawn.get("epoch"))
        elif place >= drawn["last"]:  # it stood at the end and stays there
            place = last
        place = min(place, last)
        return (_shown(run_head, run), _shown(run_curves, run, place, dark), last == 0, max(last, 1),
                epoch_marks(epochs), place, now)


def _register_epoch(app: Dash, shelf: RunShelf) -> None:
    @app.callback(Output("run-numbers", "children"), Output("run-pictures", "children"),
                  Output("run-epoch-shown", "children"), Output("runs-position", "data"),
                  Input("run-epoch", "value"), Input("runs-drawn", "data"))
    def _draw_epoch(place: int, drawn: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
        run = shelf.open(drawn.get("run", ""))
        if isinstance(run, Unreadable) or not run.reading.measured:
            return [], [], "", None
        place = min(place, len(run.epochs) - 1)
        reading = run.reading.up_to(run.epochs[place])
        return (_shown(epoch_tables, reading), _shown(epoch_pictures, reading, bool(drawn.get("dark"))),
                f"{reading.last_epoch:,}", epoch_position(run, place))

    @app.callback(Output("runs-query", "data"), Input("run-epoch", "value"), Input("runs-drawn", "data"),
                  Input("runs-others", "data"))
    def _say_where(place: int, drawn: dict[str, Any], others: list[str]) -> Any:
        if "run" not in drawn:
            raise PreventUpdate
        run = shelf.open(drawn["run"])
        epochs = [] if isinstance(run, Unreadable) else run.epochs
        return RunsState(drawn["run"], epochs[place] if place < len(epochs) - 1 else None, tuple(others)).query()

    @app.callback(Output("run-nearest", "children"), Input("run-epoch-shown", "children"),
                  State("run-epoch", "value"), State("runs-drawn", "data"))
    def _find_nearest(told: str, place: int, drawn: dict[str, Any]) -> Any:
        run = shelf.open(drawn.get("run", ""))
        if isinstance(run, Unreadable) or not told:
            return []
        return _shown(nearest, run, run.epochs[min(place, len(run.epochs) - 1)])


def _shown(draw: Callable[..., Any], *given: Any) -> Any:
    try:
        return draw(*given)
    except Exception as error:  # a folder may hold anything at all, and the rest of the page goes on
        return [html.P(f"This cannot be shown: {type(error).__name__}: {shown(error, 120)}", className="problem")]
