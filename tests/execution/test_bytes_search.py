"""The search for the least memory that a target takes, on peaks and trainings that are formulas."""

from __future__ import annotations

import pytest

from xbench.capacity.axes import Axis, size_of
from xbench.execution.bytes_search import MAX_TRAININGS, NO_TIME, Search
from xbench.training.settings import CellSettings, Choice, TrainingSettings

BASE_BYTES = 1000
ORDER = (Axis.MICRO_BATCH, Axis.HISTORY_SIZE, Axis.TRAIN_SIZE)


def settings(train_size=1024, batch_size=1024, micro_batch=1024, history=64) -> CellSettings:
    training = TrainingSettings(train_size=train_size, batch_size=batch_size, micro_batch=micro_batch)
    return CellSettings(Choice("net", {}), Choice("lbfgs", {"history_size": history}), training, 0, "cpu")


def peak_of(found: CellSettings) -> int:
    """Activations of a micro-batch, and a history of vectors."""
    return BASE_BYTES + 10 * found.training.sizes.micro_batch + 100 * size_of(found, Axis.HISTORY_SIZE)


class Simulated:
    """A search, with what it did.

    Attributes:
        trained: the (train_size, micro_batch, history) of each training, and the peak that it was told.
    """

    def __init__(
        self, needs_history=1, needs_rows=1, order=ORDER, refuses=lambda found: False, stops_after=None
    ):
        self.trained: list[tuple[tuple[int, int, int], int]] = []
        self.refuses, self.stops_after = refuses, stops_after

        def reaches(found, peak_bytes):
            if self.stops_after is not None and len(self.trained) >= self.stops_after:
                return None
            sizes = found.training.sizes
            history = size_of(found, Axis.HISTORY_SIZE)
            assert sizes.micro_batch <= sizes.batch_size <= sizes.train_size
            self.trained.append(((sizes.train_size, sizes.micro_batch, history), peak_bytes))
            return history >= needs_history and sizes.train_size >= needs_rows

        start = settings()
        self.search = Search(lambda found: None if refuses(found) else peak_of(found), reaches)
        self.found = self.search.run(start, peak_of(start), order)

    @property
    def history(self) -> int:
        return size_of(self.found.settings, Axis.HISTORY_SIZE)


def test_a_smaller_micro_batch_is_free():
    found = Simulated(order=(Axis.MICRO_BATCH,))
    assert found.trained == []
    assert found.found.settings.training.micro_batch == 1
    assert (found.found.is_trained, found.found.peak_bytes) == (False, BASE_BYTES + 10 + 6400)
    assert found.found.fails_bytes is None


@pytest.mark.parametrize("needed", [1, 2, 5, 8, 13, 40, 64])
def test_the_history_is_bisected_below_the_smallest_micro_batch(needed):
    found = Simulated(needs_history=needed)
    assert all(sizes[:2] == (1024, 1) for sizes, _ in found.trained)
    assert all(peak == BASE_BYTES + 10 + 100 * history for (_, _, history), peak in found.trained)
    assert len(found.trained) <= MAX_TRAININGS
    assert found.history >= needed
    reached = [history for (_, _, history), _ in found.trained if history >= needed]
    failed = [history for (_, _, history), _ in found.trained if history < needed]
    assert found.history == min(reached, default=64)
    assert found.found.is_trained == bool(reached)
    assert found.found.fails_bytes == (BASE_BYTES + 10 + 100 * max(failed) if failed else None)


def test_the_smallest_history_is_found_if_that_takes_no_more_than_the_trainings_allow():
    assert Simulated(needs_history=1).history == 1
    assert Simulated(needs_history=2).history == 2
    assert Simulated(needs_history=8).history == 8


def test_it_says_if_it_ended_early():
    found = Simulated(needs_history=50)
    assert len(found.trained) == MAX_TRAININGS
    assert found.found.note == f"{MAX_TRAININGS} trainings are the most"
    assert found.found.fails_bytes is not None and found.found.fails_bytes < found.found.peak_bytes


def test_a_size_that_frees_nothing_is_not_trained():
    """With one example in memory at once, the number of examples does not matter."""
    found = Simulated(order=(Axis.MICRO_BATCH, Axis.TRAIN_SIZE))
    assert found.trained == []
    assert found.found.settings.training.train_size == 1024


def test_a_smaller_training_set_frees_memory_if_it_is_one_batch():
    found = Simulated(order=(Axis.TRAIN_SIZE,), needs_rows=500)
    assert [sizes[0] for sizes, _ in found.trained] == [32, 181, 430, 663, 533]
    assert found.found.settings.training.train_size == 533
    assert found.found.settings.training.micro_batch == 533
    assert found.found.fails_bytes == BASE_BYTES + 4300 + 6400


def test_the_next_size_is_reduced_once_the_one_before_is_as_small_as_helps():
    order = (Axis.HISTORY_SIZE, Axis.TRAIN_SIZE)
    both = Simulated(order=order, needs_rows=2)
    histories = [history for (_, _, history), _ in both.trained]
    assert histories == [8, 2, 2, 2, 2]  # a history of 1 would free less than a percent
    assert [rows for (rows, _, _), _ in both.trained] == [1024, 1024, 32, 5, 2]
    one = Simulated(order=order, needs_history=3)
    assert {rows for (rows, _, _), _ in one.trained} == {1024}


def test_micro_batches_that_a_model_does_not_allow_are_left_alone():
    found = Simulated(refuses=lambda s: s.training.micro_batch < s.training.batch_size, needs_history=64)
    assert found.found.settings.training.micro_batch == 1024
    assert all(sizes[1] == 1024 for sizes, _ in found.trained)


def test_a_size_that_cannot_be_run_ends_the_search():
    found = Simulated(refuses=lambda s: size_of(s, Axis.HISTORY_SIZE) < 5)
    assert found.history == 8
    assert found.found.note == "history_size = 2 cannot be run"


def test_without_time_what_was_found_until_then_stands():
    found = Simulated(stops_after=1)
    assert (found.history, found.found.note) == (8, NO_TIME)


def test_without_sizes_to_reduce_the_cell_is_its_own_result():
    found = Simulated(order=())
    assert (found.found.settings, found.found.peak_bytes) == (settings(), peak_of(settings()))
