"""The search for a capacity, on machines whose true maximum is known."""

from __future__ import annotations

import math
import random

import pytest

from tests.capacity.simulated import (
    BASE,
    MB,
    PATIENCE,
    Machine,
    bounds_of,
    fits,
    kinked,
    linear,
    play,
    ran_out,
)
from xbench.capacity.search import (
    Bounds,
    Grid,
    first_failure,
    largest_fit,
    next_size,
    next_slope_size,
    predict_peak,
)

LARGEST = (1, 2, 3, 5, 6, 7, 13, 20, 31, 32, 50, 77, 101, 200, 333, 709, 1092, 5000, 37_604, 10**6, 10**7)
HEADROOMS = (50 * MB, 700 * MB, 12_000 * MB, 80_000 * MB)
KINKS = (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97)
SLOPES = (1.5, 2, 5, 20, math.inf)


def check(machine: Machine, bounds: Bounds):
    """Play a search, and check what is true of every one.

    Returns:
        What was played.
    """
    played = play(machine, bounds)
    ran = {trial.value for trial in played.trials if trial.outcome == "fits"}
    failed = {trial.value for trial in played.trials if trial.outcome == "oom"}
    if played.found is not None:
        assert played.found in ran
    if played.fails is not None:
        assert played.fails in failed
        if played.found is not None:
            assert played.fails > played.found
            assert played.fails - played.found <= max(1, played.found * bounds.tolerance)
    if machine.noise == 0:
        # Nothing is tried twice: it would end as before.
        assert len(ran) + len(failed) == len(played.trials)
        true = machine.largest(bounds.highest)
        assert (played.found or 0) <= true
        if played.fails is not None:
            assert played.fails > true
    return played


class TestOneSlope:
    @pytest.mark.parametrize("tolerance", [0.0, 0.001, 0.01, 0.05])
    @pytest.mark.parametrize("headroom", HEADROOMS)
    @pytest.mark.parametrize("largest", LARGEST)
    def test_is_certified_in_eight_trials(self, largest, headroom, tolerance):
        machine = linear(largest, headroom)
        played = check(machine, bounds_of(machine, tolerance))
        assert played.found >= largest - max(0, int(largest * tolerance))
        assert played.fails is not None
        assert len(played.trials) <= 8

    def test_mostly_in_five(self):
        """Every true maximum of up to some thousands, as capacities mostly are."""
        counts = []
        for largest in range(1, 3000):
            machine = linear(largest, 700 * MB)
            counts.append(len(check(machine, bounds_of(machine)).trials))
        assert max(counts) <= 8
        assert sum(count > 5 for count in counts) < 0.01 * len(counts)

    def test_exactly(self):
        machine = linear(709, 700 * MB)
        played = check(machine, bounds_of(machine, tolerance=0.0))
        assert (played.found, played.fails) == (709, 710)

    def test_base_makes_no_difference(self):
        """Only what is left above the process counts."""
        sizes = [
            [trial.value for trial in play(machine, bounds_of(machine)).trials]
            for machine in (linear(709, 700 * MB, base=base) for base in (10 * MB, 4000 * MB))
        ]
        assert sizes[0] == sizes[1]

    def test_ascending_sizes_stay_far_from_the_limit(self):
        """They share a process, so a failure costs more than one of their own."""
        for largest in LARGEST:
            machine = linear(largest, 700 * MB)
            played = play(machine, bounds_of(machine))
            for trial in played.trials[1 : played.ascending]:
                assert trial.value <= max(32, 0.5 * largest)


class TestTwoSlopes:
    @pytest.mark.parametrize("slopes", SLOPES)
    @pytest.mark.parametrize("kink", KINKS)
    def test_is_certified(self, kink, slopes):
        for largest in LARGEST:
            machine = kinked(largest, 700 * MB, kink, slopes)
            played = check(machine, bounds_of(machine))
            assert played.found >= 0.99 * machine.largest() - 1
            assert played.fails is not None
            assert len(played.trials) <= 17

    @pytest.mark.parametrize("kink", KINKS)
    def test_exactly(self, kink):
        for largest in (7, 77, 1092, 37_604):
            machine = kinked(largest, 700 * MB, kink, slopes=5)
            played = check(machine, bounds_of(machine, tolerance=0.0))
            assert (played.found, played.fails) == (machine.largest(), machine.largest() + 1)

    def test_takes_less_than_half_of_what_doubling_and_bisection_do(self):
        """An exhaustive bisection of 37,604 takes 31 trials."""
        machine = kinked(37_604, 700 * MB, kink=0.5, slopes=2)
        assert len(check(machine, bounds_of(machine)).trials) <= 15


def parabola(largest: int, headroom: float, straight: float) -> Machine:
    """Sizes up to `largest` fit. A line takes a share `straight` of the headroom, a square the rest."""
    end = largest + 0.5
    return Machine(
        lambda size: BASE + headroom * (straight * size / end + (1 - straight) * (size / end) ** 2),
        int(BASE + headroom),
    )


class TestParabola:
    """The memory of a model rises with the square of its width."""

    @pytest.mark.parametrize("straight", [0.0, 0.01, 0.3, 1.0])
    @pytest.mark.parametrize("headroom", HEADROOMS)
    @pytest.mark.parametrize("largest", LARGEST)
    def test_is_certified_exactly(self, largest, headroom, straight):
        machine = parabola(largest, headroom, straight)
        bounds = Bounds(machine.limit_bytes, 1 << 30, 1 << 30, 0.0, is_curved=True)
        played = check(machine, bounds)
        assert (played.found, played.fails) == (largest, largest + 1)
        assert len(played.trials) <= 11

    def test_takes_fewer_trials_if_it_is_known(self):
        machine = parabola(730, 1700 * MB, 0.01)
        counts = [
            len(check(machine, Bounds(machine.limit_bytes, 1 << 30, 1 << 30, 0.0, is_curved)).trials)
            for is_curved in (True, False)
        ]
        assert counts[0] <= 6 < counts[1]

    @pytest.mark.parametrize("seed", range(10))
    def test_noise_delays_and_does_not_mislead(self, seed):
        smooth = parabola(500, 700 * MB, 0.1)
        machine = Machine(smooth.peak, smooth.limit_bytes, 0.01, random.Random(seed))
        played = check(machine, Bounds(machine.limit_bytes, 1 << 30, 1 << 30, 0.0, is_curved=True))
        assert played.fails == played.found + 1
        assert played.found == pytest.approx(500, rel=0.02)

    def test_peak_is_predicted_from_three_sizes(self):
        machine = parabola(500, 700 * MB, 0.3)
        trials = [machine.run(size) for size in (1, 30, 200)]
        assert predict_peak(trials, 400, is_curved=True) == pytest.approx(machine.peak(400), rel=1e-6)
        assert predict_peak(trials, 400) < 0.9 * machine.peak(400)

    def test_no_peak_is_predicted_to_fall(self):
        """A parabola that opens downwards is noise, and the line is taken."""
        trials = [fits(1, 100), fits(100, 1100), fits(200, 1500)]
        assert predict_peak(trials, 1000, is_curved=True) == predict_peak(trials, 1000)


class TestGrid:
    @pytest.mark.parametrize(
        ("lowest", "multiple", "values"),
        [(1, 1, [1, 2, 3]), (1, 4, [4, 8, 12]), (8, 4, [8, 12, 16]), (9, 4, [12, 16, 20]), (5, 1, [5, 6, 7])],
    )
    def test_values_are_multiples_from_the_lowest_on(self, lowest, multiple, values):
        grid = Grid.of_multiples(lowest, multiple)
        assert [grid.value(size) for size in (1, 2, 3)] == values
        assert [grid.size(value) for value in values] == [1, 2, 3]

    def test_size_of_a_value_between_two_is_that_of_the_lower(self):
        grid = Grid.of_multiples(8, 4)
        assert [grid.size(value) for value in (3, 7, 8, 11, 12)] == [0, 0, 1, 1, 2]


class TestOtherShapes:
    @pytest.mark.parametrize("step", [2 * MB, 20 * MB, 64 * MB])
    @pytest.mark.parametrize("largest", LARGEST)
    def test_allocator_that_rounds_up(self, largest, step):
        smooth = linear(largest, 700 * MB)
        machine = Machine(lambda size: -(-smooth.peak(size) // step) * step, smooth.limit_bytes)
        played = check(machine, bounds_of(machine))
        assert (played.found or 0) >= 0.99 * machine.largest() - 1
        assert len(played.trials) <= 14

    def test_flat_up_to_the_very_limit(self):
        """There is no rise to lead on, and nothing is left above what fits."""
        limit = 500 * MB
        machine = Machine(lambda size: limit if size <= 700 else 2 * limit, limit)
        played = check(machine, bounds_of(machine))
        assert played.found >= 0.99 * 700

    def test_switch_of_algorithm_that_needs_less(self):
        """Not convex, and not even rising: what is reported did run all the same."""
        machine = Machine(lambda size: BASE + (10 if size < 100 else 3) * MB * size, BASE + 1500 * MB)
        played = play(machine, bounds_of(machine))
        assert machine.run(played.found).outcome == "fits"
        assert machine.run(played.fails).outcome == "oom"

    @pytest.mark.parametrize("tolerance", [0.0, 0.01])
    @pytest.mark.parametrize("noise", [0.003, 0.01, 0.03])
    def test_noise_delays_and_does_not_mislead(self, noise, tolerance):
        for largest in (1, 7, 50, 709, 5000, 37_604):
            for seed in range(20):
                smooth = linear(largest, 700 * MB)
                machine = Machine(smooth.peak, smooth.limit_bytes, noise, random.Random(seed))
                played = check(machine, bounds_of(machine, tolerance))
                assert played.fails is not None
                assert played.found >= largest * (1 - 2 * noise) * 0.99 - 1
                assert len(played.trials) < PATIENCE

    def test_noise_of_a_percent_costs_few_trials(self):
        counts = []
        for seed in range(200):
            smooth = linear(709, 700 * MB)
            machine = Machine(smooth.peak, smooth.limit_bytes, 0.01, random.Random(seed))
            counts.append(len(check(machine, bounds_of(machine)).trials))
        assert sorted(counts)[100] <= 6
        assert max(counts) <= 12


class TestEnds:
    @pytest.mark.parametrize("largest", range(13))
    @pytest.mark.parametrize("highest", range(1, 11))
    def test_tiny_axes_are_exact(self, highest, largest):
        machine = linear(largest, 700 * MB)
        played = check(machine, bounds_of(machine, tolerance=0.0, highest=highest))
        assert (played.found or 0) == min(highest, largest)
        assert played.fails == (largest + 1 if largest < highest else None)
        assert len(played.trials) <= max(2, highest)

    def test_nothing_fits(self):
        machine = Machine(lambda size: 1000 * MB, 500 * MB)
        played = check(machine, bounds_of(machine))
        assert [(trial.value, trial.outcome) for trial in played.trials] == [(1, "oom")]
        assert (played.found, played.fails) == (None, 1)

    def test_nothing_fits_where_an_earlier_bracket_is_tried_first(self):
        machine = Machine(lambda size: 1000 * MB, 500 * MB)
        bounds = bounds_of(machine)
        assert next_size([machine.run(100)], bounds) == 1
        assert next_size([machine.run(100), machine.run(1)], bounds) is None

    @pytest.mark.parametrize("highest", [1, 2, 31, 32, 33, 1000, 5000])
    def test_everything_fits(self, highest):
        machine = linear(10**9, 12_000 * MB)
        played = check(machine, bounds_of(machine, highest=highest))
        assert (played.found, played.fails) == (highest, None)
        assert len(played.trials) <= 5

    def test_the_end_just_fits(self):
        machine = linear(5000, 700 * MB)
        played = check(machine, bounds_of(machine, highest=5000))
        assert (played.found, played.fails) == (5000, None)


class TestEnough:
    def test_stops_where_memory_is_no_limit(self):
        machine = linear(10**6, 12_000 * MB)
        played = check(machine, bounds_of(machine, enough=5000))
        assert (played.found, played.fails) == (5000, None)

    def test_a_flat_axis_is_not_followed_for_ever(self):
        machine = Machine(lambda size: BASE, BASE + 700 * MB)
        played = check(machine, bounds_of(machine, enough=300))
        assert (played.found, played.fails) == (300, None)

    @pytest.mark.parametrize("largest", [210, 700, 1500])
    def test_goes_on_where_memory_is_the_limit(self, largest):
        machine = linear(largest, 700 * MB)
        played = check(machine, bounds_of(machine, enough=200))
        assert played.found >= 0.99 * largest
        assert played.fails is not None

    def test_is_tried_itself(self):
        """What there is may be all that is wanted."""
        machine = linear(7777, 700 * MB)
        assert 5000 in [trial.value for trial in play(machine, bounds_of(machine, enough=5000)).trials]


class TestBracket:
    TRIALS = (
        fits(10, 1),
        ran_out(40),
        ran_out(30),
        fits(20, 2),
        ran_out(15),
    )

    def test_is_of_the_largest_that_ran(self):
        assert largest_fit(self.TRIALS).value == 20
        assert first_failure(self.TRIALS).value == 30  # 15 failed for noise: 20 ran

    def test_a_size_that_failed_otherwise_bounds_it_too(self):
        """A component refused it."""
        failed = fits(30, 1).model_copy(update={"outcome": "error", "peak_bytes": None})
        assert first_failure([fits(20, 2), failed]).value == 30
        assert next_slope_size([fits(1, 1), failed], Bounds(9, 99, 99, 0.01)) is None

    def test_of_no_trials(self):
        assert largest_fit([]) is None
        assert first_failure([]) is None

    @pytest.mark.parametrize(("fits", "gap"), [(1, 1), (99, 1), (100, 1), (199, 1), (200, 2), (1050, 10)])
    def test_gap_is_a_share_and_at_least_one(self, fits, gap):
        assert Bounds(1, 10**6, 10**6, 0.01).gap(fits) == gap

    def test_failure_ends_the_ascending_sizes(self):
        assert next_slope_size([fits(1, 1), ran_out(32)], Bounds(9, 99, 99, 0.01)) is None


class TestPredictedPeak:
    @pytest.mark.parametrize("size", [1, 10, 100, 709, 10**6])
    def test_lies_on_the_line(self, size):
        machine = linear(709, 700 * MB)
        trials = [machine.run(1), machine.run(32)]
        assert predict_peak(trials, size) == pytest.approx(machine.peak(size), abs=size)

    def test_is_of_the_largest_two_that_fit(self):
        """Of two slopes the second: smaller sizes tell nothing of it, in whatever order they ran."""
        machine = kinked(709, 700 * MB, kink=0.3, slopes=5)
        trials = [machine.run(size) for size in (600, 1, 400, 32)]
        assert predict_peak(trials, 700) == pytest.approx(machine.peak(700), abs=10)
        assert predict_peak(trials[1::2], 700) < 0.9 * machine.peak(700)

    def test_is_not_of_two_that_are_near_each_other(self):
        """Noise would tilt the line."""
        trials = [fits(1, 1000), fits(81, 7), fits(100, 100_000)]
        assert predict_peak(trials, 199) == 199_000

    def test_is_not_of_what_was_charged(self):
        """That is what a limit counts, which may be more than what is resident."""
        trials = [fits(1, 100, 500), fits(2, 200, 9000)]
        assert predict_peak(trials, 5) == 500

    def test_failures_say_nothing(self):
        trials = [fits(1, 100), ran_out(9), fits(2, 200), ran_out(5)]
        assert predict_peak(trials, 3) == 300

    def test_may_be_flat(self):
        assert predict_peak([fits(1, 100), fits(50, 100)], 70) == 100

    @pytest.mark.parametrize(
        "trials",
        [
            [],
            [ran_out(1)],
            [ran_out(1), ran_out(2)],
            [fits(1, 100)],
            [fits(1, 100), ran_out(9)],
            [fits(10, 100), fits(9, 90)],
            [fits(5, 100), fits(5, 101)],
        ],
    )
    def test_there_is_none_without_two_that_lie_apart(self, trials):
        assert predict_peak(trials, 20) is None
