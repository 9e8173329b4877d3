"""The host waits for a device where it reads a value from it: never within a step, and once in an evaluation.

PyTorch reads values by the same operation on any device.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from xbench import ModelSpec
from xbench.components.classification import classification
from xbench.training.closure import AccumulatingClosure
from xbench.training.evaluation import evaluate
from xbench.training.loader import ImageLoader, ResidentImageLoader
from xbench.training.objective import Objective

CPU = torch.device("cpu")
BATCH = np.arange(30)


class Reads(TorchDispatchMode):
    """Counts reads of single values, and of tensors by `tolist`."""

    count = 0

    def __enter__(self):
        self._patch, real_tolist = pytest.MonkeyPatch(), torch.Tensor.tolist

        def tolist(tensor):
            self.count += 1
            return real_tolist(tensor)

        self._patch.setattr(torch.Tensor, "tolist", tolist)
        return super().__enter__()

    def __exit__(self, *exception):
        self._patch.undo()
        return super().__exit__(*exception)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def net(num_classes: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 2, 5), nn.Flatten(), nn.Linear(288, num_classes))


@pytest.fixture(params=[ImageLoader, ResidentImageLoader])
def parts(request, tiny_data):
    loader = request.param(tiny_data, ModelSpec(factory=net), CPU, torch.float32, "contiguous")
    task = classification(tiny_data.classes)
    return net(2), loader, Objective(task, tiny_data, {"dark": 2.0}, CPU, torch.float32)


def test_reads_are_counted():
    with Reads() as reads:
        torch.ones(2).sum().item()
        float(torch.ones(()))
        torch.ones(2).tolist()
    assert reads.count == 3
    torch.ones(2).tolist()
    assert reads.count == 3


@pytest.mark.parametrize("chunk", [4, 30])
def test_an_evaluation_reads_once(parts, chunk):
    model, loader, objective = parts
    with Reads() as reads:
        found = evaluate(model, loader, objective, BATCH, chunk, "test", collects=True)
    assert reads.count == 1
    images, labels = loader.load(BATCH)
    with torch.no_grad():
        logits = model(images)
    assert np.allclose(found.collected["logit"], logits.numpy(), atol=1e-5)
    assert found.collected["label"].tolist() == labels.tolist()
    expected = nn.functional.cross_entropy(logits, labels, weight=torch.tensor([2.0, 1.0]))
    assert found.loss == pytest.approx(expected.item())
    assert found.averages["accuracy"] == float((logits.argmax(1) == labels).double().mean())


@pytest.mark.parametrize("micro_batch", [None, 4])
def test_a_step_reads_nothing(parts, micro_batch):
    model, loader, objective = parts
    closure = AccumulatingClosure(model, loader, objective, micro_batch, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with Reads() as reads:
        for step in (1, 2):
            closure.start(step, BATCH)
            optimizer.step(closure)
    assert reads.count == 0
