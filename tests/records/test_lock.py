"""One run at a time in a suite's results, and none that is dead keeps the next one out."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from xbench.errors import XbenchError
from xbench.records import lock
from xbench.records.lock import concerns, sole_run

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
    with pytest.raises(XbenchError, match="another run of this suite is using") as caught, sole_run(folder):
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


class TestWithoutLocks:
    """On a file system that has none."""

    @pytest.fixture(autouse=True, params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
    def number(self, request, monkeypatch):
        def refuse(file, operation):
            raise OSError(request.param, os.strerror(request.param))

        monkeypatch.setattr(lock.fcntl, "flock", refuse)
        return request.param

    @pytest.fixture
    def holder(self, folder, number):
        refuse = f"import fcntl\ndef refuse(*_): raise OSError({number}, '')\nfcntl.flock = refuse\n"
        with subprocess.Popen(
            [sys.executable, "-c", refuse + HOLD, str(folder)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout.readline() == "held\n"
            yield process
            process.kill()

    def test_one_after_the_other(self, folder):
        for _ in range(2):
            with sole_run(folder):
                pass
        with pytest.raises(KeyboardInterrupt), sole_run(folder):
            raise KeyboardInterrupt
        assert [path.name for path in folder.iterdir()] == [".lock"]

    def test_this_process_holds_it_once(self, folder):
        with sole_run(folder):
            with pytest.raises(XbenchError, match=f"process {os.getpid()}"), sole_run(folder):
                pass
            with pytest.raises(XbenchError), sole_run(folder):
                pass

    def test_another_process_is_told_who_it_is_for_as_long_as_it_lives(self, holder, folder):
        for _ in range(2):
            with pytest.raises(XbenchError, match=f"process {holder.pid}") as caught, sole_run(folder):
                pass
            assert "--out" in caught.value.hint
        holder.kill()  # not waited for: dead all the same
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
        with sole_run(folder):
            assert len(list(folder.glob(".held-*"))) == 1
        assert [path.name for path in folder.iterdir()] == [".lock"]

    def test_another_process_of_the_same_number_is_not_the_one(self, folder):
        folder.mkdir(parents=True)
        (folder / f".held-{socket.gethostname()}-{os.getppid()}-1000").touch()
        with sole_run(folder):
            pass
        assert [path.name for path in folder.iterdir()] == [".lock"]

    def test_of_other_hosts_nothing_is_known(self, folder):
        folder.mkdir(parents=True)
        names = [".held-else.where-1-1000", ".held-", ".held-x-y-z"]
        for name in names:
            (folder / name).touch()
        with sole_run(folder):
            pass
        assert {path.name for path in folder.iterdir()} == {".lock", *names}

    def test_where_it_cannot_be_written_down(self, folder, monkeypatch):
        def refuse(path, exist_ok):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(lock.Path, "touch", refuse)
        with pytest.raises(XbenchError, match=r"cannot write results to .*: No space left"), sole_run(folder):
            pass


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


class TestConcerns:
    """Whether an error is about results."""

    @pytest.mark.parametrize(
        ("names", "concerned"),
        [
            (("results/suite/run/cells.jsonl",), True),
            (("elsewhere/file", None, "results/file"), True),
            (("results",), True),
            (("results-of-others/file",), False),
            ((), False),
        ],
    )
    def test_by_its_files(self, names, concerned):
        error = OSError(errno.EIO, "it fails", *names)
        assert concerns(error, Path("results")) is concerned
