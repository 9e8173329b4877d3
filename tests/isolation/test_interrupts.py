"""The first interrupt waits until what is in hand is saved, the second does not."""

from __future__ import annotations

import os
import signal
import threading
import time
from multiprocessing.connection import wait

import psutil
import pytest

from tests.isolation import isolation_jobs as jobs
from tests.isolation.process_watch import wait_until_gone
from xbench.isolation import run
from xbench.isolation.interrupts import SIGNALS, HeldSignals, Interrupts, interrupt_on_signals
from xbench.isolation.liveness import Liveness
from xbench.isolation.run import Timeouts, run_in_child

every_signal = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)

asked_for = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)


def handlers():
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.fixture(autouse=True)
def handlers_as_before():
    """Tests may change what signals do; this process may have been told to ignore some."""
    before = handlers()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


def is_readable(interrupts: Interrupts | HeldSignals) -> bool:
    return bool(wait([interrupts], timeout=0))


class TestNoted:
    @asked_for
    def test_the_first_is_noted_and_the_second_raises(self, number):
        with Interrupts() as interrupts:
            assert (interrupts.happened, is_readable(interrupts)) == (False, False)
            signal.raise_signal(number)
            assert (interrupts.happened, is_readable(interrupts)) == (True, True)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)

    def test_a_terminal_that_is_closed_is_told_of_more_than_once(self):
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGHUP)
            assert (interrupts.happened, is_readable(interrupts)) == (True, True)
        signal.raise_signal(signal.SIGHUP)

    def test_and_does_not_hurry_what_was_asked_to_stop(self):
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGHUP)
            assert interrupts.happened
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

    def test_of_different_kinds(self):
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGTERM)
            assert interrupts.happened
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

    def test_a_wait_is_woken(self):
        with Interrupts() as interrupts:
            timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            assert wait([interrupts], timeout=60) == [interrupts]
            timer.join()

    def test_afterwards_all_is_as_before(self):
        interrupt_on_signals()
        before = handlers()
        with Interrupts() as interrupts:
            assert handlers() != before
        assert handlers() == before
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(interrupts.fileno())

    def test_also_after_an_exception(self):
        before = handlers()
        with pytest.raises(KeyboardInterrupt), Interrupts():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        assert handlers() == before

    def test_what_is_ignored_stays_ignored(self):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGHUP)
            assert not interrupts.happened
            signal.raise_signal(signal.SIGINT)
            assert interrupts.happened
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

    def test_in_another_thread_nothing_changes(self):
        before, found = handlers(), []

        def enter():
            with Interrupts() as interrupts:
                found.extend([handlers(), is_readable(interrupts)])

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert found == [before, False]


class TestEveryWayOut:
    @every_signal
    def test_is_an_interrupt(self, number):
        interrupt_on_signals()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)

    def test_but_for_what_is_ignored(self):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        interrupt_on_signals()
        signal.raise_signal(signal.SIGHUP)

    def test_a_closed_terminal_is_one(self):
        interrupt_on_signals()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)


class TestHeld:
    @every_signal
    def test_happens_when_it_is_delivered(self, number):
        interrupt_on_signals()
        with HeldSignals() as held:
            signal.raise_signal(number)
            assert is_readable(held)
            with pytest.raises(KeyboardInterrupt):
                held.deliver()
            assert not is_readable(held)
            held.deliver()

    @every_signal
    def test_or_at_the_end(self, number):
        interrupt_on_signals()
        before, done = handlers(), []
        with pytest.raises(KeyboardInterrupt), HeldSignals():
            signal.raise_signal(number)
            done.append("all")
        assert done == ["all"]
        after = handlers()
        assert [new for new, old in zip(after, before, strict=True) if new != old] in ([], [signal.SIG_IGN])

    def test_each_of_many(self):
        with Interrupts() as interrupts, HeldSignals() as held:
            for _ in range(2):
                signal.raise_signal(signal.SIGTERM)
            assert not interrupts.happened
            with pytest.raises(KeyboardInterrupt):
                held.deliver()
            assert is_readable(interrupts)

    def test_what_is_ignored_or_deadly_stays_so(self):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        before = handlers()
        assert before[1] is signal.SIG_DFL
        with HeldSignals() as held:
            assert handlers()[1:] == before[1:]
            signal.raise_signal(signal.SIGHUP)
            assert not is_readable(held)


class TestChild:
    """A child that is at work while this process is interrupted."""

    @pytest.fixture
    def told(self):
        return []

    @every_signal
    def test_is_asked_to_stop_and_waited_for(self, number, told):
        with Interrupts(lambda: told.append("stopping")) as interrupts:
            ending = run_in_child(
                jobs.stop_when_asked,
                on_message=lambda pid: os.kill(os.getpid(), number),
                interrupts=interrupts,
            )
        assert (ending.outcome, ending.value) == ("returned", "stopped")
        assert told == ["stopping"]

    def test_the_second_ends_it(self, told):
        pids = []

        def interrupt(pid):
            pids.append(pid)
            signal.raise_signal(signal.SIGINT)

        def again():
            told.append("stopping")
            signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt), Interrupts(again) as interrupts:
            run_in_child(jobs.stop_when_asked, on_message=interrupt, interrupts=interrupts)
        assert told == ["stopping"]
        wait_until_gone(pids[0])

    def test_one_that_does_not_heed_it_is_waited_for_no_longer_than_any(self):
        with Interrupts() as interrupts:
            ending = run_in_child(
                jobs.sleep_forever,
                on_message=lambda pid: signal.raise_signal(signal.SIGINT),
                interrupts=interrupts,
                timeouts=Timeouts(timeout_s=60.0),
            )
        assert ending.outcome == "died"
        assert "SIGTERM" in ending.reason

    def test_hears_of_no_interrupt_that_was_before(self, told):
        with Interrupts() as earlier:
            signal.raise_signal(signal.SIGINT)
            assert earlier.happened
        with Interrupts(lambda: told.append("stopping")) as interrupts:
            assert run_in_child(jobs.count_to, 3, interrupts=interrupts).value == "counted"
        assert told == []

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
    def test_leaves_those_of_a_terminal_to_its_parent(self, number):
        assert run_in_child(jobs.signal_own_group, number).value == "still here"

    @every_signal
    def test_an_interrupt_while_it_is_being_ended_leaves_nothing_alive(self, number, monkeypatch):
        interrupt_on_signals()
        kill, pids = Liveness._send, []

        def interrupted_kill(liveness, to_send):
            signal.raise_signal(number)
            kill(liveness, to_send)
            signal.raise_signal(number)

        def interrupt(pid):
            pids.append(pid)
            raise ValueError

        monkeypatch.setattr(Liveness, "_send", interrupted_kill)
        with pytest.raises(KeyboardInterrupt):
            run_in_child(jobs.sleep_forever, on_message=interrupt)
        assert not psutil.pid_exists(pids[0])

    def test_an_interrupt_while_it_starts_leaves_nothing_alive(self, monkeypatch):
        started = []

        def start_and_interrupt(*args):
            started.append(psutil.Process(start(*args).pid))
            raise KeyboardInterrupt

        start = run._start
        monkeypatch.setattr(run, "_start", start_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_in_child(jobs.sleep_forever)
        wait_until_gone(started[0].pid, seconds=30)

    def test_does_not_slow_the_end(self):
        started = time.monotonic()
        with Interrupts() as interrupts:
            run_in_child(
                jobs.stop_when_asked,
                on_message=lambda pid: signal.raise_signal(signal.SIGINT),
                interrupts=interrupts,
            )
        assert time.monotonic() - started < 30
