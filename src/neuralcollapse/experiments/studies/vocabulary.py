"""Does the head of a next-token model follow SELI in its token counts? A small model of Python's own reference.

The text ships with Python: the topics of `pydoc_data`, sorted. The objective is the theory's own (`theory.md` §1) with
λ_W = 1 and λ_H = 0.09, the loss SUMMED over tokens. Language is not separable, since a context has many continuations:
SELI, which assumes that every sample is fitted, is held up as a yardstick and not as a limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxtyping import Float
import numpy as np

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data import load_data
from neuralcollapse.experiments.frozen import freeze
from neuralcollapse.experiments.run import CONFIG, Run
from neuralcollapse.experiments.studies.study import STUDIES, Setting, markdown, named_seeds, spread, write_rows
from neuralcollapse.experiments.studies.vocabulary_figure import save_vocabulary
from neuralcollapse.experiments.train import EpochReport, train
from neuralcollapse.gram import Gram
from neuralcollapse.predict import predict

SEEDS = (0,)
HEAD, FEATURES = 1.0, 0.09  # λ_W and λ_H of the summed loss
_FULL: dict[str, Any] = {"most": 500, "epochs": 25, "width": 64}
_QUICK: dict[str, Any] = {"most": 60, "epochs": 2, "width": 16}
_BUCKETS = 4  # of equally many tokens, from rare to frequent
LENGTHS = {"classifiers": "‖w_c‖", "embeddings": "‖μ_c − μ_G‖"}
_PAIRS = ("rare_rare", "rare_frequent", "frequent_frequent")


@STUDIES.register("vocabulary", source=("thrampoulidis2022", "jiang2024", "vaswani2017"),
                  title="The head of a next-token model")
def vocabulary(setting: Setting) -> str:
    """Lengths and angles of classifiers and class means against token counts, measured and as SELI has them.

    A small causal transformer predicts the words of Python's language reference; each of the most frequent words is a
    class, and their counts are Zipf's. Slopes are least squares of ln length on ln count, every token one point.
    """
    for name in ("ratios", "steps"):
        if (given := getattr(setting, name)) is not None:
            raise InvalidInput(f"study vocabulary has the text's own counts and trains for epochs: leave {name} out, "
                               f"got {given}")
    text = write_text(setting.out)
    seeds, tokens, measured = setting.seeds or SEEDS, [], []
    for seed in seeds:
        run = _trained(network_config(text, seed, setting.quick), setting)
        rows, record = _read(run)
        tokens.extend(rows)
        measured.append(record)
    write_rows(setting.out / "tokens.parquet", tokens)
    write_rows(setting.out / "models.parquet", measured)
    save_vocabulary([row for row in tokens if row["seed"] == seeds[0]], measured[0], setting.out)
    return "\n\n".join([_heading(seeds, measured[0]), *_tables(tokens, measured)]) + "\n"


def write_text(folder: Path) -> Path:
    """`text.txt`: the language reference that ships with Python, its topics in the order of their names."""
    from pydoc_data.topics import topics

    path = folder / "text.txt"
    path.write_text("\n\n".join(topics[name] for name in sorted(topics)) + "\n", encoding="utf-8")
    return path


def network_config(text: Path, seed: int, quick: bool) -> TrainConfig:
    """Adam on the theory's own objective, λ_W = 1 and λ_H = 0.09 with the loss SUMMED; no other decay, no head bias.

    Parameters
    ----------
    text : Path
    seed : int
    quick : bool
    """
    own = _QUICK if quick else _FULL
    config = TrainConfig(dataset=f"text:{text}", data_options={"vocabulary": own["most"], "length": 32},
                         imbalance="natural", model="transformer", model_options={"width": own["width"], "depth": 1},
                         epochs=own["epochs"], measure=[own["epochs"]], batch_size=32, optimizer="adam",
                         learning_rate=3e-3, schedule="cosine", weight_decay=0.0, seed=seed, threads=1, device="cpu")
    n = load_data(config).counts.n
    return config.replace(head_weight_decay=HEAD / n, feature_penalty=FEATURES / n)


def slope(counts: Float[np.ndarray, " k"], lengths: Float[np.ndarray, " k"]) -> tuple[float, float]:
    """Least squares of ln length on ln count: the slope, and R², the share of the variance it explains.

    Parameters
    ----------
    counts, lengths : (k,) arrays, positive

    Examples
    --------
    >>> found = slope(np.array([1.0, 10.0, 100.0]), np.array([2.0, 2 * 10**0.25, 2 * 10**0.5]))
    >>> [round(value, 6) for value in found]
    [0.25, 1.0]
    """
    x, y = np.log(counts), np.log(lengths)
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / (x @ x)), float((x @ y) ** 2 / ((x @ x) * (y @ y)))


def nearest_of_rank(gram: Gram, rank: int) -> float:
    """The smallest distance of any factor with `rank` columns to a Gram matrix, both of unit Frobenius norm.

    Its largest eigenvalues are the best that can be kept: with share c of the norm in them it is √(2 − 2c).

    Parameters
    ----------
    gram : Gram
    rank : int
    """
    every = np.arange(gram.k)
    values = np.sort(np.linalg.eigvalsh(gram.block(every, every)))[::-1]
    return float(np.sqrt(max(2 - 2 * np.linalg.norm(values[:rank]) / np.linalg.norm(values), 0.0)))


def _trained(config: TrainConfig, setting: Setting) -> Run:
    def tell(at: EpochReport) -> None:
        setting.progress(f"seed {config.seed}: epoch {at.epoch} of {at.epochs}, loss {at.loss:.3f}")

    folder = setting.out / "runs" / f"seed-{config.seed}"
    return train(config, folder, resume=(folder / CONFIG).is_file(), on_epoch=tell)


def _read(run: Run) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row per token, and one of the model."""
    network, last, seed = freeze(run), run.history[-1], run.config["seed"]
    counts, features, labels = network.counts, network.train[0].double().numpy(), network.train[1].numpy()
    sums = np.zeros((counts.k, features.shape[1]))
    np.add.at(sums, labels, features)
    means = sums / counts.values[:, None]
    factors = {"classifiers": network.weight.double().numpy(), "embeddings": means - means.mean(0)}
    seli = predict(counts).centred("classes")
    bucket = _buckets(counts.values)
    record: dict[str, Any] = {"seed": seed, "classes": counts.k, "tokens": int(counts.n), "width": features.shape[1],
                              "epochs": last["epoch"], "nc1": last["measurement"]["nc1"]["pinv"],
                              "train": last["train"]["accuracy"], "test": last["test"]["accuracy"],
                              "most_frequent": float(counts.values.max() / counts.n)}
    columns: dict[str, Any] = {"token": list(counts.names), "count": counts.values.tolist(), "bucket": bucket.tolist(),
                               "recall": last["test"]["per_class_accuracy"]}
    for part, factor in factors.items():
        gram, lengths = getattr(seli, part), np.linalg.norm(factor, axis=1)
        scale = np.exp(np.log(lengths).mean() - np.log(gram.norms).mean())  # SELI fixes lengths up to one factor
        columns |= {part: lengths.tolist(), f"seli/{part}": (scale * gram.norms).tolist()}
        unit = factor / lengths[:, None]
        for source, cosines, norms in (("", unit @ unit.T, lengths), ("seli/", gram.cosines(), gram.norms)):
            record[f"{source}slope/{part}"], record[f"{source}r2/{part}"] = slope(counts.values, norms)
            record |= {f"{source}cosine/{part}/{pair}": value for pair, value in _cosines(cosines, bucket).items()}
        record |= {f"{target}/{part}": last["measurement"]["distances"][target][part] for target in ("seli", "etf")}
        record[f"nearest/{part}"] = nearest_of_rank(gram, factor.shape[1])
    rows = [{"seed": seed, **dict(zip(columns, row, strict=True))} for row in zip(*columns.values(), strict=True)]
    return rows, record


def _buckets(counts: Float[np.ndarray, " k"]) -> np.ndarray:
    """0 for the rarest quarter of tokens to 3 for the most frequent."""
    order = np.argsort(np.argsort(counts, kind="stable"), kind="stable")
    return order * _BUCKETS // counts.size


def _cosines(cosines: Float[np.ndarray, "k k"], bucket: np.ndarray) -> dict[str, float]:
    """Mean cosines over pairs of different tokens of the rarest and the most frequent quarter."""
    rare, frequent = np.flatnonzero(bucket == 0), np.flatnonzero(bucket == _BUCKETS - 1)
    found = {}
    for pair, (one, two) in zip(_PAIRS, ((rare, rare), (rare, frequent), (frequent, frequent)), strict=True):
        block = cosines[np.ix_(one, two)]
        found[pair] = float(block[~np.equal.outer(one, two)].mean())
    return found


def _heading(seeds: tuple[int, ...], at: dict[str, Any]) -> str:
    return (f"The {at['classes']} most frequent words and marks of the language reference, {at['tokens']:,} training "
            f"tokens; transformer of one block, width {at['width']}, {at['epochs']} epochs; {named_seeds(seeds)}: "
            f"median (smallest – largest). λ_W = {HEAD:g}, λ_H = {FEATURES:g}, the loss SUMMED.")


def _tables(tokens: list[dict[str, Any]], measured: list[dict[str, Any]]) -> Iterator[str]:
    def shown(key: str) -> str:
        return spread(np.array([np.nan if row[key] is None else row[key] for row in measured], dtype=float))

    rows = [[name, *(shown(f"{source}{value}/{part}") for value in ("slope", "r2") for source in ("", "seli/"))]
            for part, name in LENGTHS.items()]
    yield ("Slope of ln length on ln count by least squares over tokens, and its R².\n\n"
           + markdown(["", "slope, measured", "slope, SELI", "R², measured", "R², SELI"], rows))
    rows = [[part, source or "measured", *(shown(f"{key}cosine/{part}/{pair}") for pair in _PAIRS)]
            for part in LENGTHS for source, key in (("", ""), ("SELI", "seli/"))]
    yield ("Mean cosine over pairs of the rarest quarter of tokens, the rarest with the most frequent quarter, the "
           "most frequent.\n\n" + markdown(["", "", *(pair.replace("_", ", ") for pair in _PAIRS)], rows))
    rows = [[part, *(shown(f"{key}/{part}") for key in ("seli", "etf", "nearest"))] for part in LENGTHS]
    yield ("Distances of normalised Grams (0 to √2), and the smallest to SELI that so few columns allow.\n\n"
           + markdown(["", "to SELI", "to the simplex", "nearest to SELI at this width"], rows))
    rows = []
    for bucket in range(_BUCKETS):
        here = [row for row in tokens if row["bucket"] == bucket]
        counts = [row["count"] for row in here]
        recall = np.array([np.nan if row["recall"] is None else row["recall"] for row in here], dtype=float)
        rows.append([f"{min(counts):g} – {max(counts):g}", f"{np.nanmean(recall):.3f}"])
    yield (f"NC1 {shown('nc1')}; share of next tokens predicted: training {shown('train')}, test {shown('test')}; "
           f"always the most frequent: {shown('most_frequent')}. Mean recall of a token on the test part, by training "
           "count.\n\n" + markdown(["training count", "recall"], rows))
