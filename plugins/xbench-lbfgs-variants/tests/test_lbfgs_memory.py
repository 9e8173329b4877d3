"""How many vectors a step needs at once, besides the parameters, their gradients and the history."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xbench_lbfgs_variants import pairs
from xbench_lbfgs_variants.damped import DampedLBFGS
from xbench_lbfgs_variants.online import OnlineLBFGS
from xbench_lbfgs_variants.wolfe import WolfeLBFGS

pytestmark = pytest.mark.plugin

LENGTH = 4096


class CountVectors(TorchDispatchMode):
    """Counts the storages of at least `LENGTH` numbers in float32 that are alive at once.

    Args:
        known: tensors whose storages are not counted.

    Attributes:
        most: the largest number.
    """

    def __init__(self, known):
        super().__init__()
        self._known = {StorageWeakRef(tensor.untyped_storage()) for tensor in known}
        self._alive = set()
        self.most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        storages = [leaf.untyped_storage() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self._alive |= {StorageWeakRef(storage) for storage in storages if storage.nbytes() >= 4 * LENGTH}
        self._alive = {storage for storage in self._alive - self._known if not storage.expired()}
        self.most = max(self.most, len(self._alive))
        return result


@pytest.mark.parametrize(
    ("kind", "settings", "vectors"),
    [(OnlineLBFGS, {"lr": 0.5}, 3), (DampedLBFGS, {}, 3), (WolfeLBFGS, {"max_iter": 4}, 4)],
)
@pytest.mark.parametrize("pairs_dtype", ["float32", "bfloat16"])
def test_a_step_needs_the_vectors_that_its_class_names(kind, settings, vectors, pairs_dtype, monkeypatch):
    monkeypatch.setattr(pairs, "PART", LENGTH // 8)  # parts of a vector are not counted
    x, curvatures = nn.Parameter(torch.ones(LENGTH)), torch.linspace(0.1, 1, LENGTH)
    x.grad = torch.empty(LENGTH)

    def closure():
        with torch.no_grad():
            torch.mul(curvatures, x, out=x.grad)
            return x.dot(x.grad) / 2

    optimizer = kind([x], **settings, history_size=3, pairs_dtype=pairs_dtype)
    first = optimizer.step(closure)  # allocates the history
    state = [value for value in optimizer.state[x].values() if isinstance(value, torch.Tensor)]
    with CountVectors([x, x.grad, curvatures, *state]) as count:
        optimizer.step(closure)
    assert closure() < first and optimizer.state[x]["added"] >= 2
    assert count.most == vectors
