"""However a child ends, the parent hears of it, and goes on."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from tests.isolation import isolation_jobs as jobs
from tests.isolation.process_watch import wait_until_gone
from xbench.errors import DataNotFound, XbenchError
from xbench.isolation import run
from xbench.isolation.child import Limits
from xbench.isolation.run import run_in_child
from xbench.units import format_bytes


class TestWhatReturns:
    def test_value(self):
        ending = run_in_child(jobs.echo, {"a": [1, 2.5, None]})
        assert ending.outcome == "returned"
        assert ending.value == {"a": [1, 2.5, None]}
        assert (ending.error, ending.reason, ending.exhaustion) == (None, "", None)
        assert not ending.out_of_memory

    def test_messages_in_order(self):
        heard = []
        ending = run_in_child(jobs.count_to, 500, on_message=heard.append)
        assert heard == list(range(500))
        assert ending.value == "counted"

    def test_each_in_a_process_of_its_own(self):
        first, second = (run_in_child(jobs.inheritance).get() for _ in range(2))
        assert len({first["pid"], second["pid"], os.getpid()}) == 3

    def test_threads_of_torch(self):
        threads, _, _ = run_in_child(jobs.parallel_sum, 10, limits=Limits(threads=3)).value
        assert threads == 3

    def test_parallel_operations_do_not_hang(self):
        for _ in range(2):
            ending = run_in_child(jobs.parallel_sum, 1 << 20, limits=Limits(threads=2))
            assert ending.value == (2, float(2 << 20), 256.0)

    def test_the_result_is_the_value(self):
        heard = []
        assert run_in_child(jobs.count_to, 3, on_message=heard.append).get() == "counted"
        assert heard == [0, 1, 2]


class TestRefusals:
    @pytest.mark.parametrize("error_type", [XbenchError, DataNotFound])
    def test_keep_type_message_and_hint(self, error_type):
        ending = run_in_child(jobs.refuse, error_type, "suite.toml:3: no", "do this")
        assert ending.outcome == "refused"
        assert type(ending.error) is error_type
        assert (ending.error.message, ending.error.hint) == ("suite.toml:3: no", "do this")
        assert ending.reason == "suite.toml:3: no"
        assert "Traceback" not in ending.stderr

    def test_of_a_plugins_own_class_arrive_as_ours(self):
        ending = run_in_child(jobs.refuse_in_own_words, "a.jpeg", 3)
        assert ending.outcome == "refused"
        assert type(ending.error) is DataNotFound
        assert (ending.error.message, ending.error.hint) == ("a.jpeg is missing 3 times", "fetch it")

    def test_are_raised_by_the_result(self):
        with pytest.raises(DataNotFound, match="not here") as caught:
            run_in_child(jobs.refuse, DataNotFound, "not here", "fetch it").get()
        assert caught.value.hint == "fetch it"


class TestFailures:
    def test_exception(self):
        ending = run_in_child(jobs.divide, 1, 0)
        assert ending.outcome == "failed"
        assert ending.reason == "ZeroDivisionError: division by zero"
        assert "Traceback (most recent call last)" in ending.stderr
        assert "numerator / denominator" in ending.stderr
        assert not ending.out_of_memory

    def test_reason_is_one_line(self):
        assert run_in_child(jobs.fail_over_lines).reason == "ValueError: first second"

    def test_a_broken_pipe_of_the_jobs_own(self):
        ending = run_in_child(jobs.break_own_pipe)
        assert ending.outcome == "failed"
        assert ending.reason.startswith("BrokenPipeError")
        assert "Traceback" in ending.stderr

    @pytest.mark.parametrize("job", [jobs.return_unpicklable, jobs.send_unpicklable])
    def test_what_cannot_be_pickled(self, job):
        ending = run_in_child(job)
        assert ending.outcome == "failed"
        assert "pickle" in ending.reason.lower() or "lambda" in ending.reason
        assert "Traceback" in ending.stderr

    @pytest.mark.parametrize("job", [jobs.return_unreadable, jobs.send_unreadable])
    def test_what_the_parent_cannot_unpickle(self, job):
        ending = run_in_child(job)
        assert ending.outcome == "failed"
        assert "elsewhere" in ending.reason

    def test_arguments_that_the_child_cannot_unpickle(self, tmp_path):
        ending = run_in_child(jobs.echo, jobs.Unreadable(), stderr_path=tmp_path / "log")
        assert ending.outcome in ("failed", "died")

    def test_are_told_by_the_result(self):
        with pytest.raises(XbenchError, match="worker process failed: ZeroDivisionError") as caught:
            run_in_child(jobs.divide, 1, 0).get()
        assert "numerator / denominator" in caught.value.hint


class TestDeaths:
    @pytest.mark.parametrize(
        ("way", "how"),
        [
            ("SIGKILL", "killed by SIGKILL"),
            ("SIGSEGV", "killed by SIGSEGV"),
            ("SIGABRT", "killed by SIGABRT"),
            ("os._exit(3)", "exited with code 3"),
        ],
    )
    def test_reason_messages_and_words_are_kept(self, way, how):
        heard = []
        ending = run_in_child(jobs.die, way, on_message=heard.append)
        assert ending.outcome == "died"
        assert how in ending.reason
        assert jobs.WORDS in ending.reason
        assert jobs.WORDS in ending.stderr
        assert heard == [*range(50), f"about to die by {way}"]
        assert not ending.out_of_memory

    @pytest.mark.parametrize(("kills", "exhaustion"), [([3, 4], "oom killer"), ([3, 3], None)])
    def test_by_the_oom_killer(self, monkeypatch, kills, exhaustion):
        counted = iter(kills)
        monkeypatch.setattr(run, "oom_kill_count", lambda: next(counted))
        ending = run_in_child(jobs.die, "SIGKILL")
        assert ending.exhaustion == exhaustion
        assert ("OOM killer" in ending.reason) == (exhaustion is not None)

    def test_for_want_of_a_threads_stack(self):
        limit = run_in_child(jobs.resident).get() + 50_000_000
        ending = run_in_child(jobs.start_threads, 64, limits=Limits(threads=1, memory_bytes=limit))
        assert ending.outcome == "died"
        assert ending.exhaustion == "native"
        assert "Thread creation failed" in ending.reason

    def test_signal_without_a_name(self):
        ending = run_in_child(jobs.die_unnamed)
        assert ending.outcome == "died"
        assert str(int(signal.SIGRTMIN) + 1) in ending.reason

    def test_messages_that_outlive_the_child(self):
        heard = []

        def hear(message):
            if not heard:
                wait_until_gone(message)
                time.sleep(0.5)  # for the server to say so
            heard.append(message)

        assert run_in_child(jobs.say_much_and_die, 100, on_message=hear).outcome == "died"
        assert heard[1:] == list(range(100))

    def test_within_a_message(self):
        heard = []

        def kill(message):
            heard.append(message)
            os.kill(message, signal.SIGKILL)

        ending = run_in_child(jobs.send_pid_and_much, 50_000_000, on_message=kill)
        assert ending.outcome == "died"
        assert "SIGKILL" in ending.reason
        assert len(heard) == 1

    def test_are_told_by_the_result(self):
        with pytest.raises(XbenchError, match="killed by SIGKILL") as caught:
            run_in_child(jobs.die, "SIGKILL").get()
        assert jobs.WORDS in caught.value.message


class TestStreams:
    def test_go_to_the_file(self, tmp_path):
        log = tmp_path / "log"
        ending = run_in_child(jobs.write_much, 10, stderr_path=log)
        text = log.read_text()
        assert "from the job's stdout" in text
        assert "from the job's descriptor 1" in text
        assert text.endswith("xxthe end")
        assert ending.stderr == text

    def test_only_the_end_is_kept(self):
        ending = run_in_child(jobs.write_much, 100_000)
        assert ending.stderr.endswith("xxthe end")
        assert len(ending.stderr) < 5_000

    def test_no_file_is_left_behind(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        run_in_child(jobs.write_much, 10)
        assert list(Path(tmp_path).iterdir()) == []


class TestMemoryLimit:
    @pytest.fixture(scope="class")
    @classmethod
    def exhausted(cls):
        limit = run_in_child(jobs.resident).get() + 200_000_000
        sizes: list[int] = []
        ending = run_in_child(
            jobs.allocate_until_it_fails,
            5_000_000,
            on_message=sizes.append,
            limits=Limits(threads=1, memory_bytes=limit),
        )
        return limit, sizes, ending

    def test_is_out_of_memory_in_plain_words_with_torchs_own_in_the_log(self, exhausted):
        limit, _, ending = exhausted
        assert ending.outcome == "failed"
        assert ending.out_of_memory
        assert ending.exhaustion == "host allocator"
        assert ending.reason == (
            f"out of memory: an allocation of 5.00 MB failed under the limit of {format_bytes(limit)}"
        )
        assert ending.failed_allocation_bytes == 5_000_000
        assert "you tried to allocate 5000000 bytes" in ending.stderr

    def test_holds_where_it_says(self, exhausted):
        limit, sizes, _ = exhausted
        assert len(sizes) > 30
        assert limit - 20_000_000 <= sizes[-1] <= limit  # a reserve, and less than one more

    def test_below_what_a_process_needs(self):
        ending = run_in_child(jobs.echo, 1, limits=Limits(memory_bytes=1_000_000))
        assert ending.outcome == "failed"
        assert ending.exhaustion == "python"
        assert ending.reason.startswith("out of memory: the limit of 1.00 MB is below")


class TestInterrupts:
    def test_are_not_the_childs_business(self):
        assert run_in_child(jobs.interrupt_itself).value == "still here"

    def test_in_the_parent_end_the_child(self):
        heard = []

        def interrupt(message):
            heard.append(message)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_in_child(jobs.sleep_forever, on_message=interrupt)
        wait_until_gone(heard[0])
