"""Where each loss leads: free features trained with it arrive at the geometry that it names."""

import numpy as np
import pytest
import torch

from neuralcollapse.checks import OutsideTheory
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import predict
from neuralcollapse.steer.losses import VSLoss

COUNTS = ClassCounts([40, 9, 3, 3, 1])
PREDICTED = {"ce": VSLoss.ce, "weighted": VSLoss.weighted, "logit_adjusted": VSLoss.logit_adjusted,
             "balanced_softmax": VSLoss.balanced_softmax, "ldt": VSLoss.ldt, "cdt": lambda c: VSLoss.cdt(c, 0.3),
             "vs": lambda c: VSLoss.vs(c, 0.2, 1.0),
             "effective": lambda c: VSLoss.weighted(c, "effective-number", 0.9),
             "ldt and all": lambda c: VSLoss(c, weight=[1, 2, 3, 4], delta=[1, 1.5, 0.5, 2], iota=[0, 1, -1, 0.5],
                                             temperature="label")}


@pytest.mark.parametrize("name", PREDICTED)
def test_free_features_trained_with_it_arrive_where_it_says(name):
    counts, ridge = ClassCounts([6, 3, 2, 2]), 0.15
    n = int(counts.n)
    labels = torch.arange(4).repeat_interleave(torch.tensor(counts.values, dtype=torch.int64))
    loss = PREDICTED[name](counts).double()
    generator = torch.Generator().manual_seed(0)
    W, H = (torch.randn(rows, 5, generator=generator, dtype=torch.float64).mul_(0.3).requires_grad_()
            for rows in (4, n))
    optimiser = torch.optim.LBFGS([W, H], max_iter=3000, max_eval=6000, tolerance_grad=1e-11, tolerance_change=0,
                                  history_size=30, line_search_fn="strong_wolfe")

    def objective():
        optimiser.zero_grad()
        value = loss(H @ W.T, labels) + ridge / n / 2 * (W.square().sum() + H.square().sum())  # the mean's own ridge
        value.backward()
        return value

    optimiser.step(objective)
    geometry = loss.geometry(ridge=ridge)
    means = torch.stack([H[labels == c].mean(0) for c in range(4)]).detach()
    for factor, gram in ((W.detach(), geometry.classifiers), (means, geometry.embeddings)):
        np.testing.assert_allclose((factor @ factor.T).numpy(), gram.dense(), atol=1e-5 * gram.frobenius)


def test_the_named_losses_ask_for_the_geometry_of_their_name():
    names = {"ce": "ce", "weighted": "weighted", "effective": "weighted", "logit_adjusted": "la",
             "balanced_softmax": "la", "ldt": "ldt", "cdt": "cdt", "vs": "vs", "ldt and all": "ce"}
    few = ClassCounts([6, 3, 2, 2])
    for name, registered in names.items():
        assert PREDICTED[name](few).geometry().loss == registered
    seli = predict(COUNTS).classifiers.unit().dense()
    for make in (VSLoss.weighted, VSLoss.logit_adjusted, lambda c: VSLoss.ldam(c, scale=1)):
        np.testing.assert_allclose(make(COUNTS).geometry().classifiers.unit().dense(), seli, atol=1e-13)


def test_margins_do_not_move_the_limit():
    counts = ClassCounts([6, 3, 2, 2])
    labels = torch.arange(4).repeat_interleave(torch.tensor(counts.values, dtype=torch.int64))
    loss = VSLoss.ldam(counts, max_margin=0.5, scale=1.0, reduction="sum").double()
    distances = []
    for ridge in (1e-2, 1e-4, 1e-6):
        generator = torch.Generator().manual_seed(0)
        W, H = (torch.randn(rows, 3, generator=generator, dtype=torch.float64).requires_grad_() for rows in (4, 13))
        optimiser = torch.optim.LBFGS([W, H], max_iter=4000, max_eval=9000, tolerance_grad=0, tolerance_change=0,
                                      history_size=30, line_search_fn="strong_wolfe")

        def objective(W=W, H=H, optimiser=optimiser, ridge=ridge):
            optimiser.zero_grad()
            value = loss(H @ W.T, labels) + ridge / 2 * (W.square().sum() + H.square().sum())
            value.backward()
            return value

        optimiser.step(objective)
        found = (W @ W.T).detach().numpy()
        distances.append(np.linalg.norm(found / np.linalg.norm(found) - loss.geometry().classifiers.unit().dense()))
    # Logarithmically in the ridge, as without margins: about one over ln(1/λ).
    assert distances[0] > 1.5 * distances[1] > 0
    assert distances[1] > 1.2 * distances[2] > 0
    assert distances[2] < 0.05


@pytest.mark.parametrize(("loss", "ridge", "message"), [
    (VSLoss.focal(COUNTS), None, "no theorem says where the focal loss leads when classes are imbalanced: the nearest "
     "loss that one covers is the same without it"),
    (VSLoss.ce(COUNTS, label_smoothing=0.1), 0.1, "no theorem says where label smoothing leads when classes are "
     "imbalanced: the nearest loss that one covers is the same without it"),
    (VSLoss.ldam(COUNTS), None, "no theorem says where LDAM leads on cosines, which its scale is for: the nearest loss "
     "that one covers is VSLoss.ldam(counts, scale=1) on the logits of a linear head"),
    (VSLoss.ldam(COUNTS).reweighted(), None, "no theorem says where LDAM leads on cosines, which its scale is for: the "
     "nearest loss that one covers is VSLoss.ldam(counts, scale=1) on the logits of a linear head"),
    (VSLoss.ldam(COUNTS, scale=1), 0.1, "where margins on the label's logit lead is known in the limit of vanishing "
     "ridge only: leave ridge out, or use VSLoss.vs, whose offsets are covered")])
def test_what_no_theorem_covers_is_said(loss, ridge, message):
    with pytest.raises(OutsideTheory) as error:
        loss.geometry(ridge=ridge)
    assert str(error.value) == message
