"""What holds of every split, whatever the groups, classes and sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.labelled_data import labelled_data
from xbench import XbenchError
from xbench.training.settings import TrainingSettings
from xbench.training.splits import epoch_order, split_examples

often = settings(derandomize=True, max_examples=150, deadline=None)


@st.composite
def grouped(draw):
    """What splitting needs of a dataset: patients of one class each, in train or in test; some images have
    none."""
    classes = draw(st.integers(2, 4))
    patients = draw(
        st.lists(
            st.tuples(st.integers(0, classes - 1), st.booleans(), st.integers(1, 4), st.booleans()),
            min_size=4,
            max_size=25,
        )
    )
    rows = [
        (label, is_test, f"p{number}" if has_name else "")
        for number, (label, is_test, images, has_name) in enumerate(patients)
        for _ in range(images)
    ]
    labels, is_test, groups = zip(*rows, strict=True)
    assume(any(is_test) and not all(is_test))
    return labelled_data(labels, tuple("abcd"[:classes]), is_test, groups)


def split(data, seed=0, **training):
    try:
        return split_examples(data, TrainingSettings(**training), seed)
    except XbenchError as error:
        assume("holds nothing out" not in error.message)  # no group is small enough
        raise


@often
@given(grouped(), st.floats(0.05, 0.5), st.integers(0, 2**40))
def test_nothing_is_lost_or_shared(data, share, seed):
    parts = split(data, seed, validation=share)
    everything = np.concatenate([parts.train, parts.validation, parts.test])
    assert sorted(everything) == list(range(len(data.labels)))
    assert parts.test.tolist() == np.flatnonzero(data.is_test).tolist()
    named = [{data.groups[i] for i in part} - {""} for part in (parts.train, parts.validation, parts.test)]
    assert sum(map(len, named)) == len(set.union(*named))


@often
@given(grouped(), st.floats(0.05, 0.5), st.integers(0, 99))
def test_validation_has_no_more_than_its_share_of_a_class_and_leaves_some_of_it(data, share, seed):
    parts = split(data, seed, validation=share)
    for label in range(len(data.classes)):
        held_out = int((data.labels[parts.validation] == label).sum())
        left = int((data.labels[parts.train] == label).sum())
        assert held_out <= share * (held_out + left) + 0.5
        assert left or not held_out


@often
@given(grouped(), st.integers(1, 40), st.integers(0, 99))
def test_a_train_size_is_met_or_refused(data, size, seed):
    available = int((~data.is_test).sum())
    settings_ = {"validation": 0.0, "selection": "last", "train_size": size}
    if size > available:
        with pytest.raises(XbenchError, match=f"more than the {available} examples"):
            split(data, seed, **settings_)
        return
    parts = split(data, seed, **settings_)
    assert len(parts.train) == len(set(parts.train)) == size
    assert not data.is_test[parts.train].any()


@often
@given(grouped(), st.integers(1, 60) | st.just("all"), st.integers(0, 99))
def test_oversampling_is_even(data, size, seed):
    """Between classes, and between the examples of each; and no example is repeated while another is left
    out."""
    pool = data.labels[~data.is_test]
    counts = np.bincount(pool)
    present, available = int((counts > 0).sum()), int(counts.max() * (counts > 0).sum())
    settings_ = {"validation": 0.0, "selection": "last", "train_size": size, "balance": "oversample"}
    if size != "all" and not present <= size <= available:
        with pytest.raises(XbenchError, match=f"train_size {size} is"):
            split(data, seed, **settings_)
        return
    train = split(data, seed, **settings_).train
    assert len(train) == (available if size == "all" else size)
    drawn = [int((data.labels[train] == label).sum()) for label in np.flatnonzero(counts)]
    assert max(drawn) - min(drawn) <= (size != "all")
    for label in np.flatnonzero(counts):
        members = np.flatnonzero((data.labels == label) & ~data.is_test)
        repeats = [int((train == member).sum()) for member in members]
        assert max(repeats) - min(repeats) <= 1


@often
@given(grouped(), st.integers(0, 99), st.integers(1, 20))
def test_an_epoch_sees_each_of_its_examples_as_often(data, seed, epoch):
    train = split(data, seed, validation=0.0, selection="last", balance="oversample").train
    order = epoch_order(train, seed, epoch)
    assert sorted(order) == sorted(train)
    assert order.tolist() == epoch_order(train, seed, epoch).tolist()


def hold_out_one_by_one(data, pool, share, seed):
    """What is held out, by the definition: group after group, each with the rows that it has."""
    members = {}
    for index in pool.tolist():
        members.setdefault(data.groups[index] or f"alone-{index}", []).append(index)
    missing = np.round(np.bincount(data.labels[pool], minlength=len(data.classes)) * share).astype(int)
    held_out, names = [], sorted(members)
    for place in np.random.default_rng([1, seed]).permutation(len(names)):
        group = members[names[place]]
        taken = np.bincount(data.labels[group], minlength=len(data.classes))
        if (taken <= missing).all():
            missing -= taken
            held_out += group
    return sorted(held_out)


@st.composite
def rows_in_groups(draw):
    """Rows of any class in any group, of which many have none. Names may come among those of rows alone."""
    classes = draw(st.integers(1, 3))
    names = st.sampled_from(
        ["", "", "", "a", "alone", "alone-", "alone-1x", "alone-99999", "alone.", "zoo", "é"]
    )
    rows = draw(
        st.lists(st.tuples(st.integers(0, classes - 1), names, st.booleans()), min_size=4, max_size=130)
    )
    labels, groups, is_test = zip(*rows, strict=True)
    assume(any(is_test) and not all(is_test))
    return labelled_data(labels, tuple("abc"[:classes]), is_test, groups)


@often
@given(rows_in_groups(), st.floats(0.02, 0.5), st.integers(0, 2**40))
def test_groups_are_held_out_one_by_one(data, share, seed):
    expected = hold_out_one_by_one(data, np.flatnonzero(~data.is_test), share, seed)
    assume(expected)
    assert split(data, seed, validation=share).validation.tolist() == expected


def test_thousands_of_rows_are_held_out_one_by_one():
    """Their numbers have up to four digits, which sort as text."""
    random = np.random.default_rng(0)
    labels, is_test = random.integers(0, 3, 3000), random.random(3000) < 0.1
    groups = [f"p{i // 3}" if 900 < i < 1500 else "" for i in range(3000)]
    data = labelled_data(labels.tolist(), ("a", "b", "c"), is_test.tolist(), groups)
    expected = hold_out_one_by_one(data, np.flatnonzero(~is_test), 0.2, 7)
    assert split(data, 7, validation=0.2).validation.tolist() == expected
