"""Cells trained in the process of the test, with parts of the test's own."""

from __future__ import annotations

from torch import nn

from xbench.training.cell import train_cell
from xbench.training.events import EpochDone, EvaluationDone, StepsDone
from xbench.training.job import CellJob
from xbench.training.settings import CellSettings, Choice, TrainingSettings


def small_cnn(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 5), nn.MaxPool2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(64, num_classes)
    )


class SmallCell:
    """One cell's result and what it sent.

    Attributes:
        rows: of its trace.
        epochs, evaluations: their records.
    """

    def __init__(self, data, folder, model="small", optimizer="sgd", lr=0.05, **training):
        messages = []
        settings = CellSettings(
            Choice(model, {}),
            Choice(optimizer, {"lr": lr}),
            TrainingSettings(**{"epochs": 2, "batch_size": 5, **training}),
            0,
            "cpu",
        )
        self.result = train_cell(messages.append, CellJob(settings, data, scratch=folder))
        steps = [message for message in messages if isinstance(message, StepsDone)]
        self.flushes = len(steps)
        self.rows = [row for message in steps for row in message.rows]
        self.epochs = [message.record for message in messages if isinstance(message, EpochDone)]
        self.evaluations = [message.record for message in messages if isinstance(message, EvaluationDone)]
