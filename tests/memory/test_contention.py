"""Whether other programs took the processor, told from what the kernel counts and from durations."""

from __future__ import annotations

import pytest

from xbench.memory import contention
from xbench.memory.contention import ContentionWatch, spread, typical_s


class Threads:
    """Stands for the kernel's counts of this process's threads, and for the clock.

    Attributes:
        now_s: what the clock says.
        throttled: how often CPU quotas have held the process up.
    """

    def __init__(self, folder):
        self.folder, self.now_s, self.throttled = folder, 0.0, 0

    def count(self, **waited_s):
        for thread, seconds in waited_s.items():
            (self.folder / thread).mkdir(parents=True, exist_ok=True)
            (self.folder / thread / "schedstat").write_text(f"123 {int(seconds * 1e9)} 7\n")


@pytest.fixture
def threads(tmp_path, monkeypatch):
    threads = Threads(tmp_path / "task")
    monkeypatch.setattr(contention, "_TASKS", threads.folder)
    monkeypatch.setattr(contention.time, "perf_counter", lambda: threads.now_s)
    monkeypatch.setattr(contention, "usable_cpus", lambda: 2)
    monkeypatch.setattr(contention, "_count_throttled_periods", lambda: threads.throttled)
    return threads


EVEN = [1.0, 1.1, 1.0]


def test_the_thread_that_waited_longest_counts(threads):
    threads.count(main=5.0, worker=1.0)
    watch = ContentionWatch(2)
    threads.now_s = 10.0
    threads.count(main=5.5, worker=3.0)
    assert watch.waiting_share() == pytest.approx(0.2)
    assert watch.conditions(EVEN) == "disturbed"


def test_what_was_waited_before_does_not_count(threads):
    threads.count(main=1000.0)
    watch = ContentionWatch(2)
    threads.now_s = 10.0
    assert watch.waiting_share() == 0
    assert watch.conditions(EVEN) == "quiet"


def test_threads_come_and_go(threads):
    threads.count(main=0.0, gone=9.0)
    watch = ContentionWatch(2)
    (threads.folder / "gone" / "schedstat").unlink()
    threads.now_s = 10.0
    threads.count(new=4.0)
    assert watch.waiting_share() == pytest.approx(0.4)


def test_more_threads_than_cpus_wait_for_each_other(threads):
    threads.count(main=0.0)
    watch = ContentionWatch(3)
    threads.now_s = 10.0
    threads.count(main=5.0)
    assert watch.waiting_share() is None
    assert watch.conditions(EVEN) == "quiet"


def test_a_cpu_quota_is_no_other_program(threads):
    """It always holds the process up, so what it costs on average counts."""
    threads.count(main=0.0)
    watch = ContentionWatch(2)
    threads.now_s, threads.throttled = 10.0, 3
    threads.count(main=5.0)
    assert watch.waiting_share() is None
    assert watch.conditions([1.0, 1.0, 7.0]) == "throttled"


def test_durations_tell_where_the_system_does_not(threads):
    watch = ContentionWatch(2)
    threads.now_s = 10.0
    assert watch.waiting_share() is None
    assert watch.conditions(EVEN) == "quiet"
    assert watch.conditions([1.0, 2.0, 3.0]) == "disturbed"


def test_durations_tell_of_a_host_that_takes_cpus_away(threads):
    threads.count(main=0.0)
    watch = ContentionWatch(2)
    threads.now_s = 10.0
    assert watch.conditions([1.0, 2.0, 3.0]) == "disturbed"


def test_a_single_pause_or_a_single_fast_one_is_no_disturbance():
    assert spread([0.1, *[1.0] * 99]) == 1
    assert spread([1.0, 1.0, 50.0, 1.0, 1.0]) == 1
    assert spread([1.0]) == spread([]) == spread([0.0, 1.0]) == 1


@pytest.mark.parametrize(
    ("conditions", "expected_s"), [("quiet", 2.0), ("disturbed", 1.0), ("throttled", 4.0)]
)
def test_what_counts_depends_on_the_conditions(conditions, expected_s):
    assert typical_s([9.0, 1.0, 2.0], conditions) == expected_s


def test_this_system_is_asked():
    """Whatever it answers."""
    share = ContentionWatch(1).waiting_share()
    assert share is None or share >= 0
