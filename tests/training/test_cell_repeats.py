"""A cell is the same whenever it runs: however its rows are sent, and whatever its parts draw from."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from tests.training.small_cells import SmallCell, small_cnn
from xbench import ModelSpec, OptimizerSpec
from xbench.components import registry
from xbench.training import recorder


class Noisy(torch.optim.SGD):
    """Draws a number in each step, and adds it to the weights."""

    draw = staticmethod(lambda: 0.0)

    @torch.no_grad()
    def step(self, closure):
        loss = super().step(closure)
        for parameter in self.param_groups[0]["params"]:
            parameter.add_(0.01 * self.draw())
        return loss


SOURCES = {
    "torch": lambda: torch.randn(()).item(),
    "random": lambda: random.gauss(0, 1),
    "numpy": lambda: np.random.normal(),
}


@pytest.fixture(autouse=True)
def specs(monkeypatch):
    specs = {"small": ModelSpec(factory=small_cnn), "noisy": OptimizerSpec(factory=Noisy)}
    real_load = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name, dirs=(): specs.get(name) or real_load(kind, name, dirs)
    )


@pytest.mark.parametrize("interval_s", [0.0, math.inf], ids=["each step", "at the end"])
def test_an_epochs_loss_is_exact_however_its_rows_are_sent(tiny_data, tmp_path, monkeypatch, interval_s):
    monkeypatch.setattr(recorder, "_INTERVAL_S", interval_s)
    found = SmallCell(tiny_data, tmp_path, epochs=8, batch_size=3, dtype="float64")
    assert found.flushes == (len(found.rows) if interval_s == 0 else 8)
    for epoch in found.epochs:
        losses = [row.loss for row in found.rows if row.epoch == epoch.epoch]
        assert epoch.values["train_loss"] == math.fsum(losses) / len(losses)


@pytest.mark.parametrize("source", SOURCES)
def test_an_optimizer_may_draw(tiny_data, tmp_path, monkeypatch, source):
    monkeypatch.setattr(Noisy, "draw", staticmethod(SOURCES[source]))
    first = SmallCell(tiny_data, tmp_path, optimizer="noisy")
    SOURCES[source]()
    again = SmallCell(tiny_data, tmp_path, optimizer="noisy")
    assert [row.loss for row in first.rows] == [row.loss for row in again.rows]
    monkeypatch.setattr(Noisy, "draw", staticmethod(lambda: 0.0))
    quiet = SmallCell(tiny_data, tmp_path, optimizer="noisy")
    assert [row.loss for row in first.rows] != [row.loss for row in quiet.rows]
