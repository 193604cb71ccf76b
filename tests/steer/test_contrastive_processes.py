"""Supervised contrastive loss in two real processes: what it gives there is what the whole batch gives in one."""

import os
from pathlib import Path
import subprocess
import sys

import pytest
import torch
from torch import distributed, nn

from neuralcollapse.checks import InvalidInput
from neuralcollapse.steer.contrastive import SupConLoss

HERE = Path(__file__).parent
LABELS = [0, 1, 0, 2, 2, 0, 1, 3, -100, 0]  # class 3 has one sample, and one sample is ignored
FRAME = [[1.0, 0.2, 0.0, 0.0, 0.1], [0.3, 2.0, 0.0, 0.4, 0.0], [0.0, 0.0, 0.5, 0.0, 0.0], [0.0, 0.7, 0.7, 1.5, 0.0]]
CASES = {"plain": {}, "relu": {"nonnegative": True}, "sum": {"reduction": "sum"},
         "prototypes": {"prototypes": FRAME, "prototype_copies": 3},
         "trained": {"prototypes": "trained", "prototype_copies": 2},
         "outside": {"prototypes": FRAME, "prototype_anchors": False}}
SHARES = {"uneven": 7, "one class apart": 3, "one empty": 10}


class Trained(nn.Module):
    """A network and its loss, so that trained prototypes are averaged as everything else is."""

    def __init__(self, options):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))
        if options.get("prototypes") is not None:
            frame = torch.tensor(FRAME, dtype=torch.float64)
            options = options | {"prototypes": nn.Parameter(frame) if options["prototypes"] == "trained" else frame}
        self.loss = SupConLoss(0.3, **options)
        self.double()

    def forward(self, inputs, labels):
        return self.loss(self.net(inputs), labels)


def gradients_of(module):
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters()}


def two_processes(folder):
    """One of two processes: its share of the batch, and its gradients after averaging, against the whole batch."""
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    inputs = torch.randn(10, 2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    labels = torch.tensor(LABELS)
    for case, options in CASES.items():
        alone = Trained({**options, "gather": False})
        expected = alone(inputs, labels)
        expected.backward()
        for share, cut in SHARES.items():
            mine = slice(0, cut) if rank == 0 else slice(cut, 10)
            model = nn.parallel.DistributedDataParallel(Trained(options))
            loss = model(inputs[mine], labels[mine])
            loss.backward()
            average = loss.detach().clone()
            distributed.all_reduce(average)
            whole = average if case == "sum" else average / 2
            torch.testing.assert_close(whole, expected.detach(), rtol=1e-10, atol=1e-12)
            for name, found in gradients_of(model.module).items():
                wanted = gradients_of(alone)[name] / (2 if case == "sum" else 1)
                torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12, msg=f"{case}, {share}, {name}")
        print(f"{case} alike", flush=True)
    with pytest.raises(InvalidInput) as error:
        SupConLoss()(torch.ones(2, 3 + rank), torch.tensor([0, 0]))
    assert str(error.value) == "features must have as many dimensions in every process, got [3, 4]"
    print("dimensions refused", flush=True)
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What two processes print that each take a share of a batch."""
    folder = str(tmp_path_factory.mktemp("ranks"))
    code = f"import test_contrastive_processes as here; here.two_processes({folder!r})"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    started = [subprocess.Popen([sys.executable, "-c", code], env={**environment, "RANK": str(rank)}, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE) for rank in range(2)]
    return [process.communicate(timeout=200) for process in started]


@pytest.mark.parametrize("line", [*(f"{case} alike" for case in CASES), "dimensions refused"])
def test_two_processes_give_the_loss_and_gradients_of_the_whole_batch(ranks, line):
    for output, errors in ranks:
        assert line in output.splitlines(), errors
