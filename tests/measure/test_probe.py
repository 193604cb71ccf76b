"""Finding the head, capturing its input, leaving the model as it was."""

import numpy as np
import pytest
import torch
from torch import nn

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.measure import Probe, measure, measure_model


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.auxiliary, self.head, self.body = nn.Linear(8, 3), nn.Linear(8, 3), nn.Linear(4, 8)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        features = torch.relu(self.body(x))
        self.auxiliary(features * 0)
        return self.head(self.dropout(features))


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    return torch.randn(60, 4, generator=generator), labels


def test_the_head_is_the_last_linear_reached_or_the_one_named(data):
    torch.manual_seed(0)
    model = TwoHeads()
    for probe, expected in ((Probe(model), model.head), (Probe(model, "auxiliary"), model.auxiliary)):
        with probe:
            model(data[0])
        assert probe.head is expected


def test_measuring_a_model_equals_measuring_its_features_and_leaves_it_alone(data):
    torch.manual_seed(0)
    model = TwoHeads()
    model.dropout.eval()  # a mode set by hand must come back as it was
    modes = [module.training for module in model.modules()]
    batches = [(data[0][i:i + 16], data[1][i:i + 16]) for i in range(0, 60, 16)]
    measured = measure_model(model, batches, counts=ClassCounts([20, 20, 20])).to_dict()
    with torch.no_grad():
        features = torch.relu(model.body(data[0]))
    direct = measure(features, data[1], model.head.weight, model.head.bias, targets=("seli", "etf")).to_dict()
    for key in ("nc1", "cdnv", "nc2", "nc3", "nc4", "distances", "norms"):
        np.testing.assert_allclose(leaves(measured[key]), leaves(direct[key]), rtol=1e-6, atol=1e-12, err_msg=key)
    assert [module.training for module in model.modules()] == modes
    assert all(not module._forward_pre_hooks for module in model.modules())
    assert torch.is_grad_enabled()


def test_features_that_do_not_fit_are_computed_again(data, monkeypatch):
    torch.manual_seed(0)
    model = TwoHeads()
    batches = [(data[0][i:i + 16], data[1][i:i + 16]) for i in range(0, 60, 16)]
    counts = ClassCounts([20, 20, 20])
    kept = measure_model(model, batches, counts=counts).to_dict()
    monkeypatch.setattr("neuralcollapse.measure.probe._KEPT_BYTES", 100)
    assert measure_model(model, batches, counts=counts).to_dict() == kept


def test_hooks_and_modes_are_restored_when_the_model_fails(data):
    model = TwoHeads()
    with pytest.raises(RuntimeError):
        measure_model(model, [(torch.ones(2, 5), torch.zeros(2, dtype=torch.long))], counts=ClassCounts([1, 1, 1]))
    assert model.training
    assert all(not module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(("call", "message"), [
    (lambda: Probe(nn.ReLU()), "the model must have an nn.Linear as its head, got none in ReLU"),
    (lambda: Probe(TwoHeads(), "haed"), "head must name an nn.Linear of the model, got 'haed': did you mean 'head'? "
                                        "known: auxiliary, body, head"),
    (lambda: Probe(TwoHeads()).features(), "the head was never reached: run the model inside `with probe:` "
                                           "(watched: auxiliary, head, body)"),
    (lambda: measure_model(TwoHeads(), [], counts=ClassCounts([1, 1, 1])),
     "batches must hold at least one batch, got none"),
    (lambda: measure_model(TwoHeads(), [(torch.ones(2, 4), torch.tensor([0, 1]))], counts=ClassCounts([1, 1])),
     "the head must have one output per class, expected 2, got 3"),
])
def test_bad_input_gets_its_one_line(call, message):
    with pytest.raises(InvalidInput) as caught:
        call()
    assert str(caught.value) == message


def leaves(value):
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in leaves(inner)]
    return value if isinstance(value, list) else [value]
