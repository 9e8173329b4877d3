"""The first interrupt waits until what is in hand is saved, the second does not."""

from __future__ import annotations

import os
import signal
import threading
import time
from multiprocessing.connection import wait

import isolation_jobs as jobs
import pytest
from process_watch import wait_until_gone

from xbench.isolation.interrupts import SIGNALS, Interrupts, interrupt_on_signals
from xbench.isolation.run import Patience, run_in_child

every_signal = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


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


def is_readable(interrupts: Interrupts) -> bool:
    return bool(wait([interrupts], timeout=0))


class TestNoted:
    @every_signal
    def test_the_first_is_noted_and_the_second_raises(self, number):
        with Interrupts() as interrupts:
            assert (interrupts.happened, is_readable(interrupts)) == (False, False)
            signal.raise_signal(number)
            assert (interrupts.happened, is_readable(interrupts)) == (True, True)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)

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
                patience=Patience(timeout_s=60.0),
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

    def test_does_not_slow_the_end(self):
        started = time.monotonic()
        with Interrupts() as interrupts:
            run_in_child(
                jobs.stop_when_asked,
                on_message=lambda pid: signal.raise_signal(signal.SIGINT),
                interrupts=interrupts,
            )
        assert time.monotonic() - started < 30
