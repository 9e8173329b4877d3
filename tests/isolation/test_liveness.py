"""A child that hangs is ended; one that is at work is not, and none of its words is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace

import psutil
import pytest

from tests.isolation import isolation_jobs as jobs
from tests.isolation.process_watch import wait_until_gone
from xbench.isolation.liveness import HangWatch, Liveness
from xbench.isolation.run import ChildFailed, ChildResult, Timeouts, run_in_child

QUICK = Timeouts(hangs_after_s=1.0)
# For children that are at work, as far as other processes let them.
FAIR = Timeouts(hangs_after_s=2.0)


def run_at_once(*children: Callable[[], ChildResult]) -> list[ChildResult]:
    """Run children at the same time, since most of them only wait."""
    run_in_child(jobs.echo, 1).get()  # the server is started in the main thread
    with ThreadPoolExecutor(len(children)) as threads:
        return [future.result() for future in [threads.submit(child) for child in children]]


class TestHanging:
    @pytest.fixture(scope="class")
    @classmethod
    def hung(cls):
        """How one ended that hung, the number of its process, and the seconds that it took."""
        heard, started = [], time.monotonic()
        ending = run_in_child(jobs.sleep_forever, on_message=heard.append, timeouts=QUICK)
        return ending, heard[0], time.monotonic() - started

    def test_is_ended(self, hung):
        ending, pid, seconds = hung
        assert ending.outcome == "timeout"
        assert ending.reason == "it hung: it sent no message and took no CPU time for 1.00 s"
        assert seconds >= 1.0
        wait_until_gone(pid)

    def test_the_next_one_works(self, hung):
        assert run_in_child(jobs.echo, 1).get() == 1

    def test_is_told_by_the_result(self, hung):
        with pytest.raises(ChildFailed, match="it hung"):
            hung[0].get()

    def test_not_by_computing_nor_speaking_nor_where_it_may_wait(self, tmp_path):
        end = tmp_path / "end"
        timer = threading.Timer(3.6, end.touch)

        def work():
            timer.start()
            return run_in_child(jobs.work_until, str(end), timeouts=FAIR)

        worked, spoke, waited = run_at_once(
            work,
            lambda: run_in_child(jobs.speak, 12, 0.25, timeouts=FAIR),
            lambda: run_in_child(jobs.wait_until, str(end), timeouts=Timeouts(hangs_after_s=None)),
        )
        timer.join()
        assert (worked.value, spoke.value, waited.value) == ("worked", "spoke", "waited")


class TestTimeout:
    def test_ends_the_busiest_and_one_that_always_speaks_and_one_that_is_stopped(self, tmp_path):
        heard, stopped = [], []

        def stop(pid):
            stopped.append(pid)
            os.kill(pid, signal.SIGSTOP)

        busiest, speaking, still = run_at_once(
            lambda: run_in_child(jobs.work_until, str(tmp_path / "never"), timeouts=Timeouts(timeout_s=1.0)),
            lambda: run_in_child(
                jobs.speak, 10**6, 0.001, on_message=heard.append, timeouts=Timeouts(timeout_s=2.5)
            ),
            lambda: run_in_child(jobs.sleep_forever, on_message=stop, timeouts=Timeouts(timeout_s=2.5)),
        )
        assert (busiest.outcome, busiest.reason) == ("timeout", "it did not end within 1.00 s")
        assert not busiest.out_of_memory
        assert speaking.outcome == "timeout"
        assert heard == list(range(len(heard)))
        assert heard
        assert still.outcome == "timeout"
        wait_until_gone(stopped[0])

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
    """A child that ends, one that hangs and one that is killed, once their server has been killed."""

    @pytest.fixture(scope="class")
    @classmethod
    def orphans(cls, tmp_path_factory):
        """How the three ended; and the number of the process that hung."""
        end = tmp_path_factory.mktemp("orphans") / "end"
        pids: list[int] = []

        def kill_server():
            server = psutil.Process(pids[0]).parent()
            assert server.ppid() == os.getpid()
            server.kill()
            wait_until_gone(server.pid)
            threading.Timer(0.5, end.touch).start()

        all_run = threading.Barrier(3, action=kill_server, timeout=60)

        def hear(pid):
            pids.append(pid)
            all_run.wait()

        def hear_and_kill(pid):
            hear(pid)
            os.kill(pid, signal.SIGKILL)

        hanging: list[int] = []

        def hear_hanging(pid):
            hanging.append(pid)
            hear(pid)

        endings = run_at_once(
            lambda: run_in_child(jobs.wait_until, str(end), on_message=hear, timeouts=FAIR),
            lambda: run_in_child(jobs.sleep_forever, on_message=hear_hanging, timeouts=QUICK),
            lambda: run_in_child(
                jobs.sleep_forever, on_message=hear_and_kill, timeouts=Timeouts(timeout_s=60.0)
            ),
        )
        return *endings, hanging[0]

    def test_a_child_goes_on_and_is_heard(self, orphans):
        going_on, *_ = orphans
        assert (going_on.outcome, going_on.value) == ("returned", "waited")

    def test_a_child_that_hangs_then_is_ended(self, orphans):
        _, hung, _, pid = orphans
        assert hung.outcome == "timeout"
        assert "it hung" in hung.reason
        wait_until_gone(pid)

    def test_and_a_child_that_is_killed_is_known_to_be_dead(self, orphans):
        _, _, killed, _ = orphans
        assert killed.outcome == "died"

    def test_the_next_child_has_another_server(self, orphans):
        assert run_in_child(jobs.count_to, 3).value == "counted"


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
