"""Warnings of weights that are selected on the test set name their columns."""

from __future__ import annotations

from tests.cell_samples import cell_of
from xbench.planning.checks import collect_selection_warnings


def test_each_column_is_named_once(tiny_data):
    def cell(experiment, column, seed, selection):
        return cell_of(tiny_data, experiment, column, seed, selection=selection).declared

    cells = [
        cell("one", column, seed, selection)
        for seed in (0, 1)
        for column, selection in (("sgd", "test_loss"), ("adam", "last"), ("lbfgs", "test_loss"))
    ]
    cells += [cell("two", "adam", 0, "test_loss"), cell("three", "sgd", 0, "validation_loss")]
    why = "are selected on the test set, so their metrics are optimistic"
    assert list(collect_selection_warnings(cells)) == [
        f"one: the weights of sgd, lbfgs {why}",
        f"two: the weights of adam {why}",
    ]
