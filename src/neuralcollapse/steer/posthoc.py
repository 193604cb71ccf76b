"""Remedies on a trained head and frozen features: new linear rules, no retraining of the network.

    remedy                rule                                                  source
    tau-normalised        w_c/‖w_c‖^τ, no bias                                  kang2020
    logit-adjustment      Δ_c z_c + ι_c − τ ln(n_c/n), Δ and ι the loss's own    menon2021
    nearest-class-mean    2μ_cᵀh − ‖μ_c‖², or cosine                            kang2020
    refit                 logistic regression, every class weighing alike       kang2020 (`refit.py`)
    predicted-norms, repair, swap      from the predicted geometry (`repair.py`)

`evaluate_posthoc` fits them on training features and scores them on others. A new remedy is one function here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save
import torch
from torch import Tensor

from neuralcollapse.checks import InvalidInput, OutsideTheory, finite_vector, positive_vector, shown
from neuralcollapse.files import replacing, writing
from neuralcollapse.steer.amounts import finite_number, flag
from neuralcollapse.steer.refit import refit
from neuralcollapse.steer.repair import predicted_norms, repair, swap
from neuralcollapse.steer.rules import POSTHOC, FittedRule, Trained
from neuralcollapse.steer.scores import Scores, scores

AS_TRAINED = "as-trained"
"""What the row of the untouched head is called."""


@POSTHOC.register("tau-normalised", source="kang2020", aliases=("tau-norm",))
def tau_normalised(features: Any, labels: Any, weight: Any, bias: Any = None, counts: Any = None, *,
                   tau: float = 1.0) -> FittedRule:
    """τ-normalisation: classifiers w_c/‖w_c‖^τ, the bias dropped as in the paper; a zero classifier stays zero.

    Parameters
    ----------
    features, labels
        Not read, except to count where no counts are given.
    weight : (k, d) array, tensor or layer
    bias : (k,) array or tensor, optional
        Dropped.
    counts : ClassCounts or (k,) sequence, optional
    tau : float
        0 keeps the norms, 1 makes them one.

    Returns
    -------
    FittedRule

    Raises
    ------
    InvalidInput
        Parts that do not fit together, or a τ that is no number.

    References
    ----------
    kang2020, §4.3.

    Examples
    --------
    >>> tau_normalised(None, None, [[3.0, 4.0], [0.0, 0.5]], counts=[9, 1]).weight.tolist()
    [[0.6, 0.8], [0.0, 1.0]]
    """
    trained = Trained.of("tau-normalised", features, labels, weight, bias, counts)
    tau = finite_number("tau", tau)
    norms = trained.weight.norm(dim=1, keepdim=True)
    scaled = torch.where(norms > 0, trained.weight / norms.where(norms > 0, 1.0) ** tau, 0.0)
    return trained.rule(scaled, torch.zeros_like(trained.bias), tau=tau)


@POSTHOC.register("logit-adjustment", source="menon2021")
def logit_adjustment(features: Any, labels: Any, weight: Any, bias: Any = None, counts: Any = None, *,
                     tau: float = 1.0, delta: Any = None, iota: Any = None, prior: Any = None) -> FittedRule:
    """Logit adjustment at inference: the posterior's logits less τ ln π, which at τ = 1 takes the prior π out of it.

        z'_c = Δ_c z_c + ι_c − τ ln π_c

    The posterior is that of the loss: softmax(z) under plain cross-entropy, softmax(Δ∘z + ι) where it has temperatures
    and offsets. Its prior is n_c/n, times ω_c under class weights, equal where classes were drawn equally often. A
    network trained with ι = ln π is adjusted already: its rule is then its own head.

    Parameters
    ----------
    features, labels
        Not read, except to count where no counts are given.
    weight : (k, d) array, tensor or layer
    bias : (k,) array or tensor, optional
    counts : ClassCounts or (k,) sequence, optional
    tau : float
    delta, iota : (k,) arrays, optional
        Class temperatures Δ > 0 and offsets ι of the loss; 1 and 0 when left out.
    prior : (k,) array, optional
        Positive, up to a common factor; the counts when left out.

    Returns
    -------
    FittedRule

    Raises
    ------
    InvalidInput
        Parts that do not fit together, or a τ that is no number.

    References
    ----------
    menon2021, §4.1.

    Examples
    --------
    >>> logit_adjustment(None, None, [[1.0], [0.0]], counts=[3, 1]).bias.exp().tolist()
    [1.33333..., 4.0]
    """
    trained = Trained.of("logit-adjustment", features, labels, weight, bias, counts)
    tau, k = finite_number("tau", tau), trained.counts.k
    slope = trained.per_class(np.ones(k) if delta is None else positive_vector("delta", delta, k))
    offset = trained.per_class(np.zeros(k) if iota is None else finite_vector("iota", iota, k))
    shares = trained.counts.values if prior is None else positive_vector("prior", prior, k)
    return trained.rule(trained.weight * slope[:, None],
                        trained.bias * slope + offset - tau * trained.per_class(np.log(shares / shares.sum())), tau=tau)


@POSTHOC.register("nearest-class-mean", source="kang2020", aliases=("ncm",))
def nearest_class_mean(features: Any, labels: Any, weight: Any = None, bias: Any = None, counts: Any = None, *,
                       cosine: bool = False) -> FittedRule:
    """The class whose mean is nearest: logits 2μ_cᵀh − ‖μ_c‖², that is −‖h − μ_c‖² up to ‖h‖²; or (μ_c/‖μ_c‖)ᵀh.

    Parameters
    ----------
    features : (n, d) array or tensor
    labels : (n,) array or tensor
    weight, bias
        Not read, except for the number of classes.
    counts : ClassCounts or (k,) sequence, optional
    cosine : bool
        Decide by the angle to the mean instead of the distance; a zero mean gets the logit 0.

    Returns
    -------
    FittedRule
        Its logits are distances, not log-odds: right for decisions, not for probabilities.

    Raises
    ------
    InvalidInput
        Parts that do not fit together, or a class without features.

    References
    ----------
    kang2020, §4.2.

    Examples
    --------
    >>> rule = nearest_class_mean([[0.0, 1.0], [0.0, 3.0], [4.0, 0.0]], [0, 0, 1])
    >>> rule.weight.tolist(), rule.bias.tolist()
    ([[0.0, 4.0], [8.0, 0.0]], [-4.0, -16.0])
    """
    trained = Trained.of("nearest-class-mean", features, labels, weight, bias, counts)
    means = trained.class_means
    if flag("cosine", cosine):
        return trained.rule(torch.nn.functional.normalize(means, dim=1, eps=1e-300), means.new_zeros(len(means)),
                            cosine=True)
    return trained.rule(2 * means, -means.square().sum(1), cosine=False)


POSTHOC.register("refit", source="kang2020", aliases=("crt",))(refit)
POSTHOC.register("predicted-norms", source=("kang2020", "thrampoulidis2022"))(predicted_norms)
POSTHOC.register("repair", source=("thrampoulidis2022", "karp1978"))(repair)
POSTHOC.register("swap", source=("thrampoulidis2022", "schonemann1966"))(swap)


@dataclass(frozen=True, eq=False)
class PosthocRow:
    """One remedy and what it is worth.

    Attributes
    ----------
    name : str
        The remedy's, or "as-trained".
    rule : FittedRule or None
        None where the remedy refused.
    scores : Scores or None
        On the test part.
    refused : str or None
        Why the remedy does not apply here.
    """

    name: str
    rule: FittedRule | None
    scores: Scores | None
    refused: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON-ready values."""
        parameters = {} if self.rule is None else self.rule.parameters
        values = {} if self.scores is None else self.scores.to_dict()
        return {"name": self.name, "parameters": parameters, **values, "refused": self.refused}


def evaluate_posthoc(train: tuple[Any, Any], test: tuple[Any, Any], weight: Any, bias: Any = None,
                     remedies: Iterable[str] | Mapping[str, Mapping[str, Any]] | None = None,
                     counts: Any = None) -> list[PosthocRow]:
    """Fit remedies on training features and score them on test features, the head as it is first.

    Parameters
    ----------
    train, test : pairs of (n, d) features and (n,) labels
    weight : (k, d) array, tensor or layer
        The trained head.
    bias : (k,) array or tensor, optional
    remedies : names, or mapping from names to options, optional
        All registered ones, as they stand, when left out.
    counts : ClassCounts or (k,) sequence, optional
        Samples that the network was trained on, where `train` is not all of them.

    Returns
    -------
    list of PosthocRow
        In the order asked. A remedy outside whose theory the data lie is a row that says so.

    Raises
    ------
    InvalidInput
        An unknown remedy or option, and whatever a remedy itself refuses.

    References
    ----------
    kang2020; menon2021.

    Examples
    --------
    >>> features, labels = [[0.0, 2.0], [0.2, 2.0], [1.0, 0.0]], [0, 0, 1]
    >>> rows = evaluate_posthoc((features, labels), (features, labels), [[0.0, 1.0], [0.0, 0.5]], remedies=["refit"])
    >>> [(row.name, round(row.scores.balanced, 2)) for row in rows]
    [('as-trained', 0.5), ('refit', 1.0)]
    """
    trained = Trained.of(AS_TRAINED, *train, weight, bias, counts)
    names = [entry.name for entry in POSTHOC] if remedies is None else remedies
    chosen = [(POSTHOC[name], remedies[name] if isinstance(remedies, Mapping) else {}) for name in names]
    for entry, options in chosen:
        unknown = [option for option in options if option not in entry.parameters and not _is_open(entry.parameters)]
        if unknown:
            takes = [name for name, parameter in entry.parameters.items() if parameter.kind is parameter.KEYWORD_ONLY]
            raise InvalidInput(f"remedy '{entry.name}' takes no {unknown[0]}: known: {', '.join(takes)}")

    def row(rule: FittedRule) -> PosthocRow:
        return PosthocRow(rule.name, rule, scores(rule.logits(test[0]), test[1], trained.counts))

    rows = [row(trained.rule(trained.weight, trained.bias))]
    for entry, options in chosen:
        try:
            rows.append(row(entry.function(*train, weight, bias, trained.counts, **options)))
        except OutsideTheory as refusal:
            rows.append(PosthocRow(entry.name, None, None, shown(refusal, 400)))
    return rows


def save_heads(rows: Iterable[PosthocRow], path: Path | str) -> None:
    """Write every fitted head as safetensors: "NAME.weight" (k, d) and "NAME.bias" (k,), float64.

    Parameters
    ----------
    rows : PosthocRows
        Those that refused are left out.
    path : path

    Raises
    ------
    InvalidInput
        A path that cannot be written.
    """
    heads: dict[str, Tensor] = {}
    for row in rows:
        if row.rule is not None:
            heads[f"{row.name}.weight"] = _copied(row.rule.weight)
            heads[f"{row.name}.bias"] = _copied(row.rule.bias)
    path = Path(path)
    with writing(path), replacing(path) as part:
        part.write_bytes(save(heads))


def _copied(values: Tensor) -> Tensor:
    """In memory of its own: a rule may hold the trained head's, and safetensors takes no memory twice."""
    return values.detach().clone(memory_format=torch.contiguous_format)


def _is_open(parameters: Mapping[str, Any]) -> bool:
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
