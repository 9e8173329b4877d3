"""Cells that are trained with a recipe: each step's rates, clipped gradients, and param groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.sessions import Session
from xbench import ModelSpec, OptimizerSpec, XbenchError
from xbench.capacity.axes import Axis
from xbench.capacity.workload import TrainingWorkload
from xbench.components import registry
from xbench.training.gradient_norm import measure_gradient
from xbench.training.job import CellJob
from xbench.training.schedules import compute_rate
from xbench.training.settings import CellSettings, Choice, TrainingSettings


def layers(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=3), nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, num_classes)
    )


class Exploding(torch.autograd.Function):
    """Passes values on, and gradients that are infinite."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * torch.inf


class Explodes(nn.Module):
    def forward(self, x):
        return Exploding.apply(x)


def exploding(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, num_classes), Explodes())


class Watching(torch.optim.SGD):
    """Calls the closure twice, and keeps what it saw in each step."""

    seen: list

    def __init__(self, params, lr=0.1, weight_decay=0.01):
        super().__init__(params, lr=lr, weight_decay=weight_decay)

    def step(self, closure=None):
        if closure is not None:
            closure()
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        norm = torch.stack([g.norm() for g in gradients]).norm().item()
        kept = [{key: group[key] for key in ("lr", "weight_decay")} for group in self.param_groups]
        shapes = [[tuple(p.shape) for p in group["params"]] for group in self.param_groups]
        Watching.seen.append({"norm": norm, "groups": kept, "shapes": shapes})
        return super().step(closure)


@pytest.fixture(autouse=True)
def components(monkeypatch):
    specs = {
        "layers": ModelSpec(factory=layers),
        "exploding": ModelSpec(factory=exploding),
        "watching": OptimizerSpec(factory=Watching),
    }
    real_load = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name, dirs=(): specs.get(name) or real_load(kind, name, dirs)
    )
    Watching.seen = []


def job(data, folder, optimizer="watching", params=None, model="layers", **training) -> CellJob:
    fields = {"epochs": 2, "batch_size": 20, "threads": 1, "validation": 0.0, "selection": "last"} | training
    settings = CellSettings(
        Choice(model, {}), Choice(optimizer, params or {}), TrainingSettings(**fields), 3, "cpu"
    )
    return CellJob(settings, data, scratch=folder)


def train(*args, **training) -> Session:
    return Session(job(*args, **training))


def losses(session: Session) -> list[float]:
    return [row.loss for row in session.rows]


def test_a_schedule_moves_once_a_step(tiny_data, tmp_path):
    groups = {"4.*": {"lr": 0.5}}
    session = train(tiny_data, tmp_path, schedule="cosine", warmup=0.2, min_lr=1e-3, groups=groups)
    steps = len(session.rows)
    assert {row.closures for row in session.rows} == {2}
    assert len(Watching.seen) == steps == 10
    for step, seen in enumerate(Watching.seen):
        expected = [
            compute_rate(step, steps=steps, base=base, schedule="cosine", warmup=2, minimum=1e-3)
            for base in (0.1, 0.5)
        ]
        assert [group["lr"] for group in seen["groups"]] == expected


def test_both_parts_of_a_pair_follow_the_schedule(tiny_data, tmp_path):
    plain = train(tiny_data, tmp_path, "muon", {"rest": {"name": "watching"}})
    seen, Watching.seen = Watching.seen, []
    assert {group["lr"] for one in seen for group in one["groups"]} == {0.1}
    session = train(tiny_data, tmp_path, "muon", {"rest": {"name": "watching"}}, schedule="linear")
    rates = [group["lr"] for one in Watching.seen for group in one["groups"]]
    assert rates == pytest.approx([0.1 * (1 - step / 10) for step in range(10)])
    assert losses(session)[:2] == losses(plain)[:2]
    assert losses(session)[2:] != losses(plain)[2:]


def test_a_warmup_that_is_too_long_is_refused(tiny_data, tmp_path):
    with pytest.raises(XbenchError, match="a warm-up of 10 steps is too long for a run of 10 steps"):
        train(tiny_data, tmp_path, warmup=10)


@pytest.mark.parametrize("micro_batch", ["full", 7])
def test_the_whole_batchs_gradient_is_clipped(tiny_data, tmp_path, micro_batch):
    train(tiny_data, tmp_path, micro_batch=micro_batch)
    assert min(seen["norm"] for seen in Watching.seen) > 0.01
    Watching.seen = []
    train(tiny_data, tmp_path, micro_batch=micro_batch, clip_norm=0.01)
    assert [seen["norm"] for seen in Watching.seen] == pytest.approx([0.01] * 10, rel=1e-3)


def test_micro_batches_are_clipped_as_one(tiny_data, tmp_path):
    whole = losses(train(tiny_data, tmp_path, clip_norm=0.05))
    parts = losses(train(tiny_data, tmp_path, clip_norm=0.05, micro_batch=7))
    assert parts == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("recipe", [{"clip_norm": 1.0}, {"clip_norm": 1.0, "clip_value": 1.0}, {}])
def test_gradients_that_are_infinite_end_the_run(tiny_data, tmp_path, recipe):
    result = train(tiny_data, tmp_path, "sgd", model="exploding", **recipe).result
    assert result.status == "diverged"


def test_weights_alone_decay(tiny_data, tmp_path):
    train(tiny_data, tmp_path, weight_decay_on="weights")
    weights, others = zip(*(seen["groups"] for seen in Watching.seen), strict=True)
    assert {group["weight_decay"] for group in weights} == {0.01}
    assert {group["weight_decay"] for group in others} == {0.0}
    assert Watching.seen[0]["shapes"] == [[(4, 3, 5, 5), (6, 64), (2, 6)], [(4,), (6,), (2,)]]


def test_groups_of_equal_settings_change_nothing(tiny_data, tmp_path):
    plain = losses(train(tiny_data, tmp_path, "adamw"))
    assert losses(train(tiny_data, tmp_path, "adamw", groups={"*.bias": {"lr": 1e-3}})) == plain
    assert losses(train(tiny_data, tmp_path, "adamw", groups={"*.bias": {"lr": 1e-2}})) != plain


def test_groups_of_the_parts_of_a_pair(tiny_data, tmp_path):
    groups = {"*.bias": {"weight_decay": 0.5}, "2.*": {"ns_steps": 3}}
    session = train(tiny_data, tmp_path, "muon", {"rest": {"name": "watching"}}, groups=groups)
    assert session.result.status == "done"
    assert Watching.seen[0]["shapes"] == [[(4, 3, 5, 5), (2, 6)], [(4,), (6,), (2,)]]
    assert [group["weight_decay"] for group in Watching.seen[0]["groups"]] == [0.01, 0.5]


def test_a_setting_that_the_part_with_the_parameter_does_not_have(tiny_data, tmp_path):
    """The trial before a run only knows that one of the parts has it."""
    with pytest.raises(XbenchError, match="the param groups of 'watching' have no 'ns_steps'"):
        train(tiny_data, tmp_path, "muon", {"rest": {"name": "watching"}}, groups={"4.*": {"ns_steps": 3}})


@pytest.mark.parametrize("axis", [Axis.MICRO_BATCH, Axis.TRAIN_SIZE])
def test_a_memory_pass_has_the_groups_and_no_schedule(tiny_data, tmp_path, axis):
    """A pass is shorter than the run, and so may be its warm-up."""
    recipe = {"schedule": "cosine", "warmup": 9, "clip_norm": 0.01, "weight_decay_on": "weights"}
    workload = TrainingWorkload(job(tiny_data, tmp_path, train_size=40, **recipe), axis)
    assert workload.prepare()(20).steps == 3
    for seen in Watching.seen:
        assert [group["lr"] for group in seen["groups"]] == [0.1, 0.1]
        assert [group["weight_decay"] for group in seen["groups"]] == [0.01, 0.0]
        assert seen["norm"] == pytest.approx(0.01, rel=1e-3)


def test_steps_without_a_recipe_do_no_more_than_before(tiny_data, tmp_path):
    trainer = TrainingWorkload(job(tiny_data, tmp_path), Axis.BATCH_SIZE).trainer(20, tmp_path)
    assert (trainer.rates, trainer.schedule, trainer.closure._clip) == (None, None, None)
    assert len(trainer.optimizer.param_groups) == 1


def test_the_gradient_of_the_final_weights_is_not_clipped(tiny_data, tmp_path):
    trainer = TrainingWorkload(job(tiny_data, tmp_path, clip_norm=1e-3), Axis.BATCH_SIZE).trainer(
        20, tmp_path
    )
    assert measure_gradient(trainer, np.arange(20)) > 0.01
