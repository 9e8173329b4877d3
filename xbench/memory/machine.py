"""What limits the memory of one worker process on this machine.

Nothing here loads torch unless a CUDA device is asked for, so that light modules may import it.
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

# This share of the available memory stays with the machine's other programs, but no more than so much.
AVAILABLE_RESERVE_SHARE = 0.05
MAX_AVAILABLE_RESERVE_BYTES = 512 << 20

# So much of a control group's limit stays with the parent process, which grows by some 100 MB when it first
# writes and prints results, and with what the kernel keeps for processes, such as page tables.
GROUP_RESERVE_BYTES = 128 << 20

_GRAIN_BYTES = 256 << 20
# Of a tight limit, as a small container's, that would be a large part.
_FINE_GRAIN_BYTES, _MAX_FINE_BYTES = 32 << 20, 4 << 30

# Resource limit -> its line in /proc/self/limits, and the size in /proc/self/status that counts against it.
_ADDRESS_SPACE_LIMITS = {
    "RLIMIT_DATA": ("Max data size", "VmData"),
    "RLIMIT_AS": ("Max address space", "VmSize"),
}


@dataclass(frozen=True)
class Bound:
    """One reason why a worker cannot grow without end.

    Attributes:
        source: `"cgroup v2"`, `"cgroup v1"`, `"RLIMIT_DATA"`, `"RLIMIT_AS"`, `"available memory"`,
            `"memory_limit"` (the user's) or `"device memory"`.
        limit_bytes: the resident size that one worker may reach under this bound; on a CUDA device the bytes
            that it may hold there, its context included.
        detail: in words: where it was read, the limit as it stands there, what was taken off.
        is_exact: whether somebody asked for just this size; every other bound drifts with the machine.
    """

    source: str
    limit_bytes: int
    detail: str
    is_exact: bool = False


def host_bounds(root: Path = Path("/")) -> list[Bound]:
    """What limits the resident size of one worker here: control groups, resource limits, available memory.

    Call it in a process like the worker, with torch loaded and its threads started. What groups and the
    system have left is what a process can grow by, so the anonymous pages that this one has already are
    added; it shares most of them with the fork server. Its pages of files are not added: they count as left,
    because the system could reclaim them, but a worker needs them. A resource limit counts address space, and
    what of that never becomes resident is read from this process, too.

    Args:
        root: folder that `proc` and `sys` are read below.

    Returns:
        At least one bound.
    """
    return [*_cgroup_bounds(root), *_rlimit_bounds(root), _available_bound(root)]


def device_bounds(device: str) -> list[Bound]:
    """What limits the bytes of one worker on a CUDA device: what is free there, and what this process has.

    In a MIG slice it is the slice's memory. Creates a CUDA context in this process.

    Args:
        device: torch's name of the device: `"cuda:0"`.

    Returns:
        One bound; none for a device that is not CUDA.
    """
    if not device.startswith("cuda"):
        return []
    from xbench.memory.devices import device_memory

    memory = device_memory(device)
    where = f"the slice {memory.mig}" if memory.mig else device
    detail = (
        f"{where}: {format_bytes(memory.total_bytes)}, of which {format_bytes(memory.free_bytes)} are free, "
        f"{format_bytes(memory.reserved_bytes)} are reserved and {format_bytes(memory.context_bytes)} taken "
        f"for its context by this process; others use {format_bytes(memory.others_bytes)}"
    )
    if memory.is_estimate:
        detail += " (estimated: NVML does not know this process)"
    own = memory.reserved_bytes + memory.context_bytes
    return [Bound("device memory", memory.free_bytes + own, detail)]


def binding(bounds: Iterable[Bound]) -> Bound:
    """The bound that a worker meets first: the smallest, the first among equals.

    Raises:
        ValueError: there is none.
    """
    return min(bounds, key=lambda bound: bound.limit_bytes)


def with_memory_limits(bounds: Iterable[Bound], limits: Iterable[Limit]) -> list[Bound]:
    """Put the user's own limits before a machine's bounds. A share is one of the machine's binding bound."""
    bounds = list(bounds)
    return [*(_asked_bound(limit, bounds) for limit in limits), *bounds]


def rounded_limit_bytes(bound: Bound) -> int:
    """Return the limit that a worker is held to under its binding bound.

    What a machine has to give drifts by the minute; rounded down, it is the same from run to run. A size that
    somebody asked for is exact.
    """
    if bound.is_exact or bound.limit_bytes < _GRAIN_BYTES:
        return bound.limit_bytes
    grain = _FINE_GRAIN_BYTES if bound.limit_bytes < _MAX_FINE_BYTES else _GRAIN_BYTES
    return bound.limit_bytes // grain * grain


def _asked_bound(limit: Limit, bounds: list[Bound]) -> Bound:
    detail = f"asked for: {limit.written}"
    if limit.size_bytes is not None:
        return Bound("memory_limit", limit.size_bytes, detail, is_exact=True)
    machine = binding(bounds)
    detail += f" of {format_bytes(machine.limit_bytes)} ({machine.source})"
    return Bound("memory_limit", limit.bytes_of(machine.limit_bytes), detail)


def _cgroup_bounds(root: Path) -> Iterator[Bound]:
    own = _own_anonymous_bytes(root)
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


def _own_anonymous_bytes(root: Path) -> int:
    """Memory of this process that is no file's; 0 where the system does not tell."""
    try:
        return status_bytes("RssAnon", (root / "proc/self/status").read_bytes())
    except OSError:
        return 0


def _rlimit_bounds(root: Path) -> Iterator[Bound]:
    file = root / "proc/self/limits"
    try:
        limits, status = file.read_text(), (root / "proc/self/status").read_bytes()
    except OSError:  # no Linux: nothing tells how address space and resident size go together
        return
    for source, (line, field) in _ADDRESS_SPACE_LIMITS.items():
        soft = re.search(rf"^{line}\s+(\d+)\s", limits, re.MULTILINE)
        if soft:
            limit = int(soft[1])
            beyond = status_bytes(field, status) - status_bytes("VmRSS", status)
            detail = (
                f"{file}: soft limit of {format_bytes(limit)} of address space, less {format_bytes(beyond)} "
                f"that a worker maps beyond what is resident ({field} less VmRSS)"
            )
            yield Bound(source, max(0, limit - beyond), detail)


def _available_bound(root: Path) -> Bound:
    file = root / "proc/meminfo"
    try:
        available, where = status_bytes("MemAvailable", file.read_bytes()), f"{file}: MemAvailable is"
    except OSError:
        available, where = psutil.virtual_memory().available, "psutil: available are"
    own = _own_anonymous_bytes(root)
    reserve = min(round(AVAILABLE_RESERVE_SHARE * available), MAX_AVAILABLE_RESERVE_BYTES)
    detail = (
        f"{where} {format_bytes(available)}, less {format_bytes(reserve)} for other programs, "
        f"and {format_bytes(own)} that a worker has from its start"
    )
    return Bound("available memory", available - reserve + own, detail)
