"""What a child leaves: none of its processes, none of its words to the next one, no file."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.isolation import isolation_jobs as jobs
from tests.isolation.process_watch import wait_until_gone
from xbench.errors import XbenchError
from xbench.isolation.run import Timeouts, run_in_child

# Runs its jobs at the same time. Their children have one server.
PARENT = """
import sys, threading
from tests.isolation import isolation_jobs as jobs
from xbench.isolation.run import run_in_child
from xbench.isolation.server import start_server

def run(job, *args):
    run_in_child(getattr(jobs, job), *args, on_message=lambda pid: print(f"{pid}\\n", end="", flush=True))

if __name__ == "__main__":
    start_server()
    for words in sys.argv[1:]:
        threading.Thread(target=run, args=words.split()).start()
"""
PARENT_JOBS = ["have_a_child stay"]
if sys.platform == "linux":  # elsewhere, a thread of the interpreter ends them
    PARENT_JOBS.append("hold_the_interpreter")


class TestProcesses:
    @pytest.mark.parametrize(
        ("then", "outcome"), [("return", "returned"), ("die", "died"), ("stay", "timeout")]
    )
    def test_end_with_it(self, then, outcome):
        pids = []
        ending = run_in_child(
            jobs.have_a_child, then, on_message=pids.append, timeouts=Timeouts(1.5, hangs_after_s=None)
        )
        assert ending.outcome == outcome
        wait_until_gone(pids[0], seconds=10)

    def test_end_with_its_parent(self):
        with subprocess.Popen(
            [sys.executable, "-c", PARENT, *PARENT_JOBS],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(jobs.__file__).parents[2])},
        ) as parent:
            grandchildren = [psutil.Process(int(parent.stdout.readline())) for _ in PARENT_JOBS]
            try:
                parent.kill()
                for grandchild in grandchildren:
                    wait_until_gone(grandchild.pid, seconds=10)
            finally:
                parent.kill()
                for grandchild in grandchildren:
                    with suppress(psutil.NoSuchProcess):
                        grandchild.kill()


class TestHalfAMessage:
    """The pipe stays open, for a process that left the group holds it."""

    @pytest.mark.parametrize(("stop", "outcome"), [(signal.SIGKILL, "died"), (signal.SIGSTOP, "timeout")])
    def test_is_not_waited_for(self, stop, outcome):
        pids = []
        try:
            ending = run_in_child(
                jobs.stop_within_a_message, stop, on_message=pids.append, timeouts=Timeouts(2.0)
            )
            assert ending.outcome == outcome
            assert psutil.pid_exists(pids[0])
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)


class TestWords:
    def test_of_an_earlier_child_say_nothing_of_the_next(self, tmp_path):
        log = tmp_path / "log"
        first = run_in_child(jobs.write_and_abort, "std::bad_alloc", stderr_path=log)
        assert first.out_of_memory
        second = run_in_child(jobs.write_and_abort, "", stderr_path=log)
        assert (second.outcome, second.reason, second.stderr) == ("died", "killed by SIGABRT", "")
        assert not second.out_of_memory
        third = run_in_child(jobs.write_and_abort, "its own", stderr_path=log)
        assert third.stderr == "its own"
        assert log.read_text() == "std::bad_allocits own"

    @pytest.mark.parametrize("job", [jobs.fail_without_stderr, jobs.fail_with_a_closed_stream])
    def test_that_nothing_takes_do_not_hide_a_failure(self, job):
        ending = run_in_child(job)
        assert (ending.outcome, ending.reason) == ("failed", "ValueError: heard all the same")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk at hand")
    def test_that_no_disk_takes_do_not_hide_a_failure(self):
        ending = run_in_child(jobs.divide, 1, 0, stderr_path=Path("/dev/full"))
        assert (ending.outcome, ending.reason) == ("failed", "ZeroDivisionError: division by zero")

    def test_that_an_exception_does_not_have(self):
        ending = run_in_child(jobs.fail_without_words)
        assert (ending.outcome, ending.reason) == ("failed", "Wordless")

    def test_of_odd_notes(self):
        assert run_in_child(jobs.fail_with_odd_notes).reason == "ValueError: noted; 1; \\ud800"


LOST = """
import os, sys
from multiprocessing import forkserver
from xbench.isolation.server import start_server
from xbench.isolation.worker import SERVER

if __name__ == "__main__":
    start_server()
    heard, told = SERVER.connect_to_new_process([])
    forkserver.read_signed(heard)  # it has begun
    os.write(told, sys.argv[1].encode())
    os._exit(0)
"""


@pytest.mark.parametrize(
    "told",
    [pytest.param("", id="nothing"), pytest.param("(I1\nI2", id="half of it", marks=pytest.mark.slow)],
)
def test_a_child_that_was_not_told_what_to_do_says_nothing(told):
    """As after a kill or an interrupt in that moment."""
    done = subprocess.run(
        [sys.executable, "-c", LOST, told], capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("", "")  # heard until the server and the child have ended, too


class TestFiles:
    def test_are_none_even_while_it_runs(self, tmp_path, monkeypatch):
        run_in_child(jobs.echo, 1).get()  # the server has a folder of its own
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        assert run_in_child(jobs.list_of, str(tmp_path)).get() == []


class TestNoRoom:
    def test_for_another_open_file(self):
        run_in_child(jobs.echo, 1).get()
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest_free = os.dup(0)
        os.close(lowest_free)
        for room in range(4):
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + room, before[1]))
            try:
                with pytest.raises(XbenchError, match="cannot start a worker process") as caught:
                    run_in_child(jobs.echo, 1)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            assert "ulimit -n" in caught.value.hint
        assert run_in_child(jobs.echo, 1).get() == 1

    def test_for_temporary_files(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        with pytest.raises(XbenchError, match="cannot start a worker process") as caught:
            run_in_child(jobs.echo, 1)
        assert "TMPDIR" in caught.value.hint
