"""Which epoch a loss selects."""

from __future__ import annotations

import math

import pytest

from xbench.records.schema import EpochRecord
from xbench.training.progress import selection_criterion
from xbench.training.settings import TrainingSettings

LOSSES = ("validation_loss", "test_loss")


@pytest.mark.parametrize("selection", LOSSES)
def test_the_lowest_loss_is_the_best(selection):
    epochs = [EpochRecord(epoch=1, values={selection: value, "other": -1.0}) for value in (1.0, 0.25, 4.0)]
    found = min(epochs, key=lambda epoch: selection_criterion(selection, epoch))
    assert found.values[selection] == 0.25


@pytest.mark.parametrize(
    "values", [{}, {"validation_loss": None}, {"validation_loss": math.nan}, {"other": 1.0}]
)
def test_an_epoch_without_a_value_is_never_selected(values):
    assert selection_criterion("validation_loss", EpochRecord(epoch=1, values=values)) == math.inf


def test_the_last_epoch_is_not_selected_by_a_value():
    values = {"train_loss": 1.0, "validation_loss": 1.0, "last": 1.0}
    assert selection_criterion("last", EpochRecord(epoch=1, values=values)) == math.inf


@pytest.mark.parametrize(
    ("selection", "on_test"), [("validation_loss", False), ("test_loss", True), ("last", False)]
)
def test_only_the_test_loss_selects_on_test(selection, on_test):
    assert TrainingSettings(selection=selection).selects_on_test is on_test
