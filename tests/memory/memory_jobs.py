"""Jobs that measure and limit a process of their own, where nothing else allocates."""

from __future__ import annotations

import os
import resource
import time

import numpy as np

from xbench.memory import host
from xbench.memory.limits import limit_host_memory
from xbench.memory.machine import binding, host_bounds
from xbench.memory.profiler import StepProfiler

MB = 1_000_000


def touched(megabytes: int) -> np.ndarray:
    """An array whose every page is resident."""
    return np.ones(megabytes * MB, dtype=np.uint8)


def peak_of_an_allocation(send, megabytes):
    """Readings around an array that is freed before the second."""
    touched(1)  # what numpy does at first use is no part of the allocation
    meter = host.host_peak_meter()
    meter.reset()
    before = meter.peak_bytes()
    array = touched(megabytes)
    del array
    after = meter.peak_bytes()
    meter.reset()
    return meter.method, after - before, meter.peak_bytes() - before


def sampled_peak_of_an_allocation(send, megabytes, hold_s):
    """The same where the system forbids resetting its own count; the array is there for a while."""
    _forbid_clear_refs()
    touched(1)
    meter = host.host_peak_meter()
    meter.reset()
    before = meter.peak_bytes()
    array = touched(megabytes)
    time.sleep(hold_s)
    del array
    after = meter.peak_bytes()
    meter.reset()
    return meter.method, after - before, meter.peak_bytes() - before


def _forbid_clear_refs():
    real_open = os.open

    def open_(path, *args, **kwargs):
        if path == "/proc/self/clear_refs":
            raise PermissionError(13, "Permission denied")
        return real_open(path, *args, **kwargs)

    os.open = open_


def resident_around(send, megabytes):
    touched(1)
    before = host.resident_bytes()
    array = touched(megabytes)
    return array.size, host.resident_bytes() - before


def profile_steps(send, sizes):
    """One step for each size, which allocates and frees that many megabytes.

    More than 32 where memory is to be given back: less may be kept for the next allocation.
    """
    profiler = StepProfiler()
    touched(1)
    profiler.begin()
    profiler.end()
    base = profiler.collect()[0].host_peak_bytes
    for megabytes in sizes:
        profiler.begin()
        touched(megabytes)
        profiler.end()
    profiles = profiler.collect()
    peaks = [profile.host_peak_bytes - base for profile in profiles]
    return peaks, [profile.wall_s for profile in profiles], profiler.collect()


def limit_to(send, limit_bytes):
    """Try a limit, and then to allocate."""
    try:
        limit_host_memory(limit_bytes)
    except MemoryError as error:
        return str(error), touched(100).size
    return "limited", None


def allocate_under(send, headroom, megabytes):
    """Whether an array can be made that many bytes below a limit."""
    limit_host_memory(host.resident_bytes() + headroom)
    try:
        return touched(megabytes).size
    except MemoryError:
        return None


def fill_under(send, headroom, block_bytes):
    """The resident sizes at which a limit was set, and after the last block that could be had."""
    limit = host.resident_bytes() + headroom
    limit_host_memory(limit)
    return limit, _largest_resident(block_bytes)


def fill_under_rlimit(send, headroom, block_bytes):
    """The same with a limit on address space that somebody else has set; what is read of it comes first."""
    _limit_data(_data_bytes() + headroom)
    return binding(host_bounds()), _largest_resident(block_bytes)


def limit_within(send, soft_headroom, hard_headroom, headroom):
    """Take a limit where others stand, which are given by how much above what there is now (None for none).

    Returns:
        The soft limit above what was there, and the hard limit as before.
    """
    data = _data_bytes()
    soft, hard = (
        resource.RLIM_INFINITY if above is None else data + above for above in (soft_headroom, hard_headroom)
    )
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    limit_host_memory(host.resident_bytes() + headroom)
    soft_now, hard_now = resource.getrlimit(resource.RLIMIT_DATA)
    return soft_now - data, hard_now == hard


def _limit_data(soft):
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes():
    with open("/proc/self/status", "rb") as file:
        return host.status_bytes("VmData", file.read())


def _largest_resident(block_bytes):
    kept = []
    try:
        while len(kept) < 1000:
            kept.append(np.ones(block_bytes, dtype=np.uint8))
    except MemoryError:
        pass
    return host.resident_bytes()
