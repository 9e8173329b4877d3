"""The search for the least memory that a target takes, on peaks and trainings that are formulas."""

from __future__ import annotations

import pytest

from xbench.capacity.axes import Axis, size_of
from xbench.execution.bytes_search import MAX_TRAININGS, Search, Stopped
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
        measured: the (train_size, micro_batch, history) of each memory pass.
        trained: the same of each training.
        told: the peak that each training was told.
    """

    def __init__(
        self,
        needs_history=1,
        needs_rows=1,
        order=ORDER,
        refuses=lambda found: False,
        stops_after=None,
        before=None,
        start=None,
    ):
        self.measured, self.trained, self.told = [], [], []

        def measure(found):
            self.measured.append(sizes_of(found))
            return None if refuses(found) else peak_of(found)

        def reaches(found, peak_bytes):
            if len(self.trained) == stops_after:
                raise Stopped("the power went off", "retry")
            rows, micro_batch, history = sizes_of(found)
            assert micro_batch <= found.training.batch_size <= rows
            self.trained.append((rows, micro_batch, history))
            self.told.append(peak_bytes)
            return history >= needs_history and rows >= needs_rows

        self.search = Search(measure, reaches, start or settings())
        if before is not None:
            self.search.peaks = dict(before.search.peaks)
            self.search.outcomes = dict(before.search.outcomes)
        self.found = self.search.run(order)

    @property
    def sizes(self) -> tuple[int, int, int]:
        return sizes_of(self.found.settings)

    @property
    def histories(self) -> list[int]:
        return [history for _, _, history in self.trained]


def sizes_of(found: CellSettings) -> tuple[int, int, int]:
    sizes = found.training.sizes
    return sizes.train_size, sizes.micro_batch, size_of(found, Axis.HISTORY_SIZE)


class TestMicroBatch:
    def test_a_smaller_one_is_free(self):
        found = Simulated(order=(Axis.MICRO_BATCH,))
        assert found.trained == []
        assert not found.found.is_trained
        assert found.found.fails_bytes is None

    def test_it_is_the_largest_power_of_two_that_needs_no_more_than_one_example(self):
        """One example at once would be slow, and eight take less than a percent more memory."""
        found = Simulated(order=(Axis.MICRO_BATCH,))
        assert found.sizes == (1024, 8, 64)
        assert found.found.peak_bytes == BASE_BYTES + 80 + 6400
        assert len(found.measured) <= 6

    @pytest.mark.parametrize("rows", [2, 3, 40, 1000])
    def test_it_is_smaller_than_the_one_before(self, rows):
        start = settings(rows, rows, rows, history=1)
        found = Simulated(order=(Axis.MICRO_BATCH,), start=start)
        peaks = {size: BASE_BYTES + 10 * size + 100 for size in (2**n for n in range(10)) if size < rows}
        expected = max(size for size, peak in peaks.items() if peaks[1] >= 0.99 * peak)
        is_worth_it = peaks[1] < 0.99 * peak_of(start)
        assert found.sizes[1] == (expected if is_worth_it else rows)

    def test_one_that_a_model_does_not_allow_is_left_alone(self):
        found = Simulated(refuses=lambda s: s.training.micro_batch < s.training.batch_size, needs_history=64)
        assert found.sizes[1] == 1024
        assert all(micro_batch == 1024 for _, micro_batch, _ in found.trained)


class TestOneSize:
    @pytest.mark.parametrize("needed", [1, 2, 5, 8, 13, 40, 64])
    def test_the_history_is_bisected_below_the_smaller_micro_batch(self, needed):
        found = Simulated(needs_history=needed, order=ORDER[:2])
        assert all(sizes[:2] == (1024, 8) for sizes in found.trained)
        assert found.told == [BASE_BYTES + 80 + 100 * history for history in found.histories]
        assert len(found.trained) <= MAX_TRAININGS
        reached = [history for history in found.histories if history >= needed]
        failed = [history for history in found.histories if history < needed]
        assert found.sizes[2] == min(reached, default=64)
        assert found.found.is_trained == bool(reached)
        assert found.found.fails_bytes == (BASE_BYTES + 80 + 100 * max(failed) if failed else None)

    @pytest.mark.parametrize("needed", [1, 2, 3])
    def test_the_smallest_is_found_if_that_takes_no_more_than_the_trainings_allow(self, needed):
        found = Simulated(needs_history=needed)
        assert (found.sizes[2], found.found.note) == (needed, "")

    def test_one_that_frees_nothing_is_not_trained(self):
        """In micro-batches, the number of examples does not matter."""
        found = Simulated(order=(Axis.MICRO_BATCH, Axis.TRAIN_SIZE))
        assert found.trained == []
        assert found.sizes[0] == 1024

    def test_a_smaller_training_set_frees_memory_if_it_is_one_batch(self):
        found = Simulated(order=(Axis.TRAIN_SIZE,), needs_rows=500)
        assert [rows for rows, _, _ in found.trained] == [32, 181, 430, 663, 533]
        assert found.sizes[:2] == (533, 533)
        assert found.found.fails_bytes == BASE_BYTES + 4300 + 6400

    def test_below_one_that_cannot_be_run_none_is_tried(self):
        found = Simulated(refuses=lambda s: size_of(s, Axis.HISTORY_SIZE) < 5)
        assert found.sizes[2] == 8
        assert found.found.note == "history_size = 2 cannot be run"


class TestSeveralSizes:
    ORDER = (Axis.HISTORY_SIZE, Axis.TRAIN_SIZE)

    def test_the_next_one_is_reduced_once_the_one_before_is_as_small_as_helps(self):
        found = Simulated(order=self.ORDER, needs_rows=2)
        assert found.histories == [8, 2, 2, 2, 2]  # a history of 1 would free less than a percent
        assert [rows for rows, _, _ in found.trained] == [1024, 1024, 32, 5, 2]

    def test_the_next_one_is_reduced_from_the_last_success(self):
        """A history of 2 or 4 misses the target, and 8 reaches it."""
        found = Simulated(order=self.ORDER, needs_history=5, needs_rows=32, start=settings(history=8))
        assert found.trained[:2] == [(1024, 1024, 2), (1024, 1024, 4)]
        assert found.trained[-1][0] < 1024
        assert found.sizes[0] < 1024

    def test_the_next_one_is_reduced_if_the_one_before_cannot_be(self):
        found = Simulated(order=self.ORDER, refuses=lambda s: size_of(s, Axis.HISTORY_SIZE) < 64)
        assert found.sizes[0] == 5  # a smaller one would free less than a percent
        assert found.found.note == "history_size = 8 cannot be run"

    def test_a_limit_that_fails_is_below_the_one_that_was_found(self):
        """That of the smaller histories is above it, as the training set is smaller."""
        start = settings(history=8)
        found = Simulated(order=self.ORDER, needs_history=8, needs_rows=32, start=start)
        assert found.found.peak_bytes == BASE_BYTES + 320 + 800
        assert found.histories[0] < 8
        assert found.found.fails_bytes is None

    def test_sizes_that_were_not_tried_are_named(self):
        found = Simulated(needs_history=50)
        assert len(found.trained) == MAX_TRAININGS
        assert found.found.note == f"{MAX_TRAININGS} trainings are the most; no smaller train_size was tried"
        assert found.found.waits_for == ""
        assert found.found.fails_bytes < found.found.peak_bytes


class TestStopped:
    def test_what_was_found_until_then_stands(self):
        found = Simulated(stops_after=1)
        assert found.sizes[2] == 8
        assert found.found.note == "the power went off"
        assert found.found.waits_for == "retry"

    def test_a_cell_whose_memory_is_not_known_has_no_limit(self):
        found = Simulated(refuses=lambda s: True)
        assert (found.found.peak_bytes, found.found.fails_bytes) == (None, None)
        assert found.found.settings == settings()
        assert found.found.note == "the memory of the cell could not be measured"
        assert found.found.waits_for == "retry"

    @pytest.mark.parametrize("needed", [1, 5, 13, 50])
    @pytest.mark.parametrize("after", range(MAX_TRAININGS))
    def test_a_search_that_goes_on_repeats_nothing_and_finds_the_same(self, needed, after):
        whole = Simulated(needs_history=needed)
        first = Simulated(needs_history=needed, stops_after=after)
        rest = Simulated(needs_history=needed, before=first)
        assert rest.found == whole.found
        assert first.trained + rest.trained == whole.trained
        assert not {*first.measured} & {*rest.measured}

    def test_trainings_of_other_sizes_count(self):
        before = Simulated(needs_history=50)
        after = Simulated(order=(Axis.TRAIN_SIZE,), before=before)
        assert after.trained == []
        assert after.found.note == f"{MAX_TRAININGS} trainings are the most"


def test_without_sizes_to_reduce_the_cell_is_its_own_result():
    found = Simulated(order=())
    assert (found.found.settings, found.found.peak_bytes) == (settings(), peak_of(settings()))
