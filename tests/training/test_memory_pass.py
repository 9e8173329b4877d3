"""A memory pass takes as many steps as its optimizer needs, fills its state, and adds up."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from tests.counted_memory import CountedMemory
from tests.training.small_cells import small_cnn
from xbench import ModelSpec, OptimizerSpec, XbenchError
from xbench.capacity.axes import Axis
from xbench.capacity.workload import TrainingWorkload
from xbench.components import registry
from xbench.errors import Unsupported
from xbench.memory.profiler import StepProfiler
from xbench.training import memory_pass
from xbench.training.job import CellJob
from xbench.training.settings import CellSettings, Choice, TrainingSettings

MB = 1_000_000
PARTS = (
    *("process_bytes", "parameters_bytes", "data_bytes", "gradients_bytes"),
    *("optimizer_state_bytes", "optimizer_work_bytes", "activations_bytes", "keeping_bytes"),
)


class Growing(torch.optim.SGD):
    """Keeps some more memory after each of its first steps; every `period` steps it takes much more for a
    moment. In its first step a library is loaded."""

    ledger = CountedMemory()

    def __init__(self, params, lr=0.01, grows=0, period=0, loaded=0):
        super().__init__(params, lr=lr)
        self.kept, self.grows, self.period, self.calls = [], grows, period, 0
        self.loaded = loaded

    def step(self, closure):
        self.calls += 1
        if self.calls <= self.grows:
            self.kept.append(torch.ones(8 * MB, dtype=torch.uint8))
            self.ledger.take(8 * MB)
        if self.calls == 1:
            self.ledger.take(self.loaded)
        if self.period and self.calls % self.period == 0:
            self.ledger.take(100 * MB)
            self.ledger.give(100 * MB)
        return super().step(closure)


class Curved(Growing):
    """Has gradients that can be differentiated when its update takes much memory."""

    def step(self, closure):
        loss = closure()
        assert all(p.grad.grad_fn is not None for group in self.param_groups for p in group["params"])
        self.ledger.take(100 * MB)
        self.ledger.give(100 * MB)
        torch.optim.SGD.step(self)
        return loss


class Fused:
    """Takes 5 MB for the update of each parameter, within the backward pass."""

    def __init__(self, model, lr=0.01):
        self.lr = lr
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(self.update)

    @torch.no_grad()
    def update(self, parameter):
        Growing.ledger.take(5 * MB)
        parameter -= self.lr * parameter.grad
        parameter.grad = None
        Growing.ledger.give(5 * MB)

    def step(self, closure):
        loss = closure.loss()
        loss.backward()
        return loss.detach()


class _Keep(torch.autograd.Function):
    """The identity, which keeps 1 MB for each example until its backward pass."""

    @staticmethod
    def forward(ctx, x):
        ctx.kept = MB * len(x)
        Growing.ledger.take(ctx.kept)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Growing.ledger.give(ctx.kept)
        return gradient


class Keeping(nn.Module):
    def forward(self, x):
        return _Keep.apply(x) if torch.is_grad_enabled() else x


def keeping_cnn(num_classes: int) -> nn.Module:
    *layers, last = small_cnn(num_classes)
    return nn.Sequential(*layers, Keeping(), last)


def normed_cnn(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(3), small_cnn(num_classes))


@pytest.fixture(autouse=True)
def components(monkeypatch):
    specs = {
        "small": ModelSpec(factory=small_cnn),
        "normed": ModelSpec(factory=normed_cnn),
        "growing": OptimizerSpec(factory=Growing),
        "periodic": OptimizerSpec(factory=Growing, memory_period=20),
        "set-periodic": OptimizerSpec(factory=Growing, memory_period=lambda settings: settings["period"]),
        "keeping": ModelSpec(factory=keeping_cnn),
        "fused": OptimizerSpec(factory=Fused, backward="fused"),
        "curved": OptimizerSpec(factory=Curved, backward="create_graph"),
        "picky": OptimizerSpec(factory=Growing, parameters="matrices"),
    }
    real_load = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name, dirs=(): specs.get(name) or real_load(kind, name, dirs)
    )
    monkeypatch.setattr(memory_pass, "MAX_S", 1e9)  # on a busy machine, too


def measure(data, optimizer="growing", params=None, model="small", **training):
    training = {"batch_size": 10, "train_size": 40} | training
    settings = CellSettings(
        Choice(model, {}), Choice(optimizer, params or {}), TrainingSettings(**training), 0, "cpu"
    )
    workload = TrainingWorkload(CellJob(settings, data), Axis.MICRO_BATCH)
    return workload.prepare()(training.get("micro_batch", training["batch_size"]))


class TestSteps:
    @pytest.fixture(autouse=True)
    def ledger(self, monkeypatch):
        ledger = CountedMemory()
        monkeypatch.setattr(StepProfiler, "trained_on", ledger)
        monkeypatch.setattr(Growing, "ledger", ledger)

    def test_three_where_the_peak_does_not_rise(self, tiny_data):
        assert measure(tiny_data).steps == 3

    def test_more_while_it_rises(self, tiny_data):
        assert measure(tiny_data, params={"grows": 6}).steps == 7

    def test_twelve_at_most(self, tiny_data):
        assert measure(tiny_data, params={"grows": 100}).steps == 12

    def test_no_more_than_three_once_time_is_over(self, tiny_data, monkeypatch):
        monkeypatch.setattr(memory_pass, "MAX_S", 0.0)
        assert measure(tiny_data, params={"grows": 100}).steps == 3

    @pytest.mark.parametrize("optimizer", ["periodic", "set-periodic"])
    def test_one_more_than_a_period_that_is_declared(self, tiny_data, monkeypatch, optimizer):
        monkeypatch.setattr(memory_pass, "MAX_S", 0.0)
        measured = measure(tiny_data, optimizer, {"period": 20})
        assert measured.steps == 21
        assert measured.peak_phase == "update"
        assert measured.optimizer_work_bytes == pytest.approx(100 * MB, rel=0.01)
        assert measured.optimizer_peak_bytes == pytest.approx(100 * MB, rel=0.01)

    def test_gradients_that_are_dropped_after_the_step_count(self, tiny_data):
        measured = measure(tiny_data, "curved")
        assert measured.peak_phase == "update"
        assert measured.gradients_bytes == measured.parameters_bytes > 0

    @pytest.mark.parametrize("batch_size", [1, 2, 10, 30])
    def test_activations_are_not_the_fused_optimizers(self, tiny_data, batch_size):
        """Except those of two examples."""
        measured = measure(tiny_data, "fused", model="keeping", batch_size=batch_size)
        few = min(2, batch_size)
        assert measured.steps == 3
        assert measured.peak_phase == "update"
        assert measured.optimizer_peak_bytes == pytest.approx((5 + few) * MB, abs=0.1 * MB)
        assert measured.optimizer_work_bytes == pytest.approx((5 + few) * MB, abs=0.1 * MB)
        assert measured.activations_bytes == pytest.approx((batch_size - few) * MB, abs=0.1 * MB)
        assert sum(getattr(measured, part) for part in PARTS) == measured.peak_bytes

    @pytest.mark.parametrize("grows", [0, 4])
    def test_a_library_that_a_step_loads_is_not_the_optimizers(self, tiny_data, grows):
        measured = measure(tiny_data, params={"loaded": 50 * MB, "grows": grows})
        assert measured.optimizer_peak_bytes == pytest.approx(8 * MB * grows, abs=MB)


class Garbage:
    """An object in a reference cycle."""

    def __init__(self):
        self.own = self


def test_garbage_is_collected_before_a_pass(tiny_data):
    """Such as a model that was built for a check: it would count as memory of the process."""
    gc.disable()
    try:
        left = weakref.ref(Garbage())
        assert left() is not None
        measure(tiny_data)
        assert left() is None
    finally:
        gc.enable()


class TestParts:
    @pytest.mark.parametrize("params", [{}, {"grows": 3}, {"grows": 100}], ids=str)
    @pytest.mark.parametrize("micro_batch", [10, 4])
    @pytest.mark.parametrize("selection", ["validation_loss", "last"])
    def test_add_up(self, tiny_data, params, micro_batch, selection):
        measured = measure(tiny_data, params=params, micro_batch=micro_batch, selection=selection)
        assert sum(getattr(measured, part) for part in PARTS) == measured.peak_bytes

    def test_state_is_all_that_the_optimizer_keeps(self, tiny_data):
        assert measure(tiny_data, params={"grows": 2}).final_state_bytes == 16 * MB

    def test_a_history_is_filled(self, tiny_data):
        parameters = 4 * (3 * 4 * 25 + 4 + 64 * 2 + 2)
        measured = measure(tiny_data, "lbfgs", {"history_size": 7}, batch_size=40, micro_batch=10)
        assert measured.final_state_bytes >= (2 * 7 + 2) * parameters

    def test_a_part_of_a_batch_is_in_memory_at_once(self, tiny_data):
        whole, parts = measure(tiny_data), measure(tiny_data, micro_batch=2)
        assert whole.data_bytes == 5 * parts.data_bytes


class TestRefusals:
    def test_of_micro_batches_that_would_train_another_function(self, tiny_data):
        with pytest.raises(XbenchError, match="micro-batches would train a different function"):
            measure(tiny_data, model="normed", micro_batch=5)
        assert measure(tiny_data, model="normed").steps == 3

    def test_of_a_model_that_the_optimizer_does_not_take(self, tiny_data):
        with pytest.raises(Unsupported):
            measure(tiny_data, "picky")
