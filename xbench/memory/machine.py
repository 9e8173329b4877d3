"""Find what limits the memory of a worker process on this machine.

torch is imported only if a CUDA device is requested, so light modules may import this one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from xbench.memory.cgroups import memory_groups
from xbench.memory.host import status_bytes
from xbench.units import Limit, format_bytes

# This share of the available memory, up to a maximum size, is left to the machine's other programs.
AVAILABLE_RESERVE_SHARE = 0.05
MAX_AVAILABLE_RESERVE_BYTES = 512 << 20

# This part of a control group's limit is left to the parent process, which grows by about 100 MB when it
# first writes and prints results, and to what the kernel keeps for processes, such as page tables.
GROUP_RESERVE_BYTES = 128 << 20

_GRAIN_BYTES = 256 << 20
# That would be a large part of a tight limit, such as that of a small container.
_FINE_GRAIN_BYTES, _MAX_FINE_BYTES = 32 << 20, 4 << 30

# Resource limit -> its line in /proc/self/limits, and the field of /proc/self/status that counts against it.
_ADDRESS_SPACE_LIMITS = {
    "RLIMIT_DATA": ("Max data size", "VmData"),
    "RLIMIT_AS": ("Max address space", "VmSize"),
}


@dataclass(frozen=True)
class Bound:
    """One limit on the memory of a worker.

    Attributes:
        source: `"cgroup v2"`, `"cgroup v1"`, `"RLIMIT_DATA"`, `"RLIMIT_AS"`, `"available memory"`,
            `"memory_limit"` (the user's) or `"device memory"`.
        limit_bytes: the resident size that a worker may reach under this bound; on a CUDA device, the memory
            that it may hold there, its context included.
        detail: where the bound was read, the limit given there, and what was subtracted, in words.
        is_exact: whether the user requested exactly this size. All other bounds drift with the machine.
    """

    source: str
    limit_bytes: int
    detail: str
    is_exact: bool = False


def host_bounds(root: Path = Path("/")) -> list[Bound]:
    """Find what limits the resident size of a worker: control groups, resource limits and available memory.

    Call this in a process like the worker, with torch loaded and its threads started. Control groups and the
    system report by how much a process can still grow, so the anonymous pages that this process already has
    are added; it shares most of them with the fork server. Its file pages are not added: they count as
    available, because the system could reclaim them, but a worker needs them. A resource limit counts address
    space; the part that never becomes resident is also read from this process.

    Args:
        root: folder that contains `proc` and `sys`.

    Returns:
        At least one bound.
    """
    return [*_find_cgroup_bounds(root), *_find_rlimit_bounds(root), _find_available_bound(root)]


def device_bounds(device: str) -> list[Bound]:
    """Find what limits the memory of a worker on a CUDA device: free memory, and what this process holds.

    In a MIG slice, this is the slice's memory. Creates a CUDA context in this process.

    Args:
        device: torch's name for the device, such as `"cuda:0"`.

    Returns:
        One bound; none if the device is not a CUDA device.
    """
    if not device.startswith("cuda"):
        return []
    from xbench.memory.devices import device_memory

    memory = device_memory(device)
    where = f"the slice {memory.mig}" if memory.mig else device
    detail = (
        f"{where}: {format_bytes(memory.total_bytes)}, of which {format_bytes(memory.free_bytes)} are free; "
        f"this process has reserved {format_bytes(memory.reserved_bytes)} and its context takes "
        f"{format_bytes(memory.context_bytes)}; other processes use {format_bytes(memory.others_bytes)}"
    )
    if memory.is_estimate:
        detail += " (estimated: NVML does not know this process)"
    own = memory.reserved_bytes + memory.context_bytes
    return [Bound("device memory", memory.free_bytes + own, detail)]


def binding(bounds: Iterable[Bound]) -> Bound:
    """Return the bound that a worker reaches first: the smallest, or the first of equal ones.

    Raises:
        ValueError: there are no bounds.
    """
    return min(bounds, key=lambda bound: bound.limit_bytes)


def with_memory_limits(bounds: Iterable[Bound], limits: Iterable[Limit]) -> list[Bound]:
    """Put the user's own limits before a machine's bounds. A share refers to the machine's binding bound."""
    bounds = list(bounds)
    return [*(_user_bound(limit, bounds) for limit in limits), *bounds]


def rounded_limit_bytes(bound: Bound) -> int:
    """Return a worker's limit under its binding bound.

    A machine's available memory changes by the minute, so it is rounded down to be the same from run to run.
    A size that the user requested is not rounded.
    """
    if bound.is_exact or bound.limit_bytes < _GRAIN_BYTES:
        return bound.limit_bytes
    grain = _FINE_GRAIN_BYTES if bound.limit_bytes < _MAX_FINE_BYTES else _GRAIN_BYTES
    return bound.limit_bytes // grain * grain


def _user_bound(limit: Limit, bounds: list[Bound]) -> Bound:
    detail = f"asked for: {limit.written}"
    if limit.size_bytes is not None:
        return Bound("memory_limit", limit.size_bytes, detail, is_exact=True)
    machine = binding(bounds)
    detail += f" of {format_bytes(machine.limit_bytes)} ({machine.source})"
    return Bound("memory_limit", limit.bytes_of(machine.limit_bytes), detail)


def _find_cgroup_bounds(root: Path) -> Iterator[Bound]:
    own = _read_own_anonymous_bytes(root)
    for group in memory_groups(root):
        limit = group.limit_bytes()
        if limit is not None:
            held = group.held_bytes()
            others = max(0, held - own)
            left = limit - others - GROUP_RESERVE_BYTES
            detail = (
                f"{group.limit_file}: {format_bytes(limit)}, less {format_bytes(others)} that other "
                "processes of the group hold and the system cannot reclaim (its usage less file pages and "
                f"the worker's own), and {format_bytes(GROUP_RESERVE_BYTES)} for their growth"
            )
            yield Bound(f"cgroup v{group.version}", max(0, left), detail)


def _read_own_anonymous_bytes(root: Path) -> int:
    """Read the size of this process's anonymous pages; 0 if the system does not report it."""
    try:
        return status_bytes("RssAnon", (root / "proc/self/status").read_bytes())
    except OSError:
        return 0


def _find_rlimit_bounds(root: Path) -> Iterator[Bound]:
    file = root / "proc/self/limits"
    try:
        limits, status = file.read_text(), (root / "proc/self/status").read_bytes()
    except OSError:  # not Linux: the relation of address space to resident size is unknown
        return
    for source, (line, field) in _ADDRESS_SPACE_LIMITS.items():
        soft = re.search(rf"^{line}\s+(\d+)\s", limits, re.MULTILINE)
        if soft:
            limit = int(soft[1])
            unused = status_bytes(field, status) - status_bytes("VmRSS", status)
            detail = (
                f"{file}: soft limit of {format_bytes(limit)} of address space, less {format_bytes(unused)} "
                f"that a worker maps beyond what is resident ({field} less VmRSS)"
            )
            yield Bound(source, max(0, limit - unused), detail)


def _find_available_bound(root: Path) -> Bound:
    file = root / "proc/meminfo"
    try:
        available, where = status_bytes("MemAvailable", file.read_bytes()), f"{file}: MemAvailable is"
    except OSError:
        available, where = psutil.virtual_memory().available, "psutil: available memory is"
    own = _read_own_anonymous_bytes(root)
    reserve = min(round(AVAILABLE_RESERVE_SHARE * available), MAX_AVAILABLE_RESERVE_BYTES)
    detail = (
        f"{where} {format_bytes(available)}, less {format_bytes(reserve)} for other programs, "
        f"plus {format_bytes(own)} that a worker has from the start"
    )
    return Bound("available memory", available - reserve + own, detail)
