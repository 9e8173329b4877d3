"""Jobs that measure and limit a process of their own, where nothing else allocates."""

from __future__ import annotations

import mmap
import os
import resource
import subprocess
import tempfile
import time

import numpy as np

from xbench.memory import host
from xbench.memory.limits import (
    calibrate_host_limit_again,
    charged_peak_bytes,
    host_reserve_bytes,
    lift_host_limit,
    limit_host_memory,
)
from xbench.memory.machine import binding, host_bounds
from xbench.memory.malloc import release_free_memory
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


def limit_above(send, headroom):
    """The same by how much there is to be above what is held now."""
    return limit_to(send, host.resident_bytes() + headroom)


def allocate_under(send, headroom, megabytes):
    """Whether an array of so many megabytes can be made where so much is left above the reserve."""
    limit_host_memory(host.resident_bytes() + headroom + host_reserve_bytes())
    try:
        return touched(megabytes).size
    except MemoryError:
        return None


def fill_after_lifting(send, headroom, kept):
    """Allocate until nothing is left under a limit that was lifted for a while.

    Args:
        kept: bytes that are allocated meanwhile and stay; twice as many are freed again.

    Returns:
        The limit and the resident peak after it was set again, in bytes; the limits on data in KiB of child
        processes that were started before, meanwhile and afterwards; and what counts against the limit before
        and after it was filled.
    """
    limit = host.resident_bytes() + headroom
    limit_host_memory(limit)
    children = [_limit_of_child()]
    with lift_host_limit():
        children.append(_limit_of_child())
        stays = np.ones(kept, dtype=np.uint8)
        np.ones(2 * kept, dtype=np.uint8)
    children.append(_limit_of_child())
    charged = [charged_peak_bytes("cpu")]
    meter = host.host_peak_meter()
    meter.reset()
    _fill(MB // 2)
    charged.append(charged_peak_bytes("cpu"))
    peak = meter.peak_bytes()
    del stays
    return limit, peak, children, charged


def _limit_of_child():
    return subprocess.run(
        ["sh", "-c", "ulimit -d"], capture_output=True, text=True, check=True
    ).stdout.strip()


def fill_under(send, headroom, block_bytes, before="", late_file_bytes=0):
    """Allocate until nothing is left under a limit.

    Args:
        before: what happens between the limit and its second calibration: `mapped` maps memory that is never
            touched, `freed` touches as much and frees it; by default there is one calibration. `given back`
            is of a third one, before which memory of the heap is freed and given back to the system.
        late_file_bytes: of a file that is read through a mapping after the calibration.

    Returns:
        The limit, its reserve, and the process's resident peak, all in bytes.
    """
    limit = host.resident_bytes() + headroom
    limit_host_memory(limit)
    untouched = None
    if before == "mapped":
        untouched = mmap.mmap(-1, headroom // 2, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    elif before == "freed":
        np.ones(headroom // 2, dtype=np.uint8)
    if before:
        calibrate_host_limit_again()
    if before == "given back":
        blocks = [
            np.ones(100_000, dtype=np.uint8) for _ in range(headroom // 300_000)
        ]  # they are in the heap
        last = np.ones(100_000, dtype=np.uint8)  # above them: what is below it cannot be cut off
        calibrate_host_limit_again()
        del blocks
        release_free_memory()
        calibrate_host_limit_again()
        del last
    file = _mapped_file(late_file_bytes)
    reserve = host_reserve_bytes()
    peak = _peak_of_filling(block_bytes)
    del untouched, file
    return limit, reserve, peak


def _mapped_file(size_bytes):
    """A mapping of a file, every page of which is resident."""
    if not size_bytes:
        return None
    with tempfile.TemporaryFile() as file:
        file.write(bytes(size_bytes))
        file.flush()
        mapping = mmap.mmap(file.fileno(), size_bytes, mmap.MAP_SHARED, mmap.PROT_READ)
    for place in range(0, size_bytes, mmap.PAGESIZE):
        mapping[place]
    return mapping


def fill_under_rlimit(send, headroom, block_bytes):
    """The same with a limit on address space that somebody else has set; what is read of it comes first."""
    _limit_data(_data_bytes() + headroom)
    return binding(host_bounds()), _peak_of_filling(block_bytes)


def limit_within(send, soft_headroom, hard_headroom, headroom, times=1):
    """Take a limit where others stand, which are given by how much above what there is now (None for none).

    Args:
        times: how often it is calibrated.

    Returns:
        The soft limit above what was there, and the hard limit as before.
    """
    data = _data_bytes()
    soft, hard = (
        resource.RLIM_INFINITY if above is None else data + above for above in (soft_headroom, hard_headroom)
    )
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    limit_host_memory(host.resident_bytes() + headroom + host_reserve_bytes())
    for _ in range(times - 1):
        calibrate_host_limit_again()
    soft_now, hard_now = resource.getrlimit(resource.RLIMIT_DATA)
    return soft_now - data, hard_now == hard


def _limit_data(soft):
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes():
    with open("/proc/self/status", "rb") as file:
        return host.status_bytes("VmData", file.read())


def _peak_of_filling(block_bytes):
    """Allocate until nothing is left; return the resident peak."""
    _fill(block_bytes)
    # Reading it takes a buffer, for which there is room only once the blocks are freed.
    with open("/proc/self/status", "rb") as status:
        return host.status_bytes("VmHWM", status.read())


def _fill(block_bytes):
    kept = []
    try:
        while len(kept) < 10_000:
            kept.append(np.ones(block_bytes, dtype=np.uint8))
    except MemoryError:
        pass
