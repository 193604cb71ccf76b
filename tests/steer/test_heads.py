"""Heads at a geometry: Grams against dense algebra, training against the theory, their manners as layers."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from neuralcollapse import Gram, InvalidInput, Probe, measure_model, predict
from neuralcollapse.steer.cosine import CosineHead
from neuralcollapse.steer.heads import GeometryHead, etf_head, geometry_head, replace_head, seli_head

DOUBLE = torch.float64


def gram_of(head):
    weight = head.weight.detach().double().numpy()
    return weight @ weight.T


def unit(matrix):
    return matrix / np.linalg.norm(matrix)


# -- the geometry they hold ------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "d"), [(2, 1), (4, 3), (10, 64)])
def test_the_etf_head_is_equiangular(k, d):
    found = gram_of(etf_head(k, d, scale=3.0, dtype=DOUBLE))
    np.testing.assert_allclose(found, 9 * (np.eye(k) * k / (k - 1) - 1 / (k - 1)), rtol=0, atol=1e-10)


def test_the_etf_head_in_few_dimensions_spreads_its_classes():
    found = gram_of(etf_head(6, 3, dtype=DOUBLE))
    np.testing.assert_allclose(found.diagonal(), 1, rtol=0, atol=1e-12)
    assert (found - np.eye(6)).max() < 1e-12  # the octahedron: no angle below 90°


@pytest.mark.parametrize("counts", [[10, 10, 1, 1], [500, 40, 7, 3, 1]], ids=str)
def test_the_seli_head_is_that_of_the_sel_matrix(counts):
    k = len(counts)
    left, singular, _ = np.linalg.svd((np.eye(k) - np.ones((k, k)) / k) @ np.diag(np.sqrt(counts)))
    found = gram_of(seli_head(counts, 9, scale=0.5, dtype=DOUBLE))
    np.testing.assert_allclose(unit(found), unit(left @ np.diag(singular) @ left.T), rtol=0, atol=1e-10)
    # The scale is the root mean square of the lengths.
    assert np.trace(found) == pytest.approx(k * 0.25, rel=1e-12)


def test_any_geometry_or_gram_matrix_has_a_head():
    geometry = predict([100, 30, 3, 3], ridge=0.7)
    for head in (geometry_head(geometry, 6, dtype=DOUBLE), GeometryHead(geometry.classifiers, 6, dtype=DOUBLE)):
        np.testing.assert_allclose(unit(gram_of(head)), unit(geometry.classifiers.dense()), rtol=0, atol=1e-10)
    assert torch.equal(etf_head(3, 4, seed=1).weight, etf_head(3, 4, seed=1).weight)
    assert not torch.equal(etf_head(3, 4, seed=1).weight, etf_head(3, 4, seed=2).weight)


def test_making_a_head_draws_nothing_from_the_global_generator():
    state = torch.get_rng_state()
    etf_head(5, 8, bias=True)
    assert torch.equal(state, torch.get_rng_state())


def test_reset_returns_to_the_geometry():
    for options in ({}, {"learn": True}, {"learn_scale": True}):
        head = etf_head(4, 6, scale=2.0, bias=True, **options)
        before = head.weight.detach().clone()
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.add_(1)
        head.reset_parameters()
        assert torch.equal(head.weight, before)
        assert torch.equal(head.bias, torch.zeros(4))


def test_a_head_without_memory_is_filled_once_it_has_some():
    head = etf_head(4, 6, device="meta", learn_scale=True, scale=3.0)
    assert head.weight.is_meta
    head = head.to_empty(device="cpu")
    head.reset_parameters()
    assert torch.equal(head.weight, etf_head(4, 6, learn_scale=True, scale=3.0).weight)


# -- as layers -------------------------------------------------------------------------------------

KINDS = {
    "fixed": lambda **o: etf_head(4, 6, **o), "bias": lambda **o: seli_head([9, 4, 1, 1], 6, bias=True, **o),
    "scaled": lambda **o: etf_head(4, 6, learn_scale=True, scale=5.0, bias=True, **o),
    "learned": lambda **o: seli_head([9, 4, 1, 1], 6, learn=True, learn_scale=True, **o),
    "cosine": lambda **o: CosineHead(4, 6, **o), "cosine scaled": lambda **o: CosineHead(4, 6, learn_scale=True, **o),
}
TRAINED = {"fixed": set(), "bias": {"bias"}, "scaled": {"bias", "log_scale"}, "learned": {"weight"},
           "cosine": {"weight"}, "cosine scaled": {"weight", "log_scale"}}


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_is_called_as_a_linear_layer(kind):
    torch.manual_seed(0)
    head = KINDS[kind](dtype=DOUBLE)
    assert isinstance(head, nn.Linear)
    assert (head.in_features, head.out_features, tuple(head.weight.shape)) == (6, 4, (4, 6))
    features = torch.randn(2, 5, 6, dtype=DOUBLE)
    scaled = F.normalize(features, dim=-1) if kind.startswith("cosine") else features
    bias = 0 if head.bias is None else head.bias
    torch.testing.assert_close(head(features), scaled @ head.weight.T + bias, rtol=1e-14, atol=1e-14)
    assert {name for name, p in head.named_parameters() if p.requires_grad} == TRAINED[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_copies_do_the_same_and_half_precision_nearly(kind):
    torch.manual_seed(0)
    head, features = KINDS[kind](), torch.randn(3, 6)
    expected = head(features)
    # torch.save of a whole model and spawned workers pickle it; these bytes are our own.
    for other in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        assert torch.equal(other(features), expected)
    half = copy.deepcopy(head).to(torch.bfloat16)
    assert half.weight.dtype == torch.bfloat16
    # Eight bits of mantissa in weights, features and scale, a few roundings each; logits up to 20.
    torch.testing.assert_close(half(features.bfloat16()).float(), expected, rtol=0.05, atol=0.2)


def test_every_head_compiles_in_one_graph():
    # In a process of its own: the checks of this test run's signatures cannot be traced.
    code = """
import torch
from neuralcollapse.steer.cosine import CosineHead
from neuralcollapse.steer.heads import etf_head
torch.manual_seed(0)
features = torch.randn(3, 6)
for head in (etf_head(4, 6), etf_head(4, 6, learn_scale=True, bias=True), CosineHead(4, 6, learn_scale=True)):
    compiled = torch.compile(head, backend="eager", fullgraph=True)
    print(torch.equal(compiled(features), head(features)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == ["True"] * 3, result.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimiser_moves_what_is_trained_and_nothing_else(kind):
    torch.manual_seed(0)
    head = KINDS[kind]()
    before = {name: p.detach().clone() for name, p in head.named_parameters()}
    trained = [p for p in head.parameters() if p.requires_grad]
    loss = F.cross_entropy(head(torch.randn(8, 6)), torch.arange(8) % 4)
    if trained:
        loss.backward()
        torch.optim.Adam(head.parameters(), lr=0.1).step()
    moved = {name for name, p in head.named_parameters() if not torch.equal(p, before[name])}
    assert moved == TRAINED[kind]
    if kind == "scaled":  # the geometry stays as the scale moves
        np.testing.assert_allclose(unit(gram_of(head)), unit(np.eye(4) - 1 / 4), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["fixed", "bias", "scaled", "learned"])
def test_checkpoints_go_to_a_linear_layer_and_back(kind):
    torch.manual_seed(0)
    head = KINDS[kind](dtype=DOUBLE)
    linear = nn.Linear(6, 4, bias=head.bias is not None, dtype=DOUBLE)
    features = torch.randn(3, 6, dtype=DOUBLE)
    # To head from linear: its classifiers, and whatever was trained stays so.
    other = copy.deepcopy(head)
    other.load_state_dict(linear.state_dict(), strict=True)
    torch.testing.assert_close(other(features), linear(features), rtol=1e-14, atol=1e-14)
    assert {name for name, p in other.named_parameters() if p.requires_grad} == TRAINED[kind]
    # To linear from head, inside models, whose keys have a prefix.
    nn.Sequential(linear).load_state_dict(nn.Sequential(head).state_dict(), strict=True)
    torch.testing.assert_close(linear(features), head(features), rtol=1e-14, atol=1e-14)
    for assign in (False, True):
        fresh = KINDS[kind](dtype=DOUBLE, seed=5)
        fresh.load_state_dict(head.state_dict(), strict=True, assign=assign)
        torch.testing.assert_close(fresh(features), head(features), rtol=1e-14, atol=1e-14)
        for one, two in zip(fresh.parameters(), head.parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-14, atol=1e-14)


def test_a_bfloat16_scale_takes_over_a_checkpoint_to_its_own_precision():
    torch.manual_seed(0)
    linear = nn.Linear(6, 4, bias=False, dtype=torch.bfloat16)
    head = etf_head(4, 6, learn_scale=True, dtype=torch.bfloat16)
    head.load_state_dict(linear.state_dict())
    torch.testing.assert_close(head.weight, linear.weight, rtol=2.0**-6, atol=0)  # two roundings to 2^-8 and exp's


def test_a_zero_or_ill_fitting_checkpoint_is_refused():
    head = etf_head(4, 6, learn_scale=True)
    with pytest.raises(RuntimeError, match="weight must not be zero where its scale is learned"):
        head.load_state_dict({"weight": torch.zeros(4, 6)})
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        head.load_state_dict({"weight": torch.ones(3, 6)})
    with pytest.raises(RuntimeError, match="Missing key"):
        head.load_state_dict({})


# -- in a model ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scaled", "fixed", "cosine", "bias"])
def test_such_heads_are_found_and_measured(name):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4))
    head = KINDS[name]()
    replace_head(model, head)
    if head.bias is not None:
        nn.init.normal_(head.bias)
    inputs, labels = torch.randn(40, 5), torch.arange(40) % 4
    probe = Probe(model, classes=4)
    with probe:
        logits = model(inputs)
    assert probe.head is head
    assert torch.equal(probe.logits(), logits)
    found = measure_model(model, [(inputs, labels)], counts=[10] * 4, targets=["etf"]).to_dict()
    weight = head.weight.detach().double().numpy()
    np.testing.assert_allclose(found["norms"]["classifiers"], np.linalg.norm(weight, axis=1), rtol=1e-6)
    distance = np.linalg.norm(unit(weight @ weight.T) - unit(np.eye(4) - 1 / 4))
    assert found["distance"]["classifiers"] == pytest.approx(distance, rel=1e-5, abs=1e-6)
    chosen = logits[torch.arange(40), labels]
    rivals = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    assert found["margins"]["min"] == pytest.approx((chosen - rivals).min().item(), rel=1e-5)


# -- training --------------------------------------------------------------------------------------


def trained_features(weight, labels, ridge):
    """The minimum over H of Σ CE + λ/2‖H‖², convex: L-BFGS in float64."""
    features = torch.zeros(len(labels), weight.shape[1], dtype=DOUBLE, requires_grad=True)
    optimiser = torch.optim.LBFGS([features], max_iter=2000, tolerance_grad=1e-12, tolerance_change=0,
                                  line_search_fn="strong_wolfe")

    def objective():
        optimiser.zero_grad()
        loss = (F.cross_entropy(features @ weight.T, labels, reduction="sum")
                + ridge / 2 * features.square().sum())
        loss.backward()
        return loss

    optimiser.step(objective)
    return features.detach()


@pytest.mark.parametrize("counts", [[3, 3, 3, 3], [9, 4, 1, 1]], ids=str)
def test_features_under_a_fixed_etf_head_collapse_onto_it(counts):
    weight = etf_head(4, 5, scale=2.0, dtype=DOUBLE).weight.detach()
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    features = trained_features(weight, labels, ridge=1e-3)
    # NC3, sample by sample and whatever the counts: a fixed head leaves each sample a problem of its own.
    cosines = F.cosine_similarity(features, weight[labels], dim=1)
    torch.testing.assert_close(cosines, torch.ones_like(cosines), rtol=0, atol=1e-9)


def test_features_under_a_seli_head_of_balanced_counts_align_with_it():
    weight = seli_head([4] * 3, 3, dtype=DOUBLE).weight.detach()
    labels = torch.arange(3).repeat(4)
    features = trained_features(weight, labels, ridge=0.01)
    means = torch.stack([features[labels == c].mean(0) for c in range(3)])
    nc3 = torch.linalg.norm(weight / torch.linalg.norm(weight) - means / torch.linalg.norm(means))
    assert nc3 < 1e-8


def test_features_under_the_head_of_a_finite_ridge_find_its_embeddings():
    counts, ridge = [20, 20, 4, 2], 0.4
    geometry = predict(counts, ridge=ridge)
    # λ_W = λ_H = λ: the classifiers of the joint optimum, lengths included, leave H its own half of it.
    scale = float(np.sqrt(geometry.classifiers.trace / 4))
    weight = geometry_head(geometry, 4, scale=scale, dtype=DOUBLE).weight.detach()
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    features = trained_features(weight, labels, ridge)
    means = torch.stack([features[labels == c].mean(0) for c in range(4)]).numpy()
    # The solver's relative gap is below 1e-9, which leaves its variables 1e-5 or better.
    np.testing.assert_allclose(means @ means.T, geometry.embeddings.dense(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(weight.numpy() @ means.T, geometry.logits.dense(), rtol=0, atol=1e-4)


# -- bad input -------------------------------------------------------------------------------------

MERGED = "ask for a smaller ridge, or start there with learn=True"
INVALID = [
    (lambda: etf_head(1, 4), "k must be at least 2 classes, got 1"),
    (lambda: etf_head(4, 0), "d must be at least 1, got 0"),
    (lambda: seli_head([3, 1], -1), "d must be at least 1, got -1"),
    (lambda: etf_head(3, 4, scale=-1.0), "scale must be a positive number, got -1.0"),
    (lambda: seli_head([10, 10, 1, 1], 2),
     "d must be at least 3, the rank of SELI for 4 classes, got 2: widen the features, or take etf_head(4, 2), a "
     "spherical code"),
    (lambda: seli_head([5, 5, 5, 5], 2),
     "d must be at least 3, the rank of SELI for 4 classes, got 2: widen the features, or take etf_head(4, 2), a "
     "spherical code"),
    (lambda: seli_head([5, 5, 5], 1), "d must be at least 2, the rank of SELI for 3 classes, got 1: widen the "
                                      "features"),
    (lambda: geometry_head(predict([10, 10, 1, 1]), 2),
     "d must be at least 3, the rank of this geometry's classifiers, got 2: widen the features, or take the simplex "
     "ETF, which has a substitute in fewer dimensions"),
    (lambda: seli_head([10, 0], 2), "every class needs a sample, and class 1 has none: drop it from labels and head, "
                                    "or give it a small positive count (class_counts does with absent=1)"),
    (lambda: geometry_head(predict([100, 30, 1], "mse", ridge=2.0), 4),
     f"a fixed head must have a classifier for every class, got length 0 for class 2 in this geometry: {MERGED}"),
    (lambda: geometry_head(predict([10, 1, 10, 1], ridge=2.0), 4),
     f"a fixed head must tell its classes apart, but 1 and 3 share their classifier in this geometry: {MERGED}"),
    (lambda: geometry_head(predict([2, 1], ridge=5.0), 4),
     "the geometry must have classifiers, got lengths of 0 for every class (total collapse): ask for a smaller ridge"),
    (lambda: geometry_head(Gram.from_dense(np.array([[1.0, 2.0], [2.0, 1.0]])), 3),
     "the Gram matrix must be positive semidefinite, got a negative eigenvalue: a Gram matrix holds the inner products "
     "of vectors"),
]


@pytest.mark.parametrize(("call", "message"), INVALID, ids=[message[:50] for _, message in INVALID])
def test_bad_input_is_told_in_one_line(call, message):
    with pytest.raises(InvalidInput) as caught:
        call()
    assert str(caught.value) == message


def test_a_learned_head_may_start_where_classes_have_merged():
    head = geometry_head(predict([10, 1, 10, 1], ridge=2.0), 4, learn=True, dtype=DOUBLE)
    torch.testing.assert_close(head.weight[1], head.weight[3], rtol=0, atol=1e-7)
    F.cross_entropy(head(torch.randn(8, 4, dtype=DOUBLE)), torch.arange(8) % 4).backward()
    assert not torch.allclose(head.weight.grad[1], head.weight.grad[3])
