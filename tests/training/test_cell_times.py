"""Recorded times: exactly, by a clock that naps alone move, and against real sleeps."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.training.small_cells import SmallCell, small_cnn
from xbench import ModelSpec, OptimizerSpec
from xbench.components import registry
from xbench.training.loop import Trainer

NAP_S = 0.03
# More than a busy machine takes for the rest of a cell.
OTHER_S = 30.0

TRAIN, TEST = 90, 30
BATCH = 15
STEPS = math.ceil(TRAIN / BATCH)
EPOCHS = 2


class Clock:
    """Stands still but for sleep."""

    def __init__(self):
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return clock


class Napping(nn.Module):
    """Sleeps in each forward pass, of training or of evaluation. The pass that warms a cell up is one of
    evaluation."""

    def __init__(self, num_classes: int, in_training: float = 0.0, in_evaluation: float = 0.0):
        super().__init__()
        self.inner = small_cnn(num_classes)
        self.naps = {True: in_training, False: in_evaluation}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        time.sleep(self.naps[self.training])
        return self.inner(images)


class NappingSGD(torch.optim.SGD):
    def step(self, closure):
        time.sleep(NAP_S)
        return super().step(closure)


SPECS = {
    "small": ModelSpec(factory=small_cnn),
    "in-training": ModelSpec(factory=lambda num_classes: Napping(num_classes, in_training=NAP_S)),
    "in-evaluation": ModelSpec(factory=lambda num_classes: Napping(num_classes, in_evaluation=NAP_S)),
    "in-both": ModelSpec(factory=lambda num_classes: Napping(num_classes, NAP_S, NAP_S)),
    "slow-to-build": ModelSpec(factory=lambda num_classes: (time.sleep(NAP_S), small_cnn(num_classes))[1]),
    "napping": OptimizerSpec(factory=NappingSGD),
}


@pytest.fixture(autouse=True)
def specs(monkeypatch):
    real_load = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name, dirs=(): SPECS.get(name) or real_load(kind, name, dirs)
    )


def cell(data, folder, model="small", optimizer="sgd", **training):
    settings = {"epochs": EPOCHS, "batch_size": BATCH, "validation": 0.0, "selection": "last", **training}
    found = SmallCell(data, folder, model, optimizer, **settings)
    assert found.result.status == "done"
    return found


def about(seconds: float):
    """The clock adds up in floats."""
    return pytest.approx(seconds, rel=1e-9, abs=1e-9)


@pytest.mark.usefixtures("clock")
class TestExactly:
    def check_steps(self, found, steps: int, nap_s: float) -> None:
        """Each of the steps slept, and nothing else did."""
        times = found.result.time
        assert [row.wall_s for row in found.rows] == about([nap_s] * steps)
        assert times.training_s == about(steps * nap_s)
        assert (times.evaluation_s, times.prepare_s) == (0, 0)

    @pytest.mark.parametrize("parts", [{"model": "in-training"}, {"optimizer": "napping"}], ids=str)
    def test_steps(self, tiny_data, tmp_path, parts):
        self.check_steps(cell(tiny_data, tmp_path, **parts), EPOCHS * STEPS, NAP_S)

    def test_a_step_has_all_of_its_micro_batches(self, tiny_data, tmp_path):
        found = cell(tiny_data, tmp_path, "in-training", epochs=1, micro_batch=4)
        self.check_steps(found, STEPS, 4 * NAP_S)

    def test_evaluation_is_no_training(self, tiny_data, tmp_path):
        times = cell(tiny_data, tmp_path, "in-evaluation").result.time
        assert times.evaluation_s == about((TEST // BATCH + TRAIN // BATCH) * NAP_S)
        assert times.prepare_s == about(NAP_S)  # the warm-up
        assert times.training_s == 0

    def test_every_evaluation_counts(self, tiny_data, tmp_path):
        """Validation and the test set after each epoch, and test and train at the end."""
        settings = {"validation": 0.2, "selection": "test_loss", "batch_size": 36}
        found = cell(tiny_data, tmp_path, "in-evaluation", **settings)
        assert all(epoch.values["validation_loss"] and epoch.values["test_loss"] for epoch in found.epochs)
        passes = EPOCHS * (1 + 1) + 1 + math.ceil(72 / 36)
        assert found.result.time.evaluation_s == about(passes * NAP_S)
        assert found.result.time.training_s == 0

    @pytest.mark.parametrize("every", [1, 2, f"{BATCH} examples"])
    def test_evaluations_within_an_epoch_take_no_training_time(self, tiny_data, tmp_path, every):
        settings = {"validation": 0.2, "evaluate_every": every, "batch_size": BATCH, "optimizer": "napping"}
        found = cell(tiny_data, tmp_path, "in-evaluation", **settings)
        steps = math.ceil(72 / BATCH)
        evaluated = [
            number for number in range(1, EPOCHS * steps + 1) if number % (2 if every == 2 else 1) == 0
        ]
        ends = {steps * epoch for epoch in range(1, EPOCHS + 1)}
        assert [e.step for e in found.evaluations] == sorted({*evaluated, *ends})
        assert [e.training_s for e in found.evaluations] == about([e.step * NAP_S for e in found.evaluations])
        times = found.result.time
        assert times.training_s == about(EPOCHS * steps * NAP_S)
        passes = math.ceil(18 / BATCH) * len(found.evaluations) + TEST // BATCH + math.ceil(72 / BATCH)
        assert times.evaluation_s == about(passes * NAP_S)

    def test_preparation_is_neither(self, tiny_data, tmp_path):
        times = cell(tiny_data, tmp_path, "slow-to-build").result.time
        assert times.prepare_s == about(NAP_S)
        assert (times.training_s, times.evaluation_s) == (0, 0)


def test_the_clock_is_the_real_one(tiny_data, tmp_path):
    found = cell(tiny_data, tmp_path, "in-both", optimizer="napping")
    times, walls = found.result.time, [row.wall_s for row in found.rows]
    assert len(walls) == EPOCHS * STEPS
    assert all(2 * NAP_S <= wall < 2 * NAP_S + OTHER_S for wall in walls)
    assert math.fsum(walls) <= times.training_s < 2 * NAP_S * len(walls) + OTHER_S
    evaluated_s = (TEST // BATCH + TRAIN // BATCH) * NAP_S
    assert evaluated_s <= times.evaluation_s < evaluated_s + OTHER_S


class Queue:
    """A device that does what it was given once somebody waits for it."""

    type = "cuda"

    def __init__(self, clock: Clock):
        self.clock, self.queued_s = clock, 0.0

    def queue(self, seconds: float) -> None:
        self.queued_s += seconds

    def synchronize(self, device: Queue) -> None:
        assert device is self
        self.clock.sleep(self.queued_s)
        self.queued_s = 0.0


def test_copies_of_weights_that_a_device_makes_for_an_evaluation_are_no_training(clock, monkeypatch):
    device = Queue(clock)
    monkeypatch.setattr(torch.cuda, "synchronize", device.synchronize)
    trainer = Trainer.__new__(Trainer)
    trainer.loader = SimpleNamespace(device=device)
    trainer.training_s = 0.0
    trainer.set_mode = lambda mode: device.queue(NAP_S)
    trainer._evaluate_held_out = lambda: device.synchronize(device) or {}  # it returns numbers
    trainer.start_clock()
    device.queue(10 * NAP_S)  # steps
    trainer._evaluate_within(1)
    device.queue(10 * NAP_S)
    device.synchronize(device)
    trainer.stop_clock()
    assert trainer.training_s == about(20 * NAP_S)
