"""Which cells run, and in which order, where time is limited."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from tests import cell_samples
from xbench.execution.schedule import estimate_s, features_s, group_blocks, is_skipped, skip_if_late
from xbench.planning.planned import Estimate, Skip

UNFIT = Skip("error", "it is broken")


@pytest.fixture
def cell_of(tiny_data):
    return partial(cell_samples.cell_of, tiny_data)


def shown(found):
    return [
        [(cell.declared.experiment, cell.declared.seed, cell.declared.column) for cell in block]
        for block in found
    ]


class TestBlocks:
    @pytest.fixture
    def cells(self, cell_of):
        """Each optimizer with both of its seeds, as a grid gives them."""
        dear = [cell_of("dear", column, seed, estimated_s=50) for column in "ab" for seed in (3, 1)]
        cheap = [cell_of("cheap", column, seed, estimated_s=9) for column in "cd" for seed in (3, 1)]
        return dear + cheap

    def test_are_all_optimizers_of_a_seed(self, cells):
        assert shown(group_blocks(cells, by_time=False)) == [
            [("dear", 3, "a"), ("dear", 3, "b")],
            [("dear", 1, "a"), ("dear", 1, "b")],
            [("cheap", 3, "c"), ("cheap", 3, "d")],
            [("cheap", 1, "c"), ("cheap", 1, "d")],
        ]

    def test_by_time_come_seed_by_seed_and_cheapest_first(self, cells):
        """Seeds in the order in which they were declared."""
        assert [block[0][:2] for block in shown(group_blocks(cells, by_time=True))] == [
            ("cheap", 3),
            ("dear", 3),
            ("cheap", 1),
            ("dear", 1),
        ]

    def test_count_as_a_whole(self, cell_of):
        """Two of 6 s take longer than one of 10 s."""
        two = [cell_of("two", column, estimated_s=6) for column in "ab"]
        assert [
            b[0].declared.experiment
            for b in group_blocks([*two, cell_of("one", estimated_s=10)], by_time=True)
        ] == [
            "one",
            "two",
        ]

    def test_of_the_same_time_stay_as_they_were_declared(self, cell_of):
        cells = [cell_of(name, estimated_s=1) for name in ("z", "a", "m")]
        assert [block[0].declared.experiment for block in group_blocks(cells, by_time=True)] == [
            "z",
            "a",
            "m",
        ]

    def test_hold_every_job_once(self, cells):
        for by_time in (False, True):
            held = [cell for block in group_blocks(cells, by_time) for cell in block]
            assert len(held) == len(cells)
            assert all(any(cell is other for other in held) for cell in cells)

    def test_of_nothing(self):
        assert group_blocks([], by_time=True) == group_blocks([], by_time=False) == []


class TestEstimate:
    def test_is_the_sum_of_what_is_known_and_will_run(self, cell_of):
        block = [
            cell_of(estimated_s=3.5),
            cell_of(estimated_s=None),
            cell_of(estimated_s=2),
            cell_of(estimated_s=100, skip=UNFIT),
        ]
        assert estimate_s(block) == 5.5
        assert estimate_s([]) == estimate_s(block[1:2]) == estimate_s(block[3:]) == 0


class TestWithin:
    def test_what_fits_stays_as_it_is(self, cell_of):
        block = [cell_of(estimated_s=30), cell_of(estimated_s=30)]
        assert skip_if_late(block, 60, 60) == block
        assert skip_if_late(block, 3600, 3600) == block

    def test_what_does_not_fit_is_skipped_whole(self, cell_of):
        block = [cell_of("dear", "a", estimated_s=3000), cell_of("dear", "b", estimated_s=0.5)]
        skipped = skip_if_late(block, 65, 900)
        assert {cell.skip for cell in skipped} == {
            Skip(
                "skipped",
                "'dear' needs about 50m 00s, and 1m 05s of the time limit of 15m 00s are left",
                waits_for="time",
            )
        }
        assert [(cell.declared, cell.estimate.seconds) for cell in skipped] == [
            (j.declared, j.estimate.seconds) for j in block
        ]
        assert [cell.skip for cell in block] == [None, None]

    def test_by_a_hair(self, cell_of):
        assert skip_if_late([cell_of(estimated_s=60.001)], 60, 60)[0].skip is not None

    def test_what_would_not_run_in_any_case_keeps_its_reason(self, cell_of):
        block = [cell_of(estimated_s=None, skip=UNFIT), cell_of(estimated_s=90)]
        assert [cell.skip.status for cell in skip_if_late(block, 60, 60)] == ["error", "skipped"]
        assert skip_if_late(block, 60, 60)[0].skip == UNFIT

    def test_what_would_not_run_takes_no_time(self, cell_of):
        block = [cell_of(estimated_s=90, skip=UNFIT), cell_of(estimated_s=50)]
        assert skip_if_late(block, 60, 60) == block

    def test_of_what_nothing_is_known_runs(self, cell_of):
        block = [cell_of(estimated_s=None), cell_of(estimated_s=None)]
        assert skip_if_late(block, 0.5, 1) == block

    def test_of_what_nothing_is_known_comes_last(self, cell_of):
        cells = [cell_of("unknown", estimated_s=None), cell_of("dear", estimated_s=99)]
        assert [block[0].declared.experiment for block in group_blocks(cells, by_time=True)] == [
            "dear",
            "unknown",
        ]

    def test_of_what_nothing_is_known_takes_some_time(self, cell_of):
        (cell,) = skip_if_late([cell_of("late", estimated_s=None)], -3, 1)
        assert cell.skip.reason == (
            "'late' needs a time that cannot be estimated, and 0.00 s of the time limit of 1.00 s are left"
        )

    def test_when_all_time_is_gone(self, cell_of):
        (cell,) = skip_if_late([cell_of("late", estimated_s=5)], -3, 1)
        assert (
            cell.skip.reason == "'late' needs about 5.00 s, and 0.00 s of the time limit of 1.00 s are left"
        )


class TestFeatures:
    """Which cells share: each counts their time, and they are made once."""

    @pytest.fixture
    def needing(self, cell_of):
        def cell(key, seconds, **fields):
            return replace(cell_of(**fields), estimate=Estimate(10, features_key=key, features_s=seconds))

        return cell

    def test_are_counted_once(self, needing):
        block = [needing("a", 30), needing("a", 30), needing("b", 5)]
        assert estimate_s(block) == 30 + 35
        assert features_s(block) == {"a": 30, "b": 5}

    def test_of_a_smaller_share_are_those_of_the_largest(self, needing):
        assert estimate_s([needing("a", 7), needing("a", 30), needing("a", 8)]) == 60

    def test_that_were_made_before_are_not_made_again(self, needing):
        block = [needing("a", 30), needing("b", 5)]
        assert estimate_s(block, {"a": 30}) == 25
        assert estimate_s(block, {"a": 20, "b": 9}) == 30
        assert estimate_s(block, {"c": 100}) == 55

    def test_of_what_is_not_to_run_are_not_made(self, needing):
        block = [needing("a", 30, skip=UNFIT), needing("b", 5)]
        assert estimate_s(block) == 15
        assert features_s(block) == {"b": 5}

    def test_decide_whether_a_block_fits(self, needing):
        block = [needing("a", 30)]
        assert skip_if_late(block, 40, 40) == block
        assert skip_if_late(block, 39, 39)[0].skip is not None
        assert skip_if_late(block, 39, 39, {"a": 1}) == block


class TestRough:
    """Estimates that were measured while other programs took the CPU."""

    @pytest.fixture
    def rough(self, cell_of):
        return lambda seconds: [cell_of(estimated_s=seconds, is_rough=True)]

    def test_say_so(self, rough):
        (cell,) = skip_if_late(rough(121), 60, 60)
        assert cell.skip == Skip(
            "skipped",
            "'exp' needs about 2m 01s (by its fastest step, measured while other programs were running), "
            "and 1m 00s of the time limit of 1m 00s are left",
            waits_for="time",
        )

    def test_may_be_granted_more_time_than_there_is(self, rough):
        assert skip_if_late(rough(119), 60, 60, slack=2.0) == rough(119)
        assert skip_if_late(rough(121), 60, 60, slack=2.0)[0].skip is not None

    def test_grant_none_to_others(self, rough, cell_of):
        block = [*rough(10), cell_of(estimated_s=56)]
        assert skip_if_late(block, 60, 60, slack=2.0)[0].skip is not None
        block = [*rough(10), cell_of(estimated_s=54)]
        assert skip_if_late(block, 60, 60, slack=2.0) == block

    def test_are_skipped_when_all_time_is_gone(self, rough):
        assert skip_if_late(rough(0.1), 0, 60, slack=2.0)[0].skip is not None
        assert skip_if_late(rough(0.1), -5, 60, slack=2.0)[0].skip is not None

    def test_are_not_corrected(self, rough):
        assert skip_if_late(rough(50), 60, 60, correction=5.0) == rough(50)


def test_an_estimate_is_corrected(cell_of):
    block = [cell_of(estimated_s=40)]
    assert skip_if_late(block, 60, 60, correction=1.5) == block
    (cell,) = skip_if_late(block, 60, 60, correction=2.0)
    assert "needs about 1m 20s" in cell.skip.reason


def test_a_block_is_skipped_if_nothing_of_it_runs(cell_of):
    assert is_skipped([cell_of(skip=UNFIT)])
    assert not is_skipped([cell_of(skip=UNFIT), cell_of()])
