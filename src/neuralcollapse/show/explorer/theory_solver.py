"""Predictions for the page: what is cheap at once, what is dear by one thread in the background, both remembered.

A certified solution for a long tail of 1,000 classes takes seconds; no control may wait for it. The thread solves what
was asked last: its points one after the other, each started from the nearest solution along λ.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from threading import Condition, Thread

from jaxtyping import Float
import numpy as np

from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import GEOMETRIES, Geometry, predict
from neuralcollapse.predict.symmetry import Point
from neuralcollapse.show.along import KINDS, PathSummary, summarise_one
from neuralcollapse.show.explorer.theory_state import TheoryState
from neuralcollapse.show.spectrum import spectrum

STEPS = 10  # positions of the λ slider per decade
_AT_ONCE = 12  # kinds of classes up to which a solution takes a few milliseconds
_POINTS = 3_000  # remembered
_FLOATS = 2e7  # of remembered geometries
_UNSOLVABLE = (ValueError, ArithmeticError, MemoryError, RuntimeWarning)


@dataclass(frozen=True, eq=False)
class Solved:
    """What the curves need of one geometry.

    Attributes
    ----------
    means : PathSummary
    to_limit, to_etf : dict of str to float
        Distances of "classifiers" and "embeddings"; NaN where the geometry is zero.
    rank : int
    """

    means: PathSummary
    to_limit: Mapping[str, float]
    to_etf: Mapping[str, float]
    rank: int


class Solver:
    """Answers for states, from memory or newly solved; one for all who look."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._wanted: list[TheoryState] = []
        self._solved: OrderedDict[TheoryState, Solved | str] = OrderedDict()
        self._geometries: OrderedDict[TheoryState, Geometry] = OrderedDict()
        self._thread: Thread | None = None

    def geometry(self, state: TheoryState, patience: float = 0.0) -> Geometry | str | None:
        """The geometry of a state; why there is none; or None while it is being solved.

        Parameters
        ----------
        state : TheoryState
        patience : float
            Seconds to wait for it.
        """
        state = state.problem
        known = self._known(state)
        if known is None and cheap(state):
            return self._solve(state)
        if known is None:
            self._want([state], keep=True)
            with self._changed:
                self._changed.wait_for(lambda: self._known(state) is not None, patience)
            known = self._known(state)
        return known

    def remembered(self, state: TheoryState) -> Geometry | None:
        """The geometry of a state, where it has been solved."""
        known = self._known(state.problem)
        return known if isinstance(known, Geometry) else None

    def along(self, states: Sequence[TheoryState]) -> dict[TheoryState, Solved | str]:
        """What is known of some states; the others are solved next, in this order."""
        states = [state.problem for state in states]
        with self._changed:
            known = {state: self._solved[state] for state in states if state in self._solved}
        missing = [state for state in states if state not in known]
        if missing:
            self._want(missing)
        return known

    # -- the thread ---------------------------------------------------------------------------------

    def _want(self, states: list[TheoryState], keep: bool = False) -> None:
        with self._changed:
            rest = [state for state in self._wanted if state not in states] if keep else []
            self._wanted = [*states, *rest]
            if self._thread is None or not self._thread.is_alive():
                self._thread = Thread(target=self._work, name="solver", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._wanted:
                    self._thread = None
                    return
                state = self._wanted.pop(0)
                if state in self._solved:  # asked for again while it was being solved
                    continue
            self._describe(state, self._known(state) or self._solve(state))

    def _solve(self, state: TheoryState) -> Geometry | str:
        found: Geometry | str
        try:
            # Without a start where it costs nothing: the very numbers that `predict` gives.
            geometry = state.geometry(None if cheap(state) else self._nearest(state))
            # The solver's own problem would be held otherwise, with matrices of g³ numbers.
            found = replace(geometry, find_thresholds=_constant(geometry))
        except _UNSOLVABLE as error:
            found = str(error)
        with self._changed:
            if isinstance(found, str):
                self._solved[state] = found
            else:
                self._geometries[state] = found
                self._forget()
            self._changed.notify_all()
        return found

    def _describe(self, state: TheoryState, geometry: Geometry | str) -> None:
        if isinstance(geometry, str):
            return
        limit = self.geometry(state.at(None))
        simplex = _simplex(state.class_counts())
        described: Solved | str
        try:
            described = Solved(summarise_one(geometry), _distances(geometry, limit), _distances(geometry, simplex),
                               spectrum(geometry).rank)
        except _UNSOLVABLE as error:
            described = str(error)
        with self._changed:
            self._solved[state] = described
            while len(self._solved) > _POINTS:
                self._solved.popitem(last=False)
            self._changed.notify_all()

    # -- memory -------------------------------------------------------------------------------------

    def _known(self, state: TheoryState) -> Geometry | str | None:
        with self._changed:
            if state in self._geometries:
                self._geometries.move_to_end(state)
                return self._geometries[state]
            failed = self._solved.get(state)
            return failed if isinstance(failed, str) else None

    def _forget(self) -> None:
        while len(self._geometries) > 1 and sum(map(_size, self._geometries.values())) > _FLOATS:
            self._geometries.popitem(last=False)

    def _nearest(self, state: TheoryState) -> Point | None:
        """The solution at the nearest λ of the same problem."""
        ridge = state.ridge
        if ridge is None:
            return None
        with self._changed:
            near = [(abs(np.log(other.ridge / ridge)), geometry.point) for other, geometry in self._geometries.items()
                    if other.ridge is not None and other.at(ridge) == state and isinstance(geometry.point, Point)]
        return min(near, key=lambda pair: pair[0])[1] if near else None


def cheap(state: TheoryState) -> bool:
    """Whether a state is solved in milliseconds: the limit, closed forms, few kinds of classes."""
    return state.ridge is None or closed_form(state) or state.groups <= _AT_ONCE


def closed_form(state: TheoryState) -> bool:
    """Whether the loss is no cross-entropy that has to be solved at a finite λ."""
    options = GEOMETRIES[state.loss].options
    return state.loss == "etf" or bool(options.get("frame"))


def ridge_steps(state: TheoryState) -> tuple[int, int]:
    """The first and the last step of the λ axis, ten to a decade: from 1e-4 to 1.25 of where all classes vanish.

    Where that is in closed form; else of the largest ω_c Δ_c √n_c, which is near.
    """
    counts = state.class_counts()
    given = state.arguments()
    factors = [np.asarray(given[name]) for name in ("weight", "delta") if name in given]
    top = float(np.max(np.prod([np.sqrt(counts.values), *factors], axis=0)))
    return int(np.floor(STEPS * np.log10(1e-4 * top))), int(np.ceil(STEPS * np.log10(1.25 * top)))


def ridge_at(step: int) -> float:
    """λ of a step: 0.1, 0.126, 0.158, … with three digits, as a person would type it."""
    return float(f"{10.0 ** (step / STEPS):.3g}")


def _constant(geometry: Geometry) -> _Thresholds:
    return _Thresholds(dict(geometry.find_thresholds(False)))


@dataclass(frozen=True)
class _Thresholds:
    known: dict[str, float | None]

    def __call__(self, bisect: bool) -> dict[str, float | None]:
        return dict(self.known)


@lru_cache(maxsize=4)
def _simplex(counts: ClassCounts) -> Geometry:
    return predict(counts, "etf")


def _distances(geometry: Geometry, to: Geometry | str | None) -> dict[str, float]:
    if not isinstance(to, Geometry):
        return dict.fromkeys(KINDS, float("nan"))
    return {kind: float(getattr(geometry, kind).distance_to(getattr(to, kind))) for kind in KINDS}


def _size(geometry: Geometry) -> float:
    """About how many numbers a geometry holds."""
    core: Float[np.ndarray, "r r"] = geometry.classifiers.core
    return 2.0 * geometry.k + 6.0 * core.size
