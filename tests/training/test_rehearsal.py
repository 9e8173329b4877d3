"""A rehearsal steps and evaluates twins, and leaves the trainer as it was."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.small_cells import SmallCell, small_cnn
from xbench import ModelSpec, OptimizerSpec
from xbench.capacity.axes import Axis
from xbench.capacity.workload import TrainingWorkload
from xbench.components import registry
from xbench.training import rehearsal
from xbench.training.global_state import Generators
from xbench.training.job import CellJob
from xbench.training.rehearsal import rehearse
from xbench.training.settings import CellSettings, Choice, TrainingSettings
from xbench.training.state_dicts import hash_tensors


def normed_cnn(num_classes: int) -> nn.Module:
    """Its running statistics move in training."""
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.1), small_cnn(num_classes))


class Drawing(torch.optim.Adam):
    """Draws in every step, and counts its instances and their steps."""

    made: list[Drawing]

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr)
        self.steps, self.modes = 0, []
        self.made.append(self)

    def step(self, closure):
        self.steps += 1
        torch.rand(3), random.random(), np.random.random()
        return super().step(closure)

    def train(self):
        self.modes.append("train")

    def eval(self):
        self.modes.append("eval")


@pytest.fixture(autouse=True)
def components(monkeypatch):
    Drawing.made = []
    specs = {"normed": ModelSpec(factory=normed_cnn), "drawing": OptimizerSpec(factory=Drawing)}
    real_load = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name, dirs=(): specs.get(name) or real_load(kind, name, dirs)
    )


@pytest.fixture
def trainer(tiny_data, tmp_path):
    training = TrainingSettings(batch_size=20, train_size=40)
    settings = CellSettings(Choice("normed", {}), Choice("drawing", {}), training, 0, "cpu")
    return TrainingWorkload(CellJob(settings, tiny_data), Axis.BATCH_SIZE).trainer(20, tmp_path)


def build_optimizer(model):
    return Drawing(model.parameters())


def state_of(trainer):
    plain = Generators.now().to_plain()
    generators = plain["torch"].tolist(), plain["numpy"][1].tolist(), plain["python"]
    grads = [p.grad for p in trainer.model.parameters()]
    return hash_tensors(trainer.model), dict(trainer.optimizer.state), grads, generators


def test_twins_move_and_the_trainer_does_not(trainer):
    start = hash_tensors(normed_cnn(2))
    before, twins = state_of(trainer), []

    def build_model():
        twins.append(normed_cnn(2))
        return twins[-1]

    rehearse(trainer, build_model, build_optimizer)
    assert state_of(trainer) == before
    own, twin = Drawing.made
    assert (own.steps, twin.steps) == (0, rehearsal.STEPS)
    assert (own.modes, twin.modes) == ([], ["train", "eval"])
    (moved,) = twins
    assert hash_tensors(moved) != start
    assert trainer.progress.steps == 0
    assert trainer.evaluation_s == 0


def test_the_evaluation_is_rehearsed_too(trainer):
    modes = []

    def build_model():
        model = normed_cnn(2)
        model.register_forward_hook(lambda module, *args: modes.append(module.training))
        return model

    rehearse(trainer, build_model, build_optimizer)
    assert modes == [True] * rehearsal.STEPS + [False]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("of a plugin"), "ValueError: of a plugin"),
        (torch.OutOfMemoryError("CUDA out of memory"), "memory ran out"),
    ],
)
def test_what_fails_there_is_left_to_the_cells_own_steps(trainer, capfd, error, said):
    before = state_of(trainer)

    def fail():
        torch.rand(1)
        raise error

    rehearse(trainer, fail, build_optimizer)
    assert state_of(trainer) == before
    told = capfd.readouterr().err
    assert "their rehearsal failed" in told
    assert said in told
    assert "CUDA out of memory" not in told  # a death would be put down to that


def test_the_device_forgets_a_rehearsal_that_failed(trainer, monkeypatch):
    """What the twins were refused must not count as the cell's own."""
    calls = []
    for name in ("release_all", "forget_device_memory"):
        monkeypatch.setattr(rehearsal, name, lambda device, name=name: calls.append((name, device)))

    def fail():
        raise torch.OutOfMemoryError("CUDA out of memory")

    rehearse(trainer, fail, build_optimizer)
    device = trainer.loader.device
    assert calls == [("release_all", device), ("forget_device_memory", device)]


def test_a_cell_on_a_cpu_has_none(tiny_data, tmp_path):
    found = SmallCell(tiny_data, tmp_path, "normed", "drawing", epochs=1, batch_size=30)
    (own,) = Drawing.made
    assert own.steps == len(found.rows)
    assert found.result.memory.pinned_bytes is None
