"""Which epoch a declared metric selects."""

from __future__ import annotations

import math

import pytest

from xbench.records.schema import EpochRecord, MetricRecord
from xbench.training.loop import selection_criterion
from xbench.training.settings import TrainingSettings


def metric(direction: str) -> MetricRecord:
    return MetricRecord(name="score", title="score", direction=direction, split="validation")


@pytest.mark.parametrize(("direction", "best"), [("min", 0.25), ("max", 4.0)])
def test_the_best_value_is_the_one_of_the_direction(direction, best):
    epochs = [EpochRecord(epoch=1, values={"score": value, "other": -1.0}) for value in (1.0, 0.25, 4.0)]
    found = min(epochs, key=lambda epoch: selection_criterion(metric(direction), epoch))
    assert found.values["score"] == best


@pytest.mark.parametrize("values", [{}, {"score": None}, {"score": math.nan}, {"other": 1.0}])
@pytest.mark.parametrize("direction", ["min", "max"])
def test_an_epoch_without_a_value_is_never_selected(direction, values):
    assert selection_criterion(metric(direction), EpochRecord(epoch=1, values=values)) == math.inf


def test_without_a_metric_no_epoch_is_selected():
    assert selection_criterion(None, EpochRecord(epoch=1, values={"score": 1.0})) == math.inf


@pytest.mark.parametrize(
    ("selection", "name", "on_test"),
    [("validation_loss", "validation_loss", False), ("test_loss", "test_loss", True), ("last", None, False)],
)
def test_settings_name_a_declared_metric(selection, name, on_test):
    settings = TrainingSettings(selection=selection)
    assert (settings.selection_metric.name if settings.selection_metric else None) == name
    assert settings.selects_on_test is on_test
