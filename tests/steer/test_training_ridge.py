"""λ_W and λ_H in real loops lead where theory says, however the model is wrapped; groups, warnings, schedules."""

import os
from pathlib import Path
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.measure import Probe
from neuralcollapse.predict import predict
from neuralcollapse.steer.ridge import (
    FeaturePenalty,
    MinorityCollapseWarning,
    RidgeSchedule,
    check_weight_decay,
    parameter_groups,
)


class FreeModel(nn.Module):
    """The unconstrained-features model as a network: a table of features and a head."""

    def __init__(self, counts, d, bias=False):
        super().__init__()
        self.table = nn.Embedding(int(sum(counts)), d, dtype=torch.float64)
        self.head = nn.Linear(d, len(counts), bias=bias, dtype=torch.float64)

    def forward(self, index):
        return self.head(self.table(index))


def train(counts, w, p, steps, batches=1, optimizer="sgd", lr=3.0, schedule=None):
    torch.manual_seed(0)
    model = FreeModel(counts, d=len(counts) + 2)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    groups = parameter_groups(model, w, backbone_decay=0.0)
    kind = {"sgd": lambda g: torch.optim.SGD(g, lr=lr, momentum=0.9, nesterov=True),
            "adam": lambda g: torch.optim.Adam(g, lr=lr)}[optimizer]
    steps_taken = kind(groups)
    with FeaturePenalty(model, p, n=len(labels)) as penalty:
        moved = None if schedule is None else schedule(steps_taken, penalty)
        for step in range(steps):
            if optimizer == "adam":
                for group in steps_taken.param_groups:
                    group["lr"] = lr * 0.5 * (1 + np.cos(np.pi * step / steps))
            steps_taken.zero_grad()
            for part in torch.arange(len(labels)).reshape(batches, -1):
                loss = F.cross_entropy(model(part), labels[part]) + penalty()
                (loss / batches).backward()
            steps_taken.step()
            if moved is not None:
                moved.step()
    with torch.no_grad():
        means = torch.stack([model.table.weight[labels == c].mean(0) for c in range(len(counts))])
        return model.head.weight.numpy(), means.numpy(), model.table.weight.numpy()


@pytest.mark.parametrize(("counts", "w", "p", "options"), [
    ([10, 10, 2, 2], 0.06, 0.015, {}),
    ([10, 10, 2, 2], 0.06, 0.015, {"batches": 4}),
    ([10, 10, 2, 2], 0.06, 0.015, {"optimizer": "adam", "lr": 0.05}),
    ([12, 6, 3, 3], 0.01, 0.04, {}),
    ([8, 8, 1, 1], 0.1, 0.06, {}),  # λ ≥ 1: the minorities merge
])
def test_a_real_loop_reaches_the_predicted_geometry(counts, w, p, options):
    n = sum(counts)
    weight, means, features = train(counts, w, p, steps=700, **options)
    geometry = predict(counts, ridge=n * np.sqrt(w * p))
    scale = np.sqrt(p / w)  # ‖W‖² of λ_W = λ_H times √(λ_H/λ_W)
    for found, gram in ((weight / scale**0.5, geometry.classifiers), (means * scale**0.5, geometry.embeddings)):
        np.testing.assert_allclose(found @ found.T, gram.dense(), atol=1e-4 * gram.frobenius)
    np.testing.assert_allclose(weight @ means.T, geometry.logits.dense(), atol=1e-4 * geometry.logits.frobenius)
    assert w * np.sum(weight**2) == pytest.approx(p * np.sum(features**2), rel=1e-3), "balance, theory.md §4"


def test_the_convention_is_that_of_the_training_command():
    config = TrainConfig(head_weight_decay=0.06, feature_penalty=0.015)
    assert config.ridges(24) == pytest.approx((24 * 0.06, 24 * 0.015))
    h = torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 1.0]])
    model = nn.Linear(2, 2)
    with FeaturePenalty(model, p=0.015, n=24) as penalty:
        model(h)
        expected = sum(0.015 / 2 * 24 / 3 * float(x) ** 2 for row in h for x in row)
        assert penalty().item() == pytest.approx(expected, rel=1e-6)


# -- groups -------------------------------------------------------------------------------------------------------


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.wide = nn.LayerNorm((4, 6, 6))
        self.scale = nn.Parameter(torch.ones(()))
        self.register_parameter("frozen", nn.Parameter(torch.ones(2, 2), requires_grad=False))
        self.classify = nn.Conv2d(4, 5, 1)

    def forward(self, x):
        return self.classify(self.wide(self.norm(self.conv(x))) * self.scale)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, add_bias_kv=True)
        self.recurrent = nn.LSTM(8, 8)
        self.norms = nn.ModuleList([nn.RMSNorm(8), nn.GroupNorm(2, 8), nn.InstanceNorm1d(8, affine=True)])
        self.head_like, self.real = nn.Linear(8, 4), nn.Linear(8, 5)


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=5,
        max_position_embeddings=16))


def gpt():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=16, n_embd=8, n_layer=1, n_head=2))


MODELS = {
    "linear": (lambda: nn.Linear(4, 5), None, lambda m: m, []),
    "tower": (Tower, None, lambda m: m.classify, ["conv.weight", "frozen"]),
    "attention": (Attention, "real", lambda m: m.real,
                  ["attention.in_proj_weight", "attention.out_proj.weight", "recurrent.weight_ih_l0",
                   "recurrent.weight_hh_l0", "head_like.weight"]),
    "bert": (bert, None, lambda m: m.classifier, None),
    "gpt": (gpt, "lm_head", lambda m: m.lm_head, None),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_is_in_exactly_one_group(name):
    make, head, layer, backbone = MODELS[name]
    model = make()
    counts = [9, 8, 7, 6, 5] if head is None else None
    groups = {group["name"]: group for group in
              parameter_groups(model, 1e-3, backbone_decay=1e-4, head=head, counts=counts)}
    listed = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(listed) == sorted({id(p) for p in model.parameters()})
    assert [id(p) for p in groups["classifier"]["params"]] == [id(layer(model).weight)]
    assert [group["weight_decay"] for group in groups.values()] == [
        {"classifier": 1e-3, "backbone": 1e-4, "plain": 0.0}[name] for name in groups]
    matrices = {id(p): name for name, p in model.named_parameters()}
    decayed = [matrices[id(p)] for p in groups.get("backbone", {"params": []})["params"]]
    if backbone is not None:
        assert sorted(decayed) == sorted(backbone)
    else:
        assert all(name.endswith("weight") and "Norm" not in name and "ln_" not in name for name in decayed)
        plain = [matrices[id(p)] for p in groups["plain"]["params"]]
        assert all(name.endswith("bias") or "Norm" in name or "ln_" in name for name in plain)
    torch.optim.AdamW(list(groups.values()), lr=1e-3)


def test_an_embedding_tied_to_the_head_is_the_classifier():
    model = gpt()
    assert model.lm_head.weight is model.transformer.wte.weight
    for head in ("lm_head", "transformer.wte", model.lm_head):
        groups = parameter_groups(model, 1e-3, head=head)
        assert [p is model.transformer.wte.weight for p in groups[0]["params"]] == [True]
    used_twice = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4))
    assert parameter_groups(used_twice, 1e-3, head="0")[0]["params"][0] is used_twice[0].weight


def test_wrappers_and_probes_lead_to_the_same_groups():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    with (probe := Probe(model)):
        model(torch.ones(2, 4))
    direct = [[id(p) for p in group["params"]] for group in parameter_groups(model, 1e-3, head="2")]
    for wrapped, head in ((model, probe), (torch.compile(model, backend="eager"), "_orig_mod.2"),
                          (nn.DataParallel(model), "module.2"), (model, model[2])):
        assert [[id(p) for p in group["params"]] for group in parameter_groups(wrapped, 1e-3, head=head)] == direct


def test_a_ridge_becomes_a_weight_decay():
    counts, model = ClassCounts([50, 50, 5, 5]), nn.Linear(3, 4)
    assert parameter_groups(model, ridge=0.55, counts=counts)[0]["weight_decay"] == pytest.approx(0.55 / 110)
    w = parameter_groups(model, ridge=0.55, counts=counts, feature_penalty=1e-5)[0]["weight_decay"]
    assert 110 * np.sqrt(w * 1e-5) == pytest.approx(0.55, rel=1e-12)


# -- the penalty --------------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, depth=1):
        super().__init__()
        self.body = nn.Sequential(*[nn.Linear(4 if i == 0 else 6, 6) for i in range(depth)], nn.Tanh())
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.body(x))


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def by_hand(model, x, y, p, n):
    h = model.body(x)
    return F.cross_entropy(model.head(h), y) + 0.5 * p * n * (h * h).sum() / len(x)


def net(seed=0, **options):
    torch.manual_seed(seed)
    return Net(**options), torch.randn(12, 4), torch.arange(12) % 3


def test_the_penalty_differentiates_as_written_out():
    model, x, y = net()
    by_hand(model, x, y, 0.3, 40).backward()
    expected = gradients(model)
    model.zero_grad()
    with FeaturePenalty(model, 0.3, 40, head="head") as penalty:
        loss = F.cross_entropy(model(x), y) + penalty()
        loss.backward()
        with torch.no_grad():
            model(x[:3])  # an evaluation leaves nothing behind
        with pytest.raises(InvalidInput, match=r"^the penalty has no features, since the head was not reached: run"):
            penalty()
    np.testing.assert_allclose(gradients(model), expected, rtol=1e-6, atol=1e-7)
    assert not model.head._forward_pre_hooks
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_is_penalised(backend):
    torch._dynamo.reset()
    model, x, y = net(depth=2 if backend == "eager" else 3)
    by_hand(model, x, y, 0.3, 40).backward()
    expected = gradients(model)
    compiled = torch.compile(model, backend=backend)
    with FeaturePenalty(compiled, 0.3, 40, head="head") as penalty:
        for _ in range(3):  # compiled, then used
            model.zero_grad()
            (F.cross_entropy(compiled(x), y) + penalty()).backward()
            np.testing.assert_allclose(gradients(model), expected, rtol=1e-5, atol=1e-6)
    torch._dynamo.reset()


def test_under_autocast_the_penalty_is_a_float32_sum():
    model, x, _ = net()
    with FeaturePenalty(model, 0.3, 40, head="head") as penalty, torch.autocast("cpu", torch.bfloat16):
        model(1e3 * x)
        value = penalty()
        h = model.body(1e3 * x)
    assert h.dtype == torch.bfloat16
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(6.0 * h.float().square().sum(1).mean().item(), rel=1e-6)


def test_micro_batches_add_up():
    model, x, y = net()
    by_hand(model, x, y, 0.3, 40).backward()
    expected = gradients(model)
    model.zero_grad()
    with FeaturePenalty(model, 0.3, 40, head="head") as penalty:
        for part in torch.arange(12).reshape(3, 4):
            ((F.cross_entropy(model(x[part]), y[part]) + penalty()) / 3).backward()
    np.testing.assert_allclose(gradients(model), expected, rtol=1e-5, atol=1e-7)


def test_an_evaluation_in_between_takes_nothing_away():
    model, x, y = net()
    by_hand(model, x, y, 0.3, 40).backward()
    expected = gradients(model)
    model.zero_grad()
    with FeaturePenalty(model, 0.3, 40, head="head") as penalty:
        loss = F.cross_entropy(model(x), y)
        for unwatched in (torch.no_grad, torch.inference_mode):
            with unwatched():
                model.eval()(x[:3])
        (loss + penalty()).backward()
    np.testing.assert_allclose(gradients(model), expected, rtol=1e-5, atol=1e-7)


def test_positions_that_are_no_samples_are_left_out():
    model = nn.Linear(2, 3)
    x = torch.tensor([[[1.0, 1.0], [9.0, 9.0]], [[2.0, 0.0], [0.0, 2.0]]])
    kept = torch.tensor([[True, False], [True, True]])
    with FeaturePenalty(model, 1.0, 6) as penalty:
        model(x)
        assert penalty(kept).item() == pytest.approx(3.0 * (2 + 4 + 4) / 3)
        model(x)
        with pytest.raises(InvalidInput) as error:
            penalty(kept[0])
    assert str(error.value) == ("kept must have the shape of the head's only input without its features, (2, 2), "
                                "got (2,)")


def test_a_convolution_is_penalised_at_every_position():
    model, x = Tower(), torch.randn(2, 1, 8, 8)
    with FeaturePenalty(model, 0.2, 10) as penalty:
        model(x)
        value = penalty().item()
    h = model.wide(model.norm(model.conv(x))) * model.scale
    assert value == pytest.approx(h.square().sum(1).mean().item(), rel=1e-5)


def in_one_of_two_processes(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    model, x, y = net()
    parallel = nn.parallel.DistributedDataParallel(model)
    half = slice(6 * rank, 6 * rank + 6)
    with FeaturePenalty(parallel, 0.3, 40, head="head") as penalty:
        (F.cross_entropy(parallel(x[half]), y[half]) + penalty()).backward()
    np.save(f"{folder}/{rank}.npy", gradients(model).numpy())
    torch.distributed.barrier()  # a group whose other rank is still at work may abort as it is taken down
    torch.distributed.destroy_process_group()


def test_two_processes_make_one_batch(tmp_path):
    model, x, y = net()
    by_hand(model, x, y, 0.3, 40).backward()
    ranks = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)], stderr=subprocess.PIPE,
                              env={**os.environ, "OMP_NUM_THREADS": "1"}) for rank in range(2)]
    try:
        messages = [process.communicate(timeout=240)[1].decode() for process in ranks]
    finally:
        for process in ranks:
            process.kill()  # a rank whose partner died would wait for it
    assert [process.returncode for process in ranks] == [0, 0], messages
    for rank in range(2):
        np.testing.assert_allclose(np.load(tmp_path / f"{rank}.npy"), gradients(model), rtol=1e-5, atol=1e-6)


# -- the warning --------------------------------------------------------------------------------------------------


def test_the_warning_comes_at_the_threshold_and_not_below():
    counts = [50, 50, 4, 4]  # λ = 2 merges the minorities: w = p = 2/108
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_weight_decay(counts, 2 / 108 * (1 - 1e-9)).safe
        assert check_weight_decay(counts, 4e-2, feature_penalty=(2 / 108) ** 2 / 4e-2 * (1 - 1e-9)).safe
    for w, p in ((2 / 108, None), (4e-2, (2 / 108) ** 2 / 4e-2), (2 / 108 * 1.001, None)):
        with pytest.warns(MinorityCollapseWarning, match=r"gives one classifier to classes 2, 3: they stay "):
            safety = check_weight_decay(counts, w, p)
        assert safety.safe_ridge == pytest.approx(2, rel=1e-12)
    # What the message promises, by the solver.
    below, above = (predict(counts, ridge=2 * factor).classifiers.cosines()[2, 3] for factor in (0.99, 1.01))
    assert below < 1 - 1e-3
    assert above == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("counts", "w", "message"), [
    (ClassCounts([50, 50, 4, 4], ["cat", "dog", "newt", "toad"]), 0.02,
     "weight decay 0.02 (λ = 2.16) gives one classifier to classes newt, toad: they stay apart below 0.01852 (λ < 2)"),
    (ClassCounts(np.repeat([80, 9, 8, 7, 6], 2)), 0.02,
     "weight decay 0.02 (λ = 4.4) gives one classifier to classes 8, 9; 6, 7; 4, 5 (and 1 more such groups): they "
     "stay apart below 0.01113 (λ < 2.449)"),
    ([50, 50, 4, 4], 0.1,
     "weight decay 0.1 (λ = 10.8) makes every classifier zero: all differ below 0.01852 (λ < 2)"),
    ([50, 40, 30, 20, 10], 0.05,
     "weight decay 0.05 (λ = 7.5) makes every classifier zero: all differ below 0.02321 (λ < 3.482)"),
    ([50, 40, 30, 20, 10], 0.03,
     "weight decay 0.03 (λ = 4.5) leaves the 5 classifiers fewer than 4 dimensions: they keep them below 0.02321 "
     "(λ < 3.482)"),
])
def test_the_warning_says_who_merges_and_what_would_not(counts, w, message):
    with pytest.warns(MinorityCollapseWarning) as caught:
        check_weight_decay(counts, w)
    assert [str(warning.message) for warning in caught] == [message]


def test_groups_warn_where_counts_are_given():
    model = nn.Linear(3, 4)
    with pytest.warns(MinorityCollapseWarning, match=r"^weight decay 0\.02 "):
        parameter_groups(model, 0.02, counts=[50, 50, 4, 4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parameter_groups(model, 0.02)
        parameter_groups(model, 0.02, counts=[50, 50, 4, 4], feature_penalty=1e-4)


# -- schedules ----------------------------------------------------------------------------------------------------


def scheduled(kind="geometric", start=8.0, end=1.0, steps=6, penalty=True):
    model = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 3))
    optimizer = torch.optim.SGD(parameter_groups(model, 0.04, backbone_decay=0.01, head="1"), lr=0.1)
    feature_penalty = FeaturePenalty(model, 0.0025, n=100, head="1") if penalty else None
    return RidgeSchedule(optimizer, feature_penalty, start=start, end=end, steps=steps, kind=kind,
                         n=None if penalty else 100)


def ridges(schedule, steps):
    """λ from what the optimiser and the penalty hold, step by step."""
    found = []
    for _ in range(steps):
        w, p = schedule.optimizer.param_groups[0]["weight_decay"], schedule.penalty.p
        assert w / p == pytest.approx(16, rel=1e-12)
        found.append(100 * np.sqrt(w * p))
        schedule.step()
    return found


@pytest.mark.parametrize(("kind", "expected"), [
    ("geometric", [8 ** (1 - t / 6) for t in range(6)]),
    ("halving", [8, 8, 4, 4, 2, 2]),
    ("cosine", [1 + 7 * (1 + np.cos(np.pi * t / 6)) / 2 for t in range(6)]),
    ("constant", [1] * 6),
])
def test_a_continuation_goes_from_start_to_end_and_stays(kind, expected):
    schedule = scheduled(kind)
    np.testing.assert_allclose(ridges(schedule, 6), expected, rtol=1e-12)
    np.testing.assert_allclose(ridges(schedule, 3), [1, 1, 1], rtol=1e-12)
    assert schedule.ridge == 1.0
    assert schedule.optimizer.param_groups[1]["weight_decay"] == 0.01


@pytest.mark.parametrize(("start", "end", "expected"), [
    (1.0, 5.0, [1, 1, 2, 2, 4, 4]), (5.0, 1.0, [5, 5, 2.5, 2.5, 1.25, 1.25]), (2.0, 2.0, [2] * 6)])
def test_halving_either_way_ends_where_it_should(start, end, expected):
    schedule = scheduled("halving", start, end)
    np.testing.assert_allclose(ridges(schedule, 6), expected, rtol=1e-12)
    assert ridges(schedule, 1) == [pytest.approx(end, rel=1e-12)]


def test_without_a_penalty_every_decaying_group_keeps_its_ratio():
    schedule = scheduled(penalty=False)
    decays = [group["weight_decay"] for group in schedule.optimizer.param_groups]
    np.testing.assert_allclose(decays, [0.08, 0.02, 0.0], rtol=1e-12)
    for _ in range(6):
        schedule.step()
    decays = [group["weight_decay"] for group in schedule.optimizer.param_groups]
    np.testing.assert_allclose(decays, [0.01, 0.0025, 0.0], rtol=1e-12)


@pytest.mark.parametrize("kind", ["geometric", "halving", "cosine", "constant"])
def test_a_resumed_schedule_goes_on_as_the_one_that_was_not_stopped(kind, tmp_path):
    whole, stopped = scheduled(kind), scheduled(kind)
    expected = ridges(whole, 8)
    first = ridges(stopped, 3)
    torch.save({"optimizer": stopped.optimizer.state_dict(), "schedule": stopped.state_dict()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = scheduled("geometric", start=3.0, end=2.0, steps=1)
    resumed.optimizer.load_state_dict(state["optimizer"])
    resumed.load_state_dict(state["schedule"])
    np.testing.assert_allclose(first + ridges(resumed, 5), expected, rtol=1e-12)


def test_a_continuation_ends_in_the_geometry_of_its_end():
    counts = [10, 10, 2, 2]
    weight, _, _ = train(counts, 0.06, 0.015, steps=1000, schedule=lambda optimizer, penalty: RidgeSchedule(
        optimizer, penalty, start=2.5, end=0.5, steps=300, kind="cosine"))
    gram = predict(counts, ridge=0.5).classifiers
    np.testing.assert_allclose(weight @ weight.T / 0.5, gram.dense(), atol=1e-4 * gram.frobenius)


# -- bad input ----------------------------------------------------------------------------------------------------


def two():
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))


class Flat(nn.Module):
    """Stands where FullyShardedDataParallel would."""

    def __init__(self):
        super().__init__()
        self._fsdp_wrapped_module = nn.Linear(2, 3)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: parameter_groups(two(), 1e-3), "2 layers could be the head, 0, 1: name one with head="),
    (lambda: parameter_groups(two()), "give weight_decay or ridge, one of them, got None and None"),
    (lambda: parameter_groups(two(), 1e-3, ridge=1.0), "give weight_decay or ridge, one of them, got 0.001 and 1.0"),
    (lambda: parameter_groups(two(), ridge=1.0),
     "ridge needs counts, whose sum n turns λ into a weight decay: give counts too"),
    (lambda: parameter_groups(two(), -1.0), "weight_decay must be a number ≥ 0, got -1.0"),
    (lambda: parameter_groups(two(), 0.1, backbone_decay=float("nan")),
     "backbone_decay must be a number ≥ 0, got nan"),
    (lambda: parameter_groups(two(), 0.1, head=nn.Linear(3, 3)),
     "head must be a layer of the model whose weight is one of its parameters, got Linear"),
    (lambda: parameter_groups(nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)), 0.1),
     "head must be a layer of the model whose weight is one of its parameters, got ParametrizedLinear"),
    (lambda: parameter_groups(Flat(), 0.1),
     "parameter groups need parameters in their own shapes, got a model inside FullyShardedDataParallel: use torch's "
     "fully_shard, or make the groups before wrapping with use_orig_params=True"),
    (lambda: FeaturePenalty(two(), -0.1, n=5, head="1"), "p must be a number ≥ 0, got -0.1"),
    (lambda: FeaturePenalty(two(), 0.1, n=0, head="1"), "n must be a positive number, got 0"),
    (lambda: FeaturePenalty(two(), 0.1, n=5, head="2"),
     "head must name a linear layer of the model, got '2': known: 0, 1"),
    (lambda: scheduled("linear"), "kind must be one of geometric, halving, cosine, constant, got 'linear'"),
    (lambda: scheduled(start=0.0), "start must be a positive number, got 0.0"),
    (lambda: scheduled(steps=0), "steps must be a whole number ≥ 1, got 0"),
    (lambda: RidgeSchedule(torch.optim.SGD(two().parameters(), lr=0.1), start=2.0, end=1.0, steps=3),
     "a schedule needs the number of training samples once, from its penalty or as n, got neither: give n where there "
     "is no penalty"),
    (lambda: RidgeSchedule(torch.optim.SGD(two().parameters(), lr=0.1), start=2.0, end=1.0, steps=3, n=9),
     "optimizer must have one group named 'classifier' with a weight decay above 0: make its groups with "
     "parameter_groups"),
])
def test_bad_input_is_named_on_one_line(call, message):
    with pytest.raises(InvalidInput) as error:
        call()
    assert str(error.value) == message


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    in_one_of_two_processes(int(sys.argv[1]), sys.argv[2])
