"""Which blocks a time limit admits, each at its turn. Nothing is measured."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from tests import cell_samples
from xbench.execution.estimates import Estimator as Estimates
from xbench.execution.schedule import TimeLimit, compute_max_wait_s, group_blocks, is_skipped
from xbench.planning.planned import Estimate, Skip


class Estimator:
    """Stands for measuring: gives what it is told to.

    Attributes:
        anew: the estimate of every cell that is measured again, in seconds.
        measured: blocks that were.
        waited: whether the last was not low enough.
    """

    correction = 1.0

    def __init__(self, anew=1e6, is_rough=False):
        self.anew, self.is_rough, self.measured, self.waited = anew, is_rough, 0, False

    def remeasure(self, cells, is_enough):
        self.measured += 1
        cells = [replace(cell, estimate=Estimate(self.anew, self.is_rough)) for cell in cells]
        self.waited = not is_enough(cells)
        return cells


@pytest.fixture
def cell_of(tiny_data):
    return partial(cell_samples.cell_of, tiny_data)


def limit_of(estimator, now=0.0):
    """A minute, from 0."""
    return TimeLimit(60.0, 0.0, estimator, clock=lambda: now)


def test_what_fits_is_admitted_unmeasured(cell_of):
    estimator = Estimator()
    block = [cell_of(estimated_s=59)]
    assert limit_of(estimator).admit(block) == block
    assert estimator.measured == 0


def test_time_since_the_command_began_is_gone(cell_of):
    estimator = Estimator()
    assert is_skipped(limit_of(estimator, now=50).admit([cell_of(estimated_s=11)]))


def test_what_does_not_fit_is_measured_again(cell_of):
    fits, too_long = Estimator(anew=10), Estimator(anew=70)
    block = [cell_of(estimated_s=100)]
    (cell,) = limit_of(fits).admit(block)
    assert (cell.skip, cell.estimate.seconds, fits.measured) == (None, 10, 1)
    (cell,) = limit_of(too_long).admit(block)
    assert (cell.skip.status, too_long.measured, too_long.waited) == ("skipped", 1, True)
    assert "needs about 1m 10s" in cell.skip.reason


def test_what_is_still_disturbed_has_twice_the_time(cell_of):
    estimator = Estimator(anew=110, is_rough=True)
    (cell,) = limit_of(estimator).admit([cell_of(estimated_s=1000)])
    assert (cell.skip, estimator.waited) == (None, True)
    (cell,) = limit_of(Estimator(anew=130, is_rough=True)).admit([cell_of(estimated_s=1000)])
    assert cell.skip is not None


def test_a_rough_estimate_of_an_earlier_hour_is_measured_again(cell_of):
    estimator = Estimator(anew=100)
    (cell,) = limit_of(estimator).admit([cell_of(estimated_s=90, is_rough=True)])
    assert (cell.skip.status, estimator.measured) == ("skipped", 1)


def test_earlier_cells_correct_what_is_measured_now_as_well(cell_of):
    """A bias of measuring a few steps is measured again, too."""
    estimator = Estimator(anew=35)
    estimator.correction = 2.0
    (cell,) = limit_of(estimator).admit([cell_of(estimated_s=35)])
    assert (cell.skip.status, estimator.measured) == ("skipped", 1)
    estimator.anew = 25
    (cell,) = limit_of(estimator).admit([cell_of(estimated_s=35)])
    assert (cell.skip, cell.estimate.seconds) == (None, 25)


def test_nothing_is_measured_when_the_time_is_gone(cell_of):
    estimator = Estimator(anew=0)
    assert is_skipped(limit_of(estimator, now=60).admit([cell_of(estimated_s=1)]))
    assert estimator.measured == 0


def test_nothing_is_measured_of_what_will_not_run(cell_of):
    estimator = Estimator()
    block = [cell_of(skip=Skip("error", "it is broken"), estimated_s=100)]
    assert limit_of(estimator).admit(block) == block
    assert estimator.measured == 0


@pytest.mark.parametrize(("limit_s", "expected_s"), [(900, 60), (28_800, 60), (120, 30), (4, 1)])
def test_a_run_waits_for_a_minute_or_a_quarter_of_its_limit(limit_s, expected_s):
    assert compute_max_wait_s(limit_s) == expected_s


class TestHopeless:
    def test_what_would_not_fit_alone(self, cell_of):
        cells = [
            cell_of("dear", "a", estimated_s=50),
            cell_of("cheap", "a", estimated_s=30),
            cell_of("dear", "b", estimated_s=11),
            cell_of("other", "a", estimated_s=59),
        ]
        result = limit_of(Estimator()).skip_hopeless(cells)
        unfit = {
            (cell.declared.experiment, cell.declared.optimizer.name): cell.skip is not None for cell in result
        }
        assert unfit == {
            ("dear", "a"): True,
            ("dear", "b"): True,
            ("cheap", "a"): False,
            ("other", "a"): False,
        }

    def test_is_not_told_by_what_other_programs_disturbed(self, cell_of):
        """It is decided on at its turn, when they may have ended."""
        disturbed = Estimator(anew=10_000, is_rough=True)
        (cell,) = limit_of(disturbed).skip_hopeless([cell_of(estimated_s=10_000)])
        assert (cell.skip, disturbed.waited) == (None, False)
        (cell,) = limit_of(disturbed).admit([cell])
        assert (cell.skip.status, disturbed.waited) == ("skipped", True)

    def test_is_told_before_weights_are_fetched_for_nothing(self, cell_of):
        disturbed = Estimator(anew=10_000, is_rough=True)
        cell = cell_of(estimated_s=10_000)
        cell = replace(cell, model=replace(cell.model, missing="weights.pth is not here"))
        (cell,) = limit_of(disturbed).skip_hopeless([cell])
        assert (cell.skip.status, disturbed.waited) == ("skipped", True)
        assert "weights.pth is not here" in cell.skip.reason

    def test_nobody_waits_for_others(self, cell_of):
        estimator = Estimator()
        limit_of(estimator).skip_hopeless([cell_of(estimated_s=100)])
        assert (estimator.measured, estimator.waited) == (1, False)


class Machine:
    """A machine that other programs leave alone from some moment on, and its clock.

    Attributes:
        now: seconds since the command began.
        quiet_at: when it is left alone; until then everything takes ten times as long.
    """

    def __init__(self, quiet_at):
        self.now, self.quiet_at = 0.0, quiet_at

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds

    @property
    def is_busy(self):
        return self.now < self.quiet_at

    def work(self, seconds):
        while seconds > 0:
            self.now += 1
            seconds -= 0.1 if self.is_busy else 1.0


class Measuring(Estimates):
    """Measures cells on the machine: each takes a second, and a cell what its column says."""

    def __init__(self, machine):
        super().__init__(None, Silent(), may_wait_s=60, clock=machine.clock, sleep=machine.sleep)
        self.machine = machine

    def _estimate_one(self, cell, anew):
        self.machine.work(1)
        seconds = float(cell.declared.column) * (10 if self.machine.is_busy else 1)
        return replace(cell, estimate=Estimate(seconds, self.machine.is_busy))

    def _with_memory_pass(self, cell, measured):
        return cell


class Silent:
    def __getattr__(self, name):
        return lambda *args: None


@pytest.mark.parametrize(
    ("quiet_at", "ran"),
    [
        (0, ["cheap", "dear"]),
        (60, ["cheap", "dear"]),
        (100_000, []),
    ],
)
def test_a_run_on_a_machine_that_is_busy_for_a_while(cell_of, quiet_at, ran):
    """As long as others take the CPU for a minute, all that fits is run; if they never end, what would take
    more than twice the time is skipped, and no more than a minute is spent waiting."""
    machine = Machine(quiet_at)
    estimator = Measuring(machine)
    limit = TimeLimit(900.0, 0.0, estimator, machine.clock)
    cells = [cell_of("cheap", "200"), cell_of("dear", "300"), cell_of("vast", "5000")]
    cells = limit.skip_hopeless(estimator.estimate(cells))
    done = []
    for block in group_blocks(cells, by_time=True):
        block = limit.admit(block)
        if not is_skipped(block):
            machine.work(float(block[0].declared.column))
            done.append(block[0].declared.experiment)
    assert done == ran
    assert machine.now < 900


@pytest.mark.parametrize(("now", "is_named"), [(50, True), (1, False)])
def test_a_slow_start_is_named_in_the_reason(cell_of, now, is_named):
    (cell,) = limit_of(Estimator(), now).skip_hopeless([cell_of(estimated_s=1000)])
    assert ("; starting and estimating took 50.0 s" in cell.skip.reason) is is_named


def test_a_slow_start_is_not_to_blame_later_on(cell_of):
    limit = limit_of(Estimator(), now=50)
    limit.skip_hopeless([cell_of(estimated_s=1)])
    (cell,) = limit.admit([cell_of(estimated_s=1000)])
    assert "starting" not in cell.skip.reason
