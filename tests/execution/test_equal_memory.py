"""Cells with equal memory get the largest size that fits: from a search, from an earlier one, or from another
seed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.cell_samples import cell_of
from xbench.capacity.axis import Axis
from xbench.capacity.probe import Capacity, ProbeFailed
from xbench.errors import FixedSize, Unsupported
from xbench.execution import size_search
from xbench.execution.cell import forget_found_sizes
from xbench.execution.checkpoints import Transcript
from xbench.execution.equal_memory import fit_equal_memory, recall_sizes, reuse_sizes
from xbench.execution.record import make_record
from xbench.isolation.run import ChildResult
from xbench.planning.planned import MemoryPlan
from xbench.records.capacity import TrialRecord

LIMIT = 600 * 10**6


class Nobody:
    """Hears nothing, and adds no features."""

    def __getattr__(self, name):
        return lambda *args: args[0]


@pytest.fixture
def planned(tiny_data):
    """`planned(axis, seed)`: a cell that awaits its size."""

    def planned(axis=Axis.BATCH_SIZE, seed=0, column="opt", limit=LIMIT, **training):
        cell = cell_of(tiny_data, column=column, seed=seed, **training)
        return replace(cell, axis=axis, memory=MemoryPlan(limit))

    return planned


@pytest.fixture
def search(tmp_path, monkeypatch):
    """`search.answer`: what searches find, or raise; `search.asked`: the end of each."""
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path))

    class Search:
        answer: Capacity | Exception = Capacity(12, 13, 1, (), 0.0)
        asked: list[int | None]

        def fit(self, *cells):
            self.asked = []
            return fit_equal_memory(cells, cells, Nobody(), Nobody())

    def find_capacity(workload, limits, *, highest, **options):
        found.asked.append(highest)
        if isinstance(found.answer, Exception):
            raise found.answer
        return found.answer

    found = Search()
    monkeypatch.setattr(size_search, "find_capacity", find_capacity)
    return found


def test_the_largest_that_fits_is_in_the_settings_and_in_the_record(search, planned):
    (cell,) = search.fit(planned())
    assert cell.settings.training.batch_size == 12
    assert cell.sized.training.micro_batch == 12
    assert cell.fit.reasons == {"batch_size": "the largest that fits 600 MB (13 does not)"}
    record = make_record(cell, Transcript(), ChildResult("timeout"), "")
    assert record.requested["batch_size"] == "largest"
    assert record.fitted == cell.fit.reasons


def test_seeds_share_a_search_and_a_size(search, planned):
    cells = [planned(seed=seed) for seed in range(3)]
    few = replace(cells[2], available=cells[0].available - 5)
    found = search.fit(*cells[:2], few)
    assert search.asked == [few.available]
    assert {cell.settings.training.batch_size for cell in found} == {12}


def test_no_batch_is_larger_than_the_training_set(search, planned):
    search.fit(planned(train_size=20))
    assert search.asked == [20]
    search.answer = Capacity(20, None, 1, (), 0.0)
    (cell,) = search.fit(planned(train_size=20, epochs=2))
    assert cell.fit.reasons == {"batch_size": "all examples, which fit 600 MB"}


def test_a_history_has_no_end(search, planned):
    (cell,) = search.fit(planned(Axis.HISTORY_SIZE))
    assert search.asked == [None]
    assert cell.settings.optimizer.params == {"history_size": 12}


def test_an_earlier_search_is_remembered_for_its_limit(search, planned):
    search.fit(planned())
    (cell,) = search.fit(planned())
    assert (search.asked, cell.settings.training.batch_size) == ([], 12)
    search.fit(planned(limit=2 * LIMIT))
    assert len(search.asked) == 1


def test_a_remembered_size_is_known_before_anything_is_searched(search, planned):
    unknown = recall_sizes([planned()], [planned()])
    search.fit(planned())
    known = recall_sizes([planned()], [planned()])
    assert [cell.awaits_size for cell in (*unknown, *known)] == [True, False]


def test_a_size_that_ran_out_of_memory_is_searched_again(search, planned):
    (cell,) = search.fit(planned())
    forget_found_sizes(cell)
    search.answer = Capacity(11, 12, 1, (), 0.0)
    (again,) = search.fit(planned())
    assert again.settings.training.batch_size == 11


def test_if_nothing_fits_the_cell_is_not_run(search, planned):
    search.answer = Capacity(None, 1, None, (), 0.0)
    (cell,) = search.fit(planned())
    assert (cell.skip.status, cell.skip.reason) == ("oom", "not even the smallest batch_size fits 600 MB")


def test_a_search_that_failed_is_not_repeated_for_other_seeds(search, planned):
    search.answer = Capacity(None, 1, None, (), 0.0)
    cells = search.fit(planned(), planned(seed=1), planned(column="other"))
    assert all(cell.skip for cell in cells)
    assert len(search.asked) == 2


class TestInterruptedSearch:
    """Its trials are taken over by the next search of the same size."""

    TRIALS = (
        TrialRecord(value=8, outcome="fits", peak_bytes=7, charged_bytes=8),
        TrialRecord(value=16, outcome="oom", reason="out of memory"),
        TrialRecord(value=15, outcome="refused"),
    )

    @pytest.fixture
    def earlier(self, search, monkeypatch):
        """The trials that each search starts with. Each reports one more trial, and the first three find no
        size."""
        found = []

        def find_capacity(workload, limits, *, earlier, on_trial, **options):
            found.append(list(earlier))
            if len(found) <= len(self.TRIALS):
                on_trial(self.TRIALS[len(found) - 1])
                raise KeyboardInterrupt if len(found) < 3 else ProbeFailed("killed", None, search.answer)
            return search.answer

        monkeypatch.setattr(size_search, "find_capacity", find_capacity)
        return found

    def test_goes_on_until_the_size_is_found(self, search, planned, earlier):
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                search.fit(planned())
        (failed,) = search.fit(planned())
        (cell,) = search.fit(planned())
        first, second, _ = self.TRIALS
        assert earlier == [[], [first], [first, second], [first, second]]
        assert (failed.skip.reason, cell.settings.training.batch_size) == ("killed", 12)
        forget_found_sizes(cell)
        search.fit(planned())
        assert earlier[4:] == [[]]

    def test_is_not_that_of_another_limit(self, search, planned, earlier):
        for limit in (LIMIT, 2 * LIMIT):
            with pytest.raises(KeyboardInterrupt):
                search.fit(planned(limit=limit))
        assert earlier == [[], []]


@pytest.mark.parametrize(("kind", "status"), [(FixedSize, "error"), (Unsupported, "skipped")])
def test_a_search_that_is_not_possible_ends_the_cell(search, planned, kind, status):
    search.answer = kind("its history cannot be filled")
    (cell,) = search.fit(planned(Axis.HISTORY_SIZE))
    assert (cell.skip.status, cell.skip.reason) == (status, "its history cannot be filled")


class TestOtherSeeds:
    """Whose cells have run: the size is theirs, even if a new search would find another."""

    @pytest.fixture
    def record(self, search, planned):
        (cell,) = search.fit(planned())
        record = make_record(cell, Transcript(), ChildResult("timeout"), "")
        memory = record.memory.model_copy(update={"limit_bytes": LIMIT})
        return record.model_copy(update={"status": "done", "ran": {"batch_size": 12}, "memory": memory})

    def test_their_size_is_taken(self, record, planned):
        (cell,) = reuse_sizes([planned(seed=1)], [record])
        assert cell.settings.training.batch_size == 12
        assert cell.fit.reasons == record.fitted

    def test_it_comes_before_one_that_was_found_since(self, record, planned, search):
        (other,) = recall_sizes([planned(seed=1)], [planned(seed=1)])
        record = record.model_copy(update={"ran": {"batch_size": 11}})
        (cell,) = reuse_sizes([other], [record])
        assert (other.settings.training.batch_size, cell.settings.training.batch_size) == (12, 11)

    @pytest.mark.parametrize(
        "changes", [{"column": "other"}, {"experiment": "other"}, {"status": "oom"}, {"fitted": {}}]
    )
    def test_that_of_other_cells_is_not(self, record, planned, changes):
        (cell,) = reuse_sizes([planned(seed=1)], [record.model_copy(update=changes)])
        assert cell.awaits_size

    def test_that_of_another_limit_is_not(self, record, planned):
        (cell,) = reuse_sizes([planned(seed=1, limit=2 * LIMIT)], [record])
        assert cell.awaits_size
