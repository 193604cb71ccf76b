"""Whether deep networks turn to the predicted geometry: over epochs, under the theory's penalties and under plain SGD.

The question of thrampoulidis2022, whose networks had weight decay on everything, on what fits two cores: digits and
MNIST images with small networks, and ResNet-18 and VGG-13 where an accelerator is at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed
import numpy as np
import torch

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.presets import PRESETS
from neuralcollapse.experiments.run import Run
from neuralcollapse.experiments.studies.convergence_figure import save_convergence
from neuralcollapse.experiments.studies.convergence_reading import READ_FROM, Convergence, read
from neuralcollapse.experiments.studies.study import STUDIES, Setting, markdown, trained, write_rows
from neuralcollapse.experiments.workers import in_worker

RUNS = "runs"
"""The folder of run folders: what is finished there is not trained again, what is not is resumed."""
RATIOS, QUICK_RATIOS = (1.0, 5.0, 10.0, 100.0), (1.0, 10.0, 100.0)
SEEDS, QUICK_SEEDS = tuple(range(3)), (0,)
PRESET, PLAIN = "terminal-phase", "plain SGD"

# Data and network: what both ways of training share, then what each has of its own.
_PLAIN: dict[str, Any] = {
    # The paper's, but for the number of images.
    "optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "batch_size": 128, "weight_decay": 5e-4,
    "schedule": "step", "milestones": [116, 232], "decay": 0.1, "epochs": 350, "threads": 1}
_IMAGES: dict[str, Any] = {"dataset": "mnist5k", "n_max": 400, "device": "auto"}
NETWORKS: dict[str, dict[str, Any]] = {
    "digits, mlp": {"dataset": "digits", "model": "mlp", "model_options": {"width": 256, "depth": 2, "features": 128}},
    "mnist5k, cnn": {**_IMAGES, "model": "cnn", "model_options": {"width": 8, "features": 64}}}
# In bfloat16, as such networks are trained: with deterministic float32 convolutions an H100 took 0.1 s a step.
_LARGE: dict[str, Any] = {**_IMAGES, "precision": "bf16", "model_options": {"width": 64}}
ACCELERATED: dict[str, dict[str, Any]] = {
    "mnist5k, resnet18": {**_LARGE, "model": "resnet18"}, "mnist5k, vgg13": {**_LARGE, "model": "vgg13"}}

# At 0.1 the small CNN, whose last layer has no batch norm, is at chance from the first epochs on.
_PLAIN_OWN: dict[str, dict[str, Any]] = {"cnn": {"learning_rate": 0.05}}

# What the preset, made for a multilayer perceptron on the digits, has to leave to networks with batch norm on images.
# In full batches they take too few steps (D_W 0.60 after 600 epochs of 550 images); in batches of 128 at its own
# ridge the CNN was at 0.15/0.23/0.17 (R = 10) after 150 epochs of 2,200. A ridge three times larger is reached faster.
_BATCHED: dict[str, Any] = {"batch_size": 64, "epochs": 200, "learning_rate": 2e-3, "feature_penalty": 1.3e-4}
_PRESET_OWN: dict[str, dict[str, Any]] = dict.fromkeys(("cnn", "resnet18", "vgg13"), _BATCHED)


@STUDIES.register("deepnet-convergence", source="thrampoulidis2022",
                  title="Whether deep networks turn to the predicted geometry")
def deepnet_convergence(setting: Setting) -> str:
    """D_W, D_M, D_Z, NC1, norms and angles of deep networks over epochs, to SELI, the ETF and the geometry at λ_eff.

    Digits and MNIST images, STEP with half the classes minorities, under the preset `terminal-phase` and under the
    paper's SGD with weight decay everywhere; run folders lie in `runs/`.
    """
    if setting.steps is not None:
        raise InvalidInput("study deepnet-convergence trains for epochs, not steps: leave steps out, "
                           f"got {setting.steps}")
    ratios = setting.pick("ratios", RATIOS, QUICK_RATIOS)
    seeds = setting.pick_seeds(SEEDS, QUICK_SEEDS)
    networks = NETWORKS | (ACCELERATED if torch.cuda.is_available() and not setting.quick else {})
    # Seed by seed: a study that is stopped early has whole seeds.
    cells = [(network, recipe, ratio, seed) for seed in seeds for network in networks
             for recipe in (PRESET, PLAIN) for ratio in ratios]
    configs = [config_of(networks[cell[0]], *cell[1:], quick=setting.quick) for cell in cells]
    folders = [setting.out / RUNS / _folder(*cell) for cell in cells]
    _train(configs, folders, setting)
    found = []
    for (network, recipe, ratio, seed), folder in zip(cells, folders, strict=True):
        setting.progress(f"reading {folder.name}")
        found.append(({"network": network, "recipe": recipe, "ratio": ratio, "seed": seed}, read(Run.open(folder))))
    write_rows(setting.out / "epochs.parquet", [cell | row for cell, one in found for row in one.rows()])
    write_rows(setting.out / "runs.parquet", [cell | summary(one) for cell, one in found])
    save_convergence(found, setting.out)
    return "\n\n".join(_tables(found, seeds)) + "\n"


def config_of(network: dict[str, Any], recipe: str, ratio: float, seed: int, *, quick: bool = False) -> TrainConfig:
    """The settings of one run.

    Parameters
    ----------
    network : dict
        Data and model, as in NETWORKS; what it sets goes before the recipe.
    recipe : str
        "terminal-phase" (the preset) or "plain SGD".
    ratio : float
        R.
    seed : int
    quick : bool
        Half the images.
    """
    own = network | {"imbalance": "step", "ratio": ratio, "minority": 0.5, "seed": seed}
    if quick and "n_max" in own:
        own["n_max"] //= 2
    if recipe == PRESET:
        return PRESETS[PRESET].function().replace(**{**_PRESET_OWN.get(own["model"], {}), **own})
    return TrainConfig(**{**_PLAIN, **_PLAIN_OWN.get(own["model"], {}), **own})


def _folder(network: str, recipe: str, ratio: float, seed: int) -> str:
    return f"{network.replace(', ', '-')}-{recipe.replace(' ', '-')}-R{ratio:g}-seed{seed}"


def _train(configs: Sequence[TrainConfig], folders: Sequence[Path], setting: Setting) -> None:
    done = Parallel(n_jobs=setting.jobs, return_as="generator")(
        delayed(in_worker)(trained, config, folder) for config, folder in zip(configs, folders, strict=True))
    for number, (folder, epochs) in enumerate(zip(folders, done, strict=True), start=1):
        setting.progress(f"{number} of {len(folders)}: {folder.name}: {epochs} epochs")


def summary(one: Convergence) -> dict[str, Any]:
    """The last epoch of a run in one row, with its λ, and whether the claims hold; None where there is nothing to say.

    Parameters
    ----------
    one : Convergence
    """
    fitted = one.fitted
    distances = {f"{name}/{part}": float(value) for name, each in one.distances.items()
                 for part, value in zip(("classifiers", "embeddings", "logits"), each[:, -1], strict=True)}
    balance = {f"balance/{part}": float(value) for part, value in
               zip(("classifiers", "embeddings", "logits"), one.at_balance, strict=True)}
    return {"samples": int(one.run.counts.n), "epochs": one.epochs[-1], "training_accuracy": one.accuracy,
            "nc1_first": float(one.nc1[0]), "nc1_last": float(one.nc1[-1]), **distances, **balance,
            "lambda_eff": None if fitted is None else fitted.ridge,
            "lambda_eff_low": None if fitted is None else fitted.interval[0],
            "lambda_eff_high": None if fitted is None else fitted.interval[1],
            "lambda_balance": one.balance, "lambda_given": one.given,
            **{f"claim/{name}": holds for name, holds in one.claims.items()}}


def _tables(found: Sequence[tuple[dict[str, Any], Convergence]], seeds: Sequence[int]) -> Iterator[str]:
    yield (f"{len(found)} runs, seeds {', '.join(map(str, seeds))}. A claim is read on runs with a balanced training "
           f"accuracy of at least {READ_FROM:.0%}; at R = 1 all predictions are the simplex.")
    yield _counted(found)
    claims = [[*_named(cell), f"{one.accuracy:.3f}", f"{one.nc1[0]:.2g} → {one.nc1[-1]:.2g}", _said(one, "collapse"),
               *(_triple(one.distances[name][:, -1]) for name in ("seli", "etf", "ridge")), _said(one, "seli"),
               _said(one, "ridge")] for cell, one in found]
    yield ("After the last epoch: D_W / D_M / D_Z to each prediction.\n\n" + markdown(
        ["run", "R", "seed", "training accuracy", "NC1 from the first epoch on", "fell ≥ 10×", "to SELI", "to the ETF",
         "at λ_eff", "D_W nearer SELI than ETF", "λ_eff nearer than both"], claims))
    ridges = [[*_named(cell), "–" if one.given is None else f"{one.given:.3g}", f"{one.balance:.3g}",
               "–" if one.fitted is None else f"{one.fitted.ridge:.3g} ({one.fitted.interval[0]:.2g} – "
               f"{one.fitted.interval[1]:.2g})", _triple(one.distances["ridge"][:, -1]), _triple(one.at_balance)]
              for cell, one in found]
    yield ("λ, the loss summed over samples: given by the penalties; λ_W‖W‖/‖H‖, which a stationary point of the model "
           "equates to it; and λ_eff, fitted to D_W and D_M (in brackets: where they fit within 5 % as well).\n\n"
           + markdown(["run", "R", "seed", "λ given", "λ of the balance", "λ_eff", "D at λ_eff", "D at the balance"],
                      ridges))


def _counted(found: Sequence[tuple[dict[str, Any], Convergence]]) -> str:
    kinds = dict.fromkeys((cell["network"], cell["recipe"]) for cell, _ in found)
    rows = []
    for kind in kinds:
        claims = [one.claims for cell, one in found if (cell["network"], cell["recipe"]) == kind]
        counted = [[each[name] for each in claims if each[name] is not None] for name in ("collapse", "seli", "ridge")]
        rows.append([*kind, *(f"{held.count(True)} of {len(held)}" for held in counted)])
    return "Runs of which each claim holds, of those it is read on.\n\n" + markdown(
        ["network", "training", "NC1 fell ≥ 10×", "D_W nearer SELI than ETF", "λ_eff nearer than both"], rows)


def _named(cell: dict[str, Any]) -> list[str]:
    return [f"{cell['network']}, {cell['recipe']}", f"{cell['ratio']:g}", str(cell["seed"])]


def _said(one: Convergence, claim: str) -> str:
    holds = one.claims[claim]
    if holds is None:
        return "not read" if one.accuracy < READ_FROM else "–"
    return "yes" if holds else "no"


def _triple(values: Any) -> str:
    return " / ".join("–" if np.isnan(value) else f"{value:.3f}" for value in values)
