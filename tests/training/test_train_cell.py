"""Whole cells, trained in this process on small images."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from xbench import ModelSpec, OptimizerSpec, XbenchError
from xbench.components import registry
from xbench.training.cell import train_cell
from xbench.training.events import EpochDone, Evaluating, Prepared, StepsDone
from xbench.training.job import CellJob
from xbench.training.settings import CellSettings, Choice, TrainingSettings


def small_cnn(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 5), nn.MaxPool2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(64, num_classes)
    )


class Exploding(torch.optim.SGD):
    """Writes a value into the first weights at one of its steps."""

    def __init__(self, params, lr, at=3, value=math.inf):
        super().__init__(params, lr)
        self.calls, self.at, self.value = 0, at, value

    def step(self, closure):
        loss = super().step(closure)
        self.calls += 1
        if self.calls == self.at:
            with torch.no_grad():
                self.param_groups[0]["params"][0].fill_(self.value)
        return loss


class Turning(torch.optim.SGD):
    """Climbs from one of its steps on, twice as fast as it descended."""

    def __init__(self, params, lr=0.05, at=27):
        super().__init__(params, lr)
        self.calls, self.at = 0, at

    def step(self, closure):
        self.calls += 1
        if self.calls == self.at:
            self.param_groups[0]["lr"] *= -2
        return super().step(closure)


class Bare:
    """An Adam that is wrapped in something other than a `torch.optim.Optimizer`."""

    def __init__(self, params, lr=0.05):
        self.base = torch.optim.Adam(params, lr=lr)

    def step(self, closure):
        return self.base.step(closure)


class Masked(nn.Module):
    """Has infinite weights that are not trained."""

    def __init__(self, num_classes):
        super().__init__()
        self.inner = small_cnn(num_classes)
        self.mask = nn.Parameter(torch.full((num_classes,), math.inf), requires_grad=False)

    def forward(self, images):
        return self.inner(images).minimum(self.mask)


@pytest.fixture(autouse=True)
def small_components(monkeypatch):
    specs = {
        "small": ModelSpec(factory=small_cnn),
        "other-shape": ModelSpec(factory=small_cnn, input_shape=(3, 32, 32)),
        "masked": ModelSpec(factory=Masked),
        "exploding": OptimizerSpec(factory=Exploding),
        "turning": OptimizerSpec(factory=Turning),
        "bare": OptimizerSpec(factory=Bare),
    }
    real_load = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name, dirs=(): specs.get(name) or real_load(kind, name, dirs)
    )


class Run:
    """One cell's result and what it sent."""

    def __init__(self, data, tmp_path, optimizer="sgd", params=None, model="small", seed=0, **training):
        self.messages = []
        settings = CellSettings(
            Choice(model, {}),
            Choice(optimizer, params if params is not None else {"lr": 0.05}),
            TrainingSettings(**{"epochs": 2, "batch_size": 5, **training}),
            seed,
            "cpu",
        )
        self.result = train_cell(self.messages.append, CellJob(settings, data, scratch=tmp_path))
        self.rows = [row for message in self.of(StepsDone) for row in message.rows]
        self.losses = [row.loss for row in self.rows]

    def of(self, kind):
        return [message for message in self.messages if isinstance(message, kind)]


LBFGS = {"history_size": 4, "max_iter": 4, "line_search_fn": "strong_wolfe"}


def test_evaluations_tell_how_far_they_are(tiny_data, tmp_path):
    run = Run(tiny_data, tmp_path, epochs=1)
    ends = [message.total for message in run.of(Evaluating) if message.done == message.total]
    split = run.of(Prepared)[0].ran
    sizes = [split["validation_size"], len(run.result.scores.losses), split["distinct_train_size"]]
    assert [message.total for message in run.of(Evaluating) if message.done == 0] == ends == sizes


def test_a_cell_learns_and_reports(tiny_data, tmp_path):
    run = Run(tiny_data, tmp_path, params={"lr": 0.05, "momentum": 0.9}, epochs=4)
    assert run.result.status == "done"
    scores = run.result.scores
    assert scores.collected["label"].tolist() == tiny_data.labels[tiny_data.is_test].tolist()
    hits = scores.collected["logit"].argmax(axis=1) == scores.collected["label"]
    assert scores.values["test_accuracy"] == hits.mean() > 0.8
    assert [row.step for row in run.rows] == list(range(1, 17 * 4 + 1))
    assert [row.epoch for row in run.rows] == [epoch for epoch in (1, 2, 3, 4) for _ in range(17)]
    assert {row.closures for row in run.rows} == {1}
    assert run.of(Prepared)[0].steps == len(run.rows)
    assert [message.record.epoch for message in run.of(EpochDone)] == [1, 2, 3, 4]
    memory = run.result.memory
    parameters = 4 * (3 * 4 * 25 + 4 + 64 * 2 + 2)
    assert memory.parameters_bytes == parameters
    assert memory.optimizer_state_bytes == parameters  # momentum, one vector
    assert memory.peak_host_bytes >= max(row.host_peak_bytes for row in run.rows)
    assert run.of(Prepared)[0].parameters_by_role == {"hidden": 3 * 4 * 25 + 4, "output": 64 * 2 + 2}


def test_an_optimizer_needs_only_a_step(tiny_data, tmp_path):
    bare, adam = Run(tiny_data, tmp_path, "bare"), Run(tiny_data, tmp_path, "adam")
    assert bare.result.status == "done"
    assert bare.losses == adam.losses
    assert bare.result.memory.optimizer_state_bytes == adam.result.memory.optimizer_state_bytes > 0
    assert bare.of(Prepared)[0].ran["history_size"] is None


def test_optimizers_of_a_seed_start_alike_and_see_the_same_batches(tiny_data, tmp_path):
    frozen = {"lr": 0.0}
    sgd = Run(tiny_data, tmp_path, "sgd", frozen)
    adam = Run(tiny_data, tmp_path, "adam", frozen)
    other_seed = Run(tiny_data, tmp_path, "sgd", frozen, seed=1)
    assert sgd.losses == adam.losses
    assert sgd.losses != other_seed.losses


def test_a_cell_repeats_itself_exactly(tiny_data, tmp_path):
    assert Run(tiny_data, tmp_path).losses == Run(tiny_data, tmp_path).losses


def test_micro_batches_give_the_same_first_closure(tiny_data, tmp_path):
    whole = Run(tiny_data, tmp_path, "lbfgs", LBFGS, batch_size="full")
    parts = Run(tiny_data, tmp_path, "lbfgs", LBFGS, batch_size="full", micro_batch=16)
    assert parts.losses[0] == pytest.approx(whole.losses[0], rel=1e-5)
    assert parts.of(Prepared)[0].ran["micro_batch"] == 16
    assert whole.of(Prepared)[0].ran["micro_batch"] == whole.of(Prepared)[0].ran["batch_size"] == 82


def test_micro_batches_give_the_same_curve_in_float64(tiny_data, tmp_path):
    settings = {"batch_size": "full", "dtype": "float64", "epochs": 6}
    whole = Run(tiny_data, tmp_path, "lbfgs", LBFGS, **settings)
    parts = Run(tiny_data, tmp_path, "lbfgs", LBFGS, micro_batch=16, **settings)
    assert len(parts.losses) == 6
    assert parts.losses == pytest.approx(whole.losses, rel=1e-8)
    assert parts.losses[-1] < parts.losses[0] / 2  # a curve, not a standstill
    assert [row.closures for row in parts.rows] == [row.closures for row in whole.rows]


def test_the_selected_weights_are_those_of_the_best_validation(tiny_data, tmp_path):
    """Of an optimizer that undoes what it learned, the metrics must be of the epoch that was kept."""
    settings = {"optimizer": "turning", "params": {}, "validation": 0.3}
    run = Run(tiny_data, tmp_path, epochs=5, **settings)
    losses = [message.record.values["validation_loss"] for message in run.of(EpochDone)]
    assert run.result.selected_epoch == losses.index(min(losses)) + 1
    assert run.result.selected_epoch < 5, "the test needs a curve that turns"
    shorter = Run(tiny_data, tmp_path, epochs=run.result.selected_epoch, selection="last", **settings)
    assert run.result.scores.values["test_loss"] == shorter.result.scores.values["test_loss"]


def test_selection_of_the_last_epoch_keeps_nothing_on_disk(tiny_data, tmp_path):
    run = Run(tiny_data, tmp_path, selection="last", validation=0.0)
    assert run.result.selected_epoch == 2
    assert not (tmp_path / "selected.pt").exists()
    assert set(run.of(EpochDone)[0].record.values) == {"train_loss"}


def test_selection_on_test_evaluates_it_each_epoch(tiny_data, tmp_path):
    run = Run(tiny_data, tmp_path, selection="test_loss")
    losses = [message.record.values["test_loss"] for message in run.of(EpochDone)]
    assert run.result.scores.values["test_loss"] == pytest.approx(min(losses))


def test_a_loss_that_is_not_finite_ends_the_cell_with_its_step(tiny_data, tmp_path):
    run = Run(tiny_data, tmp_path, "exploding", {"lr": 0.01})
    assert run.result.status == "diverged"
    assert "step 4" in run.result.reason
    assert run.result.scores is None
    assert not math.isfinite(run.losses[3])


def test_an_optimizer_that_cannot_train_the_model_is_skipped(tiny_data, tmp_path):
    run = Run(tiny_data, tmp_path, "muon", {})
    assert run.result.status == "skipped"
    assert "muon updates the matrices of hidden layers, and this model has none" in run.result.reason


def test_a_model_for_another_shape_is_refused(tiny_data, tmp_path):
    with pytest.raises(XbenchError, match=r"takes images of \(3, 32, 32\)"):
        Run(tiny_data, tmp_path, model="other-shape")


def test_layouts_agree(tiny_data, tmp_path):
    settings = {"dtype": "float64", "epochs": 1}
    fast = Run(tiny_data, tmp_path, memory_format="channels_last", **settings)
    plain = Run(tiny_data, tmp_path, memory_format="contiguous", **settings)
    assert fast.losses == pytest.approx(plain.losses, rel=1e-10)


@pytest.mark.parametrize(
    ("training", "value", "reason"),
    [
        ({"selection": "last", "validation": 0.0}, math.nan, "the weights are not finite after step 6"),
        ({"selection": "last", "validation": 0.2}, math.inf, "the weights are not finite after step 6"),
        ({"validation": 0.2}, math.nan, "the weights are not finite after step 6"),
        ({"selection": "test_loss", "validation": 0.0}, -math.inf, "the weights are not finite after step 6"),
        ({"validation": 0.2}, 3e38, "the validation loss is nan after epoch 2"),
        ({"selection": "test_loss", "validation": 0.0}, 3e38, "the test loss is nan after epoch 2"),
        ({"selection": "last", "validation": 0.0}, 3e38, "the test loss of the selected weights is nan"),
    ],
)
def test_a_divergence_of_the_last_step_is_noticed(tiny_data, tmp_path, training, value, reason):
    """Also where the weights of an earlier epoch are selected."""
    params = {"lr": 0.01, "at": 6, "value": value}
    run = Run(tiny_data, tmp_path, "exploding", params, train_size=15, **training)
    assert len(run.losses) == 6
    assert all(math.isfinite(loss) for loss in run.losses)
    assert len(run.of(EpochDone)) == 2
    assert run.result.status == "diverged"
    assert reason in run.result.reason
    assert run.result.scores is None


def test_what_is_not_trained_may_be_infinite(tiny_data, tmp_path):
    run = Run(tiny_data, tmp_path, model="masked")
    assert run.result.status == "done"
