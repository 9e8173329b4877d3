"""What counts as out of memory, and what does not."""

from __future__ import annotations

import errno
import signal
from pathlib import Path

import pytest
import torch

from xbench.memory.exhaustion import died_of_memory, is_out_of_memory, oom_kill_count


class TestExceptions:
    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: ..."
            ),
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 12 bytes."),
            OSError(errno.ENOMEM, "Cannot allocate memory"),
            RuntimeError("could not create a primitive"),
            RuntimeError("could not create a memory object"),
            RuntimeError("CUDA error: out of memory"),
            RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        ],
    )
    def test_that_are(self, error):
        assert is_out_of_memory(error)

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("mat1 and mat2 shapes cannot be multiplied (5x360 and 36x120)"),
            RuntimeError("memory format option is only supported by strided tensors"),
            ValueError("CUDA out of memory"),
            OSError(errno.ENOSPC, "No space left on device"),
            KeyboardInterrupt(),
        ],
    )
    def test_that_are_not(self, error):
        assert not is_out_of_memory(error)

    def test_this_torchs_own_words(self):
        with pytest.raises(RuntimeError) as caught:
            torch.empty(1 << 58, dtype=torch.uint8)
        assert is_out_of_memory(caught.value)


KILLED, ABORTED, CRASHED = -signal.SIGKILL, -signal.SIGABRT, -signal.SIGSEGV
BAD_ALLOC = "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n"
NO_THREAD = "libgomp: Thread creation failed: Resource temporarily unavailable\n"


class TestDeaths:
    @pytest.mark.parametrize(
        ("exit_code", "stderr", "oom_kills", "under_limit", "verdict"),
        [
            (KILLED, "", 1, False, True),
            (KILLED, "", 0, False, False),
            (KILLED, "", 0, True, False),
            (KILLED, NO_THREAD, 0, True, False),
            (ABORTED, BAD_ALLOC, 0, False, True),
            (ABORTED, BAD_ALLOC, 0, True, True),
            (ABORTED, "double free or corruption (out)\n", 0, True, False),
            (ABORTED, "", 1, True, False),
            (CRASHED, BAD_ALLOC, 0, True, False),
            (1, NO_THREAD, 0, True, True),
            (1, NO_THREAD, 0, False, False),
            (1, "", 0, True, False),
            (0, NO_THREAD, 0, True, False),
        ],
    )
    def test_verdict(self, exit_code, stderr, oom_kills, under_limit, verdict):
        assert died_of_memory(exit_code, stderr, oom_kills, under_limit) is verdict


class TestKillCount:
    @pytest.fixture
    def events(self, tmp_path) -> Path:
        """This process's `memory.events` below a root of ours."""
        try:
            own = Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2]
        except OSError:
            pytest.skip("this system has no cgroups")
        file = tmp_path / own.lstrip("/") / "memory.events"
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    def test_is_read(self, events, tmp_path):
        events.write_text("low 0\nhigh 3\nmax 9\noom 8\noom_kill 7\noom_group_kill 1\n")
        assert oom_kill_count(tmp_path) == 7

    def test_is_zero_where_the_system_does_not_tell(self, events, tmp_path):
        assert oom_kill_count(tmp_path) == 0
        events.write_text("low 0\nhigh 0\n")
        assert oom_kill_count(tmp_path) == 0
