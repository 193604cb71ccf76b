"""A trained run as remedies after training see it: frozen features, labels and the head."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from neuralcollapse.checks import InvalidInput, OutsideTheory
from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.batches import labelled_rows
from neuralcollapse.experiments.checkpoint import unpack
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data import load_data
from neuralcollapse.experiments.expected import Expected
from neuralcollapse.experiments.run import Run, RunFolder
from neuralcollapse.experiments.session import Session, reproducible
from neuralcollapse.steer import POSTHOC, ClassVerdict, PosthocRow, evaluate_posthoc
from neuralcollapse.steer.class_probe import rescue_features


@dataclass(frozen=True, eq=False)
class Frozen:
    """The features of a network's last checkpoint.

    Attributes
    ----------
    train, test : pairs of (n, d) and (n,) tensors
        Features at the input of the head, in eval mode, and labels.
    weight, bias : (k, d) and (k,) tensors
        The head; None for no bias.
    counts : ClassCounts
        Training samples per class.
    epoch : int
        Epochs trained.
    expected : Expected
        What its settings lead to.
    ridge : float or None
        λ of the run's settings, the loss SUMMED over samples; None where one of its penalties is 0.
    feature_penalty : float or None
        p of the run's settings, beside the MEAN loss; None for 0.
    """

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    weight: Tensor
    bias: Tensor | None
    counts: ClassCounts
    epoch: int
    expected: Expected
    ridge: float | None
    feature_penalty: float | None

    @classmethod
    def of_run(cls, run: Run) -> Frozen:
        """Load a run's last checkpoint and data, and go through both parts once.

        Raises
        ------
        InvalidInput
            A run without a checkpoint that can be read, or whose data set is not there any more.
        """
        config = TrainConfig(**run.config)
        data = load_data(config)
        with reproducible(config.threads):
            session = Session(config, data)
            return cls.of_session(session, _restore(session, run))

    @classmethod
    def of_session(cls, session: Session, epoch: int) -> Frozen:
        """The features of a session as it is."""
        data, layer = session.data, session.head
        head, features = session.config.ridges(float(data.counts.n))
        parts = ((data.inputs, data.labels), (data.test_inputs, data.test_labels))
        (labels, train), (test_labels, test) = (labelled_rows(own, session.features(inputs).cpu())
                                                for inputs, own in parts)
        return cls((train, labels), (test, test_labels), layer.weight.detach().cpu(),
                   None if layer.bias is None else layer.bias.detach().cpu(), data.counts, epoch,
                   Expected.of(session.config, data.counts), (head * features) ** 0.5 or None,
                   session.config.feature_penalty or None)

    def rescue(self, ridge: float | None = None) -> list[ClassVerdict]:
        """The verdict on every class: safe, or what would save it (`steer.rescue`).

        Held against the geometry of loss, head, sampling and bias as they were; of cross-entropy where no theorem
        covers these.

        Parameters
        ----------
        ridge : float, optional
            λ in place of the run's own.
        """
        return rescue_features(self.train, self.test, self.weight, self.bias, counts=self.counts,
                               geometry=self.expected.geometry_or_nearest(self.ridge if ridge is None else ridge),
                               merging=self.expected.merging, feature_penalty=self.feature_penalty,
                               advised=self.expected.advised)

    def posthoc(self, remedies: Iterable[str] | None = None) -> list[PosthocRow]:
        """Remedies after training, scored on the test part, each told what the network was trained with.

        Parameters
        ----------
        remedies : names, optional
            All when left out. One asked for twice, or under two of its names, is scored once.
        """
        asked = [entry.name for entry in POSTHOC] if remedies is None else remedies
        names = list(dict.fromkeys(POSTHOC[name].name for name in asked))
        refused: dict[str, str] = {}
        options: dict[str, dict[str, Any]] = {}
        for name in names:
            try:
                options[name] = self._options(name)
            except OutsideTheory as refusal:
                refused[name] = str(refusal)
        rows = iter(evaluate_posthoc(self.train, self.test, self.weight, self.bias, options, counts=self.counts))
        return [next(rows), *(PosthocRow(name, None, None, refused[name]) if name in refused else next(rows)
                              for name in names)]

    def _options(self, name: str) -> dict[str, Any]:
        if name == "logit-adjustment":
            return self.expected.posterior()
        if "geometry" not in POSTHOC[name].parameters:
            return {}
        # Where λ is unknown, the remedy finds its own or takes the limit.
        return {"geometry": self.expected.geometry, "ridge": self.ridge}


def _restore(session: Session, run: Run) -> int:
    checkpoint = RunFolder(run.path).checkpoint
    if not checkpoint.is_file():
        raise InvalidInput(f"'{run.path}' has no checkpoint yet: wait for its first measured epoch")
    clock = unpack(session, checkpoint.read_bytes())
    if clock is None:
        raise InvalidInput(f"the checkpoint of '{run.path}' cannot be read")
    return clock.epoch
