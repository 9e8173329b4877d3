"""A child that hangs is ended; one that is at work is not, and none of its words is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import psutil
import pytest

from tests.isolation import isolation_jobs as jobs
from tests.isolation.process_watch import wait_until_gone
from xbench.isolation.liveness import HangWatch, Liveness
from xbench.isolation.run import ChildResult, Timeouts, run_in_child

QUICK = Timeouts(hangs_after_s=1.0)
# For children that are at work, as far as other processes let them.
FAIR = Timeouts(hangs_after_s=2.0)


@pytest.fixture
def later():
    """`later(seconds, call)`: something that happens while a child is waited for."""
    timers = []

    def at(seconds, call):
        timers.append(threading.Timer(seconds, call))
        timers[-1].start()

    yield at
    for timer in timers:
        timer.join()


class TestHanging:
    def test_is_ended(self):
        heard, started = [], time.monotonic()
        ending = run_in_child(jobs.sleep_forever, on_message=heard.append, timeouts=QUICK)
        assert ending.outcome == "timeout"
        assert ending.reason == "it hung: it sent no message and took no CPU time for 1.00 s"
        assert time.monotonic() - started >= 1.0
        wait_until_gone(heard[0])

    def test_the_next_one_works(self):
        run_in_child(jobs.sleep_forever, timeouts=QUICK)
        assert run_in_child(jobs.echo, 1).get() == 1

    def test_not_by_computing(self, later, tmp_path):
        later(3.2, (tmp_path / "end").touch)
        assert run_in_child(jobs.work_until, str(tmp_path / "end"), timeouts=FAIR).value == "worked"

    def test_not_by_speaking(self):
        assert run_in_child(jobs.speak, 12, 0.25, timeouts=FAIR).value == "spoke"

    def test_not_where_it_may_wait(self, later, tmp_path):
        later(2.5, (tmp_path / "end").touch)
        timeouts = Timeouts(hangs_after_s=None)
        assert run_in_child(jobs.wait_until, str(tmp_path / "end"), timeouts=timeouts).value == "waited"

    def test_is_told_by_the_result(self):
        with pytest.raises(Exception, match="it hung"):
            run_in_child(jobs.sleep_forever, timeouts=QUICK).get()


class TestTimeout:
    def test_ends_the_busiest(self, tmp_path):
        ending = run_in_child(jobs.work_until, str(tmp_path / "never"), timeouts=Timeouts(timeout_s=1.0))
        assert (ending.outcome, ending.reason) == ("timeout", "it did not end within 1.00 s")
        assert not ending.out_of_memory

    def test_ends_one_that_always_speaks(self):
        heard = []
        timeouts = Timeouts(timeout_s=1.0)
        ending = run_in_child(jobs.speak, 10**6, 0.001, on_message=heard.append, timeouts=timeouts)
        assert ending.outcome == "timeout"
        assert heard == list(range(len(heard)))
        assert heard

    def test_ends_one_that_is_stopped(self, later):
        heard = []

        def stop(pid):
            heard.append(pid)
            os.kill(pid, signal.SIGSTOP)

        ending = run_in_child(jobs.sleep_forever, on_message=stop, timeouts=Timeouts(timeout_s=1.5))
        assert ending.outcome == "timeout"
        wait_until_gone(heard[0])

    def test_is_none_for_who_ends_in_time(self):
        ending = run_in_child(jobs.count_to, 3, timeouts=Timeouts(timeout_s=60.0, hangs_after_s=60.0))
        assert ending.value == "counted"


class TestProcessorTime:
    @pytest.fixture
    def own(self):
        return Liveness(SimpleNamespace(pid=os.getpid()))

    def test_of_the_process(self, own):
        before = own.cpu_s()
        burn(0.4)
        assert own.cpu_s() - before >= 0.3

    def test_of_its_children_also_when_they_have_ended(self, own):
        before = own.cpu_s()
        pid = os.fork()
        if pid == 0:
            burn(0.4)
            os._exit(0)
        os.waitpid(pid, 0)
        assert own.cpu_s() - before >= 0.3


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(1_000))


class Clock:
    """A child and a clock that do what a test says."""

    def __init__(self, monkeypatch):
        self.now, self.used_s = 1000.0, 0.0
        monkeypatch.setattr("xbench.isolation.liveness.time.monotonic", lambda: self.now)

    def cpu_s(self) -> float:
        return self.used_s


class TestWatch:
    @pytest.fixture
    def clock(self, monkeypatch):
        return Clock(monkeypatch)

    @pytest.fixture
    def watch(self, clock):
        return HangWatch(clock, patience_s=100.0)

    def looks(self, clock, watch, *after_s: float) -> list[bool]:
        told = []
        for seconds in after_s:
            clock.now += seconds
            told.append(watch.has_hung())
        return told

    def test_two_looks_that_see_nothing(self, clock, watch):
        assert self.looks(clock, watch, 50, 50) == [False, True]

    def test_no_sooner(self, clock, watch):
        assert self.looks(clock, watch, 49.75, 0.25, 0.25, 49.5) == [False] * 4
        assert self.looks(clock, watch, 0.25) == [True]

    @pytest.mark.parametrize("which", [0, 1])
    def test_a_word_begins_it_anew(self, clock, watch, which):
        self.looks(clock, watch, *[50] * which)
        watch.note_message()
        assert self.looks(clock, watch, 50, 50, 50) == [False, False, True]

    def test_so_does_work(self, clock, watch):
        self.looks(clock, watch, 50)
        clock.used_s += 1
        assert self.looks(clock, watch, 50, 50, 50) == [False, False, True]

    def test_but_not_the_little_that_waiting_takes(self, clock, watch):
        clock.used_s += 0.1
        self.looks(clock, watch, 50)
        clock.used_s += 0.1
        assert self.looks(clock, watch, 50) == [True]

    def test_a_process_that_is_gone_does_not_look_busy(self, clock, watch):
        clock.used_s = -5.0
        assert self.looks(clock, watch, 50, 50) == [False, True]

    @pytest.mark.parametrize("which", [0, 1])
    def test_not_while_this_process_was_stopped_itself(self, clock, watch, which):
        self.looks(clock, watch, *[50] * which)
        assert self.looks(clock, watch, 36_000) == [False]
        assert self.looks(clock, watch, 50, 50) == [False, True]


class TestServerKilled:
    @pytest.fixture
    def killing(self):
        """What kills the server of a child that says its number, and lets the child end."""

        def kill(path):
            def hear(pid):
                server = psutil.Process(pid).parent()
                assert server.ppid() == os.getpid()
                server.kill()
                wait_until_gone(server.pid)
                threading.Timer(0.5, path.touch).start()

            return hear

        return kill

    def test_a_child_goes_on_and_is_heard(self, killing, tmp_path):
        end = tmp_path / "end"
        ending = run_in_child(jobs.wait_until, str(end), on_message=killing(end), timeouts=FAIR)
        assert (ending.outcome, ending.value) == ("returned", "waited")
        assert run_in_child(jobs.count_to, 3).value == "counted"

    def test_a_child_that_hangs_then_is_ended(self, killing, tmp_path):
        pids = []
        kill = killing(tmp_path / "unheeded")

        def hear(pid):
            pids.append(pid)
            kill(pid)

        ending = run_in_child(jobs.sleep_forever, on_message=hear, timeouts=QUICK)
        assert ending.outcome == "timeout"
        wait_until_gone(pids[0])

    def test_and_a_child_that_is_killed_is_known_to_be_dead(self, killing, tmp_path):
        kill = killing(tmp_path / "unheeded")

        def hear(pid):
            kill(pid)
            os.kill(pid, signal.SIGKILL)

        started = time.monotonic()
        ending = run_in_child(jobs.sleep_forever, on_message=hear, timeouts=Timeouts(timeout_s=60.0))
        assert ending.outcome == "died"
        assert time.monotonic() - started < 30


class TestLastWords:
    def test_are_heard_however_soon_it_exits(self):
        for number in range(12):
            heard = []
            ending = run_in_child(jobs.count_to, number, on_message=heard.append)
            assert (ending.outcome, heard) == ("returned", list(range(number)))

    def test_are_heard_however_long_they_are(self):
        ending: ChildResult = run_in_child(jobs.return_much, 20_000_000)
        assert len(ending.value) == 20_000_000

    def test_of_a_dead_child_whose_own_child_holds_the_pipe(self):
        heard = []
        try:
            ending = run_in_child(jobs.leave_a_child, on_message=heard.append, timeouts=Timeouts(60.0))
            assert ending.outcome == "died"
            assert "SIGKILL" in ending.reason
            assert len(heard) == 1
            assert psutil.pid_exists(heard[0])  # it still holds it
        finally:
            for pid in heard:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
