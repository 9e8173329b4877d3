"""Profiles of steps, in the order of the steps."""

from __future__ import annotations

import time

import pytest
import torch

from tests.memory import memory_jobs as jobs
from xbench.isolation.run import run_in_child
from xbench.memory.profiler import StepProfiler, profiler_for

MB = jobs.MB


class TestSteps:
    @pytest.fixture(scope="class")
    @classmethod
    def profiled(cls):
        return run_in_child(jobs.profile_steps, [60, 40, 0, 100]).get()

    def test_peak_of_each_is_its_own(self, profiled):
        assert profiled[0] == pytest.approx([60 * MB, 40 * MB, 0, 100 * MB], abs=3 * MB)

    def test_all_took_time(self, profiled):
        assert len(profiled[1]) == 4
        assert min(profiled[1]) > 0

    def test_are_collected_once(self, profiled):
        assert profiled[2] == []


def test_time_is_of_the_step():
    profiler = StepProfiler()
    profiler.begin()
    time.sleep(0.1)
    profiler.end()
    (profile,) = profiler.collect()
    assert profile.wall_s >= 0.1


def test_a_cpu_has_no_device_peaks():
    profiler = profiler_for(torch.device("cpu"))
    profiler.begin()
    profiler.end()
    (profile,) = profiler.collect()
    assert (profile.device_peak_bytes, profile.device_reserved_bytes) == (None, None)
    assert profile.host_peak_bytes > 10 * MB
