"""Measuring a model equals measuring the features it computes, however they are labelled and batched."""

from collections import Counter, UserDict

from alike import assert_alike
import numpy as np
import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.measure import measure, measure_model

BOTH = ("seli", "etf")


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.auxiliary, self.head, self.body = nn.Linear(8, 3), nn.Linear(8, 3), nn.Linear(4, 8)
        self.dropout = nn.Dropout(0.5)
        self.calls = 0

    def embed(self, x):
        return torch.relu(self.body(x))

    def forward(self, x):
        self.calls += 1
        features = self.dropout(self.embed(x))
        self.auxiliary(features * 0)
        return self.head(features)


class Convolutional(nn.Module):
    def __init__(self, dense):
        super().__init__()
        self.body, self.head = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 3, 1)
        self.dense = dense

    def forward(self, x):
        logits = self.head(torch.relu(self.body(x)))
        return logits if self.dense else logits.mean((2, 3))


class TiedHead(nn.Module):
    """A language model whose head is its embedding, called as a function."""

    def __init__(self, tokens, d):
        super().__init__()
        self.embedding, self.body = nn.Embedding(tokens, d), nn.Sequential(nn.Linear(d, d), nn.Tanh())

    def forward(self, tokens):
        return nn.functional.linear(self.body(self.embedding(tokens)), self.embedding.weight)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(60, 4, generator=generator), torch.arange(60) % 3


def in_batches(x, labels, size=16):
    return [(x[i:i + size], labels[i:i + size]) for i in range(0, len(x), size)]


def direct(model, x, labels, **options):
    with torch.no_grad():
        return measure(model.embed(x), labels, model.head.weight, model.head.bias, targets=BOTH, **options)


COUNTS = ClassCounts([20, 20, 20])


def test_it_equals_measuring_the_features_and_leaves_the_model_alone(data):
    model = Small()
    model.dropout.eval()  # a mode set by hand must come back as it was
    modes = [module.training for module in model.modules()]
    result = measure_model(model, in_batches(*data), counts=COUNTS)
    assert_alike(result, direct(model, *data, counts=COUNTS))
    assert [module.training for module in model.modules()] == modes
    assert not [hook for module in model.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert torch.is_grad_enabled()
    assert model.calls == 4


def test_margins_and_decisions_are_those_of_the_logits_that_the_model_computed(data):
    class Doubting(nn.Linear):
        """Not Wh + b: what the head decides is known from its output alone."""

        def forward(self, x):
            return -super().forward(x)

    model = Small()
    model.head = Doubting(8, 3)
    with torch.no_grad():
        logits = model.head(model.embed(data[0])).double()
    own = logits.gather(1, data[1][:, None])[:, 0]
    others = logits.scatter(1, data[1][:, None], -torch.inf).amax(1)
    measured = measure_model(model, in_batches(*data), counts=COUNTS, head="head").to_dict()
    np.testing.assert_allclose(measured["margins"]["mean"], (own - others).mean(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(measured["accuracy"]["overall"], (own > others).double().mean(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_ties_of_half_precision_logits_are_settled_from_the_weights(data, dtype):
    model = Small()
    with torch.no_grad():
        model.head.weight[1] = model.head.weight[0] + 0.002 * torch.randn(8)
        model.head.bias.copy_(torch.tensor([3.0, 3.0, -3.0]))
    model, x = model.to(dtype), data[0].to(dtype)
    with torch.no_grad():
        logits, features = model.eval()(x), model.embed(x)
    assert (logits[:, 0] == logits[:, 1]).sum() > 3
    result = measure_model(model, in_batches(x, data[1]), counts=COUNTS, head="head", nc4=None)
    head = model.double().head
    expected = measure(features.double(), data[1], head.weight, head.bias, targets=BOTH, counts=COUNTS, nc4=None)
    assert result.to_dict()["accuracy"] == expected.to_dict()["accuracy"]
    for name in ("min", "mean"):
        np.testing.assert_allclose(result.to_dict()["margins"][name], expected.to_dict()["margins"][name], rtol=1e-9,
                                   atol=1e-12)


def test_features_that_do_not_fit_are_computed_again(data, monkeypatch):
    model = Small()
    kept = measure_model(model, in_batches(*data), counts=COUNTS).to_dict()
    monkeypatch.setattr("neuralcollapse.measure.model._KEPT_BYTES", 100)
    model.calls = 0
    assert measure_model(model, in_batches(*data), counts=COUNTS).to_dict() == kept
    assert model.calls == 8


@pytest.mark.parametrize("earlier", [False, True])
def test_one_pass_is_enough_without_nc4_or_with_earlier_means(data, monkeypatch, earlier):
    monkeypatch.setattr("neuralcollapse.measure.model._KEPT_BYTES", 100)
    model = Small()
    before = direct(model, data[0] + 1, data[1]) if earlier else None
    result = measure_model(model, iter(in_batches(*data)), counts=COUNTS, nc4=before)
    assert_alike(result, direct(model, *data, counts=COUNTS, nc4=before))
    assert model.calls == 4


def test_kept_features_do_not_hold_on_to_what_they_are_a_part_of(data):
    sequences = torch.randn(60, 50, 4)
    sequences[:, 0] = data[0]
    model, whole, alive = Small(), [], []

    def embed(x):
        hidden = torch.relu(model.body(x))
        if x.ndim == 3:
            whole.append(StorageWeakRef(hidden.untyped_storage()))
        return hidden[:, 0] if x.ndim == 3 else hidden

    def loader():
        yield from in_batches(sequences, data[1])
        alive.append(sum(not storage.expired() for storage in whole))

    model.embed = embed
    assert_alike(measure_model(model, loader(), counts=COUNTS), direct(model, *data, counts=COUNTS))
    assert len(whole) == 4
    assert alive == [1]  # of the latest batch, which the pass still looks at


@pytest.mark.parametrize("form", [
    lambda x, y: ([x], y), lambda x, y: [(x,), y.tolist()], lambda x, y: ({"x": x}, y), lambda x, y: (x, y.numpy()),
    lambda x, y: {"x": x, "labels": y}, lambda x, y: UserDict({"x": x, "labels": y}), lambda x, y: (x, y.int())])
def test_batches_come_in_the_forms_that_loaders_give(data, form):
    model = Small()
    batches = [form(*batch) for batch in in_batches(*data)]
    assert_alike(measure_model(model, batches, counts=COUNTS), direct(model, *data, counts=COUNTS))


def test_ignored_labels_are_left_out_even_where_they_fill_a_batch(data):
    model, labels = Small(), data[1].clone()
    labels[:32:2] = -100
    labels[32:48] = -100
    seen = labels >= 0
    expected = direct(model, data[0][seen], labels[seen], counts=COUNTS)
    assert_alike(measure_model(model, in_batches(data[0], labels), counts=COUNTS), expected)
    first = [(data[0][32:48], labels[32:48]), *in_batches(data[0][:32], labels[:32]), (data[0][48:], labels[48:])]
    assert_alike(measure_model(model, first, counts=COUNTS), expected)
    labels[~seen] = -1
    assert_alike(measure_model(model, in_batches(data[0], labels), counts=COUNTS, ignore_index=-1), expected)


def test_a_convolution_is_measured_at_every_position_or_at_their_mean():
    x, maps, labels = torch.randn(30, 2, 6, 5), torch.randint(0, 3, (30, 6, 5)), torch.arange(30) % 3
    maps[:, 0] = -100
    dense, pooled = Convolutional(dense=True), Convolutional(dense=False)
    for model, y in ((dense, maps), (pooled, labels)):
        with torch.no_grad():
            features = torch.relu(model.body(x))
        rows, flat = features.mean((2, 3)), y
        if model.dense:
            rows, flat = features.permute(0, 2, 3, 1).reshape(-1, 8)[y.flatten() >= 0], y.flatten()[y.flatten() >= 0]
        counts = ClassCounts.from_labels(flat)
        expected = measure(rows, flat, model.head.weight.flatten(1), model.head.bias, targets=BOTH, counts=counts)
        assert_alike(measure_model(model, in_batches(x, y, 7), counts=counts), expected, rtol=1e-5)


@pytest.mark.parametrize("features", ["body", lambda model, inputs: torch.relu(model.body(inputs))])
def test_features_may_come_from_elsewhere(data, features):
    model = Small()
    model.head.weight.data *= 3
    if features == "body":
        model.body = nn.Sequential(model.body, nn.ReLU())
        model.forward = lambda x: nn.functional.linear(model.body(x), model.head.weight, model.head.bias)
    result = measure_model(model, in_batches(*data), counts=COUNTS, head="head", features=features)
    assert_alike(result, direct(model, *data, counts=COUNTS))


def test_features_of_a_function_find_the_only_head_and_change_neither_mode_nor_model(data):
    model = Small()
    del model.auxiliary
    modes = []

    def features(inner, inputs):
        modes.append((inner.training, torch.is_grad_enabled()))
        return inner.embed(inputs)

    result = measure_model(model, in_batches(*data), counts=COUNTS, features=features)
    assert_alike(result, direct(model, *data, counts=COUNTS))
    assert modes == [(False, False)] * 4
    assert model.calls == 0


# -- language models ------------------------------------------------------------------------------------


def text(tokens=23, shape=(12, 9)):
    """Tokens as unevenly frequent as a corpus has them; 5, 11 and those above 17 never occur."""
    rng = np.random.default_rng(0)
    used = np.setdiff1d(np.arange(18), [5, 11])
    share = 1 / np.arange(1, used.size + 1)
    drawn = np.concatenate([used, rng.choice(used, np.prod(shape) - used.size, p=share / share.sum())])
    ids = torch.from_numpy(rng.permutation(drawn).reshape(shape))
    ids[0, 1:] = torch.from_numpy(used[:8])  # every token is some other's next
    ids[1, 1:] = torch.from_numpy(used[8:])
    return ids, np.bincount(ids[:, 1:].flatten(), minlength=tokens)


def vocabulary(hidden, labels, weight, counts, bias=None, **options):
    """The direct route: rows of used tokens alone, classes renumbered."""
    used = np.flatnonzero(counts)
    numbered = np.searchsorted(used, labels.numpy())
    return measure(hidden, numbered, weight.detach()[used], None if bias is None else bias.detach()[used],
                   counts=counts[used], names=[str(token) for token in used], targets=BOTH, **options)


def causal(kind):
    transformers = pytest.importorskip("transformers")
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=23, n_positions=16, n_embd=8, n_layer=1, n_head=2)
        return transformers.GPT2LMHeadModel(config), lambda model: model.transformer
    config = transformers.LlamaConfig(vocab_size=23, hidden_size=8, intermediate_size=12, num_hidden_layers=1,
                                      num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16)
    return transformers.LlamaForCausalLM(config), lambda model: model.model


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("padded", ["right", "left", None])
def test_a_causal_model_is_measured_on_its_next_tokens(kind, padded):
    model, body = causal(kind)
    ids, counts = text()
    mask = torch.ones_like(ids)
    if padded:
        mask[4:7, slice(6, None) if padded == "right" else slice(3)] = 0
    model.eval()
    with torch.no_grad():
        hidden = body(model)(input_ids=ids, attention_mask=mask).last_hidden_state[:, :-1]
    used = (mask[:, 1:] * mask[:, :-1]).bool()
    expected = vocabulary(hidden[used], ids[:, 1:][used], model.lm_head.weight, counts)
    batches = [{"input_ids": ids[i:i + 5], "attention_mask": mask[i:i + 5]} for i in range(0, 12, 5)]
    model.train()
    result = measure_model(model, batches, counts=counts, next_token=True)
    assert model.training
    assert_alike(result, expected, rtol=1e-5)
    assert result.measured.names == tuple(map(str, np.flatnonzero(counts)))
    assert result.to_dict()["distance"]["target"] == "seli"
    # The collators of Hugging Face put −100 where nothing is to be predicted.
    labels = ids.masked_fill(mask == 0, -100)
    if padded != "left":
        batches = [{**batch, "labels": labels[i:i + 5]} for batch, i in zip(batches, range(0, 12, 5), strict=True)]
        assert_alike(measure_model(model, batches, counts=counts, next_token=True), expected, rtol=1e-5)


def test_a_batch_encoding_is_a_batch():
    transformers = pytest.importorskip("transformers")
    model, body = causal("gpt2")
    ids, counts = text()
    with torch.no_grad():
        hidden = body(model.eval())(input_ids=ids).last_hidden_state[:, :-1]
    expected = vocabulary(hidden.flatten(0, 1), ids[:, 1:].flatten(), model.lm_head.weight, counts)
    batch = transformers.BatchEncoding({"input_ids": ids})
    assert_alike(measure_model(model, [batch], counts=torch.from_numpy(counts), next_token=True), expected, rtol=1e-5)


@pytest.mark.parametrize("features", ["body", lambda model, tokens: model.body(model.embedding(tokens))])
def test_a_head_that_is_the_embeddings_weight(features):
    model = TiedHead(23, 6)
    ids, counts = text()
    with torch.no_grad():
        hidden = model.body(model.embedding(ids))[:, :-1].flatten(0, 1)
    expected = vocabulary(hidden, ids[:, 1:].flatten(), model.embedding.weight, counts)
    result = measure_model(model, [(ids, ids)], counts=counts, head="embedding", features=features, next_token=True)
    assert_alike(result, expected, rtol=1e-5)


def test_tokens_are_classified_without_a_shift_and_names_go_with_the_classes_kept():
    model = nn.Sequential(nn.Embedding(23, 6), nn.Tanh(), nn.Linear(6, 23))
    ids, counts = text()
    counts = np.bincount(ids.flatten(), minlength=23)
    with torch.no_grad():
        hidden = model[:2](ids).flatten(0, 1)
    names = [f"<{token}>" for token in range(23)]
    expected = vocabulary(hidden, ids.flatten(), model[2].weight, counts, model[2].bias)
    for labels in (ids, ids.flatten()):
        result = measure_model(model, [(ids, labels)], counts=counts.tolist(), names=names)
        assert result.measured.names == tuple(names[token] for token in np.flatnonzero(counts))
        np.testing.assert_allclose(result.to_dict()["nc1"]["trace"], expected.to_dict()["nc1"]["trace"], rtol=1e-6,
                                   atol=0)
        np.testing.assert_allclose(result.to_dict()["margins"]["min"], expected.to_dict()["margins"]["min"], rtol=1e-5,
                                   atol=1e-6)


def test_logits_are_looked_at_a_few_rows_at_a_time(monkeypatch):
    model = TiedHead(23, 6)
    model.lm = nn.Linear(6, 23)
    model.forward = lambda tokens: model.lm(model.body(model.embedding(tokens)))
    ids, counts = text()
    once = measure_model(model, [(ids, ids)], counts=counts, next_token=True).to_dict()
    monkeypatch.setattr("neuralcollapse.measure.labelled.LOGITS_AT_ONCE", 60)
    assert measure_model(model, [(ids, ids)], counts=counts, next_token=True).to_dict() == once


# -- bad input --------------------------------------------------------------------------------------


X, Y = torch.ones(2, 4), torch.tensor([0, 1])
SEQUENCE = torch.ones(2, 5, 4)
TWO = ClassCounts([1, 1])


class BothReturned(Small):
    def forward(self, x):
        return self.head(self.embed(x)), self.auxiliary(self.embed(x))


def once(batches):
    yield from batches


def small(batches, counts=(20, 20, 20), **options):
    return measure_model(Small(), batches, counts=ClassCounts(counts), **options)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: small([]), "batches must hold at least one batch, got none"),
    (lambda: small([(X, Y)], (1, 1)), "the head must have one output per class, expected 2, got 3"),
    (lambda: measure_model(BothReturned(), [(X, Y)], counts=COUNTS),
     "2 layers could be the head, auxiliary, head: name one with head="),
    (lambda: small([(X, Y)], features=lambda model, x: model.embed(x)),
     "2 layers could be the head, auxiliary, head: name one with head="),
    (lambda: small([(X, Y)], head="head", features=lambda model, x: None),
     "features must return a tensor, got NoneType"),
    (lambda: small([(X, Y)], head="head", features=lambda model, x: x),
     "features must be the head's input, (…, 8), got (2, 4)"),
    (lambda: small([X]), "batches must give (inputs, labels) or a dict with 'labels', got Tensor"),
    (lambda: small([(X, Y, Y)]), "batches must give (inputs, labels) or a dict with 'labels', got 3 parts"),
    (lambda: small([{"x": X}]), "a batch that is a dict must hold 'labels' or 'label', got x"),
    (lambda: small([{}], next_token=True), "a batch that is a dict must hold 'labels' or 'input_ids', got nothing"),
    (lambda: small([(X, Y[:1])]), "labels must have shape (2,), one per sample of the head's input, got (1,)"),
    (lambda: small([(SEQUENCE, Y)]), "labels must have shape (2, 5), one per sample of the head's input, got (2,)"),
    (lambda: small([(X, Y)], next_token=True),
     "labels must have shape (batch, sequence) with next_token=True, got (2,)"),
    (lambda: small([(X, Y + 0.5)]), "labels must be whole numbers, got torch.float32 ([0.5, 1.5])"),
    (lambda: small([(X, Y / 0)]), "labels must be whole numbers, got torch.float32 ([nan, inf])"),
    (lambda: small([(X, ["a", "b"])]), "labels must be whole numbers 0 … k−1, got <U1 (['a', 'b']): give class "
     "indices, such as np.unique(labels, return_inverse=True)[1]"),
    (lambda: measure_model(Small(), [(X, Y)], counts=COUNTS, head=nn.Linear(8, 3)),
     "head must be a layer of the model or its name, got Linear"),
    (lambda: small([(X, Y + 2)]), "labels must be in 0 … 2, got 3 in batch 1"),
    (lambda: small([(X, Y), (X * torch.nan, Y)]), "features must be finite, got NaN or Inf in batch 2"),
    (lambda: small([(X, Y - 101)], ignore_index=-101), "labels must be in 0 … 2, got -100 in batch 1"),
    (lambda: small([(X, 0 * Y - 100)]), "batches must hold labels other than ignore_index=-100, got none"),
    (lambda: measure_model(Small(), [(X, Y)], counts=[5, 0, 5]),
     "labels must be classes with a count in 0 … 2, got 1, whose count is 0"),
    (lambda: measure_model(Small(), [(X, Y + 2)], counts=[5, 0, 5]),
     "labels must be classes with a count in 0 … 2, got 3"),
    (lambda: measure_model(Small(), [(X, Y)], counts=[5, 0, 5], names=["a", "b"]),
     "names must be one per class, expected 3, got 2"),
    (lambda: measure_model(Small(), [(X, Y)], counts=[5, 0, 0]), "counts must name at least two classes, got 1 ([5])"),
    (lambda: measure_model(Convolutional(dense=True), [(torch.ones(2, 2, 6, 5), torch.ones(2, 3, 5).long())],
                           counts=COUNTS),
     "labels must have shape (2,) or (2, 6, 5), one per sample of the head's input, got (2, 3, 5)"),
])
def test_bad_input_gets_its_one_line(call, message):
    with pytest.raises(InvalidInput) as caught:
        call()
    assert str(caught.value) == message


def test_labels_may_be_floats_that_are_whole_arrays_lists_or_called_label(data):
    inputs, labels = data
    model = Small()
    expected = measure_model(model, [data], counts=COUNTS).to_dict()
    for given in (labels.float(), labels.double(), labels.numpy(), labels.tolist()):
        assert measure_model(model, [(inputs, given)], counts=COUNTS).to_dict() == expected
    for name in ("label", "labels"):
        assert measure_model(model, [{"x": inputs, name: labels}], counts=COUNTS).to_dict() == expected


def test_the_head_may_be_given_as_the_layer_itself(data):
    model = Small()
    for layer, name in ((model.head, "head"), (model.auxiliary, "auxiliary")):
        assert (measure_model(model, [data], counts=COUNTS, head=layer).to_dict()
                == measure_model(model, [data], counts=COUNTS, head=name).to_dict())


def test_counts_by_class_are_those_in_order(data):
    model = Small()
    expected = measure_model(model, [data], counts=[3, 2, 5]).to_dict()
    assert measure_model(model, [data], counts=Counter({2: 5, 0: 3, 1: 2})).to_dict() == expected
    named = measure_model(model, [data], counts={"a": 3, "b": 2, "c": 5})
    assert (named.to_dict(), named.measured.names) == (expected, ("a", "b", "c"))


def test_batches_that_are_gone_after_one_pass_are_not_taken_for_a_second(data, monkeypatch):
    model = Small()
    expected = measure_model(model, in_batches(*data), counts=COUNTS).to_dict()
    assert measure_model(model, once(in_batches(*data)), counts=COUNTS).to_dict() == expected  # they fit
    monkeypatch.setattr("neuralcollapse.measure.model._KEPT_BYTES", 100)
    with pytest.raises(InvalidInput) as caught:
        measure_model(model, once(in_batches(*data)), counts=COUNTS)
    assert str(caught.value) == ("batches must give the same samples each time they are gone through, as a list or a "
                                 "DataLoader does: 60 the first time, 0 the second; or give nc4=None")


def test_everything_is_as_before_when_the_model_or_the_loader_fails(data):
    def failing():
        yield data
        raise KeyError("disk")

    model = Small()
    for batches, error in ((failing(), KeyError), ([(torch.ones(2, 5), Y)], RuntimeError)):
        with pytest.raises(error):
            measure_model(model, batches, counts=COUNTS)
        assert all(module.training for module in model.modules())
        assert torch.is_grad_enabled()
        assert not [hook for module in model.modules() for hook in (*module._forward_hooks,
                                                                    *module._forward_pre_hooks)]


def test_a_measurement_stays_when_training_goes_on():
    torch.manual_seed(0)
    x, y = torch.randn(60, 4, dtype=torch.float64), torch.arange(60) % 3
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    now, later = (measure_model(model, [(x, y)], counts=[20, 20, 20], head="2") for _ in range(2))
    expected = now.to_dict()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert later.to_dict() == expected
