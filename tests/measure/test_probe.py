"""Finding the head, capturing what goes through it, leaving the model as it was."""

import pytest
import torch
from torch import nn

from neuralcollapse.checks import InvalidInput
from neuralcollapse.measure import Probe


class TwoHeads(nn.Module):
    """`auxiliary` is computed and not returned, unless `both`."""

    def __init__(self, both=False, last="head"):
        super().__init__()
        self.auxiliary, self.head, self.body = nn.Linear(8, 3), nn.Linear(8, 3), nn.Linear(4, 8)
        self.both, self.last = both, last

    def forward(self, x):
        features = torch.relu(self.body(x))
        if self.last == "auxiliary":
            logits, other = self.head(features), self.auxiliary(features)
        else:
            other, logits = self.auxiliary(features), self.head(features)
        return (logits, other) if self.both else logits


class Returning(nn.Module):
    """Two linear layers; `form` makes what is returned out of their outputs."""

    def __init__(self, form):
        super().__init__()
        self.body, self.head, self.form = nn.Linear(4, 3), nn.Linear(3, 3), form

    def forward(self, x):
        hidden = self.body(x)
        return self.form(hidden, self.head(hidden))


class Tied(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.embedding, self.body = nn.Embedding(7, 6), nn.Linear(6, 6)
        self.lm = nn.Linear(6, 7, bias=False) if module else None
        if module:
            self.lm.weight = self.embedding.weight

    def forward(self, tokens):
        hidden = torch.tanh(self.body(self.embedding(tokens)))
        return self.lm(hidden) if self.lm else nn.functional.linear(hidden, self.embedding.weight)


def hooks(model):
    return [hook for module in model.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("last", ["head", "auxiliary"])
def test_the_head_is_what_the_model_returns_or_the_one_named(last):
    model, x = TwoHeads(last=last), torch.randn(5, 4)
    for probe, expected in ((Probe(model), "head"), (Probe(model, "auxiliary"), "auxiliary")):
        with probe:
            model(x)
        assert probe.name == expected
        assert probe.head is getattr(model, expected)
        torch.testing.assert_close(probe.features(), torch.relu(model.body(x)).detach(), rtol=0, atol=0)
        torch.testing.assert_close(probe.logits(), probe.head(probe.features()).detach(), rtol=0, atol=0)
        assert not probe.features().requires_grad
        assert not probe.logits().requires_grad
        assert not hooks(model)


@pytest.mark.parametrize("form", [
    lambda _, z: z, lambda _, z: (z,), lambda _, z: [None, z], lambda _, z: {"logits": z}, lambda _, z: {"scores": z},
    lambda h, z: {"logits": z, "features": h}, lambda _, z: z.flatten(1), lambda _, z: z[:, :2],
    lambda _, z: nn.functional.log_softmax(z, 1), lambda _, z: z.double()])
def test_the_head_is_found_in_whatever_form_it_is_returned(form):
    model, x = Returning(form), torch.randn(5, 4)
    with (probe := Probe(model)):
        model(x)
    assert probe.head is model.head
    torch.testing.assert_close(probe.features(), model.body(x).detach(), rtol=0, atol=0)


def test_several_that_are_returned_are_listed_until_one_is_named_or_one_is_left():
    model, x = TwoHeads(both=True), torch.randn(5, 4)
    with (probe := Probe(model)):
        model(x)
        with pytest.raises(InvalidInput) as caught:
            probe.features()
        assert str(caught.value) == "2 layers could be the head, auxiliary, head: name one with head="
        model.both = False  # as models that return their auxiliary head in train mode alone
        model(x)
        assert probe.head is model.head
    both = TwoHeads(both=True)
    both.auxiliary = nn.Linear(8, 2)
    with (probe := Probe(both, classes=3)):
        both(x)
    assert probe.head is both.head


def test_one_probe_serves_a_whole_epoch_and_keeps_its_latest_pass_alone():
    model = TwoHeads()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with (probe := Probe(model)):
        for step in range(3):
            x = torch.randn(4 + step, 4)
            with torch.no_grad():
                expected, before = torch.relu(model.body(x)), torch.relu(model.body(x)) @ model.head.weight.T
                before += model.head.bias
            loss = model(x).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            torch.testing.assert_close(probe.features(), expected, rtol=0, atol=0)
            torch.testing.assert_close(probe.logits(), before, rtol=1e-6, atol=1e-6)
            # The head has been found in the first pass: the other candidates are no longer watched.
            assert len(hooks(model)) == 3
    assert not hooks(model)


def test_a_pass_that_never_reaches_the_head_does_not_leave_the_one_before():
    model = TwoHeads()
    with (probe := Probe(model)):
        model(torch.randn(5, 4))
        model.forward = lambda x: x
        model(torch.randn(5, 4))
        with pytest.raises(InvalidInput) as caught:
            probe.features()
    assert str(caught.value) == ("the model ran without calling a layer that could be its head: name the module whose "
                                 "output the head takes with features=, and the head's weight with head= "
                                 "(watched: auxiliary, body, head)")


def test_parts_of_a_model_called_by_themselves_are_captured():
    model, x = TwoHeads(), torch.randn(5, 4)
    with (probe := Probe(model)):
        model.head(torch.relu(model.body(x)))
    assert probe.head is model.head
    with (probe := Probe(model.head)):  # the model may be the head
        model(x)
    assert probe.name == ""
    torch.testing.assert_close(probe.features(), torch.relu(model.body(x)).detach(), rtol=0, atol=0)
    with (probe := Probe(model, "body")):
        model.body(input=x)  # by keyword
    assert probe.features() is not None
    torch.testing.assert_close(probe.features(), x, rtol=0, atol=0)


def test_hooks_are_removed_when_the_model_fails():
    model = TwoHeads()
    with pytest.raises(RuntimeError), Probe(model):
        model(torch.ones(2, 5))
    assert not hooks(model)


def test_a_change_in_place_after_the_head_is_noticed():
    outputs = Returning(lambda _, z: z.relu_())
    with torch.no_grad(), (probe := Probe(outputs, "head")):
        outputs(torch.randn(5, 4))
    assert probe.features().shape == (5, 3)
    assert probe.logits() is None
    inputs = Returning(lambda h, z: z + h.zero_())
    with torch.no_grad(), (probe := Probe(inputs, "head")):
        inputs(torch.randn(5, 4))
    with pytest.raises(InvalidInput) as caught:
        probe.features()
    assert str(caught.value) == ("the input of 'head' was changed in place after the head had read it: name the module "
                                 "it comes from with features=, or make that operation not in place")


def test_inference_mode_captures_as_well():
    model, x = TwoHeads(), torch.randn(5, 4)
    with torch.inference_mode(), (probe := Probe(model)):
        expected = model(x).clone()
    torch.testing.assert_close(probe.logits().clone(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_convolution_head_gives_features_last(dimensions):
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
    model = nn.Sequential(convolution(2, 5, 3, padding=1), nn.ReLU(), convolution(5, 3, 1))
    x = torch.randn(4, 2, *(6, 7, 8)[:dimensions])
    with (probe := Probe(model)):
        out = model(x)
    assert probe.head is model[2]  # the 3-wide one is no candidate
    assert probe.features().shape == (*x.shape[:1], *x.shape[2:], 5)
    torch.testing.assert_close(probe.logits(), out.movedim(1, -1).detach(), rtol=0, atol=0)


def test_tied_embeddings_as_a_layer_and_as_a_function():
    tokens = torch.randint(0, 7, (2, 5))
    layer = Tied(module=True)
    with (probe := Probe(layer)):
        out = layer(tokens)
    assert probe.head is layer.lm
    assert probe.features().shape == (2, 5, 6)
    torch.testing.assert_close(probe.logits(), out.detach(), rtol=0, atol=0)
    function = Tied(module=False)
    function.body = nn.Sequential(function.body, nn.Tanh())
    with (probe := Probe(function, head="embedding", features="body")):
        function(tokens)
    assert probe.head is function.embedding
    expected = function.body(function.embedding(tokens)).detach()
    torch.testing.assert_close(probe.features(), expected, rtol=0, atol=0)
    assert probe.logits() is None


def run(probe, model, x):
    with probe:
        model(x)
    return probe.features()


TOKENS = torch.zeros(2, 5, dtype=torch.long)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: Probe(nn.ReLU()), "the model must have an nn.Linear or a 1×1 convolution as its head, got none in ReLU: "
                               "name the layer with its weight with head= and what makes its input with features="),
    (lambda: Probe(nn.Conv2d(2, 4, 1, groups=2)), "the model must have an nn.Linear or a 1×1 convolution as its head, "
                                                  "got none in Conv2d: name the layer with its weight with head= and "
                                                  "what makes its input with features="),
    (lambda: Probe(TwoHeads(), "haed"), "head must name a linear layer of the model, got 'haed': did you mean 'head'? "
                                        "known: auxiliary, body, head"),
    (lambda: Probe(TwoHeads(), features="bodi"), "features must name a module of the model, got 'bodi': did you mean "
                                                 "'body'? known: auxiliary, body, head"),
    (lambda: Probe(TwoHeads()).features(), "the head was never reached: run the model first, where a Probe is used "
                                           "alone inside `with probe:` (watched: auxiliary, body, head)"),
    (lambda: run(Probe(model := TwoHeads(), "head"), model.body, torch.ones(2, 4)),
     "the head was never reached: run the model first, where a Probe is used alone inside `with probe:` (watched: "
     "head)"),
    (lambda: run(Probe(model := Tied(module=False), "embedding"), model, TOKENS),
     "the input of 'embedding' (Embedding) must be features, got torch.int64: name the module whose output the head "
     "takes with features="),
    (lambda: run(Probe(model := TwoHeads(), "head", features="auxiliary"), model, torch.ones(2, 4)),
     "features must be the head's input, (…, 8), got (2, 3)"),
])
def test_bad_input_gets_its_one_line(call, message):
    with pytest.raises(InvalidInput) as caught:
        call()
    assert str(caught.value) == message
