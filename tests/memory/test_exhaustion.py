"""How memory ran out, and what only looks like it."""

from __future__ import annotations

import errno
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from xbench.memory.devices import DevicePressure
from xbench.memory.exhaustion import (
    Evidence,
    describe_exhaustion,
    evidence_of,
    exhaustion,
    failed_allocation_bytes,
)

HOST_WORDS = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 5811484800 bytes. Error code 12 (Cannot allocate memory)"
)
UNDER_PRESSURE = (
    "FIND was unable to find an engine to execute this computation",
    "GET was unable to find an engine to execute this computation",
    "Unable to find an engine to execute this computation in Quantized Conv2D Cudnn",
    "Unable to find a valid cuDNN algorithm to run convolution",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "cusolver error: CUSOLVER_STATUS_NOT_INITIALIZED, when calling `cusolverDnCreate(handle)`",
    "CUDA error: CUSPARSE_STATUS_INSUFFICIENT_RESOURCES when calling `cusparseSpMM(handle)`",
    "cuFFT error: CUFFT_INTERNAL_ERROR",
)
DEVICE_WORDS = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB"


class OwnMemoryError(MemoryError):
    """As numpy has one."""


class TestExceptions:
    @pytest.mark.parametrize(
        ("error", "how"),
        [
            (RuntimeError(HOST_WORDS), "host allocator"),
            (
                RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 12 bytes."),
                "host allocator",
            ),
            (RuntimeError("could not create a primitive"), "host allocator"),
            (RuntimeError("could not create a memory object"), "host allocator"),
            (torch.OutOfMemoryError(DEVICE_WORDS), "device allocator"),
            (RuntimeError(DEVICE_WORDS), "device allocator"),
            (
                RuntimeError("unable to mmap 80 bytes from file <a>: Cannot allocate memory (12)"),
                "host allocator",
            ),
            (RuntimeError("CUDA error: out of memory"), "device allocator"),
            (RuntimeError("CUDA driver error: out of memory"), "device allocator"),
            (RuntimeError("Triton Error [CUDA]: out of memory"), "device allocator"),
            (RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"), "device allocator"),
            (RuntimeError("HIP error: out of memory"), "device allocator"),
            (RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB)"), "device allocator"),
            (RuntimeError("XPU out of memory. Tried to allocate 2.00 GiB"), "device allocator"),
            (
                RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
                "device allocator",
            ),
            (
                RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `create(handle)`"),
                "device allocator",
            ),
            (RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"), "device allocator"),
            (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "device allocator"),
            (
                RuntimeError(
                    "CUDA error: CUSPARSE_STATUS_ALLOC_FAILED when calling `cusparseCreate(handle)`"
                ),
                "device allocator",
            ),
            (
                RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
                "host allocator",
            ),
            (torch.AcceleratorError("CUDA error: out of memory"), "device allocator"),
            (
                RuntimeError("CUDA ran out of memory outside PyTorch's allocator. If this workload"),
                "device allocator",
            ),
            (
                RuntimeError("Allocation on device 0 would exceed allowed memory. (out of memory)"),
                "device allocator",
            ),
            (RuntimeError("MAGMA: cannot allocate memory on GPU device"), "device allocator"),
            (
                torch.cuda.DeferredCudaCallError(
                    "CUDA call failed lazily at initialization with error: CUDA error: out of memory"
                ),
                "device allocator",
            ),
            (
                RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
                "device allocator",
            ),
            (MemoryError(), "python"),
            (OwnMemoryError("Unable to allocate 7 GiB"), "python"),
            (OSError(errno.ENOMEM, "Cannot allocate memory"), "python"),
            (RuntimeError("std::bad_alloc"), "native"),
        ],
    )
    def test_of_memory(self, error, how):
        assert exhaustion(evidence_of(error)) == how

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("mat1 and mat2 shapes cannot be multiplied (5x360 and 36x120)"),
            RuntimeError("memory format option is only supported by strided tensors"),
            RuntimeError("could not create a primitive descriptor for a convolution forward propagation"),
            RuntimeError("CUDA error: an illegal memory access was encountered"),
            RuntimeError("CUDA error: invalid argument. The kernel ran out of registers"),
            RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
            RuntimeError("out of resource: shared memory, Required: 131072, Hardware limit: 101376"),
            RuntimeError(),
            ValueError(DEVICE_WORDS),
            OSError(errno.ENOSPC, "No space left on device"),
            KeyboardInterrupt(),
        ],
    )
    def test_of_something_else(self, error):
        assert exhaustion(evidence_of(error)) is None

    @pytest.mark.parametrize("message", UNDER_PRESSURE)
    @pytest.mark.parametrize(
        ("device", "how"),
        [
            (None, None),
            (DevicePressure(refusals=0, room_bytes=4 << 30, allowed_bytes=40 << 30), None),
            (DevicePressure(refusals=0, room_bytes=100 << 20, allowed_bytes=40 << 30), "device allocator"),
            (DevicePressure(refusals=0, room_bytes=100 << 20, allowed_bytes=1 << 30), None),
            (DevicePressure(refusals=2, room_bytes=4 << 30, allowed_bytes=40 << 30), "device allocator"),
        ],
    )
    def test_that_may_be_of_memory_is_where_hardly_any_is_left(self, message, device, how):
        error = evidence_of(RuntimeError(message))
        assert exhaustion(replace(error, device=device)) == how

    def test_that_may_be_of_memory_looks_at_the_device(self, made_up):
        """And nothing else does: it may be slow, or lost."""
        error = RuntimeError("FIND was unable to find an engine to execute this computation")
        assert exhaustion(evidence_of(error)) is None
        made_up.counters = {"num_ooms": 1}
        assert exhaustion(evidence_of(error)) == "device allocator"
        assert evidence_of(RuntimeError("mat1 and mat2 shapes cannot be multiplied")).device is None

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("mat1 and mat2 shapes cannot be multiplied (5x360 and 36x120)"),
            ValueError("unable to find an engine"),
        ],
    )
    def test_of_something_else_under_pressure(self, error):
        under_pressure = DevicePressure(refusals=2, room_bytes=0, allowed_bytes=1 << 30)
        assert exhaustion(replace(evidence_of(error), device=under_pressure)) is None

    def test_this_torchs_own_words(self):
        with pytest.raises(RuntimeError) as caught:
            torch.empty(1 << 58, dtype=torch.uint8)
        evidence = evidence_of(caught.value)
        assert exhaustion(evidence) == "host allocator"
        assert failed_allocation_bytes(evidence.message) == 1 << 58

    def test_this_numpys_own_words(self):
        with pytest.raises(MemoryError) as caught:
            np.empty(1 << 58, dtype=np.uint8)
        evidence = evidence_of(caught.value)
        assert exhaustion(evidence) == "python"
        assert failed_allocation_bytes(evidence.message) == 1 << 58


KILLED, ABORTED, CRASHED = -signal.SIGKILL, -signal.SIGABRT, -signal.SIGSEGV
BAD_ALLOC = "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n"
THROWN = "terminate called after throwing an instance of 'c10::Error'\n  what():  "
NO_THREAD = "libgomp: Thread creation failed: Resource temporarily unavailable\n"
LAST_TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 1, in b\nMemoryError\n'


class TestDeaths:
    @pytest.mark.parametrize(
        ("exit_code", "stderr", "oom_kills", "under_limit", "how"),
        [
            (KILLED, "", 1, False, "oom killer"),
            (KILLED, "", 2, True, "oom killer"),
            (KILLED, "", 0, False, None),
            (KILLED, "", 0, True, None),
            (KILLED, NO_THREAD, 0, True, None),
            (KILLED, LAST_TRACEBACK, 0, True, None),
            (ABORTED, BAD_ALLOC, 0, False, "native"),
            (ABORTED, BAD_ALLOC, 0, True, "native"),
            (ABORTED, THROWN + HOST_WORDS, 0, True, "host allocator"),
            (ABORTED, THROWN + DEVICE_WORDS, 0, True, "device allocator"),
            (ABORTED, THROWN + "mat1 and mat2", 0, True, None),
            (ABORTED, THROWN + UNDER_PRESSURE[0], 0, True, None),
            (ABORTED, "double free or corruption (out)\n", 0, True, None),
            (ABORTED, "", 1, True, None),
            (CRASHED, BAD_ALLOC, 0, True, None),
            (1, NO_THREAD, 0, True, "native"),
            (1, NO_THREAD, 0, False, None),
            (1, LAST_TRACEBACK, 0, False, "python"),
            (1, LAST_TRACEBACK + "and so I went on\n", 0, False, None),
            (1, "", 0, True, None),
            (0, NO_THREAD, 0, True, None),
            (0, LAST_TRACEBACK, 0, True, None),
        ],
    )
    def test_verdict(self, exit_code, stderr, oom_kills, under_limit, how):
        evidence = Evidence(exit_code=exit_code, stderr=stderr, oom_kills=oom_kills, under_limit=under_limit)
        assert exhaustion(evidence) == how


@pytest.mark.parametrize(
    ("message", "size"),
    [
        (HOST_WORDS, 5811484800),
        (DEVICE_WORDS, 5 << 29),
        ("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0", 20 << 20),
        ("CUDA out of memory. Tried to allocate 512 bytes.", 512),
        ("you tried to allocate 288230376151711743 bytes", 288230376151711743),
        ("Unable to allocate 1.5 KiB for an array with shape (1536,)", 1536),
        ("Unable to allocate 256. PiB for an array", 1 << 58),
        ("could not create a primitive", None),
        ("tried to allocate much", None),
    ],
)
def test_size_of_the_allocation_that_failed(message, size):
    assert failed_allocation_bytes(message) == size


GB = 10**9


class TestWords:
    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (RuntimeError(HOST_WORDS), "an allocation of 5.81 GB failed under the limit of 2.00 GB"),
            (
                OwnMemoryError(
                    "Unable to allocate 1.00 GiB for an array with shape (1, 2) and data type int8"
                ),
                "an allocation of 1.07 GB failed under the limit of 2.00 GB",
            ),
            (MemoryError(), "an allocation failed under the limit of 2.00 GB"),
            (MemoryError("the table is too large"), "the table is too large"),
            (
                RuntimeError("std::bad_alloc"),
                "an allocation failed under the limit of 2.00 GB (std::bad_alloc)",
            ),
        ],
    )
    def test_name_the_request_and_the_limit(self, error, words):
        how = exhaustion(evidence_of(error))
        assert describe_exhaustion(how, str(error), 2 * GB) == f"out of memory: {words}"

    @pytest.mark.parametrize(
        ("message", "limited"), [(DEVICE_WORDS, " under the limit of 2.00 GB"), (HOST_WORDS, "")]
    )
    def test_a_limit_on_a_device_does_not_apply_to_the_host(self, message, limited):
        how = exhaustion(evidence_of(RuntimeError(message)))
        assert describe_exhaustion(how, message, 2 * GB, "cuda:0").endswith(f" GB failed{limited}")

    def test_without_a_limit(self):
        words = describe_exhaustion("host allocator", HOST_WORDS, None)
        assert words == "out of memory: an allocation of 5.81 GB failed"

    def test_an_unknown_message_is_shortened(self):
        words = describe_exhaustion("native", "std::bad_alloc " * 100, None)
        assert words.startswith("out of memory: an allocation failed (std::bad_alloc std")
        assert len(words) < 300

    def test_of_a_death_without_a_message(self):
        assert describe_exhaustion("python", "MemoryError", GB) == (
            "out of memory: an allocation failed under the limit of 1.00 GB"
        )
