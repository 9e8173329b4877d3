"""The baseline of a suite and of its experiments."""

from __future__ import annotations

import pytest

OPTIMIZERS = 'optimizer = ["sgd", { name = "adam", lr = [0.1, 0.2] }]\n'


@pytest.mark.parametrize("baseline", ["sgd", "adam lr=0.2"])
def test_is_a_column(cells, head, baseline):
    assert len(cells(head + OPTIMIZERS + f'baseline = "{baseline}"\n')) == 3


@pytest.mark.parametrize(
    ("baseline", "problem"),
    [("muon", "is not a column of this experiment"), ("adam", "matches several columns")],
)
def test_that_is_no_column_or_several(complaints, head, baseline, problem):
    (told,) = complaints(head + OPTIMIZERS + f'baseline = "{baseline}"\n')
    assert told.startswith(f"my.toml:8: baseline '{baseline}' {problem}")


def test_of_the_suite_may_be_missing_in_some_experiments(cells, head):
    other = '[[experiment]]\nname = "other"\nmodel = "net"\ndataset = "pictures"\noptimizer = "adam"\n'
    text = head.replace("[suite]\n", '[suite]\nbaseline = "sgd"\n') + OPTIMIZERS + other
    assert len(cells(text)) == 4


def test_of_the_suite_that_no_experiment_has(complaints, cells, head):
    text = head.replace("[suite]\n", '[suite]\nbaseline = "muon"\n') + OPTIMIZERS
    (told,) = complaints(text)
    assert told.startswith(
        "my.toml:2: baseline 'muon' matches no column of any experiment, or several columns"
    )
    assert cells(text, only=["exp"])  # one that is left out may have it
