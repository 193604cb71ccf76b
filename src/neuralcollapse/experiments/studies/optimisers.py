"""Which margin optimisers really maximise: gradient, spectral and sign descent, Muon and Adam, on free W and H and on
small networks.

Every number is a share: a margin (`simulate/margins.py`) over the largest possible one at these counts, from
`predict(counts, norm=…)`. Gradient descent is expected at 1 in the nuclear norm, spectral descent and Muon in the
spectral norm, sign descent and Adam in the max norm (fan2025, proved for linear models; `theory.md` §5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.studies.optimisers_figure import save_optimisers
from neuralcollapse.experiments.studies.optimisers_networks import (
    NETWORK_RATIOS,
    NETWORK_STEPS,
    largest_margin,
    network_rows,
)
from neuralcollapse.experiments.studies.study import STUDIES, Setting, markdown, named_seeds, reporter, write_rows
from neuralcollapse.predict import NORMS
from neuralcollapse.simulate import Simulation, simulate
from neuralcollapse.simulate.margins import NAMES
from neuralcollapse.simulate.rates import mean_interval

K, D = 10, 18  # 18 is the least d at which ±1 entries attain the largest max-margin of ten classes
WIDTHS = (D, 36, 72, 144)
RATIOS, QUICK_RATIOS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0), (1.0, 10.0, 100.0)
SEEDS, QUICK_SEEDS = tuple(range(5)), (0, 1)
STEPS, QUICK_STEPS = 30_000, 2_000
_N_MIN = 5
_SNAPSHOTS = 60

# η_t = c/√t, of three or four values of c a factor of three apart the one with the largest margin in the method's own
# norm on one seed at R = 100; plain gradient descent at its default.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "gd": ("gd", {}),
    "ngd + momentum": ("ngd", {"momentum": 0.9, "step": 3.0, "schedule": "sqrt"}),
    "spectral": ("spectral", {"momentum": 0.0, "step": 3.0, "schedule": "sqrt"}),
    "muon": ("muon", {"step": 0.3, "schedule": "sqrt"}),
    "sign": ("sign", {"momentum": 0.0, "step": 0.1, "schedule": "sqrt"}),
    "adam, β₂ = 0.9": ("adam", {"momentum": 0.5, "beta2": 0.9, "epsilon": 0.0, "step": 0.03, "schedule": "sqrt"}),
    "adam": ("adam", {"epsilon": 0.0, "step": 0.03, "schedule": "sqrt"}),
}


@dataclass(frozen=True)
class Share:
    """Mean over seeds, and half of a 95 % t interval of it (NaN for one seed)."""

    mean: float
    half: float

    @classmethod
    def of(cls, values: np.ndarray) -> Share:
        """Over the seeds that did not diverge."""
        good = values[np.isfinite(values)]
        if not good.size:
            return cls(np.nan, np.nan)
        low, high = mean_interval(good)
        return cls(float(good.mean()), (high - low) / 2)

    def __str__(self) -> str:
        if np.isnan(self.mean):
            return "–"
        return f"{self.mean:.3f}" + ("" if np.isnan(self.half) else f" ± {self.half:.3f}")


def profiles(ratios: tuple[float, ...]) -> list[tuple[str, float, ClassCounts]]:
    """STEP counts, where half the classes have n_max, and a long tail, where one has."""
    return ([("STEP", ratio, ClassCounts.step(K, ratio, n_min=_N_MIN)) for ratio in ratios]
            + [("long tail", ratio, ClassCounts.long_tail(K, ratio, n_max=_N_MIN * ratio)) for ratio in ratios
               if ratio > 1])


@STUDIES.register("optimisers", source="fan2025", title="Which margin optimisers maximise")
def optimisers(setting: Setting) -> str:
    """Shares of the best nuclear, spectral and max margin by optimiser, over R and seeds; free features and networks.

    k = 10 classes, n_min = 5, d = 18, within-class-symmetric starts; then multilayer perceptrons on the digits.
    """
    ratios = setting.pick("ratios", RATIOS, QUICK_RATIOS)
    seeds = setting.pick_seeds(SEEDS, QUICK_SEEDS)
    steps = setting.pick("steps", STEPS, QUICK_STEPS)
    runs = _simulate(ratios, seeds, steps, setting)
    free = list(_rows(runs, ratios))
    write_rows(setting.out / "margins.parquet", free)
    wide = list(_width_rows(seeds, steps, setting))
    write_rows(setting.out / "widths.parquet", wide)
    levels = tuple(r for r in ratios if r <= max(NETWORK_RATIOS)) or NETWORK_RATIOS[-1:]
    levels = levels if setting.ratios else NETWORK_RATIOS
    network_steps = min(steps, setting.own(NETWORK_STEPS, NETWORK_STEPS // 10))
    nets = list(network_rows(levels, seeds, network_steps, setting.progress))
    write_rows(setting.out / "networks.parquet", nets)
    save_optimisers(runs, shares, [(name, ratio) for name, ratio, _ in profiles(ratios)], setting.out)
    heading = (f"k = {K}, n_min = {_N_MIN}, d = {D}, float64; {named_seeds(seeds)}, {steps:,} "
               "gradients per run. Shares of the largest margin: mean over seeds ± half a 95 % t interval.")
    return "\n\n".join([heading, *_tables(free), _width_table(wide), *_network_tables(nets, network_steps)]) + "\n"


def shares(of: Simulation, norm: str) -> np.ndarray:
    """(cells, s): the margin in this norm over the largest at each cell's counts."""
    best = np.array([largest_margin(counts, norm) for counts in of.profiles])
    return np.asarray(of[NAMES[norm]] / best[[cell["profile"] for cell in of.cells], None])


def _simulate(ratios: tuple[float, ...], seeds: tuple[int, ...], steps: int, setting: Setting
              ) -> dict[str, Simulation]:
    runs = {}
    for label, (method, options) in METHODS.items():
        runs[label] = simulate([counts for _, _, counts in profiles(ratios)], method, steps=steps, seeds=list(seeds),
                               d=D, symmetric=True, snapshots=_SNAPSHOTS, progress=reporter(label, setting.progress),
                               **options)
        runs[label].save(setting.out / f"{_file_name(label)}.npz")
    return runs


def _file_name(label: str) -> str:
    return label.replace(" + ", "-with-").replace(", β₂ = ", "-beta2-")


def _rows(runs: dict[str, Simulation], ratios: tuple[float, ...]) -> Iterator[dict[str, Any]]:
    """One row per run: shares at the end and at a tenth of the steps, norms and distances at the end."""
    named = profiles(ratios)
    for label, of in runs.items():
        share = {norm: shares(of, norm) for norm in NORMS.names}
        early = int(np.searchsorted(of.steps, of.steps[-1] / 10))
        for cell, at in enumerate(of.cells):
            name, ratio, _ = named[at["profile"]]
            row = {"method": label, "profile": name, "ratio": ratio, "seed": at["seed"]}
            row |= {norm: share[norm][cell, -1] for norm in share}
            row |= {f"{norm} at a tenth": share[norm][cell, early] for norm in share}
            row |= {key: of[key][cell, -1] for key in ("norm_ratio/classifiers", "seli/classifiers", "etf/classifiers",
                                                       "log_loss")}
            yield row


def _width_rows(seeds: tuple[int, ...], steps: int, setting: Setting) -> Iterator[dict[str, Any]]:
    """Sign descent at R = 10 for wider models: its best margin needs many columns of signs to choose from."""
    method, options = METHODS["sign"]
    counts = ClassCounts.step(K, 10, n_min=_N_MIN)
    for width in WIDTHS:
        of = simulate(counts, method, steps=steps, seeds=list(seeds), d=width, symmetric=True, snapshots=1,
                      progress=reporter(f"sign, d = {width}", setting.progress), **options)
        found = {norm: shares(of, norm)[:, -1] for norm in NORMS.names}
        for cell, at in enumerate(of.cells):
            yield {"d": width, "seed": at["seed"]} | {norm: found[norm][cell] for norm in found}


def _tables(rows: list[dict[str, Any]]) -> Iterator[str]:
    places = list(dict.fromkeys((row["profile"], row["ratio"]) for row in rows))
    labels = list(dict.fromkeys(row["method"] for row in rows))

    def values(key: str, label: str, place: tuple[str, float]) -> np.ndarray:
        return np.array([row[key] for row in rows if (row["method"], row["profile"], row["ratio"]) == (label, *place)])

    headings = ["method", *(f"{name}, R = {ratio:g}" for name, ratio in places)]
    for norm in NORMS.names:
        yield (f"Share of the best {norm} margin at the end; in brackets after a tenth of the steps.\n\n"
               + markdown(headings, [[label, *(f"{Share.of(values(norm, label, place))} "
                                               f"({Share.of(values(f'{norm} at a tenth', label, place)).mean:.2f})"
                                               for place in places)] for label in labels]))
    for key, title in (("seli/classifiers", "D_W to SELI"), ("etf/classifiers", "D_W to the simplex"),
                       ("norm_ratio/classifiers", "Mean norm of majority classifiers over that of minorities")):
        yield (f"{title} at the end.\n\n"
               + markdown(headings, [[label, *(str(Share.of(values(key, label, place))) for place in places)]
                                     for label in labels]))


def _width_table(rows: list[dict[str, Any]]) -> str:
    cells = [[f"{width}", *(str(Share.of(np.array([row[norm] for row in rows if row["d"] == width])))
                            for norm in NORMS.names)] for width in dict.fromkeys(row["d"] for row in rows)]
    return ("Sign descent at R = 10, STEP, for wider models: shares at the end.\n\n"
            + markdown(["d", *NORMS.names], cells))


def _network_tables(rows: list[dict[str, Any]], steps: int) -> Iterator[str]:
    ratios = list(dict.fromkeys(row["ratio"] for row in rows))
    keys = {**{norm: f"share of the best {norm} margin" for norm in NORMS.names}, "seli/classifiers": "D_W to SELI",
            "etf/classifiers": "D_W to the simplex", "balanced_accuracy": "balanced test accuracy"}
    yield (f"Networks: multilayer perceptrons on the digits, STEP, {steps:,} full-batch steps; the head and the "
           "features at its input in place of W and H.")
    for ratio in ratios:
        at = [row for row in rows if row["ratio"] == ratio]
        cells = [[label, *(str(Share.of(np.array([row[key] for row in at if row["method"] == label])))
                           for key in keys)] for label in dict.fromkeys(row["method"] for row in at)]
        yield f"R = {ratio:g}\n\n" + markdown(["optimiser", *keys.values()], cells)
