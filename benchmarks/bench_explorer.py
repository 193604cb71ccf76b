"""How fast the explorer's page of predictions answers: every control, as HTTP round trips, at k = 10, 100 and 1,000.

A control's time is that of all requests it leads to, one after the other: its own, and those of everything shown. Real
browsers send them side by side; drawing is not in it. `own` is the processor time of these requests, which a busy
machine and the solver's thread change less. Curves that are solved in the background count as answered with what there
is of them so far.
"""

from __future__ import annotations

import os
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from harness import machine
from neuralcollapse.show.explorer.serve import application

BOUNDS = {10: 200, 100: 200, 1000: 1000}
STARTS = {"STEP": "k={k}", "long tail": "profile=long-tail&k={k}", "STEP at λ": "k={k}&ridge=0.1",
          "long tail at λ": "profile=long-tail&k={k}&ridge=0.1"}
CHANGES = [("profile", "step"), ("profile", "long-tail"), ("k", "{more}"), ("ratio", "50"), ("minority", "0.25"),
           ("n_min", "6"), ("n_max", "600"), ("loss", "ldt"), ("delta", "n^0.3"), ("loss", "vs"), ("iota", "log n"),
           ("loss", "mse"), ("loss", "etf"), ("loss", "ce"), ("weight", "1, 2"), ("temperature", "label"),
           ("ridge", "0.2"), ("ridge", "2"), ("slider", 0), ("drawn", "all"), ("dark", True)]


class Page:
    """The browser's side of the page: it holds the values and sends a request for each callback that they concern."""

    def __init__(self, search: str):
        self.client = application([]).server.test_client()
        self.callbacks = [one for one in self.client.get("/_dash-dependencies").get_json()
                          if not one.get("clientside_function")]
        self.values: dict[tuple[str, str], Any] = {("url", "pathname"): "/", ("url", "search"): search}
        self.there = {"dark"}
        self._take(self._post(next(one for one in self.callbacks if "page.children" in one["output"]), "url.pathname"))
        self.values["dark", "data"] = False

    def change(self, identity: str, prop: str, value: Any) -> tuple[float, float]:
        """Set a value; milliseconds until all that depends on it has been answered, by the clock and of this thread."""
        self.values[identity, prop] = value
        begin, own = time.perf_counter(), time.thread_time()
        changed = {(identity, prop)}
        for _ in range(2):  # the controls write the state; what is shown reads it
            answered: set[tuple[str, str]] = set()
            for callback in self.callbacks:
                hit = next(((one["id"], one["property"]) for one in callback["inputs"]
                            if (one["id"], one["property"]) in changed), None)
                if hit and all(one["id"] in self.there for one in callback["inputs"]):
                    answered |= self._take(self._post(callback, ".".join(hit)))
            changed = {("theory-state", "data")} & answered
            if not changed:
                break
        return 1e3 * (time.perf_counter() - begin), 1e3 * (time.thread_time() - own)

    def _post(self, callback: dict[str, Any], changed: str) -> dict[str, Any]:
        def with_values(parts: list[dict[str, str]]) -> list[dict[str, Any]]:
            return [one | {"value": self.values.get((one["id"], one["property"]))} for one in parts]

        outputs = [dict(zip(("id", "property"), part.rsplit(".", 1), strict=True))
                   for part in callback["output"].strip(".").split("...")]
        answer = self.client.post("/_dash-update-component", json={
            "output": callback["output"], "outputs": outputs, "inputs": with_values(callback["inputs"]),
            "state": with_values(callback["state"]), "changedPropIds": [changed]})
        if answer.status_code == 204:
            return {}
        assert answer.status_code == 200, answer.get_data(as_text=True)[-2000:]
        response: dict[str, Any] = answer.get_json()["response"]
        return response

    def _take(self, response: dict[str, Any]) -> set[tuple[str, str]]:
        """Keep what was answered, and the values of all components in it."""
        taken = set()
        for identity, props in response.items():
            for prop, value in props.items():
                self.values[identity, prop] = value
                taken.add((identity, prop))
                self._look_into(value)
        return taken

    def _look_into(self, part: Any) -> None:
        if isinstance(part, list):
            for one in part:
                self._look_into(one)
        elif isinstance(part, dict) and "props" in part:
            self.there.add(part["props"].get("id", ""))
            for prop, value in part["props"].items():
                if "id" in part["props"] and prop != "children":
                    self.values[part["props"]["id"], prop] = value
                if prop == "children":
                    self._look_into(value)


def main() -> None:
    """Print the slowest answer of every control."""
    print(machine())
    for k, bound in BOUNDS.items():
        slowest: dict[str, tuple[float, float, str]] = {}
        for name, start in STARTS.items():
            page = Page("?" + start.format(k=k))
            page.change("dark", "data", False)
            for control, value in CHANGES:
                identity, prop = ("dark", "data") if control == "dark" else (f"theory-{control}", "value")
                given = str(2 * k) if value == "{more}" else value
                took = page.change(identity, prop, given)
                slowest[control] = max(slowest.get(control, (0.0, 0.0, "")), (*took, f"{name}, {value}"))
                if value == "{more}":
                    page.change(identity, prop, str(k))
        print(f"\nk = {k:,} (bound {bound:,} ms)")
        for control, (took, own, where) in sorted(slowest.items(), key=lambda pair: -pair[1][0]):
            verdict = "over" if took > bound else "within"
            print(f"  {control:>12} {took:7.0f} ms, own {own:5.0f} ms  {verdict}   ({where})")


if __name__ == "__main__":
    main()
