"""From class counts to what each remedy leads to, and to the one to use: every choice rests on a predicted quantity.

Nothing here is searched on data. Numbers are those of the unconstrained-features model (`theory.md` §2–5), in the limit
of vanishing ridge or at the ridge that a weight decay gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import StringIO
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

from neuralcollapse.checks import InvalidInput, did_you_mean, shown
from neuralcollapse.console import laid_out
from neuralcollapse.counts import ClassCounts, plain_number
from neuralcollapse.predict import ridge_from_weight_decay
from neuralcollapse.steer.amounts import positive_or_none
from neuralcollapse.steer.displays import advice_at, advice_html, advice_line, advice_table
from neuralcollapse.steer.predicted_row import Row, predicted_row
from neuralcollapse.steer.remedies import REMEDIES, Remedy

_COLLAPSED = "Under cross-entropy the minority classifiers have merged at this ridge."
_ONE = 1 - 1e-9  # a mean cosine above it is that of one direction
_LEGEND = ("angle: mean degrees between two minority classifiers; margins: 1 when balanced; –: outside theory; blank: "
           "the remedy has none")
BALANCED_TAU = 1.0
"""τ of the offsets for balanced accuracy."""
_RIDGE_UP_TO = 300  # distinct counts that a ridge is solved for: seconds each there, and growing with their cube


class Choice(NamedTuple):
    """What a rule picks: a remedy, its parameters, and why, in sentences."""

    name: str
    parameters: dict[str, Any]
    why: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recommendation:
    """The remedy to use.

    Attributes
    ----------
    name : str
        In REMEDIES.
    parameters : dict
    line : str
        The code to paste where `counts` are the training counts.
    why : str
        Two sentences, from the numbers.
    row : Row
        What it leads to.
    """

    name: str
    parameters: dict[str, Any]
    line: str
    why: str
    row: Row


@dataclass(frozen=True)
class Advice:
    """Every remedy's predicted geometry for some class counts, and the one to use.

    Attributes
    ----------
    counts : ClassCounts
    goal : str
    ridge : float or None
        λ = √(λ_W λ_H) of the summed loss that the table is at; None is the vanishing limit.
    rows : tuple of Row
    recommended : Recommendation
    rule : str
        How it was chosen.

    Examples
    --------
    >>> advise([500, 500, 5, 5])
    Advice(4 classes, n = 1,010, ratio 100, 2 minority: VSLoss.logit_adjusted(counts, tau=1.0))
    """

    counts: ClassCounts
    goal: str
    ridge: float | None
    rows: tuple[Row, ...]
    recommended: Recommendation
    rule: str

    __repr__, _repr_html_ = advice_line, advice_html

    @property
    def table(self) -> list[dict[str, Any]]:
        """The rows as dictionaries."""
        return [row.to_dict() for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        """The advice as JSON-ready values, numbers finite or None."""
        chosen = self.recommended
        return {"counts": [plain_number(n) for n in self.counts.values], "goal": self.goal, "ridge": self.ridge,
                "table": self.table, "rule": self.rule,
                "recommended": {"name": chosen.name, "parameters": chosen.parameters, "line": chosen.line,
                                "why": chosen.why, "row": chosen.row.to_dict()}}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        counts, chosen = self.counts, self.recommended
        yield Text(f"{counts.k:,} classes, n = {counts.n:,}, ratio {counts.ratio:g}: predicted {advice_at(self)}",
                   style="bold")
        yield from laid_out(*advice_table(self), options.max_width)
        yield Text(_LEGEND, style="dim")
        yield Text(f"\nFor {self.goal}: {chosen.line}\n{chosen.why}\n{self.rule}")

    def __str__(self) -> str:
        page = StringIO()
        Console(file=page, width=120, color_system=None).print(self)
        return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


def advise(counts: Any, *, ridge: float | None = None, weight_decay: float | None = None,
           feature_penalty: float | None = None, n: float | None = None, goal: str = "balanced accuracy") -> Advice:
    """What each remedy leads to for these class counts, and which one to use.

    Parameters
    ----------
    counts : ClassCounts, sequence, tensor, text, or mapping of class names to counts
    ridge : float, optional
        λ = √(λ_W λ_H) with the loss SUMMED over samples; the limit λ → 0 when left out.
    weight_decay, feature_penalty, n : float, optional
        Instead: w and p beside a MEAN loss over n samples (p = w and n = Σ n_c when left out).
    goal : str
        "balanced accuracy", "symmetric geometry" or "calibrated".

    Returns
    -------
    Advice

    Raises
    ------
    InvalidInput
        Counts that are none, an unknown goal, a ridge given twice, or a ridge with more than 300 different counts.

    References
    ----------
    behnia2023; kini2021; menon2021; theory.md §3–5.

    Examples
    --------
    >>> advice = advise([500, 500, 5, 5], goal="symmetric geometry")
    >>> advice.recommended.line
    'VSLoss.ldt(counts, gamma=0.5)'
    >>> round(next(row for row in advice.rows if row.remedy == "ce").norm_ratio, 3)
    1.725
    """
    profile = ClassCounts.from_counts(counts)
    if not isinstance(goal, str) or goal not in GOALS:
        raise InvalidInput(f"unknown goal '{shown(goal)}': {did_you_mean(str(goal), GOALS)}")
    at = _ridge(profile, ridge, weight_decay, feature_penalty, n)
    rule, text = GOALS[goal]
    plain = predicted_row(Remedy("ce", profile, {}), at)
    if profile.balanced:
        chosen, text = Choice("ce", {}, ("All classes have the same number of samples.",
                                         "Their predicted geometry is symmetric already: nothing to correct.")), ""
    else:
        chosen = rule(profile, at, plain)
    named = [Remedy(entry.name, profile, chosen.parameters if entry.name == chosen.name else {}) for entry in REMEDIES]
    rows = tuple(plain if made.name == "ce" else predicted_row(made, at) for made in named)
    row = next(row for row in rows if row.remedy == chosen.name)
    why = [*chosen.why, *([_merging_warning(row, at)] if row.beyond and at is not None else [])]
    return Advice(profile, goal, at, rows,
                  Recommendation(chosen.name, row.parameters, row.line, " ".join(why), row), text)


# -- one rule per goal -------------------------------------------------------------------------------------------------


def balanced_rule(counts: ClassCounts, ridge: float | None, plain: Row) -> Choice:
    """Logit adjustment with τ = 1: what cross-entropy lets minorities lag behind, they are put ahead.

    A free head bias (or features with a constant part) absorbs the offsets: at every ridge the optimal logits are
    those of cross-entropy minus τ ln π. The bias is stationary, Σ_y n_y p(c|y) = n_c, so that at total collapse they
    are (1 − τ) ln π, equal for τ = 1 alone, and as λ → 0 the margin of a minority class against a majority class
    exceeds that of the latter against the former by

        (2τ − 1) ln(n_maj/n_min)

    (exact for STEP counts; within 0.2 in the other profiles tried). Where logits have neither a bias nor a constant
    part, cross-entropy leaves a gap of 0.1 to 0.2 only, and τ = 1 overshoots by about 1.7 ln R. Class temperatures
    beside the offsets lower the ridge at which minorities merge, Δ_c √n_c, and γ = 0.2 over-corrects beside τ = 1
    (docs/findings/steering.md).
    """
    log_ratio = float(np.log(counts.ratio))
    return Choice("logit-adjusted", {"tau": BALANCED_TAU}, (_lengths(plain), (
        f"With a head bias, or features with a constant part as networks have them, their margin against a majority "
        f"class is about ln R = {log_ratio:.2g} below its own against them, and as much above it with τ = "
        f"{BALANCED_TAU:g}; with neither the gap is small, and τ = {BALANCED_TAU:g} too much.")))


def symmetric_rule(counts: ClassCounts, ridge: float | None, plain: Row) -> Choice:
    """LDT with γ = ½: the simplex in the limit; with inverse weights beside it, the simplex at every ridge."""
    here = _lengths(plain)
    if ridge is None:
        return Choice("ldt", {"gamma": 0.5}, (here, "Label temperatures ∝ √n make all effective counts n_c/δ_c² equal: "
                                              "the classifiers are a simplex."))
    return Choice("weighted-ldt", {}, (here, "Label temperatures ∝ √n with weights ∝ 1/n turn the problem into that of "
                                       "balanced classes: the classifiers are a simplex at this ridge too."))


def calibrated_rule(counts: ClassCounts, ridge: float | None, plain: Row) -> Choice:
    """Logit adjustment with τ = 1: softmax(z + ln π) fits the training posterior, so softmax(z) the balanced one."""
    rarest = float(counts.values.min() / counts.values.sum())
    return Choice("logit-adjusted", {"tau": 1.0}, (
        f"The training prior of the rarest class is {rarest:.2g}, and cross-entropy builds it into every probability.",
        "With ln π added in the loss alone, softmax(z) is the posterior under equal priors; for other priors π' add "
        "ln π' to z."))


GOALS: dict[str, tuple[Callable[[ClassCounts, float | None, Row], Choice], str]] = {
    "balanced accuracy": (
        balanced_rule, "Rule: offsets τ ln π with τ = 1 and no temperatures. With a head bias all logits are then "
        "equal where a ridge collapses everything, and minorities are as far ahead as cross-entropy leaves them behind "
        "where it vanishes; τ = 1 is also consistent for the balanced error."),
    "symmetric geometry": (
        symmetric_rule, "Rule: the loss whose predicted classifiers are the simplex ETF: label temperatures with γ = ½ "
        "as the ridge vanishes, together with inverse weights at a ridge."),
    "calibrated": (
        calibrated_rule, "Rule: no weight and no temperature, which distort probabilities; offsets ln π are removed by "
        "leaving them out at test time. Plain cross-entropy with ln π subtracted from its logits at test time has the "
        "same optimum when the model can fit the posterior."),
}
"""Each goal's rule, and what it says."""


def _ridge(counts: ClassCounts, ridge: float | None, weight_decay: float | None, feature_penalty: float | None,
           n: float | None) -> float | None:
    ridge, weight_decay = positive_or_none("ridge", ridge), positive_or_none("weight_decay", weight_decay)
    feature_penalty, n = positive_or_none("feature_penalty", feature_penalty), positive_or_none("n", n)
    if weight_decay is None and (feature_penalty is not None or n is not None):
        raise InvalidInput("feature_penalty and n go with weight_decay: give it too, or ridge alone")
    if weight_decay is not None:
        if ridge is not None:
            raise InvalidInput(f"give ridge or weight_decay, not both, got {ridge:g} and {weight_decay:g}")
        ridge = ridge_from_weight_decay(weight_decay, feature_penalty, counts.n if n is None else n).ridge
    if ridge is not None and counts.groups.sizes.size > _RIDGE_UP_TO:
        raise InvalidInput(f"a ridge is solved for up to {_RIDGE_UP_TO} different counts, got "
                           f"{counts.groups.sizes.size}: leave it out for the limit, or round the counts")
    return ridge


def _lengths(plain: Row) -> str:
    if plain.norm_ratio is None or (plain.minority_cosine or 0.0) > _ONE:
        return _COLLAPSED
    apart = "" if plain.minority_angle is None else f", which are {plain.minority_angle:.0f}° apart"
    return f"Under cross-entropy majority classifiers are {plain.norm_ratio:.2g} times as long as minority ones{apart}."


def _merging_warning(row: Row, ridge: float) -> str:
    below = "" if row.merging_ridge is None else f" below {row.merging_ridge:.3g}"
    return f"At λ = {ridge:.3g} it still merges minority classes: lower the weight decay, λ{below}."
