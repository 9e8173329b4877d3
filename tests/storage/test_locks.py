"""One process holds a lock at a time, and none that is dead keeps the next one out."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from xbench.storage import locks
from xbench.storage.locks import LockHeld, hold, hold_place

HOLD = """
import sys, time
from pathlib import Path
from xbench.storage.locks import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def holder_in(path: Path) -> int:
    """The process that the file names."""
    return int(path.read_text().split()[0])


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / ".lock"


def start_holder(path: Path, before: str = "") -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", before + HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def holder(path):
    """Another process that holds it."""
    with start_holder(path) as process:
        yield process
        process.kill()


def test_one_after_the_other(path):
    for _ in range(3):
        with hold(path):
            assert holder_in(path) == os.getpid()


def test_others_are_told_who_holds_it_however_often_they_try(holder, path):
    for _ in range(3):
        with pytest.raises(LockHeld) as caught, hold(path):
            pass
        assert caught.value.holder == str(holder.pid)
        assert f"process {holder.pid} holds {path}" in caught.value.message


def test_another_lock_is_free(holder, path):
    with hold(path.with_name("other")):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_killed_process_lets_go(holder, path, number):
    holder.send_signal(number)
    holder.wait()
    with hold(path):
        assert holder_in(path) == os.getpid()


def test_an_exception_lets_go(path):
    with pytest.raises(KeyboardInterrupt), hold(path):
        raise KeyboardInterrupt
    with hold(path):
        pass


def test_a_process_that_was_started_meanwhile_does_not_hold_it(path):
    with hold(path):
        left = subprocess.Popen(["sleep", "600"], close_fds=False)
    try:
        with hold(path):
            pass
    finally:
        left.kill()
        left.wait()


def test_whatever_stands_in_the_file(path):
    path.write_bytes(b"not a number\n" * 3)
    with hold(path):
        assert holder_in(path) == os.getpid()


def test_waiting_is_told_once(holder, path):
    told = []
    with hold(path, lambda: (told.append("waits"), holder.kill())):
        assert holder_in(path) == os.getpid()
    assert told == ["waits"]
    with hold(path, lambda: told.append("waits")):
        pass
    assert told == ["waits"]


def test_another_failure_is_not_passed_over(path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Input/output error"), hold(path):
        pass


def test_the_lock_of_a_place_is_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with hold_place(tmp_path / "a/place"):
        for same in (tmp_path / "a/place", Path("a/place")):
            with pytest.raises(LockHeld), hold_place(same):
                pass
        with hold_place(tmp_path / "b/place"):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


class TestWithoutLocks:
    """On a file system that has none."""

    @pytest.fixture(autouse=True, params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
    def number(self, request, monkeypatch):
        def refuse(*_):
            raise OSError(request.param, os.strerror(request.param))

        monkeypatch.setattr(fcntl, "flock", refuse)
        return request.param

    @pytest.fixture
    def holder(self, path, number):
        refuse = f"import fcntl\ndef refuse(*_): raise OSError({number}, '')\nfcntl.flock = refuse\n"
        with start_holder(path, refuse) as process:
            yield process
            process.kill()

    def test_one_after_the_other(self, path):
        for _ in range(2):
            with hold(path):
                pass
        with pytest.raises(KeyboardInterrupt), hold(path):
            raise KeyboardInterrupt
        assert [left.name for left in path.parent.iterdir()] == [".lock"]

    def test_this_process_holds_it_once(self, path):
        with hold(path):
            for _ in range(2):
                with pytest.raises(LockHeld) as caught, hold(path):
                    pass
                assert caught.value.holder == str(os.getpid())

    def test_others_are_told_who_holds_it_for_as_long_as_it_lives(self, holder, path):
        for _ in range(2):
            with pytest.raises(LockHeld) as caught, hold(path):
                pass
            assert caught.value.holder == str(holder.pid)
        holder.kill()
        holder.wait()
        with hold(path):
            assert path.with_name(".lock.held").exists()
        assert [left.name for left in path.parent.iterdir()] == [".lock"]

    def test_it_is_waited_for(self, holder, path):
        def kill():
            holder.kill()
            holder.wait()

        with hold(path, kill):
            pass

    def test_of_other_hosts_nothing_is_known(self, path):
        path.with_name(".lock.held").write_text("1\nelse.where\n")
        with pytest.raises(LockHeld) as caught, hold(path):
            pass
        assert f"delete {path}.held" in caught.value.hint
        assert "within" not in caught.value.message

    def test_a_wait_for_another_host_ends_and_names_that_host(self, path, monkeypatch):
        monkeypatch.setattr(locks, "_MAX_WAIT_FOR_MARKER_S", 1)
        path.with_name(".lock.held").write_text("1\nelse.where\n")
        path.write_text("1\nelse.where\n")
        told = []
        with pytest.raises(LockHeld) as caught, hold(path, lambda: told.append("waits")):
            pass
        assert told == ["waits"]
        expected = f"process 1 on else.where holds {path}, and has not released it within 1 s"
        assert caught.value.message == expected
