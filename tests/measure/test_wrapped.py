"""Models inside wrappers give the numbers that they give without: compiled, data parallel, sharded."""

import os
from pathlib import Path
import subprocess
import sys

from alike import assert_alike
import pytest
import torch
from torch import nn

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.measure import Probe, measure, measure_model

HERE = Path(__file__).parent


class Net(nn.Module):
    """`depth` is for tests alone: compiled code is shared by all that have the same."""

    def __init__(self, depth=1):
        super().__init__()
        self.auxiliary, self.head = nn.Linear(8, 3), nn.Linear(8, 3)
        self.body = nn.Sequential(*[nn.Sequential(nn.Linear(4 if i == 0 else 8, 8), nn.ReLU()) for i in range(depth)])

    def embed(self, x):
        return self.body(x)

    def forward(self, x):
        hidden = self.body(x)
        return self.head(hidden) + 0 * self.auxiliary(hidden).sum()


@pytest.fixture
def compiled():
    """torch.compile without code generation, forgotten afterwards."""
    torch._dynamo.reset()
    yield lambda model: torch.compile(model, backend="aot_eager")
    torch._dynamo.reset()


@pytest.fixture
def data():
    torch.manual_seed(0)
    return torch.randn(30, 4), torch.arange(30) % 3


COUNTS = ClassCounts([10, 10, 10])


def direct(model, x, labels):
    with torch.no_grad():
        return measure(model.embed(x), labels, model.head.weight, model.head.bias, targets=("seli", "etf"),
                       counts=COUNTS)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("how", ["wrapped", "in place", "part"])
def test_a_compiled_model_is_measured_whenever_it_was_compiled(data, compiled, warm, how):
    model = Net()
    expected = direct(model, *data)
    if how == "in place":
        model.compile(backend="aot_eager")
    elif how == "part":
        model.body = compiled(model.body)
    outer = compiled(model) if how == "wrapped" else model
    if warm:
        outer(data[0])
    # Named with the wrapper's prefix as well, as its own named_modules() has it.
    for head in ("head", "_orig_mod.head") if how == "wrapped" else ("head",):
        assert_alike(measure_model(outer, [data], counts=COUNTS, head=head), expected)
    assert not model.head._forward_hooks
    assert outer.training


def test_a_probe_around_compiled_code_captures_or_says_that_it_cannot(data, compiled):
    model = Net()
    outer = compiled(model)
    with (probe := Probe(outer, "head")):  # entered before the first call: its hooks are compiled with the model
        for _ in range(2):
            x = torch.randn(30, 4)
            logits = outer(x)
            with torch.no_grad():
                expected = model.embed(x)
            torch.testing.assert_close(probe.features(), expected, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(probe.logits(), logits.detach(), rtol=1e-6, atol=1e-6)
            assert not probe.features().requires_grad
    torch._dynamo.reset()
    late = compiled(Net())
    late(data[0])
    with (probe := Probe(late, "head")):
        late(data[0])
    with pytest.raises(InvalidInput) as caught:
        probe.features()
    assert str(caught.value) == ("the head was never reached: what torch.compile made before `with probe:` has no "
                                 "hooks; run the original model, or give measure_model a function as features= "
                                 "(watched: head)")
    with probe:
        late._orig_mod(data[0])
    assert probe.features().shape == (30, 8)
    assert_alike(measure_model(late, [data], counts=COUNTS, head="head", features=lambda net, x: net.body(x)),
                 direct(late._orig_mod, *data))


def test_a_compiled_body_does_not_hide_the_head(data, compiled):
    model = Net()
    model.body = compiled(model.body)
    model(data[0])
    with (probe := Probe(model, "head")):
        model(data[0])
    with torch.no_grad():
        torch.testing.assert_close(probe.features(), model.embed(data[0]), rtol=1e-6, atol=1e-6)


def test_data_parallel_is_looked_through(data):
    model = Net()
    outer = nn.DataParallel(model)
    for head in ("head", "module.head"):
        assert_alike(measure_model(outer, [data], counts=COUNTS, head=head), direct(model, *data))
        with (probe := Probe(outer, head)):
            outer(data[0])
        assert probe.head is model.head


KINDS = ("ddp", "fsdp", "fsdp-nested", "fsdp2", "fsdp2-whole")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What two processes print that measure every kind in turn, and what went wrong."""
    code = f"import test_wrapped; test_wrapped.two_processes({str(tmp_path_factory.mktemp('ranks'))!r})"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    started = [subprocess.Popen([sys.executable, "-c", code], env={**environment, "RANK": str(rank)}, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE) for rank in range(2)]
    return [process.communicate(timeout=200) for process in started]


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_measure_what_one_does(ranks, kind):
    for output, errors in ranks:
        assert f"{kind} alike" in output.splitlines(), errors


def two_processes(folder):
    """One of two processes: measure its own half of the data with wrapped models."""
    rank = int(os.environ["RANK"])
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    for kind in KINDS:
        torch.manual_seed(0)
        x, labels = torch.randn(60, 4), torch.arange(60) % 3
        mine, model = (x[rank::2], labels[rank::2]), Net(depth=2)
        expected, (features, logits) = direct(model, *mine), computed(model, mine[0])
        outer = wrap(model, kind)
        batches = [(mine[0][:16], mine[1][:16]), (mine[0][16:], mine[1][16:])]
        assert_alike(measure_model(outer, batches, counts=COUNTS, head="head"), expected)
        if kind == "ddp" and rank == 0:  # no other process is needed
            assert_alike(measure_model(outer, batches, counts=COUNTS, head="module.head"), expected)
        with (probe := Probe(outer, "head")):
            outer(mine[0]).sum().backward()
        torch.testing.assert_close(probe.features(), features, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(probe.logits(), logits, rtol=1e-6, atol=1e-6)
        print(f"{kind} alike", flush=True)
    torch.distributed.destroy_process_group()


def computed(model, x):
    """Features and logits, before any wrapper."""
    with torch.no_grad():
        features = model.embed(x)
        return features, model.head(features)


def wrap(model, kind):
    """A model sharded or copied over two processes."""
    if kind == "ddp":
        return nn.parallel.DistributedDataParallel(model)
    if kind.startswith("fsdp2"):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (2,))
        for part in (*model.body, *([model.head] if kind == "fsdp2" else [])):
            fully_shard(part, mesh=mesh)
        return fully_shard(model, mesh=mesh)
    from torch.distributed.fsdp import FullyShardedDataParallel

    device = torch.device("cpu")
    if kind == "fsdp-nested":
        model.body = FullyShardedDataParallel(model.body, device_id=device, use_orig_params=True)
        model.head = FullyShardedDataParallel(model.head, device_id=device, use_orig_params=True)
    return FullyShardedDataParallel(model, device_id=device, use_orig_params=kind == "fsdp-nested")
