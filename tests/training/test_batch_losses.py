"""Tasks that are not additive: the loss of a row is that of a batch of a certain size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.row_parts import prepare
from xbench import DatasetSpec, Metric, ModelSpec, RowDataset, Task
from xbench.components import registry
from xbench.errors import DependentExamples
from xbench.planning.task_facts import describe_task
from xbench.training.assembly import assemble
from xbench.training.checkpoint import Checkpoints
from xbench.training.micro_batches import check_examples_are_independent
from xbench.training.model import TrainedPart, build_model
from xbench.training.optimizer import load_optimizer
from xbench.training.settings import CellSettings, Choice, TrainingSettings
from xbench.training.splits import split_examples

BATCH = 6
X = torch.from_numpy(np.random.default_rng(1).normal(size=(40, 3)))


def contrast(outputs, batch):
    """Tell each row from the others of its batch."""
    return torch.logsumexp(outputs @ outputs.T, 1) - (outputs * outputs).sum(1)


def add_up(outputs, batch, class_weights):
    """Sum the losses of a whole batch, in another way."""
    return contrast(outputs, batch).sum()


def build(held_out: int, **task) -> RowDataset:
    metrics = (
        Metric(name="same", direction="min", value="loss"),
        Metric(name="norm", direction="min", value=lambda out, batch: out.square().sum(1)),
        Metric(name="spread", direction="max", function=np.std),
    )
    whole = Task(**{"loss_of": contrast, "additive": False, "metrics": metrics} | task)
    return RowDataset(train=X[:20], validation=X[20 : 20 + held_out], test=X[20 : 20 + held_out], task=whole)


@pytest.fixture
def trainer_of(monkeypatch, tmp_path):
    """`trainer_of(held_out, micro_batch, ...)`: a trainer of batches of six rows."""
    real_load = registry.load

    def make(held_out, micro_batch, batch_size=BATCH, **task):
        specs = {
            "rows": DatasetSpec(factory=lambda: build(held_out, **task)),
            "network": ModelSpec(factory=lambda: nn.Linear(3, 2)),
        }
        monkeypatch.setattr(
            registry, "load", lambda kind, name, dirs=(): specs.get(name) or real_load(kind, name, dirs)
        )
        monkeypatch.setattr("xbench.training.row_set._last", {})
        training = TrainingSettings(
            batch_size=batch_size, micro_batch=micro_batch, dtype="float64", validation=0.0, selection="last"
        )
        settings = CellSettings(Choice("network", {}), Choice("sgd", {}), training, 0, "cpu")
        data = prepare(build(held_out, **task), "rows")[1]
        components = specs["network"], load_optimizer(settings.optimizer)
        model = TrainedPart(build_model(components[0], settings, data), "")
        split = split_examples(data, training, seed=0)
        return assemble(
            lambda message: None, settings, data, *components, model, split, Checkpoints(tmp_path)
        )

    return make


def evaluate(trainer):
    return trainer.evaluate(trainer.split.validation, "validation", collects=True)


def expect(trainer, held_out: int, batch: int) -> np.ndarray:
    """The loss of each held-out row, in batches of which the last has the first rows as well."""
    with torch.no_grad():
        outputs = trainer.model(X[20 : 20 + held_out])
        losses = [
            contrast(outputs[np.arange(first, first + batch) % held_out], None)
            for first in range(0, held_out, batch)
        ]
    return torch.cat(losses)[:held_out].numpy()


@pytest.mark.parametrize("summed", [None, add_up])
@pytest.mark.parametrize("held_out", [13, 12, 7])
def test_losses_are_those_of_whole_batches_whatever_the_micro_batch(trainer_of, held_out, summed):
    for micro_batch in (BATCH, 4, 1):
        trainer = trainer_of(held_out, micro_batch, summed=summed)
        found, expected = evaluate(trainer), expect(trainer, held_out, BATCH)
        assert found.losses == pytest.approx(expected, rel=1e-12)
        assert found.loss == pytest.approx(expected.mean(), rel=1e-12)
        assert found.averages["same"] == pytest.approx(expected.mean(), rel=1e-12)
        with torch.no_grad():
            outputs = trainer.model(X[20 : 20 + held_out])
        assert found.averages["norm"] == pytest.approx(outputs.square().sum(1).mean().item(), rel=1e-12)
        assert found.collected == pytest.approx(outputs.numpy(), rel=1e-12)


def test_fewer_rows_than_a_batch_are_a_batch_of_their_own(trainer_of):
    trainer = trainer_of(4, 2)
    assert evaluate(trainer).loss == pytest.approx(expect(trainer, 4, 4).mean(), rel=1e-12)


def test_a_full_batch_is_as_large_as_the_training_rows(trainer_of):
    trainer = trainer_of(20, 5, batch_size="full")
    assert trainer.evaluation_chunk == 20
    assert evaluate(trainer).loss == pytest.approx(expect(trainer, 20, 20).mean(), rel=1e-12)


def test_micro_batches_are_refused_even_if_no_row_shows_the_dependence(trainer_of):
    trainer = trainer_of(7, 4, loss_of=lambda outputs, batch: outputs.square().sum(1))
    with pytest.raises(DependentExamples, match="as its task declares"):
        check_examples_are_independent(trainer.model, trainer.loader, trainer.objective, np.arange(6))


def test_records_say_how_losses_were_evaluated():
    facts = describe_task(build(4).task, has_validation=True)
    methods = {metric.name: metric.method for metric in (*facts.metrics, *facts.epoch_metrics)}
    for name in ("test_loss", "validation_loss"):
        assert methods[name].startswith("training objective; each row in a batch of the batch size")
    assert "batch of the batch size" not in methods["train_loss"]
