"""What gives way, and which cells need not be tried: on machines that are a formula."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from tests.capacity.capacity_settings import lbfgs, settings_of
from xbench.capacity.adaptation import adapt, dominates, reduce_after_failure
from xbench.capacity.axes import Axis, size_of, with_size

TRAIN, HISTORY, BATCH, MICRO = Axis.TRAIN_SIZE, Axis.HISTORY_SIZE, Axis.BATCH_SIZE, Axis.MICRO_BATCH
AXES = (TRAIN, HISTORY, BATCH, MICRO)


def full(history: int, train: int, micro: int):
    """L-BFGS on the whole training set as one batch, with resolved sizes."""
    return lbfgs(history, train_size=train, batch_size=train, micro_batch=micro)


def sizes(settings) -> dict[Axis, int]:
    return {axis: size_of(settings, axis) for axis in AXES}


class Machine:
    """Holds so much: 10 for each pair of a history, 1 for each example of a micro-batch or, if `resident`,
    of the training set."""

    def __init__(self, capacity: int, resident: bool = False):
        self.capacity, self.resident, self.asked = capacity, resident, []

    def needs(self, settings) -> int:
        examples = size_of(settings, TRAIN if self.resident else MICRO)
        return 10 * (size_of(settings, HISTORY) or 0) + examples

    def largest(self, settings, axis) -> int | None:
        self.asked.append(axis)
        fitting = [
            size
            for size in range(1, size_of(settings, axis) + 1)
            if self.needs(with_size(settings, axis, size)) <= self.capacity
        ]
        return max(fitting, default=None)


class TestAdaptedCells:
    def test_what_fits_stays(self):
        settings = full(history=10, train=1000, micro=100)
        machine = Machine(200)
        assert adapt(settings, AXES, machine.largest) == settings
        assert machine.asked == [TRAIN]

    @pytest.mark.parametrize(
        ("capacity", "history", "micro"),
        [
            (200, 10, 100),
            (199, 10, 64),  # 99 would fit; a power of two is what noise does not move
            (164, 10, 64),
            (163, 10, 32),
            (101, 10, 1),
            (100, 9, 1),
            (11, 1, 1),
        ],
    )
    def test_first_gives_all_before_the_next_gives_any(self, capacity, history, micro):
        adapted = adapt(full(10, 1000, 100), (MICRO, HISTORY), Machine(capacity).largest)
        assert sizes(adapted) == {TRAIN: 1000, HISTORY: history, BATCH: 1000, MICRO: micro}

    @pytest.mark.parametrize(("capacity", "history", "train"), [(600, 10, 500), (510, 1, 500), (300, 1, 290)])
    def test_other_order(self, capacity, history, train):
        adapted = adapt(full(10, 500, 100), (HISTORY, TRAIN), Machine(capacity, resident=True).largest)
        assert (size_of(adapted, HISTORY), size_of(adapted, TRAIN)) == (history, train)

    def test_only_what_may_give_way_does(self):
        assert adapt(full(10, 1000, 100), (MICRO,), Machine(100).largest) is None
        settings = full(10, 1000, 100)
        assert (
            adapt(settings, (), Machine(1000).largest) is settings
        )  # what does not fit is for the run to tell

    @pytest.mark.parametrize("order", list(itertools.permutations(AXES, 3)))
    def test_fits_or_nothing_would(self, order):
        machine = Machine(60)
        adapted = adapt(full(10, 1000, 100), order, machine.largest)
        if {HISTORY, MICRO} <= set(order):
            assert machine.needs(adapted) <= 60
        else:
            assert adapted is None  # either of the two is too much alone
        assert len(machine.asked) == len(set(machine.asked)), "each axis is probed once"

    def test_nothing_fits(self):
        assert adapt(full(10, 1000, 100), AXES, Machine(10).largest) is None

    def test_an_optimizer_that_has_nothing_to_give_is_left_as_it_is(self):
        settings = settings_of("sgd", train_size=100, batch_size=100, micro_batch=100)
        machine = Machine(1000)
        assert adapt(settings, (HISTORY,), machine.largest) is settings
        assert machine.asked == []

    def test_what_an_optimizer_does_not_have_gives_nothing(self):
        settings = settings_of("sgd", train_size=100, batch_size=100, micro_batch=100)
        machine = Machine(40)
        adapted = adapt(settings, (HISTORY, MICRO), machine.largest)
        assert machine.asked == [MICRO]
        assert size_of(adapted, MICRO) == 32
        assert adapted.optimizer == settings.optimizer

    @pytest.mark.parametrize(
        ("wanted", "capacity", "micro"), [(100, 100, 100), (100, 99, 64), (3, 3, 3), (3, 2, 2)]
    )
    def test_only_what_shrinks_is_rounded(self, wanted, capacity, micro):
        settings = settings_of("sgd", train_size=100, batch_size=100, micro_batch=wanted)
        assert size_of(adapt(settings, (MICRO,), Machine(capacity).largest), MICRO) == micro


class TestAfterAFailure:
    @pytest.mark.parametrize(
        ("order", "changed", "size"),
        [
            ((MICRO, HISTORY), MICRO, 32),
            ((HISTORY, MICRO), HISTORY, 5),
        ],
    )
    def test_one_size_is_less(self, order, changed, size):
        settings = full(10, 1000, 64)
        assert reduce_after_failure(settings, order) == with_size(settings, changed, size)

    @pytest.mark.parametrize(
        ("order", "changed", "size"), [((TRAIN, HISTORY), TRAIN, 900), ((BATCH, TRAIN), BATCH, 500)]
    )
    def test_a_batch_that_is_taken_whole_is_less(self, order, changed, size):
        settings = full(10, 1000, 1000)
        assert reduce_after_failure(settings, order) == with_size(settings, changed, size)

    @pytest.mark.parametrize(
        ("order", "changed", "size"), [((TRAIN, HISTORY), TRAIN, 90), ((BATCH, TRAIN), BATCH, 50)]
    )
    def test_a_batch_that_is_taken_in_parts_becomes_less_than_one(self, order, changed, size):
        """A smaller batch in parts of the same size takes as much memory as before."""
        settings = full(10, 1000, 100)
        assert reduce_after_failure(settings, order) == with_size(settings, changed, size)

    def test_fewer_examples_one_at_a_time_are_no_help(self):
        assert reduce_after_failure(full(10, 1000, 1), (TRAIN, BATCH, HISTORY)) == full(5, 1000, 1)
        assert reduce_after_failure(full(10, 1000, 1), (TRAIN, BATCH)) is None

    def test_what_has_nothing_left_is_passed_over(self):
        settings = full(history=2, train=1000, micro=1)
        assert reduce_after_failure(settings, (MICRO, HISTORY)) == with_size(settings, HISTORY, 1)

    def test_nothing_is_left(self):
        assert reduce_after_failure(full(1, 1000, 1), (MICRO, HISTORY)) is None
        assert reduce_after_failure(full(10, 1000, 100), ()) is None
        assert reduce_after_failure(settings_of("sgd", micro_batch=1), (HISTORY, MICRO)) is None

    def test_fewer_examples_in_batches_of_the_same_size_are_no_help(self):
        settings = settings_of("sgd", train_size=1000, batch_size=100, micro_batch=1)
        assert reduce_after_failure(settings, (TRAIN,)) is None

    @pytest.mark.parametrize("order", list(itertools.permutations((TRAIN, HISTORY, MICRO))))
    def test_ends(self, order):
        """Each step takes something away, down to a pair of the history and one example at a time."""
        settings, steps = full(100, 5000, 512), 0
        while (less := reduce_after_failure(settings, order)) is not None:
            before, after = sizes(settings), sizes(less)
            assert sum(after[axis] < before[axis] for axis in AXES) == 1
            assert all(1 <= after[axis] <= before[axis] for axis in AXES)
            settings, steps = less, steps + 1
            assert steps < 200
        assert size_of(settings, HISTORY) == min(size_of(settings, TRAIN), size_of(settings, MICRO)) == 1


class TestDominance:
    FAILED = full(history=10, train=1000, micro=100)

    def test_of_itself(self):
        assert dominates(self.FAILED, self.FAILED)

    @pytest.mark.parametrize("axis", AXES)
    @pytest.mark.parametrize(("change", "needed"), [(1, True), (-1, False), (500, True)])
    def test_of_more_or_less_of_one_size(self, axis, change, needed):
        other = with_size(self.FAILED, axis, size_of(self.FAILED, axis) + change)
        assert dominates(self.FAILED, other) is needed

    def test_of_more_of_one_and_less_of_another(self):
        more = with_size(self.FAILED, HISTORY, 20)
        assert not dominates(self.FAILED, with_size(more, MICRO, 50))

    @pytest.mark.parametrize(
        "other",
        [
            replace(full(20, 2000, 200), device="cuda:0"),
            replace(full(20, 2000, 200), storage="float32"),
            lbfgs(20, train_size=2000, batch_size=2000, micro_batch=200, dtype="float64"),
            settings_of("lbfgs", {"history_size": 20}, train_size=2000, batch_size=2000, micro_batch=200),
            settings_of("adam", train_size=2000, batch_size=2000, micro_batch=200),
        ],
        ids=["device", "storage", "dtype", "hyperparameter", "optimizer"],
    )
    def test_nothing_is_known_of_what_differs_otherwise(self, other):
        assert not dominates(self.FAILED, other)

    def test_seeds_need_the_same(self):
        settings = {"train_size": 1000, "batch_size": 1000, "micro_batch": 100}
        assert dominates(settings_of(seed=0, **settings), settings_of(seed=1, **settings))

    def test_without_a_history(self):
        small, large = (
            settings_of("sgd", train_size=100, batch_size=size, micro_batch=size) for size in (10, 20)
        )
        assert dominates(small, large)
        assert not dominates(large, small)

    def test_a_history_that_is_not_known_says_nothing(self):
        sizes = {"train_size": 100, "batch_size": 100, "micro_batch": 100}
        assert not dominates(
            settings_of("lbfgs", **sizes), settings_of("lbfgs", {"history_size": 4}, **sizes)
        )
