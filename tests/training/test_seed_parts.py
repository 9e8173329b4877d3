"""Weights, split and order follow their own part of a seed."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import nn

from xbench import ModelSpec, OptimizerSpec
from xbench.components import registry
from xbench.training.cell import train_cell
from xbench.training.events import Prepared, StepsDone
from xbench.training.job import CellJob
from xbench.training.settings import CellSettings, Choice, SeedParts, TrainingSettings
from xbench.training.splits import epoch_order, split_examples
from xbench.training.state_dicts import hash_tensors


def dropping_network(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, num_classes)
    )


class DrawingSgd(torch.optim.SGD):
    """SGD whose steps have random sizes."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["lr"] = 0.1 * torch.rand(()).item()
        return super().step(closure)


TRAINING = TrainingSettings(epochs=2, batch_size=5, validation=0.25)
SPECS = {
    "dropping": ModelSpec(factory=dropping_network),
    "drawing": OptimizerSpec(factory=lambda params, lr=0.1: DrawingSgd(params, lr=lr)),
}


@pytest.fixture(autouse=True)
def components(monkeypatch):
    monkeypatch.setattr(registry, "load", lambda kind, name, dirs=(): SPECS[name])


@pytest.fixture
def train(tiny_data, tmp_path):
    """Train a cell; return its start, its losses and its metrics."""

    def run(seed: int = 0, parts: SeedParts | None = None):
        messages: list[object] = []
        settings = CellSettings(
            Choice("dropping", {}), Choice("drawing", {}), TRAINING, seed, "cpu", parts=parts
        )
        result = train_cell(messages.append, CellJob(settings, tiny_data, scratch=tmp_path))
        (start,) = [message for message in messages if isinstance(message, Prepared)]
        losses = [row.loss for m in messages if isinstance(m, StepsDone) for row in m.rows]
        return start, losses, result.scores.values

    return run


def test_equal_parts_draw_what_a_seed_draws(train):
    (one, *results), (other, *same) = train(seed=3), train(seed=8, parts=SeedParts(3, 3, 3))
    assert (one.weights_sha256, one.order_sha256) == (other.weights_sha256, other.order_sha256)
    assert results == same
    assert results != list(train(seed=8)[1:])


def test_the_order_leaves_weights_and_the_split(train):
    (one, losses, _), (other, other_losses, _) = (train(parts=SeedParts(1, 1, order)) for order in (1, 2))
    assert one.weights_sha256 == other.weights_sha256
    assert one.order_sha256 != other.order_sha256
    assert losses != other_losses


def test_the_weights_leave_the_order(train):
    (one, losses, _), (other, other_losses, _) = (train(parts=SeedParts(weights, 1, 1)) for weights in (1, 2))
    assert one.weights_sha256 != other.weights_sha256
    assert one.order_sha256 == other.order_sha256
    assert losses != other_losses


def test_the_split_leaves_weights(train):
    (one, losses, _), (other, other_losses, _) = (train(parts=SeedParts(1, split, 1)) for split in (1, 2))
    assert one.weights_sha256 == other.weights_sha256
    assert one.order_sha256 != other.order_sha256  # of other examples
    assert losses != other_losses


def test_each_part_seeds_what_it_is_named_after(train, tiny_data):
    start, _, _ = train(parts=SeedParts(4, 5, 6))
    torch.manual_seed(4)
    network = dropping_network(2)
    network(torch.zeros(1, *tiny_data.shape))
    order = epoch_order(split_examples(tiny_data, TRAINING, 5).train, 6, 1)
    assert start.weights_sha256 == hash_tensors(network)
    assert start.order_sha256 == hashlib.sha256(order.tobytes()).hexdigest()
