"""Batches that end in a single example, and models that cannot train on one, are told before a run."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.cell_samples import cell_of
from tests.run_samples import SUITE, suite_of
from xbench.errors import XbenchError
from xbench.planning.checks import check_batches
from xbench.suite.axes import Value

LISTS = """
suite.name = "lists"
[[experiment]]
name = "exp"
model = "net"
dataset = "data"
optimizer = "opt"
batch_size = [
  10,
  7,
]
"""


def check(data, *, fails_alone="", normalises=False, text=SUITE, values=(), **training):
    cell = cell_of(data, validation=0.0, selection="last", **training)
    cell = replace(cell, declared=replace(cell.declared, values=values))
    facts = replace(cell.model, fails_alone=fails_alone, normalises=normalises)
    return check_batches(SimpleNamespace(suite=suite_of(text)), [replace(cell, model=facts)])


ENDS_IN_ONE = [
    {"train_size": 21, "batch_size": 10},
    {"train_size": 20, "batch_size": 10, "micro_batch": 3},
    {"train_size": 24, "batch_size": 10, "micro_batch": 3, "drop_last": True},
    {"train_size": 10, "batch_size": 1},
]
ENDS_WELL = [
    {"train_size": 20, "batch_size": 10},
    {"train_size": 22, "batch_size": 10},
    {"train_size": 21, "batch_size": 10, "drop_last": True},
    {"train_size": 20, "batch_size": "full"},
]


@pytest.mark.parametrize("training", ENDS_IN_ONE)
def test_a_model_that_fails_on_one_is_refused(tiny_data, training):
    with pytest.raises(
        XbenchError, match="leave one example on its own, and model 'net' fails on a single example: why"
    ):
        check(tiny_data, fails_alone="why", **training)
    assert check(tiny_data, **training) == []


@pytest.mark.parametrize("training", ENDS_WELL)
def test_other_sizes_are_fine(tiny_data, training):
    assert check(tiny_data, fails_alone="why", normalises=True, **training) == []


def test_the_value_of_a_list_is_named_with_its_line(tiny_data):
    path = ("experiment", 0, "batch_size", 1)
    given = {"text": LISTS, "values": (Value("training", "batch_size", 7, path, True),), "train_size": 22}
    told = r"^suite.toml:10: 22 examples in batches of 7 leave one example on its own"
    with pytest.raises(XbenchError, match=told):
        check(tiny_data, fails_alone="why", batch_size=7, **given)
    told = r"^suite.toml:10: model 'net' .* batches of 7 in micro-batches of 2 would"
    with pytest.raises(XbenchError, match=told):
        check(tiny_data, normalises=True, batch_size=7, micro_batch=2, **given)


def test_normalising_over_one_example_is_warned_of(tiny_data):
    (warning,) = check(tiny_data, normalises=True, train_size=21, batch_size=10)
    assert "21 examples in batches of 10 leave one example on its own" in warning
    assert check(tiny_data, normalises=True, train_size=21, batch_size=1) == []


def test_micro_batches_of_batch_normalisation_are_refused(tiny_data):
    with pytest.raises(XbenchError, match="micro-batches of 4 would train a different function"):
        check(tiny_data, normalises=True, train_size=20, batch_size=10, micro_batch=4)
    assert check(tiny_data, normalises=True, train_size=20, batch_size=10, micro_batch=10) == []
