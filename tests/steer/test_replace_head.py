"""Putting a head into a model: where it goes, and what does not fit."""

import pytest
import torch
from torch import nn

from neuralcollapse import InvalidInput
from neuralcollapse.steer.heads import etf_head, replace_head


def mlp(k=3, d=8, dtype=None):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, d), nn.ReLU(), nn.Linear(d, k)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_replacing_a_head_takes_its_place_dtype_and_mode(dtype):
    model = mlp(dtype=dtype).eval()
    old, head = model[2], etf_head(3, 8, learn_scale=True)
    assert replace_head(model, head) is old
    assert model[2] is head
    assert head.weight.dtype == dtype
    assert not head.training
    inputs = torch.randn(4, 5, dtype=dtype)
    torch.testing.assert_close(model(inputs), model[:2](inputs) @ head.weight.T)


def test_replacing_by_name_and_under_every_name():
    model = nn.ModuleDict({"first": nn.Linear(4, 4), "second": nn.Linear(4, 4)})
    model["again"] = model["second"]
    head = etf_head(4, 4)
    replace_head(model, head, "second")
    assert model["second"] is model["again"] is head
    assert isinstance(model["first"], nn.Linear)


INVALID = [
    (lambda: replace_head(mlp(3), etf_head(4, 8)),
     "the model must have a linear layer with 4 outputs, one per class of the new head, got 3 outputs in its last one, "
     "'2'"),
    (lambda: replace_head(mlp(3), etf_head(3, 7)),
     "the new head must fit '2', with 8 features and 3 classes, got 7 features and 3 classes"),
    (lambda: replace_head(mlp(3), etf_head(3, 8), "0"),
     "the new head must fit '0', with 5 features and 8 classes, got 8 features and 3 classes"),
    (lambda: replace_head(mlp(8), etf_head(8, 8)), "2 layers could be the head, 0, 2: name one with head="),
    (lambda: replace_head(mlp(3), etf_head(3, 8), "fc"),
     "head must name a linear layer of the model, got 'fc': known: 0, 2"),
    (lambda: replace_head(nn.ReLU(), etf_head(3, 8)),
     "the model must have an nn.Linear or a 1×1 convolution as its head, got none in ReLU: name the layer with its "
     "weight with head= and what makes its input with features="),
    (lambda: replace_head(nn.Linear(8, 3), etf_head(3, 8)),
     "the head must be an nn.Linear inside the model, got the model itself"),
    (lambda: replace_head(nn.Sequential(nn.Conv2d(8, 3, 1)), etf_head(3, 8)),
     "the head must be an nn.Linear inside the model, got Conv2d"),
    (lambda: replace_head(nn.DataParallel(mlp(3)), etf_head(3, 8)),
     "model must not be wrapped yet, got DataParallel: replace its head first"),
]


@pytest.mark.parametrize(("call", "message"), INVALID, ids=[message[:50] for _, message in INVALID])
def test_bad_input_is_told_in_one_line(call, message):
    with pytest.raises(InvalidInput) as caught:
        call()
    assert str(caught.value) == message
