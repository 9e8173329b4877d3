"""The process's own memory: what is measured is what was allocated."""

from __future__ import annotations

import os
import threading

import pytest

from tests.memory import memory_jobs as jobs
from xbench.isolation.run import run_in_child
from xbench.memory.host import _SampledPeak, status_bytes

MB = jobs.MB

STATUS = b"""Name:\tpython
VmPeak:\t  700000 kB
VmHWM:\t  123456 kB
VmRSS:\t      10 kB
RssAnon:\t       7 kB
Threads:\t4
"""


class TestPeak:
    @pytest.fixture(scope="class")
    @classmethod
    def measured(cls):
        return run_in_child(jobs.peak_of_an_allocation, 100).get()

    @pytest.fixture(autouse=True)
    def resettable(self):
        if not os.access("/proc/self/clear_refs", os.W_OK):
            pytest.skip("this system does not let a process reset its peak")

    def test_is_exact(self, measured):
        method, rise, _ = measured
        assert method == "clear_refs"
        assert rise == pytest.approx(100 * MB, abs=3 * MB)

    def test_is_reset(self, measured):
        assert measured[2] == pytest.approx(0, abs=3 * MB)


class TestSampledPeak:
    """Where the system keeps no count that can be reset."""

    @pytest.fixture(scope="class")
    @classmethod
    def measured(cls):
        return run_in_child(jobs.sampled_peak_of_an_allocation, 100, 1.0).get()

    def test_sees_what_lasts(self, measured):
        method, rise, _ = measured
        assert method == "sampled"
        assert rise == pytest.approx(100 * MB, abs=3 * MB)

    def test_is_reset(self, measured):
        assert measured[2] == pytest.approx(0, abs=3 * MB)


class TestSampler:
    """Its readings, made by hand: whether its own thread takes one more changes nothing."""

    def test_the_largest_reading_since_a_reset(self):
        sizes = {"now": 5}
        meter = _SampledPeak(read=lambda: sizes["now"])
        sizes["now"] = 9
        meter.sample()
        sizes["now"] = 7
        assert (meter.peak_bytes(), meter.now_bytes()) == (9, 7)
        meter.reset()
        assert meter.peak_bytes() == 7

    def test_a_reading_from_before_a_reset_does_not_undo_it(self):
        """The reset comes while a sample is being read, and waits for it."""
        sizes, resets = {"now": 5}, []

        def read() -> int:
            size = sizes["now"]
            if size == 9:
                sizes["now"] = 6
                resets.append(threading.Thread(target=meter.reset))
                resets[0].start()
                resets[0].join(timeout=0.05)  # it would end, if it did not wait
            return size

        meter = _SampledPeak(read)
        sizes["now"] = 9
        meter.sample()
        resets[0].join()
        assert meter.peak_bytes() == 6

    def test_its_thread_ends_with_its_meter(self):
        before = set(threading.enumerate())
        meter = _SampledPeak(read=lambda: 5)
        (thread,) = set(threading.enumerate()) - before
        assert thread.is_alive()
        del meter
        thread.join(timeout=60)
        assert not thread.is_alive()


def test_resident_bytes_rise_with_what_is_touched():
    size, rise = run_in_child(jobs.resident_around, 80).get()
    assert size == 80 * MB
    assert rise == pytest.approx(80 * MB, abs=3 * MB)


class TestStatus:
    @pytest.mark.parametrize(
        ("field", "kilobytes"), [("VmHWM", 123456), ("VmRSS", 10), ("RssAnon", 7), ("VmPeak", 700000)]
    )
    def test_is_in_bytes(self, field, kilobytes):
        assert status_bytes(field, STATUS) == kilobytes * 1024

    @pytest.mark.parametrize("field", ["VmSwap", "Vm", "Rss", "Threads", "Anon"])
    def test_missing_field(self, field):
        with pytest.raises(OSError, match=field):
            status_bytes(field, STATUS)
