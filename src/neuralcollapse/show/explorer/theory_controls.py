"""The controls of the page of predictions, and what they say and hide for a state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dash import dcc, html

from neuralcollapse.predict import GEOMETRIES
from neuralcollapse.show.explorer.class_rules import plain_text
from neuralcollapse.show.explorer.frame import attribute, called
from neuralcollapse.show.explorer.theory_reading import takes, why_no_ridge
from neuralcollapse.show.explorer.theory_solver import STEPS, ridge_at, ridge_steps
from neuralcollapse.show.explorer.theory_state import CHOICES, DRAWN, PROFILES, VECTORS, TheoryState
from neuralcollapse.show.wording import plain, raised

PARAMETERS = (*VECTORS, *CHOICES)
FIELDS = ("k", "ratio", "minority", "n_min", "n_max", "counts")
VALUES = ("profile", *FIELDS, "loss", *PARAMETERS, "ridge", "drawn")
"""Controls by the name of what they set; each is the component of that name with "theory-" before it."""

_PROFILE_FIELDS = {"step": ("k", "ratio", "minority", "n_min"), "long-tail": ("k", "ratio", "n_max"),
                   "counts": ("counts",)}
_LABELS = {
    "k": ("Classes k", ""), "ratio": ("Imbalance ratio R", "largest count over smallest"),
    "minority": ("Minority share ρ", "of the classes"), "n_min": ("Samples per minority class", ""),
    "n_max": ("Samples of the largest class", ""), "counts": ("Samples per class", "separated by commas"),
    "weight": ("Class weights ω", ""), "delta": ("Temperatures δ", ""), "iota": ("Offsets ι", ""),
    "temperature": ("δ per", "")}
_CHOICE_LABELS = {"class": "class (CDT)", "label": "label (LDT)"}
_HINT = "One number per class, or: one for all · majority, minority · n^0.5 for (n/n_max)^0.5 · log n for ln(n_c/n)"
# What a box takes at all. Longer texts than `read` accepts still fit, so that its message can say so.
_LONGEST_NUMBER, _LONGEST_TEXT = 30, 20_000


def controls(state: TheoryState, messages: Sequence[str]) -> Any:
    """All controls, set to a state."""
    return html.Form([
        html.Div(message_list(messages), id="theory-messages", className="messages", role="status",
                 **attribute("aria-live", "polite")),
        html.Fieldset([html.Legend("Class counts"),
                       _radio("profile", PROFILES, state.profile, "Profile"),
                       *(_field(name, state) for name in FIELDS)]),
        html.Fieldset([html.Legend("Loss"), _loss(state),
                       html.P(about_loss(state), id="theory-about-loss", className="hint"),
                       *(_parameter(name, state) for name in VECTORS), *(_choice(name, state) for name in CHOICES),
                       html.P(_HINT, className="hint", id="theory-hint", hidden=no_parameters(state))]),
        html.Fieldset([html.Legend("Weight decay λ"), _slider(state), _ridge(state),
                       html.P("λ = √(λ_W λ_H), with the loss summed over samples. A mean loss with weight decay w on "
                              "both: λ = n·w.", className="hint")]),
    ], className="controls", **called("What is predicted"))


def message_list(messages: Sequence[str]) -> Any:
    """What could not be used."""
    return html.Ul([html.Li(f"{_sentence(text)}.".replace("..", ".")) for text in messages]) if messages else None


def _sentence(text: str) -> str:
    """With a capital at its start, unless that is a symbol: k, ρ, n_min."""
    return text[:1].upper() + text[1:] if text[1:2].isalpha() else text


def hidden(state: TheoryState) -> list[bool]:
    """Which of FIELDS and PARAMETERS are not shown."""
    shown = {*_PROFILE_FIELDS[state.profile], *takes(state.loss)}
    return [name not in shown for name in (*FIELDS, *PARAMETERS)]


def no_parameters(state: TheoryState) -> bool:
    """Whether the loss has none."""
    return not takes(state.loss)


def about_loss(state: TheoryState) -> str:
    """One line about the loss."""
    return GEOMETRIES[state.loss].summary


def slider_range(state: TheoryState) -> tuple[int, int, dict[int, str]]:
    """Ends of the slider, the lower one is the limit, and its labels: whole decades."""
    low, high = ridge_steps(state)
    decades = {step: _decade(step // STEPS) for step in range(low, high + 1) if step % STEPS == 0}
    first = low - STEPS // 2
    return first, high, {first: "λ → 0"} | decades


def slider_value(state: TheoryState) -> int:
    """Where the slider stands: on the nearest step."""
    first, last, _ = slider_range(state)
    if state.ridge is None:
        return first
    return next((step for step in range(first + STEPS // 2, last) if ridge_at(step) >= state.ridge * (1 - 1e-9)), last)


def ridge_of_slider(position: float, state: TheoryState) -> float | None:
    """The λ of a position of the slider; None at its left end and in the gap beside it."""
    return None if position < ridge_steps(state)[0] else ridge_at(round(position))


def _slider(state: TheoryState) -> Any:
    first, last, marks = slider_range(state)
    return html.Div([
        html.Label("Slider of λ, logarithmic; its left end is the limit λ → 0", className="unseen",
                   htmlFor="theory-slider"),
        dcc.Slider(id="theory-slider", min=first, max=last, step=1, value=slider_value(state), marks=marks,
                   updatemode="drag", included=False, allow_direct_input=False,
                   disabled=bool(why_no_ridge(state.loss)))], className="slide")


def _ridge(state: TheoryState) -> Any:
    return html.Div([html.Label("λ", htmlFor="theory-ridge"),
                     dcc.Input(id="theory-ridge", type="text", debounce=0.3, autoComplete="off",
                               value=_shown(state.ridge), placeholder="limit λ → 0", maxLength=_LONGEST_NUMBER)],
                    className="field")


def _field(name: str, state: TheoryState) -> Any:
    label, hint = _LABELS[name]
    value = getattr(state, name)
    box: Any
    if name == "counts":
        box = dcc.Textarea(id="theory-counts", value=value, rows=3, maxLength=_LONGEST_TEXT)
    else:
        box = dcc.Input(id=f"theory-{name}", value=plain_text(value), type="text", debounce=0.3, autoComplete="off",
                        maxLength=_LONGEST_NUMBER)
    return html.Div([html.Label([label, *([html.Small(f" {hint}")] if hint else [])], htmlFor=f"theory-{name}"), box],
                    id=f"theory-{name}-field", className=f"field {name}",
                    hidden=name not in _PROFILE_FIELDS[state.profile])


def _parameter(name: str, state: TheoryState) -> Any:
    label = _LABELS.get(name, (name, ""))[0]
    return html.Div([html.Label(label, htmlFor=f"theory-{name}"),
                     dcc.Input(id=f"theory-{name}", value=dict(state.parameters).get(name, ""), type="text",
                               debounce=0.3, autoComplete="off", placeholder="neutral", maxLength=_LONGEST_TEXT)],
                    id=f"theory-{name}-field", className="field wide", hidden=name not in takes(state.loss))


def _choice(name: str, state: TheoryState) -> Any:
    options = {value: _CHOICE_LABELS.get(value, value) for value in CHOICES[name]}
    return html.Div(_radio(name, options, dict(state.parameters).get(name, CHOICES[name][0]), _LABELS[name][0]),
                    id=f"theory-{name}-field", hidden=name not in takes(state.loss))


def _loss(state: TheoryState) -> Any:
    options = [{"label": f"{entry.name} – {entry.summary.split(':')[0]}", "value": entry.name} for entry in GEOMETRIES]
    return html.Div([html.Label("Loss", htmlFor="theory-loss", className="unseen"),
                     dcc.Dropdown(id="theory-loss", options=options, value=state.loss, clearable=False,
                                  searchable=False, maxHeight=440)])


def drawn_choice(state: TheoryState) -> Any:
    """Which classes are drawn in three dimensions."""
    return html.Div(_radio("drawn", DRAWN, state.drawn, "Draw"), id="theory-drawn-field",
                    hidden=state.class_counts().k <= 4)


def _radio(name: str, options: dict[str, str], value: str, label: str) -> Any:
    return html.Div([html.Span(label, className="radio-label", id=f"theory-{name}-label"),
                     dcc.RadioItems(id=f"theory-{name}", options=options, value=value, className="radio")],
                    role="radiogroup", className="radio-group", **attribute("aria-labelledby", f"theory-{name}-label"))


def _decade(power: int) -> str:
    return f"{10.0 ** power:g}" if -2 <= power <= 3 else f"10{raised(power)}"


def _shown(ridge: float | None) -> str:
    return "" if ridge is None else f"{ridge:.12g}"


def ridge_name(ridge: float | None) -> str:
    """Where along λ a state is."""
    return "in the limit λ → 0" if ridge is None else f"at λ = {ridge:.6g}"


def counts_name(state: TheoryState) -> str:
    """The class counts in a few words."""
    counts = state.class_counts()
    many = f"{counts.k:,} classes, n = {counts.n:,} samples"
    return f"{many}, {plain(counts.n_min)} to {plain(counts.n_max)} per class" if not counts.balanced else (
        f"{many}, {plain(counts.n_max)} per class")
