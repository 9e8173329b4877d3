"""Validation and selection that the data allows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.cell_samples import cell_of
from xbench.errors import Mistakes
from xbench.planning.cell_checks import fit_to_data
from xbench.suite.axes import Value
from xbench.suite.problems import Problems


@pytest.fixture
def fit(tiny_data):
    """`fit(has_validation, hold_out, **said)`: validation and selection of a cell, if a suite says that."""

    def fit_one(has_validation=False, hold_out=True, **said):
        sample = cell_of(tiny_data, **said)
        values = tuple(
            Value("training", key, value, ("experiment", 0, key), False) for key, value in said.items()
        )
        cell = replace(sample.declared, values=values)
        facts = sample.resolved.facts
        task = replace(facts.task, has_validation=has_validation, hold_out=hold_out)
        resolved = replace(sample.resolved, facts=replace(facts, task=task))
        problems = Problems("suite.toml", "")
        (fitted,) = fit_to_data([cell], {repr(cell.dataset): resolved}, problems)
        problems.raise_if_any()
        return fitted.training.validation, fitted.training.selection

    return fit_one


def test_a_share_is_held_out_unless_the_data_brings_validation_rows_or_is_to_be_used_as_a_whole(fit):
    assert fit() == (0.1, "validation_loss")
    assert fit(has_validation=True) == (0.0, "validation_loss")
    assert fit(hold_out=False) == (0.0, "last")
    assert fit(hold_out=False, validation=0.2) == (0.2, "validation_loss")


def test_validation_of_0_keeps_the_rows_that_the_data_brings(fit):
    assert fit(has_validation=True, validation=0.0) == fit(has_validation=True)
    assert fit(has_validation=True, validation=0.0, selection="last") == (0.0, "last")


def test_without_validation_rows_the_last_epoch_is_selected(fit):
    assert fit(validation=0.0) == (0.0, "last")
    assert fit(validation=0.0, selection="test_loss") == (0.0, "test_loss")


def test_selection_by_rows_that_do_not_exist_is_refused(fit):
    with pytest.raises(Mistakes, match="has no validation rows to select by") as caught:
        fit(validation=0.0, selection="validation_loss")
    assert caught.value.mistakes[0].hint == "set validation > 0, or selection = 'last'"


def test_holding_out_more_than_the_rows_that_the_data_brings_is_refused(fit):
    with pytest.raises(Mistakes, match="brings validation rows, so none are held out"):
        fit(has_validation=True, validation=0.2)
