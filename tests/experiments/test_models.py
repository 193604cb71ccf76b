"""Models: every one on every shape it must take, and every bad request with its message."""

import pytest
import torch
from torch import nn

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.models import MODELS, build_model

SHAPES = [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 32, 32), (1, 9, 14)]


@pytest.mark.parametrize("name", [entry.name for entry in MODELS
                                  if not entry.options.get("argument") and "tokens" not in entry.parameters])
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
    (("mpl", (8,)), {}, "unknown model 'mpl': did you mean 'mlp'? known: cnn, mlp, resnet18, timm, "
                        "transformer, transformers, vgg13"),
    (("mlp", (8,)), {"widht": 3}, "unknown option 'widht' of model 'mlp': did you mean 'width'? known: batch_norm, "
                                  "depth, features, rectify, width"),
    (("mlp", (8,)), {"width": 0}, "model option 'width' must be a whole number ≥ 1, got 0"),
    (("mlp", (8,)), {"batch_norm": "no"}, "model option 'batch_norm' must be true or false, got no"),
    (("cnn", (8,)), {}, "model 'cnn' needs images of shape (channels, height, width), got samples of shape (8,): "
                        "the model 'mlp' takes any shape"),
    (("cnn", (1, 3, 9)), {}, "model 'cnn' needs images of side 4 or more, got 3×9"),
    (("no.such:thing", (8,)), {}, "model 'no.such:thing' must name an importable module:factory, got No module "
                                  "named 'no'"),
    (("timm:resnet26", (1, 8, 8)), {}, "model 'timm:resnet26' needs timm, which is not installed: pip install timm"),
    (("timm:resnet26", (8,)), {}, "model 'timm:resnet26' needs images of shape (channels, height, width), got samples "
                                  "of shape (8,): the model 'mlp' takes any shape"),
    (("transformers", (8,)), {}, "model 'transformers' must be given as 'transformers:NAME', got 'transformers'"),
    (("mlp:deep", (8,)), {}, "model 'mlp' must be given as 'mlp', got 'mlp:deep'"),
    (("mlp", (8,)), {"tokens": 5}, "model 'mlp' takes no tokens, of which this data is made: the model 'transformer' "
                                   "does"),
    (("transformer", (8,)), {}, "model 'transformer' needs sequences of tokens, got samples of shape (8,) that are no "
                                "tokens"),
    (("transformer", (8,)), {"tokens": 5, "width": 10}, "model 'transformer' needs a width divisible by its heads, got "
                                                        "10 and 4"),
    (("resnet18", (1, 8, 8)), {"features": 0}, "model option 'features' must be a whole number ≥ 1, got 0"),
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


@pytest.mark.parametrize("name", ["resnet18", "vgg13", "mlp"])
def test_as_many_features_as_asked_and_free_in_sign(name):
    torch.manual_seed(0)
    model = build_model(name, (1, 8, 8), 5, width=8, features=11).eval()
    fed = []
    model.head.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0]))
    model(torch.randn(20, 1, 8, 8))
    assert fed[0].shape == (20, 11)
    assert fed[0].min() < 0


def test_a_perceptron_without_a_feature_layer_ends_in_its_last_block():
    model = build_model("mlp", (1, 28, 28), 10, width=32, depth=6, features=None, batch_norm=True)
    layers = [type(layer).__name__ for layer in model.body]
    assert layers == ["Flatten", *["Linear", "BatchNorm1d", "ReLU"] * 6]
    assert model.head.in_features == 32


TEXTS = torch.randint(20, (3, 10), generator=torch.Generator().manual_seed(0))
BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
ON_TOKENS = [("transformer", {"width": 16}), ("transformer", {"width": 16, "features": 6}), ("transformers:bert", BERT),
             ("transformers:gpt2", {"n_embd": 16, "n_layer": 1, "n_head": 2})]


@pytest.mark.parametrize("next_token", [False, True])
@pytest.mark.parametrize(("name", "options"), ON_TOKENS, ids=str)
def test_texts_and_next_tokens(name, options, next_token):
    torch.manual_seed(0)
    model = build_model(name, (10,), 7, tokens=20, next_token=next_token, **options).eval()
    logits = model(TEXTS)
    assert logits.shape == ((3, 10, 7) if next_token else (3, 7))
    assert model.head.bias is None
    logits.sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []  # each is of use, as several processes need
    changed = TEXTS.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 20
    if next_token:  # what comes later changes nothing
        torch.testing.assert_close(model(changed)[:, :6], logits[:, :6], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(model(changed)[:, 6:], logits[:, 6:], atol=1e-3)


def test_images_by_transformers():
    vit = build_model("transformers:vit", (1, 16, 16), 7, patch_size=8, **BERT)
    assert vit(torch.zeros(3, 1, 16, 16)).shape == (3, 7)
    assert vit.head.in_features == 16
    resnet = build_model("transformers:resnet", (3, 16, 16), 7, embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1])
    assert resnet(torch.zeros(3, 3, 16, 16)).shape == (3, 7)
    assert resnet.head.in_features == 12


@pytest.mark.parametrize(("name", "options", "start"), [
    ("transformers:brt", {}, "transformers has no model type 'brt': did you mean 'bert'? known: "),
    ("transformers:bert", {"hidden_sise": 3}, "unknown option 'hidden_sise' of model 'transformers:bert': did you mean "
                                              "'hidden_size'? known: "),
    ("transformers:bert", {**BERT, "num_attention_heads": 3}, "model 'transformers:bert' cannot be built for inputs of "
                                                              "shape (10,) with "),
])
def test_what_transformers_does_not_have(name, options, start):
    with pytest.raises(InvalidInput) as error:
        build_model(name, (10,), 7, tokens=20, **options)
    assert str(error.value).startswith(start)
    assert "\n" not in str(error.value)


class Seeing(nn.Module):
    """Every position sees every token."""

    def __init__(self, classes):
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 4), nn.Linear(4, classes)

    def forward(self, texts):
        features = self.embedding(texts)
        return self.head(features + features.mean(1, keepdim=True))


def seeing(input_shape, classes, head_bias):
    """A factory that wants no tokens."""
    return Seeing(classes)


def seeing_tokens(input_shape, classes, head_bias, tokens=None):
    """A factory that takes tokens by name."""
    return Seeing(classes)


def test_factories_take_tokens_by_name_and_next_tokens_must_not_be_seen():
    assert build_model(f"{__name__}:seeing_tokens", (10,), 7, tokens=20)(TEXTS).shape == (3, 10, 7)
    with pytest.raises(InvalidInput, match="seeing' takes no tokens, of which this data is made"):
        build_model(f"{__name__}:seeing", (10,), 7, tokens=20)
    with pytest.raises(InvalidInput, match="must not see the tokens that it is to predict: it is not causal"):
        build_model(f"{__name__}:seeing_tokens", (10,), 7, tokens=20, next_token=True)
