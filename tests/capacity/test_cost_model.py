"""The costs of a training run, from a few of its steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.capacity.capacity_settings import lbfgs, settings_of
from xbench import ModelSpec, OptimizerSpec
from xbench.capacity.cost_model import CostModel, measure_costs, timing_settings
from xbench.components import registry
from xbench.training.job import CellJob


def sizes(settings):
    training = settings.training
    return training.train_size, training.batch_size, training.micro_batch, training.epochs


class TestRun:
    """The time of a whole run, which is arithmetic."""

    def test_is_made_of_start_examples_steps_and_evaluations(self):
        cost_model = CostModel(
            start_s=1000.0, closure_s=1.0, update_s=0.01, closures=1.0, evaluation_s=0.0001
        )
        settings = settings_of(train_size=100, batch_size=10, micro_batch=10, epochs=3)
        assert cost_model.run_s(settings, evaluated=20) == pytest.approx(
            1000 + 3 * (100 + 10 * 0.01) + 20 * 0.0001
        )

    def test_the_last_batch_may_be_smaller(self):
        cost_model = CostModel(start_s=0.0, closure_s=1.0, update_s=100.0, closures=1.0, evaluation_s=0.0)
        settings = settings_of(train_size=101, batch_size=10, micro_batch=10)
        assert cost_model.run_s(settings, evaluated=0) == 101 + 11 * 100

    def test_a_closure_sees_the_whole_batch(self):
        cost_model = CostModel(start_s=0.0, closure_s=0.5, update_s=0.0, closures=4.5, evaluation_s=0.0)
        settings = settings_of(train_size=100, batch_size=100, micro_batch=16, epochs=2)
        assert cost_model.run_s(settings, evaluated=0) == 2 * 100 * 4.5 * 0.5


class TestShortened:
    @pytest.mark.parametrize(
        ("train_size", "batch_size", "micro_batch", "expected"),
        [
            (1000, 1000, 64, (32, 32, 16, 1)),
            (1000, 1000, 4, (8, 8, 4, 1)),
            (1000, 5, 5, (5, 5, 5, 1)),
            (1000, 1, 1, (1, 1, 1, 1)),
            (20, 20, 16, (20, 20, 16, 1)),
        ],
    )
    def test_is_two_small_parts_of_a_batch(self, train_size, batch_size, micro_batch, expected):
        settings = settings_of(
            train_size=train_size, batch_size=batch_size, micro_batch=micro_batch, epochs=100
        )
        assert sizes(timing_settings(settings)) == expected

    def test_nothing_else_changes(self):
        settings = lbfgs(train_size=100, batch_size=100, micro_batch=50, epochs=9, validation=0.2, seed=3)
        short = timing_settings(settings)
        changed = {"train_size": 100, "batch_size": 100, "micro_batch": 50, "epochs": 9}
        again = replace(short, training=short.training.model_copy(update=changed))
        assert again == settings


def small(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, num_classes))


def normed(num_classes: int) -> nn.Module:
    """For which no part of a batch stands for the batch."""
    return nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 16 * 16, num_classes))


# The weights at each forward pass of a `Watched` layer in training, as their sum.
SEEN = []


class Watched(nn.Linear):
    def forward(self, x):
        if self.training:
            SEEN.append(float(self.weight.detach().sum()))
        return super().forward(x)


def watched(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), Watched(3 * 16 * 16, num_classes))


class Fused:
    """Updates each parameter within the backward pass."""

    def __init__(self, model, lr=0.1):
        self.lr = lr
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(self.update)

    @torch.no_grad()
    def update(self, parameter):
        parameter -= self.lr * parameter.grad
        parameter.grad = None

    def step(self, closure):
        loss = closure.loss()
        loss.backward()
        return loss.detach()


class TestMeasured:
    @pytest.fixture(autouse=True)
    def specs(self, monkeypatch, tmp_path):
        """Models by name; and little timeouts."""
        specs = {"small": ModelSpec(factory=small), "normed": ModelSpec(factory=normed)}
        specs["watched"] = ModelSpec(factory=watched)
        specs["fused"] = OptimizerSpec(factory=Fused, backward="fused")
        real_load = registry.load
        monkeypatch.setattr(
            registry, "load", lambda kind, name, dirs=(): specs.get(name) or real_load(kind, name, dirs)
        )
        monkeypatch.setattr("xbench.capacity.cost_model._TIMED_S", 0.0)

    def cost_model(self, data, settings) -> CostModel:
        sent = []
        cost_model = measure_costs(sent.append, CellJob(timing_settings(settings), data))
        assert sent == []
        return cost_model

    def test_all_parts_are_positive(self, tiny_data):
        cost_model = self.cost_model(
            tiny_data, settings_of(model="small", train_size=60, batch_size=10, micro_batch=10)
        )
        assert min(cost_model.start_s, cost_model.closure_s, cost_model.update_s, cost_model.evaluation_s) > 0
        assert cost_model.closures == 1

    def test_closures_are_those_of_a_step(self, tiny_data):
        settings = settings_of(
            "lbfgs",
            {"max_iter": 3, "max_eval": 3, "tolerance_grad": 0.0, "tolerance_change": 0.0},
            "small",
            train_size=60,
            batch_size=60,
            micro_batch=16,
        )
        assert self.cost_model(tiny_data, settings).closures == 3

    def test_the_backward_pass_of_a_fused_optimizer_takes_time_per_example(self, tiny_data):
        settings = settings_of("fused", {}, "small", train_size=60, batch_size=10, micro_batch=10)
        cost_model = self.cost_model(tiny_data, settings)
        assert cost_model.closure_s > 0
        assert (cost_model.update_s, cost_model.closures) == (0, 1)

    def test_each_step_starts_from_the_initial_weights(self, tiny_data):
        """A model that has fitted the few examples takes another time than one that has not."""
        SEEN.clear()
        settings = settings_of("sgd", {"lr": 0.5}, "watched", train_size=40, batch_size=10, micro_batch=10)
        self.cost_model(tiny_data, settings)
        assert len(SEEN) >= 4
        assert len(set(SEEN)) == 1

    def test_of_a_batch_that_must_be_whole(self, tiny_data):
        """Batch normalisation takes no micro-batches, and this training has none."""
        settings = settings_of(model="normed", train_size=80, batch_size=40, micro_batch=40)
        assert self.cost_model(tiny_data, settings).closure_s > 0

    def test_of_more_examples_than_there_are(self, tiny_data):
        few = replace(
            tiny_data,
            rows=tiny_data.rows[[0, 1, 2, 3, 4, 5, 90, 91]],
            labels=tiny_data.labels[[0, 1, 2, 3, 4, 5, 90, 91]],
            is_test=tiny_data.is_test[[0, 1, 2, 3, 4, 5, 90, 91]],
            groups=("",) * 8,
        )
        settings = settings_of(
            model="small", train_size=32, batch_size=32, micro_batch=32, validation=0.0, selection="last"
        )
        assert self.cost_model(few, settings).closure_s > 0
