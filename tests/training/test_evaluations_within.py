"""Evaluations within epochs: when they happen, what they record, and that they do not change the training."""

from __future__ import annotations

import os
import random
import shutil

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tests.training.sessions import Session
from tests.training.small_cells import SmallCell, small_cnn
from xbench import ModelSpec, OptimizerSpec
from xbench.components import registry
from xbench.training.evaluation_points import count_evaluations, is_evaluation_due
from xbench.training.job import CellJob
from xbench.training.settings import CellSettings, Choice, TrainingSettings

TRAIN, BATCH, EPOCHS = 72, 10, 2
STEPS_AN_EPOCH = 8  # the last one has 2 examples

# With the plain kernels of an old processor, PyTorch writes C++ code that does not compile.
can_compile = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None
    or torch.backends.cpu.get_cpu_capability() == "DEFAULT",
    reason="models cannot be compiled here",
)


class Dropping(nn.Module):
    """Draws masks from torch's generator, and noise from NumPy's and Python's, also in evaluation."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.inner, self.drop = small_cnn(num_classes), nn.Dropout(0.3)

    def forward(self, images):
        noise = np.random.random() + random.random()
        return self.inner(self.drop(images)) * (1 + 0.01 * noise)


class Averaging(torch.optim.SGD):
    """Evaluates at an average of its points. Either set of weights is computed from the other, which
    rounds."""

    def __init__(self, params, lr=0.05):
        super().__init__(params, lr=lr)
        self.points = [p.detach().clone() for group in self.param_groups for p in group["params"]]

    def _mix(self, weight):
        with torch.no_grad():
            weights = [p for group in self.param_groups for p in group["params"]]
            for p, point in zip(weights, self.points, strict=True):
                p.lerp_(point, weight)

    def eval(self):
        self._mix(1 / 3)

    def train(self):
        if self.state:  # it has been evaluated
            self._mix(-1 / 2)
        self.state["was_trained"] = {}


class Drawing(torch.optim.SGD):
    """Draws from every generator in each step."""

    @torch.no_grad()
    def step(self, closure):
        loss = super().step(closure)
        noise = random.random() + np.random.random() + torch.rand(()).item()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.add_(1e-3 * noise)
        return loss


SPECS = {
    "small": ModelSpec(factory=small_cnn),
    "dropping": ModelSpec(factory=Dropping),
    "averaging": OptimizerSpec(factory=Averaging),
    "drawing": OptimizerSpec(factory=Drawing, resumable=True),
}


@pytest.fixture(autouse=True)
def specs(monkeypatch):
    real_load = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name, dirs=(): SPECS.get(name) or real_load(kind, name, dirs)
    )


def train(data, folder, model="small", optimizer="sgd", **training) -> SmallCell:
    settings = {"epochs": EPOCHS, "batch_size": BATCH, "validation": 0.2, "threads": 1, **training}
    cell = SmallCell(data, folder, model, optimizer, **settings)
    assert cell.result.status == "done"
    assert len(cell.rows) == settings["epochs"] * STEPS_AN_EPOCH or settings["batch_size"] == "full"
    return cell


def steps_of(cell) -> list[int]:
    return [evaluation.step for evaluation in cell.evaluations]


@pytest.mark.parametrize(
    ("every", "steps"),
    [
        ("epoch", [8, 16]),
        (1, list(range(1, 17))),
        (3, [3, 6, 8, 9, 12, 15, 16]),
        ("3 steps", [3, 6, 8, 9, 12, 15, 16]),
        (8, [8, 16]),
        (100, [8, 16]),
        ("20 examples", [2, 4, 6, 8, 9, 11, 13, 15, 16]),  # 72, 82 and 102 examples after steps 8, 9 and 11
        ("1 examples", list(range(1, 17))),
        ("1000 examples", [8, 16]),
    ],
)
def test_validation_is_measured_at_these_steps_and_once_at_the_end_of_each_epoch(
    tiny_data, tmp_path, every, steps
):
    cell = train(tiny_data, tmp_path, evaluate_every=every)
    assert steps_of(cell) == steps
    settings = TrainingSettings(
        train_size=TRAIN, batch_size=BATCH, micro_batch=BATCH, epochs=EPOCHS, evaluate_every=every
    )
    assert count_evaluations(settings) == len(steps)


def test_an_evaluation_says_how_far_training_was(tiny_data, tmp_path):
    cell = train(tiny_data, tmp_path, optimizer="lbfgs", lr=1e-3, evaluate_every=3)
    closures = np.cumsum([row.closures for row in cell.rows])
    drawn = np.cumsum(([BATCH] * 7 + [2]) * EPOCHS)
    for found in cell.evaluations:
        assert found.epoch == cell.rows[found.step - 1].epoch
        assert found.closures == closures[found.step - 1]
        assert found.examples == drawn[found.step - 1]
        assert set(found.values) == {"validation_loss", "validation_accuracy"}
    times = [found.training_s for found in cell.evaluations]
    assert times == sorted(times)
    assert times[0] > 0 and times[-1] <= cell.result.time.training_s
    assert max(row.closures for row in cell.rows) > 1


def test_the_evaluation_after_an_epoch_is_that_of_the_epoch(tiny_data, tmp_path):
    cell = train(tiny_data, tmp_path, evaluate_every=3, selection="test_loss")
    ends = {found.epoch: found for found in cell.evaluations if found.step % STEPS_AN_EPOCH == 0}
    for epoch in cell.epochs:
        assert {"train_loss": epoch.values["train_loss"], **ends[epoch.epoch].values} == epoch.values
        assert "test_loss" in epoch.values


def test_a_cell_without_held_out_rows_has_no_evaluations(tiny_data, tmp_path):
    cell = SmallCell(tiny_data, tmp_path, validation=0.0, selection="last", evaluate_every=1)
    assert cell.evaluations == []


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"model": "dropping"},
        {"optimizer": "adam", "lr": 1e-3, "clip_norm": 1.0, "schedule": "cosine"},
        {"optimizer": "drawing", "model": "dropping"},
        {"optimizer": "averaging"},
        {"optimizer": "lbfgs", "lr": 1e-3, "batch_size": "full", "micro_batch": 16},
        {"micro_batch": 3, "drop_last": False},
        {"autocast": "bfloat16"},
        {"selection": "test_loss"},
        pytest.param({"compile": True, "epochs": 1}, marks=[pytest.mark.slow, can_compile]),
    ],
    ids=str,
)
def test_evaluations_do_not_change_the_training(tiny_data, tmp_path, parts):
    """Weights are compared by the losses and outputs that they give, bit for bit."""
    (tmp_path / "with").mkdir()
    plain = train(tiny_data, tmp_path, **parts)
    observed = train(tiny_data, tmp_path / "with", **parts, evaluate_every=1)
    assert len(observed.evaluations) == len(observed.rows)
    assert [row.loss for row in observed.rows] == [row.loss for row in plain.rows]
    assert [row.closures for row in observed.rows] == [row.closures for row in plain.rows]
    assert observed.epochs == plain.epochs
    assert observed.result.selected_epoch == plain.result.selected_epoch
    assert np.array_equal(observed.result.scores.losses, plain.result.scores.losses)
    logits = [cell.result.scores.collected["logit"] for cell in (plain, observed)]
    assert np.array_equal(*logits)


def test_an_optimizer_with_modes_is_evaluated_with_its_own_weights_within_epochs_too(tiny_data, tmp_path):
    (tmp_path / "plain").mkdir()
    averaged = train(tiny_data, tmp_path, optimizer="averaging", evaluate_every=1)
    plain = train(tiny_data, tmp_path / "plain", optimizer="sgd", evaluate_every=1)
    assert [row.loss for row in averaged.rows] == [row.loss for row in plain.rows]
    pairs = zip(averaged.evaluations, plain.evaluations, strict=True)
    assert all(one.values["validation_loss"] != other.values["validation_loss"] for one, other in pairs)


@pytest.mark.parametrize("stops", [(5,), (6,), (8,), (3, 12)], ids=str)
@pytest.mark.parametrize("optimizer", ["sgd", "drawing"])
def test_a_cell_that_resumes_within_an_epoch_has_the_same_evaluations(tiny_data, tmp_path, stops, optimizer):
    settings = CellSettings(
        Choice("dropping", {}),
        Choice(optimizer, {"lr": 0.05}),
        TrainingSettings(epochs=2, batch_size=BATCH, validation=0.2, evaluate_every=3, threads=1),
        0,
        "cpu",
    )
    folders = [tmp_path / "whole", tmp_path / "parts"]
    for folder in folders:
        folder.mkdir()
    whole = Session(CellJob(settings, tiny_data, scratch=folders[0]))
    rows, evaluations, checkpoint, done = [], [], None, 0
    for stop in (*stops, None):
        job = CellJob(settings, tiny_data, scratch=folders[1])
        part = Session(job, stop and stop - done, checkpoint)
        rows, evaluations = [*rows, *part.rows], [*evaluations, *part.evaluations]
        checkpoint, done = part.checkpoint, stop
    assert [row.loss for row in rows] == [row.loss for row in whole.rows]
    assert [found.model_dump(exclude={"training_s"}) for found in evaluations] == [
        found.model_dump(exclude={"training_s"}) for found in whole.evaluations
    ]
    times = [found.training_s for found in evaluations]
    assert times == sorted(times) and times[-1] <= part.result.time.training_s


class TestPoints:
    @pytest.mark.parametrize("every", [0, -1, True, "2 epochs", "0 steps", "-5 examples", "many", "5", 2.5])
    def test_what_is_not_a_number_of_steps_or_examples_is_refused(self, every):
        with pytest.raises(ValidationError):
            TrainingSettings(evaluate_every=every)

    def test_steps_are_a_number_however_they_are_written(self):
        assert TrainingSettings(evaluate_every="20 steps") == TrainingSettings(evaluate_every=20)

    def test_a_step_that_passes_several_multiples_is_followed_by_one_evaluation(self):
        assert is_evaluation_due("10 examples", step=1, drawn=32, batch=32)
        assert not is_evaluation_due("40 examples", step=1, drawn=32, batch=32)
        assert is_evaluation_due("40 examples", step=2, drawn=64, batch=32)

    @pytest.mark.parametrize("every", [1, 3, 7, "1 examples", "9 examples", "64 examples", "epoch"])
    @pytest.mark.parametrize("sizes", [(72, 10), (70, 10), (5, 5), (7, 2)])
    @pytest.mark.parametrize("drop_last", [False, True])
    def test_counting_agrees_with_a_run(self, every, sizes, drop_last):
        train_size, batch_size = sizes
        settings = TrainingSettings(
            train_size=train_size,
            batch_size=batch_size,
            micro_batch=1,
            epochs=3,
            evaluate_every=every,
            drop_last=drop_last,
        )
        step = drawn = count = 0
        for _ in range(3):
            starts = range(0, train_size, batch_size)
            batches = [min(batch_size, train_size - start) for start in starts]
            batches = [size for size in batches if size == batch_size or not drop_last]
            for number, size in enumerate(batches, start=1):
                step, drawn = step + 1, drawn + size
                count += number == len(batches) or is_evaluation_due(every, step, drawn, size)
        assert count_evaluations(settings) == count
