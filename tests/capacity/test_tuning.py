"""Which micro-batch is taken, by timings that are made up, and by real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.capacity.capacity_settings import settings_of
from xbench.capacity.axes import Axis
from xbench.capacity.tuning import TimedMicroBatch, best_micro_batch, is_past_the_best, tune_micro_batch
from xbench.capacity.workload import TrainingWorkload
from xbench.components.code import own_stamp
from xbench.errors import XbenchError
from xbench.isolation.child import Limits
from xbench.training.job import CellJob

HERE = str(Path(__file__).parent)


def timed(*seconds: float) -> list[TimedMicroBatch]:
    """Of micro-batches of 1, 2, 4, ..."""
    return [TimedMicroBatch(1 << power, s) for power, s in enumerate(seconds)]


class TestBest:
    @pytest.mark.parametrize(
        ("seconds", "best"),
        [
            ((5.0,), 1),
            ((5.0, 4.0, 3.0), 4),
            ((5.0, 3.0, 4.0), 2),
            ((1.0, 1.0, 1.0), 1),
            ((1.02, 1.0), 1),  # as good as the fastest, and smaller
            ((1.04, 1.0), 2),
            ((1.2, 1.02, 1.0, 1.01), 2),
            ((9.0, 1.06, 1.02, 1.0), 4),
        ],
    )
    def test_is_the_smallest_within_three_percent(self, seconds, best):
        assert best_micro_batch(timed(*seconds)) == best

    def test_order_of_timing_does_not_matter(self):
        sizes = timed(5.0, 3.0, 2.9, 4.0)
        assert best_micro_batch(sizes[::-1]) == best_micro_batch(sizes) == 4


class TestWhenToStop:
    @pytest.mark.parametrize(
        ("seconds", "past"),
        [
            ((1.0,), False),
            ((1.0, 2.0), False),
            ((1.0, 2.0, 2.0), True),
            ((1.0, 2.0, 1.05), False),
            ((1.0, 1.05, 2.0), False),
            ((2.0, 1.0, 1.2, 1.2), True),
            ((1.0, 2.0, 2.0, 1.0), False),
            ((4.0, 3.0, 2.0, 1.0), False),
            ((1.0, 1.09, 1.09, 1.09), False),
        ],
    )
    def test_two_in_a_row_are_slower(self, seconds, past):
        assert is_past_the_best(timed(*seconds)) is past


class TestRealTimings:
    def workload(self, data, model="capacity_workloads:build_model", **training) -> TrainingWorkload:
        settings = settings_of("sgd", {"lr": 0.01}, model=model, batch_size="full", threads=1, **training)
        return TrainingWorkload(CellJob(settings, data, (HERE,)), Axis.MICRO_BATCH)

    def test_power_of_two_or_the_whole_batch(self, tiny_data):
        heard = []
        tuned = tune_micro_batch(self.workload(tiny_data), Limits(threads=1), 6, heard.append)
        picked = tuned.micro_batch
        assert not tuned.ran_out
        tried = [one.micro_batch for one in heard]
        assert tried == [1, 2, 4, 6][: len(tried)]
        assert len(tried) >= 3
        assert picked in tried
        assert picked == best_micro_batch(heard)
        assert all(one.seconds_per_example > 0 for one in heard)

    def test_a_batch_of_one(self, tiny_data):
        assert tune_micro_batch(self.workload(tiny_data), Limits(threads=1), 1).micro_batch == 1

    def test_not_even_one_fits(self, tiny_data):
        tuned = tune_micro_batch(self.workload(tiny_data), Limits(memory_bytes=5_000_000), 8)
        assert (tuned.micro_batch, tuned.ran_out) == (None, True)

    def test_code_that_was_changed_is_refused(self, tiny_data):
        workload = self.workload(tiny_data)
        workload = replace(workload, job=replace(workload.job, code=(own_stamp(), "another", "")))
        with pytest.raises(XbenchError, match="its code changed during the run"):
            tune_micro_batch(workload, Limits(threads=1), 8)

    def test_a_model_that_is_not_there(self, tiny_data):
        workload = self.workload(tiny_data, model="capacity_workloads:no_model")
        with pytest.raises(XbenchError, match="no_model"):
            tune_micro_batch(workload, Limits(threads=1), 8)
