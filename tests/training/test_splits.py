"""Validation, drawing and order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training.row_parts import prepare
from xbench import RowDataset, Task, Term, XbenchError
from xbench.training.settings import TrainingSettings
from xbench.training.splits import (
    epoch_order,
    missing_classes,
    missing_terms,
    mix_terms,
    split_examples,
)


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


def rows_of(*counts: int, validation=None, classes=()):
    """Rows of terms `a`, `b`, ..., of each as many as counted; their labels alternate."""
    terms = {name: Term(loss=torch.nn.Module.__call__) for name, _ in zip("abcd", counts, strict=False)}
    x = {name: torch.arange(count)[:, None] for name, count in zip(terms, counts, strict=True)}
    label = (lambda batch: batch[:, 0] % len(classes)) if classes else None
    return prepare(
        RowDataset(train=x, validation=validation, task=Task(loss=terms, classes=classes, label=label))
    )[1]


class TestTerms:
    @pytest.mark.parametrize("seed", range(20))
    def test_validation_is_held_out_of_each_in_its_share(self, seed):
        data = rows_of(100, 20, 10)
        parts = split(data, seed, validation=0.2)
        assert np.bincount(data.terms[parts.validation]).tolist() == [20, 4, 2]
        assert np.bincount(data.terms[parts.train]).tolist() == [80, 16, 8]

    @pytest.mark.parametrize("seed", range(20))
    def test_of_a_single_row_are_not_held_out(self, seed):
        data = rows_of(20, 1)
        for share in (0.1, 0.5):
            parts = split(data, seed, validation=share)
            assert 20 in parts.train
            assert missing_terms(data, parts.validation) == ["b"]
            assert missing_terms(data, parts.train) == []

    @pytest.mark.parametrize("counts", [(1, 1, 20), (2, 3, 5), (1, 2, 4)])
    def test_keep_a_row_to_train_on_at_the_largest_share(self, counts):
        for classes in ((), ("even", "odd")):
            data = rows_of(*counts, classes=classes)
            assert missing_terms(data, split(data, validation=0.5).train) == []

    def test_and_classes_are_held_out_together(self):
        data = rows_of(40, 20, classes=("even", "odd"))
        parts = split(data, validation=0.1)
        held_out = [(data.terms[row], data.labels[row]) for row in parts.validation]
        assert {which: held_out.count(which) for which in set(held_out)} == {
            (0, 0): 2,
            (0, 1): 2,
            (1, 0): 1,
            (1, 1): 1,
        }

    @pytest.mark.parametrize(("size", "drawn"), [(2, [1, 1]), (7, [6, 1]), (42, [40, 2]), (63, [60, 3])])
    def test_are_drawn_in_proportion_and_at_least_once(self, size, drawn):
        data = rows_of(60, 3)
        for seed in range(10):
            train = split(data, seed, train_size=size, validation=0.0, selection="last").train
            assert np.bincount(data.terms[train]).tolist() == drawn
            assert len(np.unique(train)) == size

    def test_are_drawn_at_random(self):
        data, seeds = rows_of(60, 3), range(10)
        drawn = {
            tuple(split(data, seed, train_size=2, validation=0.0, selection="last").train) for seed in seeds
        }
        assert len({row for row, _ in drawn}) > 3
        assert len({row for _, row in drawn}) > 1

    def test_do_not_fit_into_fewer_rows(self):
        with pytest.raises(XbenchError, match="train_size 2 leaves no row of the term 'c' to train on"):
            split(rows_of(60, 3, 5), train_size=2)

    def test_that_a_balanced_draw_leaves_out_are_told(self):
        data = rows_of(60, 1, classes=("even", "odd"))
        with pytest.raises(XbenchError, match="leaves no row of the term 'b'"):
            for seed in range(9):
                split(data, seed, train_size=4, balance="oversample", validation=0.0, selection="last")

    def test_of_the_only_term_are_split_like_rows_without_terms(self):
        one = rows_of(30)
        plain = prepare(RowDataset(train=torch.arange(30)[:, None], task=Task(loss=torch.nn.Module.__call__)))
        for settings in ({"validation": 0.2}, {"train_size": 9}):
            with_term, without = split(one, 3, **settings), split(plain[1], 3, **settings)
            assert with_term.train.tolist() == without.train.tolist()
            assert with_term.validation.tolist() == without.validation.tolist()


class TestMixedTerms:
    @pytest.mark.parametrize("counts", [(12,), (12, 4), (4, 12), (64, 2, 1), (5, 5, 5)])
    def test_are_in_proportion_from_the_beginning(self, counts):
        terms = np.repeat(np.arange(len(counts)), counts)
        order = mix_terms(terms)
        assert sorted(order) == list(range(len(terms)))
        for size in range(len(counts), len(terms) + 1):
            found = np.bincount(terms[order[:size]], minlength=len(counts))
            assert (found >= 1).all()
            assert (np.abs(found - size * np.array(counts) / len(terms)) <= len(counts) - 1).all()

    def test_keep_the_order_of_a_term(self):
        terms = np.array([1, 0, 0, 1, 0])
        order = mix_terms(terms).tolist()
        assert [row for row in order if terms[row] == 0] == [1, 2, 4]
        assert mix_terms(np.zeros(50)).tolist() == list(range(50))


class TestRowsHeldOutAtTheEnd:
    def split(self, count, hold_out="end", **settings):
        task = Task(loss_of=lambda outputs, batch: outputs[:, 0])
        x = torch.arange(count)[:, None]
        _, data = prepare(RowDataset(train=x, test=x[:2], task=task, hold_out=hold_out))
        return split_examples(data, TrainingSettings(**settings), seed=3)

    def test_are_the_last_ones_behind_a_gap(self):
        parts = self.split(20, validation=0.25)
        assert parts.train.tolist() == list(range(14))
        assert parts.validation.tolist() == list(range(15, 20))
        assert parts.test.tolist() == [20, 21]

    def test_are_none_if_nothing_is_held_out(self):
        parts = self.split(20, validation=0.0)
        assert len(parts.train) == 20 and not len(parts.validation)

    def test_leave_a_pool_that_train_size_draws_from(self):
        parts = self.split(20, validation=0.25, train_size=6)
        assert len(parts.train) == 6 and max(parts.train) < 14

    @pytest.mark.parametrize(("count", "validation"), [(4, 0.1), (2, 0.5)])
    def test_need_enough_rows(self, count, validation):
        with pytest.raises(XbenchError, match=f"is not possible with {count} rows"):
            self.split(count, validation=validation)


def test_other_ways_to_hold_out_are_refused():
    task = Task(loss_of=lambda outputs, batch: outputs[:, 0])
    with pytest.raises(XbenchError, match="its hold_out is 'last', not True, False or 'end'"):
        prepare(RowDataset(train=torch.ones(3, 1), task=task, hold_out="last"))
    terms = Task(loss={"a": Term(loss=lambda model, batch: model(batch)[:, 0])})
    with pytest.raises(XbenchError, match="its hold_out is 'end', and its task has several terms"):
        prepare(RowDataset(train={"a": torch.ones(3, 1)}, task=terms, hold_out="end"))


def test_the_fingerprint_tells_how_rows_are_held_out():
    task = Task(loss_of=lambda outputs, batch: outputs[:, 0])
    found = {
        hold_out: prepare(RowDataset(train=torch.ones(3, 1), task=task, hold_out=hold_out))[1].fingerprint
        for hold_out in (True, False, "end")
    }
    assert found[True] == found[False] != found["end"]
