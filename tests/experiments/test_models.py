"""Models: every one on every shape it must take, and every bad request with its message."""

import pytest
import torch
from torch import nn

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.models import MODELS, build_model

SHAPES = [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 32, 32), (1, 9, 14)]


@pytest.mark.parametrize("name", [entry.name for entry in MODELS])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_takes_small_images_and_ends_in_a_head(name, shape):
    torch.manual_seed(0)
    model = build_model(name, shape, classes=7, width=8).eval()
    fed = []
    model.head.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0]))
    logits = model(torch.randn(3, *shape))
    assert logits.shape == (3, 7)
    assert model.head.bias is None
    torch.testing.assert_close(logits, fed[0] @ model.head.weight.T)
    assert build_model(name, shape, 7, head_bias=True, width=8).head.bias.shape == (7,)


@pytest.mark.parametrize(("name", "features", "parameters"), [("resnet18", 512, 11_173_962), ("vgg13", 512, 9_416_010)])
def test_the_papers_networks_have_their_known_sizes(name, features, parameters):
    # Parameter counts of the usual CIFAR versions (with head bias; VGG's convolutions without, as batch norm follows).
    model = build_model(name, (3, 32, 32), 10, head_bias=True)
    assert model.head.in_features == features
    total = sum(p.numel() for p in model.parameters())
    biases = 2944 if name == "vgg13" else 0
    assert total + biases == parameters


def test_features_are_free_in_sign_unless_rectified():
    torch.manual_seed(0)
    images = torch.randn(50, 1, 8, 8)
    for name in ("mlp", "cnn"):
        free, positive = (build_model(name, (1, 8, 8), 3, width=8, rectify=rectify) for rectify in (False, True))
        assert free.body(images).min() < 0
        assert positive.body(images).min() >= 0


def test_module_and_factory():
    model = build_model("neuralcollapse.experiments.models.mlp:mlp", (5,), 3, width=4)
    assert model(torch.ones(2, 5)).shape == (2, 3)


def headless(input_shape, classes, head_bias):
    """A factory whose model has no head."""
    return nn.Linear(input_shape[0], classes)


BAD = [
    (("mpl", (8,)), {}, "unknown model 'mpl': did you mean 'mlp'? known: cnn, mlp, resnet18, vgg13"),
    (("mlp", (8,)), {"widht": 3}, "unknown option 'widht' of model 'mlp': did you mean 'width'? known: batch_norm, "
                                  "depth, features, rectify, width"),
    (("mlp", (8,)), {"width": 0}, "model option 'width' must be a whole number ≥ 1, got 0"),
    (("mlp", (8,)), {"batch_norm": "no"}, "model option 'batch_norm' must be true or false, got no"),
    (("cnn", (8,)), {}, "model 'cnn' needs images of shape (channels, height, width), got samples of shape (8,): "
                        "the model 'mlp' takes any shape"),
    (("cnn", (1, 3, 9)), {}, "model 'cnn' needs images of side 4 or more, got 3×9"),
    (("no.such:thing", (8,)), {}, "model 'no.such:thing' must name an importable module:factory, got No module "
                                  "named 'no'"),
    (("math:pi", (8,)), {}, "model 'math:pi' must name something that can be called, got 3.141592653589793"),
    (("torch.nn:Identity", (8,)), {}, "model 'torch.nn:Identity' must end in an nn.Linear called `head` with 3 "
                                      "outputs, got None"),
]


@pytest.mark.parametrize(("what", "options", "message"), BAD, ids=lambda value: str(value)[:30])
def test_bad_request(what, options, message):
    with pytest.raises(InvalidInput) as error:
        build_model(*what, 3, **options)
    assert str(error.value) == message


def test_factory_that_returns_no_head():
    with pytest.raises(InvalidInput, match=r"must end in an nn\.Linear called `head` with 3 outputs, got None"):
        build_model(f"{__name__}:headless", (8,), 3)
