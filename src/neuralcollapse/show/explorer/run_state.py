"""What is open on the page of runs, as a URL's query: `?run=demo&epoch=128&with=other&with=third`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode

from neuralcollapse.checks import shown

_MOST = 300  # parameters of a URL that are read
_LARGEST = 10**9


@dataclass(frozen=True)
class RunsState:
    """What is open.

    Attributes
    ----------
    run : str or None
        The one looked at in detail; None for the first.
    epoch : int or None
        The epoch looked at; None for the last, also when there is a later one.
    others : tuple of str
        Those it is compared with.
    """

    run: str | None = None
    epoch: int | None = None
    others: tuple[str, ...] = ()

    def query(self) -> str:
        """What stands after the question mark of the URL.

        Examples
        --------
        >>> RunsState("a&b", 128, ("other",)).query()
        'run=a%26b&epoch=128&with=other'
        """
        pairs = [("run", self.run)] if self.run is not None else []
        pairs += [("epoch", str(self.epoch))] if self.epoch is not None else []
        pairs += [("with", name) for name in self.others]
        return urlencode(pairs, errors="replace")


def read_state(search: str, names: Collection[str]) -> tuple[RunsState, list[str]]:
    """What a URL asks for, as far as it is there, and what of it is not.

    Parameters
    ----------
    search : str
        The query, whatever is in it.
    names : collection of str
        The names of the runs.

    Examples
    --------
    >>> read_state("?run=demo&epoch=soon", ["demo"])
    (RunsState(run='demo', epoch=None, others=()), ["An epoch must be a whole number, got 'soon': the last is shown."])
    """
    try:
        asked = parse_qs(search.removeprefix("?"), max_num_fields=_MOST, errors="replace")
    except ValueError:
        return RunsState(), [f"The address has more than {_MOST} parts: all runs are shown as if it had none."]
    wanted = asked.get("run", [])[:1]
    others = [name for name in dict.fromkeys(asked.get("with", [])) if name not in wanted]
    said = [f"There is no run called '{shown(name)}' here." for name in (*wanted, *others) if name not in names]
    epochs = asked.get("epoch", [])[:1]
    known = [int(text) for text in epochs if text.isascii() and text.isdigit() and int(text[:10]) <= _LARGEST
             and len(text) <= 10]
    if epochs and not known:
        said.append(f"An epoch must be a whole number, got '{shown(epochs[0], 30)}': the last is shown.")
    return RunsState(next((name for name in wanted if name in names), None), next(iter(known), None),
                     tuple(name for name in others if name in names)), said
