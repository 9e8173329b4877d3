"""Validation, drawing and order."""

from __future__ import annotations

import numpy as np
import pytest

from xbench import XbenchError
from xbench.training.settings import TrainingSettings
from xbench.training.splits import epoch_order, missing_classes, split_examples


def split(data, seed=0, **settings):
    return split_examples(data, TrainingSettings(**settings), seed)


def test_validation_is_held_out_by_group_in_the_share_of_each_class(tiny_data):
    parts = split(tiny_data, validation=0.2)
    train_groups = {tiny_data.groups[i] for i in parts.train}
    validation_groups = {tiny_data.groups[i] for i in parts.validation}
    assert not train_groups & validation_groups
    assert np.bincount(tiny_data.labels[parts.validation]).tolist() == [12, 6]
    assert len(parts.train) + len(parts.validation) == 90
    assert not tiny_data.is_test[parts.train].any()
    assert tiny_data.is_test[parts.test].all()
    assert len(parts.test) == 30


def test_classes_that_a_part_lacks_are_named(tiny_data):
    dark = np.flatnonzero(tiny_data.labels == 0)
    assert missing_classes(tiny_data, dark) == ["bright"]
    assert missing_classes(tiny_data, dark[:0]) == ["dark", "bright"]
    assert missing_classes(tiny_data, split(tiny_data).train) == []


def test_a_seed_fixes_validation_and_order_and_never_the_test_set(tiny_data):
    first, again, other = split(tiny_data, 1), split(tiny_data, 1), split(tiny_data, 2)
    assert (first.validation == again.validation).all()
    assert not np.array_equal(first.validation, other.validation)
    assert (first.test == other.test).all()
    assert (epoch_order(first.train, 1, 3) == epoch_order(first.train, 1, 3)).all()
    assert not np.array_equal(epoch_order(first.train, 1, 3), epoch_order(first.train, 1, 4))


def test_train_size_draws_distinct_examples(tiny_data):
    parts = split(tiny_data, train_size=40)
    assert len(parts.train) == len(np.unique(parts.train)) == 40
    with pytest.raises(XbenchError, match="more than the 82 examples left"):
        split(tiny_data, train_size=83)


def test_oversampling_balances_and_repeats_as_evenly_as_it_can(tiny_data):
    parts = split(tiny_data, balance="oversample", validation=0.0, selection="last")
    assert np.bincount(tiny_data.labels[parts.train]).tolist() == [60, 60]
    _, repeats = np.unique(parts.train[tiny_data.labels[parts.train] == 1], return_counts=True)
    assert repeats.tolist() == [2] * 30


def test_a_balanced_draw_repeats_nothing_while_there_is_enough(tiny_data):
    parts = split(tiny_data, balance="oversample", train_size=50)
    assert np.bincount(tiny_data.labels[parts.train]).tolist() == [25, 25]
    assert len(np.unique(parts.train)) == 50


def test_a_balanced_draw_has_a_limit(tiny_data):
    with pytest.raises(XbenchError, match="more than the 108 examples that the balanced"):
        split(tiny_data, balance="oversample", train_size=109)
