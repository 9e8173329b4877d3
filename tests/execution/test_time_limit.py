"""Which blocks a time limit admits, each at its turn. Nothing is measured."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import job_samples
import pytest

from xbench.execution.schedule import is_skipped
from xbench.execution.time_limit import TimeLimit, longest_wait_s


class Estimator:
    """Stands for measuring: gives what it is told to.

    Attributes:
        anew: the estimate of every job that is measured again, in seconds.
        measured: blocks that were.
        waited: whether the last was not low enough.
    """

    correction = 1.0

    def __init__(self, anew=1e6, is_rough=False):
        self.anew, self.is_rough, self.measured, self.waited = anew, is_rough, 0, False

    def estimate_anew(self, jobs, is_enough):
        self.measured += 1
        jobs = [replace(job, estimated_s=self.anew, is_rough=self.is_rough) for job in jobs]
        self.waited = not is_enough(jobs)
        return jobs


@pytest.fixture
def job_of(tiny_data):
    return partial(job_samples.job_of, tiny_data)


def limit_of(estimator, now=0.0):
    """A minute, from 0."""
    return TimeLimit("1m", 0.0, estimator, clock=lambda: now)


def test_what_fits_is_admitted_unmeasured(job_of):
    estimator = Estimator()
    block = [job_of(estimated_s=59)]
    assert limit_of(estimator).admit(block) == block
    assert estimator.measured == 0


def test_time_since_the_command_began_is_gone(job_of):
    estimator = Estimator()
    assert is_skipped(limit_of(estimator, now=50).admit([job_of(estimated_s=11)]))


def test_what_does_not_fit_is_measured_again(job_of):
    fits, too_long = Estimator(anew=10), Estimator(anew=70)
    block = [job_of(estimated_s=100)]
    (job,) = limit_of(fits).admit(block)
    assert (job.unfit, job.estimated_s, fits.measured) == (None, 10, 1)
    (job,) = limit_of(too_long).admit(block)
    assert (job.unfit[0], too_long.measured, too_long.waited) == ("skipped", 1, True)
    assert "needs about 1m 10s" in job.unfit[1]


def test_what_is_still_disturbed_has_twice_the_time(job_of):
    (job,) = limit_of(Estimator(anew=110, is_rough=True)).admit([job_of(estimated_s=1000)])
    assert job.unfit is None


def test_earlier_blocks_correct_an_estimate_and_not_what_is_measured_now(job_of):
    estimator = Estimator(anew=50)
    estimator.correction = 3.0
    (job,) = limit_of(estimator).admit([job_of(estimated_s=30)])
    assert (job.unfit, job.estimated_s, estimator.measured) == (None, 50, 1)


def test_nothing_is_measured_when_the_time_is_gone(job_of):
    estimator = Estimator(anew=0)
    assert is_skipped(limit_of(estimator, now=60).admit([job_of(estimated_s=1)]))
    assert estimator.measured == 0


def test_nothing_is_measured_of_what_will_not_run(job_of):
    estimator = Estimator()
    block = [job_of(unfit=("error", "it is broken"), estimated_s=100)]
    assert limit_of(estimator).admit(block) == block
    assert estimator.measured == 0


@pytest.mark.parametrize(("limit", "expected_s"), [("15m", 60), ("8h", 60), ("2m", 30), ("4s", 1)])
def test_a_run_waits_for_a_minute_or_a_quarter_of_its_limit(limit, expected_s):
    assert longest_wait_s(limit) == expected_s


class TestHopeless:
    def test_what_would_not_fit_alone(self, job_of):
        jobs = [
            job_of("dear", "a", estimated_s=50),
            job_of("cheap", "a", estimated_s=30),
            job_of("dear", "b", estimated_s=11),
            job_of("other", "a", estimated_s=59),
        ]
        result = limit_of(Estimator()).without_hopeless(jobs)
        unfit = {(job.cell.experiment, job.cell.optimizer.name): job.unfit is not None for job in result}
        assert unfit == {
            ("dear", "a"): True,
            ("dear", "b"): True,
            ("cheap", "a"): False,
            ("other", "a"): False,
        }

    def test_is_not_told_by_what_other_programs_disturbed(self, job_of):
        """It is decided on at its turn, when they may have ended."""
        disturbed = Estimator(anew=10_000, is_rough=True)
        (job,) = limit_of(disturbed).without_hopeless([job_of(estimated_s=10_000)])
        assert (job.unfit, disturbed.waited) == (None, False)
        (job,) = limit_of(disturbed).admit([job])
        assert (job.unfit[0], disturbed.waited) == ("skipped", True)

    def test_nobody_waits_for_it(self, job_of):
        estimator = Estimator()
        limit_of(estimator).without_hopeless([job_of(estimated_s=100)])
        assert (estimator.measured, estimator.waited) == (1, False)
