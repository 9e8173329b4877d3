"""Probes of real processes, whose memory is known by arithmetic."""

from __future__ import annotations

import pytest

from tests.capacity.capacity_workloads import MB, Allocating, Unpreparable, held_bytes
from xbench.capacity.probe import ProbeFailed, find_capacity
from xbench.capacity.search import Grid
from xbench.errors import RefusedValue, XbenchError
from xbench.isolation.child import Limits
from xbench.isolation.run import run_in_child

HEADROOM = 150 * MB
PER_SIZE = 200_000
LARGEST = HEADROOM // PER_SIZE
WORKLOAD = Allocating(PER_SIZE)


@pytest.fixture(scope="module")
def held_and_reserve() -> tuple[int, int]:
    return run_in_child(held_bytes, WORKLOAD, limits=Limits(malloc="exact")).value


@pytest.fixture(scope="module")
def held(held_and_reserve) -> int:
    """What a trial's child holds without its size."""
    return held_and_reserve[0]


@pytest.fixture(scope="module")
def limits(held_and_reserve) -> Limits:
    return Limits(memory_bytes=sum(held_and_reserve) + HEADROOM)


class TestCapacity:
    @pytest.fixture(scope="class")
    @classmethod
    def heard(cls):
        return []

    @pytest.fixture(scope="class")
    @classmethod
    def capacity(cls, limits, heard):
        return find_capacity(WORKLOAD, limits, on_try=heard.append, on_trial=heard.append)

    def test_is_what_arithmetic_says(self, capacity):
        """To a percent for the bracket, and one for what a process holds more or less than another."""
        assert capacity.found == pytest.approx(LARGEST, rel=0.02)
        assert capacity.fails == pytest.approx(LARGEST, rel=0.02)

    def test_is_certified_to_a_percent(self, capacity):
        assert 0 < capacity.fails - capacity.found <= 0.01 * capacity.found

    def test_takes_few_trials(self, capacity):
        assert len(capacity.trials) <= 8

    def test_peak_is_of_the_size_found(self, capacity, held):
        assert capacity.peak_bytes == pytest.approx(held + capacity.found * PER_SIZE, abs=4 * MB)

    def test_peak_of_each_trial_is_its_own(self, capacity, limits, held):
        fits = [trial for trial in capacity.trials if trial.outcome == "fits"]
        assert len(fits) >= 3
        for trial in fits:
            assert trial.peak_bytes == pytest.approx(held + trial.value * PER_SIZE, abs=4 * MB)
            assert trial.peak_bytes - 4 * MB <= trial.charged_bytes <= limits.memory_bytes

    def test_says_what_failed(self, capacity):
        failed = [trial for trial in capacity.trials if trial.outcome == "oom"]
        assert failed
        for trial in failed:
            assert trial.reason.startswith("out of memory: an allocation of ")
            assert trial.peak_bytes is None

    def test_each_size_is_told_before_it_is_tried_and_then_its_trial(self, capacity, heard):
        assert heard == [told for trial in capacity.trials for told in (trial.value, trial)]

    @pytest.mark.parametrize("kept", [1, -1])
    def test_an_interrupted_probe_goes_on_where_it_was(self, capacity, limits, kept):
        ran, earlier = [], capacity.trials[:kept]
        again = find_capacity(WORKLOAD, limits, earlier=earlier, on_trial=ran.append)
        assert again.found == pytest.approx(LARGEST, rel=0.02)
        assert 0 < again.fails - again.found <= 0.01 * again.found
        if kept == 1:  # there was no slope yet
            assert list(again.trials) == ran
        else:
            assert list(again.trials) == [*earlier, *ran]
            assert len(ran) <= 3

    def test_time_is_that_of_its_trials(self, capacity):
        assert all(trial.seconds > 0 for trial in capacity.trials)
        assert sum(trial.seconds for trial in capacity.trials) <= capacity.seconds


class TestEnds:
    def test_nothing_fits(self, limits):
        capacity = find_capacity(Allocating(2 * HEADROOM), limits)
        assert (capacity.found, capacity.fails, capacity.peak_bytes) == (None, 1, None)
        assert [(trial.value, trial.outcome) for trial in capacity.trials] == [(1, "oom")]

    def test_the_process_alone_is_too_large(self):
        capacity = find_capacity(WORKLOAD, Limits(memory_bytes=5 * MB))
        assert (capacity.found, capacity.fails) == (None, 1)
        assert "below what the process holds" in capacity.trials[0].reason

    def test_all_fits(self, limits):
        capacity = find_capacity(WORKLOAD, limits, highest=100)
        assert (capacity.found, capacity.fails) == (100, None)

    def test_an_exact_answer(self, limits):
        """Each size is a fifteenth of the headroom, so no noise hides which is the last that fits."""
        capacity = find_capacity(Allocating(HEADROOM // 15 - MB), limits, tolerance=0.0)
        assert (capacity.found, capacity.fails) == (16, 17)

    def test_enough(self, limits):
        """What is unlimited stops at what is of use."""
        capacity = find_capacity(Allocating(1000), limits, enough=300)
        assert (capacity.found, capacity.fails) == (300, None)


class TestGrid:
    """Sizes of 8, 12, 16, ..."""

    @pytest.fixture(scope="class")
    @classmethod
    def heard(cls):
        return []

    @pytest.fixture(scope="class")
    @classmethod
    def capacity(cls, limits, heard):
        grid = Grid.of_multiples(7, 4)
        return find_capacity(
            Allocating(4 * MB), limits, tolerance=0.0, grid=grid, on_try=heard.append, on_trial=heard.append
        )

    def test_all_values_are_on_it(self, capacity):
        assert capacity.trials[0].value == 8
        assert all(trial.value % 4 == 0 for trial in capacity.trials)

    def test_neighbours_certify_the_answer(self, capacity):
        """Each step of the grid is 16 of 150 MB."""
        assert (capacity.found, capacity.fails) == (36, 40)

    def test_values_are_told(self, capacity, heard):
        assert heard == [told for trial in capacity.trials for told in (trial.value, trial)]

    def test_is_started_from_values(self, limits, capacity):
        start = (capacity.found, capacity.fails)
        again = find_capacity(
            Allocating(4 * MB), limits, tolerance=0.0, grid=Grid.of_multiples(7, 4), start=start
        )
        assert [trial.value for trial in again.trials] == list(start)
        assert (again.found, again.fails) == start

    def test_ends_at_the_highest_value_on_it(self, limits):
        capacity = find_capacity(Allocating(1000), limits, highest=30, grid=Grid.of_multiples(7, 4))
        assert (capacity.found, capacity.fails) == (28, None)

    def test_without_any_value_is_an_error(self, limits):
        with pytest.raises(XbenchError, match="no size from 8 to 7"):
            find_capacity(Allocating(1000), limits, highest=7, grid=Grid.of_multiples(7, 4))


class TestRefusals:
    """A component refuses sizes from some value on."""

    def test_end_the_search_with_what_ran(self, limits):
        capacity = find_capacity(Allocating(PER_SIZE, 50, "refuse value"), limits)
        assert (capacity.found, capacity.fails, capacity.refused.value) == (49, None, 50)
        assert capacity.refused.reason == "the data has only 50 rows"
        assert capacity.refused.outcome == "refused"

    def test_beyond_what_fits_do_not_matter(self, limits):
        capacity = find_capacity(Allocating(PER_SIZE, 2 * LARGEST, "refuse value"), limits)
        assert capacity.fails is not None
        assert capacity.refused is None

    def test_of_the_smallest_size_are_passed_on(self, limits):
        with pytest.raises(RefusedValue, match="the data has only 1 rows"):
            find_capacity(Allocating(PER_SIZE, 1, "refuse value"), limits)


class TestOtherFailures:
    @pytest.mark.parametrize("breaks_at", [2, 300])
    def test_keep_what_was_found(self, limits, breaks_at):
        """The largest size that ran, and the one that failed, are a bracket."""
        trials = []
        with pytest.raises(ProbeFailed) as caught:
            find_capacity(Allocating(PER_SIZE, breaks_at), limits, on_trial=trials.append)
        so_far, failed = caught.value.so_far, trials[-1]
        assert so_far.found < breaks_at <= so_far.fails == failed.value
        assert so_far.found == max(trial.value for trial in trials[:-1])
        assert so_far.trials == tuple(trials)
        assert [trial.outcome for trial in trials] == ["fits"] * (len(trials) - 1) + ["error"]
        assert failed.reason == "ArithmeticError: the code is wrong"
        assert (
            caught.value.message
            == f"size {failed.value} failed for a reason other than memory: {failed.reason}"
        )

    def test_leave_their_traceback(self, limits, tmp_path):
        log = tmp_path / "trial.stderr"
        with pytest.raises(ProbeFailed) as caught:
            find_capacity(Allocating(PER_SIZE, 300), limits, log=log)
        assert caught.value.message.endswith(f"; its traceback is in {log}")
        assert "\n" not in caught.value.message
        text = log.read_text()
        assert text.startswith("Traceback")
        assert text.rstrip().endswith("ArithmeticError: the code is wrong")

    def test_no_file_is_left_of_other_trials(self, limits, tmp_path):
        log = tmp_path / "trial.stderr"
        log.write_text("of an earlier probe")
        capacity = find_capacity(Allocating(2 * HEADROOM), limits, log=log)
        assert [trial.outcome for trial in capacity.trials] == ["oom"]
        assert not log.exists()

    @pytest.mark.parametrize(
        ("workload", "reason"),
        [(Allocating(PER_SIZE, breaks_at=1), "the code is wrong"), (Unpreparable(), "no size would help")],
    )
    def test_of_the_first_size(self, limits, workload, reason):
        with pytest.raises(
            ProbeFailed, match=f"size 1 failed for a reason other than memory: .*{reason}"
        ) as caught:
            find_capacity(workload, limits)
        assert (caught.value.so_far.found, caught.value.so_far.fails) == (None, 1)

    def test_a_death_is_not_taken_for_memory(self, limits):
        with pytest.raises(
            ProbeFailed, match=r"size \d+ failed for a reason other than memory: killed by SIGKILL"
        ) as caught:
            find_capacity(Allocating(PER_SIZE, 300, "SIGKILL"), limits)
        assert caught.value.so_far.found < 300

    def test_a_refusal_is_passed_on(self, limits):
        with pytest.raises(XbenchError, match="these settings cannot be met") as caught:
            find_capacity(Allocating(PER_SIZE, 1, "refuse"), limits)
        assert not isinstance(caught.value, ProbeFailed)
        assert caught.value.hint == "change them"

    def test_a_refusal_of_a_larger_size_keeps_what_was_found(self, limits):
        with pytest.raises(
            ProbeFailed, match="a reason other than memory: these settings cannot be met"
        ) as caught:
            find_capacity(Allocating(PER_SIZE, 300, "refuse"), limits)
        assert caught.value.so_far.found < 300 <= caught.value.so_far.fails
        assert caught.value.hint == "change them"


class TestStart:
    @pytest.fixture(scope="class")
    @classmethod
    def bracket(cls):
        """Two percent to both sides: no noise moves its ends."""
        return int(LARGEST * 0.975), int(LARGEST * 1.025)

    def test_of_a_bracket_that_stands(self, limits, bracket):
        """Both ends are run again, and nothing else where they are near enough to each other."""
        capacity = find_capacity(WORKLOAD, limits, tolerance=0.06, start=bracket)
        assert (capacity.found, capacity.fails) == bracket
        assert [(trial.value, trial.outcome) for trial in capacity.trials] == [
            (bracket[0], "fits"),
            (bracket[1], "oom"),
        ]

    def test_of_a_bracket_that_is_too_wide(self, limits, bracket):
        capacity = find_capacity(WORKLOAD, limits, start=bracket)
        assert [trial.value for trial in capacity.trials[:2]] == list(bracket)
        assert capacity.found == pytest.approx(LARGEST, rel=0.02)
        assert 0 < capacity.fails - capacity.found <= 0.01 * capacity.found

    @pytest.mark.parametrize("wrong", [(2 * LARGEST, 2 * LARGEST + 5), (100, 101)])
    def test_of_a_bracket_that_is_wrong(self, limits, wrong):
        """It is found all the same."""
        capacity = find_capacity(WORKLOAD, limits, start=wrong)
        assert capacity.trials[0].value == wrong[0]
        assert capacity.found == pytest.approx(LARGEST, rel=0.02)
        assert 0 < capacity.fails - capacity.found <= 0.01 * capacity.found

    def test_where_nothing_had_failed(self, limits):
        capacity = find_capacity(WORKLOAD, limits, highest=100, start=(100, None))
        assert [trial.value for trial in capacity.trials] == [100]
        assert (capacity.found, capacity.fails) == (100, None)
