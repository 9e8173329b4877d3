"""Models that mix the examples of a batch are found, however they do it; others are let through."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from xbench import ModelSpec, XbenchError
from xbench.components.classification import classification
from xbench.training.loader import ImageLoader
from xbench.training.micro_batches import check_examples_are_independent
from xbench.training.objective import Objective

CPU = torch.device("cpu")


class Head(nn.Module):
    """A small classifier with something in its middle."""

    def __init__(self, middle: nn.Module):
        super().__init__()
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8))
        self.middle, self.last = middle, nn.Linear(8, 2)

    def forward(self, images):
        return self.last(self.middle(self.first(images)))


class ByHand(nn.Module):
    def forward(self, x):
        return (x - x.mean(0)) / (x.std(0, unbiased=False) + 1e-5)


class Functional(nn.Module):
    def forward(self, x):
        return functional.batch_norm(x, None, None, training=True)


class OnlyInEvaluation(nn.Module):
    def forward(self, x):
        return x if self.training else x - x.mean(0)


class InSinglePrecision(nn.Module):
    """Insists on float32."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(8))

    def forward(self, x):
        if x.dtype != torch.float32:
            raise TypeError("float32 only")
        return x * self.scale


class NormedInSinglePrecision(InSinglePrecision):
    def forward(self, x):
        return super().forward(x) - x.mean(0)


class Drawing(nn.Module):
    """Draws a scale for each example, from NumPy."""

    def forward(self, x):
        drawn = torch.from_numpy(np.random.random((len(x), 1))).to(x.dtype)
        return x * drawn if self.training else x


class Sensitive(nn.Module):
    """Needs gradients in training mode."""

    def forward(self, x):
        if not self.training:
            return x
        given = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad((given**2).sum(), given)
        return x * slope


def check(data, middle: nn.Module, size: int = 8, dtype: torch.dtype = torch.float32) -> None:
    torch.manual_seed(0)
    model = Head(middle).to(dtype)
    loader = ImageLoader(data, ModelSpec(factory=Head), CPU, dtype, "channels_last")
    objective = Objective(classification(data.classes), data, {}, CPU, dtype)
    check_examples_are_independent(model, loader, objective, np.arange(size))


@pytest.mark.parametrize("size", [2, 3, 8, 20])
@pytest.mark.parametrize(
    "middle",
    [
        lambda: nn.BatchNorm1d(8),
        ByHand,
        Functional,
        lambda: nn.Softmax(dim=0),
        OnlyInEvaluation,
        NormedInSinglePrecision,
        lambda: nn.Sequential(Sensitive(), ByHand()),
    ],
    ids=["torch", "by hand", "functional", "softmax", "in evaluation", "float32", "gradients"],
)
def test_mixing_is_found(tiny_data, middle, size):
    with pytest.raises(XbenchError, match="micro-batches would train a different function"):
        check(tiny_data, middle(), size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "middle",
    [
        nn.ReLU,
        lambda: nn.Dropout(0.5),
        lambda: nn.LayerNorm(8),
        lambda: nn.GroupNorm(2, 8),
        lambda: nn.BatchNorm1d(8, momentum=0.0).requires_grad_(False).eval(),
        Drawing,
        Sensitive,
    ],
    ids=["relu", "dropout", "layer norm", "group norm", "frozen batch norm", "drawn by NumPy", "gradients"],
)
def test_what_treats_examples_one_by_one_is_let_through(tiny_data, middle, dtype):
    check(tiny_data, middle(), dtype=dtype)


def test_a_model_in_single_precision_is_tried_in_that(tiny_data):
    check(tiny_data, InSinglePrecision())


def test_the_message_blames_the_model_or_the_task(tiny_data):
    with pytest.raises(XbenchError) as caught:
        check(tiny_data, ByHand())
    assert "depends on the other examples: the model or the task mixes the examples" in caught.value.message
