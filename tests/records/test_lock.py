"""One run at a time in a suite's results, and none that is dead keeps the next one out."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from xbench.errors import XbenchError
from xbench.records import lock
from xbench.records.lock import sole_run

HOLD = """
import sys, time
from pathlib import Path
from xbench.records.lock import sole_run
with sole_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "results" / "suite"


@pytest.fixture
def holder(folder):
    """Another process that holds it."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_makes_the_folder(folder):
    with sole_run(folder):
        assert folder.is_dir()


def test_one_after_the_other(folder):
    for _ in range(3):
        with sole_run(folder):
            pass


def test_another_process_is_told_who_it_is(holder, folder):
    with pytest.raises(XbenchError, match="another run of this suite is at work") as caught, sole_run(folder):
        pass
    assert str(folder) in caught.value.message
    assert f"(process {holder.pid})" in caught.value.message
    assert "--out" in caught.value.hint


def test_it_holds_on_after_somebody_tried(holder, folder):
    for _ in range(3):
        with pytest.raises(XbenchError), sole_run(folder):
            pass


def test_another_suite_is_free(holder, folder):
    with sole_run(folder.with_name("other")):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_killed_process_lets_go(holder, folder, number):
    holder.send_signal(number)
    holder.wait()
    with sole_run(folder):
        assert (folder / ".lock").read_text() == f"{os.getpid()}\n"


def test_an_exception_lets_go(folder):
    with pytest.raises(KeyboardInterrupt), sole_run(folder):
        raise KeyboardInterrupt
    with sole_run(folder):
        pass


def test_a_process_that_was_started_meanwhile_does_not_hold_it(folder):
    with sole_run(folder):
        left = subprocess.Popen(["sleep", "600"], close_fds=False)
    try:
        with sole_run(folder):
            pass
    finally:
        left.kill()
        left.wait()


def test_whatever_stands_in_the_file(folder):
    folder.mkdir(parents=True)
    (folder / ".lock").write_bytes(b"not a number\n" * 3)
    with sole_run(folder):
        assert (folder / ".lock").read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks(folder, monkeypatch, number):
    def refuse(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    entered = []
    with sole_run(folder):
        entered.append(True)
    assert entered


def test_another_failure_is_not_passed_over(folder, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Input/output error"), sole_run(folder):
        pass


@pytest.mark.parametrize("taken", ["results", "results/suite", "results/suite/.lock/x"])
def test_what_cannot_be_written(tmp_path, folder, taken):
    """Something of that name is in the way."""
    (tmp_path / taken).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / taken).write_text("")
    with pytest.raises(XbenchError, match="cannot write results to") as caught, sole_run(folder):
        pass
    assert "--out" in caught.value.hint
