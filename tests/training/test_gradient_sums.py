"""Gradients of bfloat16 parameters are summed over micro-batches in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.row_parts import loader_and_objective
from xbench import RowDataset, Task
from xbench.components.regression import regression
from xbench.training.clipping import make_clip
from xbench.training.closure import AccumulatingClosure
from xbench.training.gradient_sums import GradientSums
from xbench.training.precision import cast_model
from xbench.training.settings import TrainingSettings

ROWS = 2000


def make_parts(penalty=None, dtype=torch.bfloat16):
    """Rows whose gradients all have the same sign, of any size."""
    x = torch.rand(ROWS, 4, generator=torch.Generator().manual_seed(0))
    loss_dtype = torch.float32 if dtype is torch.bfloat16 else dtype
    return loader_and_objective(
        RowDataset(train=(x, x[:, :1] + 2), task=regression(penalty=penalty)), dtype=loss_dtype
    )


def make_model(dtype=torch.bfloat16) -> nn.Module:
    torch.manual_seed(1)
    return cast_model(nn.Linear(4, 1), "cpu", dtype)


def run_closure(parts, model, micro_batch, **settings) -> AccumulatingClosure:
    closure = AccumulatingClosure(model, *parts, micro_batch, 0, **settings)
    closure.start(1, np.arange(ROWS))
    closure()
    return closure


def read_gradient(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.detach().double().flatten() for p in model.parameters()])


@pytest.mark.parametrize("backward", ["plain", "create_graph"])
@pytest.mark.parametrize("micro_batch", [1, 8, 64])
def test_many_parts_give_the_gradient_of_the_batch(micro_batch, backward):
    parts, whole, model = make_parts(), make_model(), make_model()
    run_closure(parts, whole, None)
    run_closure(parts, model, micro_batch, backward=backward)
    torch.testing.assert_close(read_gradient(model), read_gradient(whole), rtol=0.02, atol=0)
    assert {p.grad.dtype for p in model.parameters()} == {torch.bfloat16}
    assert all(p.grad.requires_grad == (backward == "create_graph") for p in model.parameters())


def test_a_penalty_is_added_before_the_gradient_is_rounded():
    def penalty(model):  # its gradient is 256, to which a bfloat16 sum adds a gradient of -1/2 as 0
        return 256 * model.bias.float().sum()

    def loss(model, batch):
        return -0.75 * model(batch)[:, 0].float()

    parts = loader_and_objective(
        RowDataset(train=torch.ones(ROWS, 4), task=Task(loss=loss, penalty=penalty)), dtype=torch.float32
    )
    model = make_model()
    run_closure(parts, model, None)
    assert model.bias.grad.item() == 255


def test_the_sum_is_clipped():
    model = make_model()
    run_closure(make_parts(), model, 1, clip=make_clip(TrainingSettings(clip_norm=0.5)))
    assert read_gradient(model).norm().item() == pytest.approx(0.5, rel=0.01)


def test_nothing_is_summed_apart_without_need():
    for dtype, micro_batch in ((torch.bfloat16, None), (torch.float32, 8), (torch.float64, 8)):
        closure = run_closure(make_parts(dtype=dtype), make_model(dtype), micro_batch)
        assert closure.sums_bytes == 0
    assert run_closure(make_parts(), make_model(), 8).sums_bytes == 4 * 5


class TestSums:
    def test_of_a_parameter_without_a_gradient_in_some_parts(self):
        used, sometimes, never = (nn.Parameter(torch.ones(2, dtype=torch.bfloat16)) for _ in range(3))
        sums = GradientSums([used, sometimes, never])
        for number in range(4):
            if number:
                sums.set_aside()
            used.sum().backward()
            if number == 2:
                sometimes.sum().backward()
        sums.restore()
        assert used.grad.tolist() == [4, 4]
        assert sometimes.grad.tolist() == [1, 1]
        assert never.grad is None

    def test_of_sparse_gradients(self):
        table = nn.Embedding(3, 1, sparse=True, dtype=torch.bfloat16)
        sums = GradientSums(table.parameters())
        for number in range(300):
            if number:
                sums.set_aside()
            table(torch.tensor([1, 1])).sum().backward()
        sums.restore()
        assert table.weight.grad.is_sparse
        assert table.weight.grad.to_dense().flatten().tolist() == [0, 600, 0]

    @pytest.mark.parametrize("order", [(True, False), (False, True)])
    def test_of_sparse_and_dense_gradients(self, order):
        weight = nn.Parameter(torch.zeros(3, 1, dtype=torch.bfloat16))
        sums = GradientSums([weight])
        for number, is_sparse in enumerate(order):
            if number:
                sums.set_aside()
            looked_up = nn.functional.embedding(torch.tensor([1]), weight, sparse=True)
            (3 * (looked_up if is_sparse else weight)).sum().backward()
        sums.restore()
        assert weight.grad.flatten().tolist() == [3, 6, 3]
