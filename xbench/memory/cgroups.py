"""Find the control groups that limit this process's memory and CPU time, and read their files.

`/proc/self/cgroup` names a process's group in each hierarchy. `/proc/self/mountinfo` says where each
hierarchy is mounted, and which of its groups is the root of the mount (cgroups(7), proc_pid_mountinfo(5)).
Version 1 has one hierarchy per controller, and version 2 one for all controllers. A hybrid system has both,
with the files of a controller in one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# Version 1 writes "no limit" as the largest multiple of a page that a signed 64-bit number holds.
_NO_LIMIT_BYTES = 1 << 62


@dataclass(frozen=True)
class MemoryGroup:
    """A control group whose limit applies to its processes and those of all groups below it.

    Attributes:
        version: version of the cgroup interface, 1 or 2.
        folder: folder of the group's files.
    """

    version: int
    folder: Path

    @property
    def limit_file(self) -> Path:
        return self.folder / ("memory.max" if self.version == 2 else "memory.limit_in_bytes")

    @property
    def kills_file(self) -> Path:
        return self.folder / ("memory.events" if self.version == 2 else "memory.oom_control")

    def limit_bytes(self) -> int | None:
        """Return the hard limit; None if there is none."""
        limit = _read_number(self.limit_file)
        return limit if limit is not None and limit < _NO_LIMIT_BYTES else None

    def held_bytes(self) -> int:
        """Return what counts against the limit and cannot be reclaimed: all but file pages, dirty or not."""
        usage = _read_number(
            self.folder / ("memory.current" if self.version == 2 else "memory.usage_in_bytes")
        )
        counts, prefix = _read_counts(self.folder / "memory.stat"), "" if self.version == 2 else "total_"
        file_pages = sum(counts.get(f"{prefix}{kind}_file", 0) for kind in ("inactive", "active"))
        return max(0, (usage or 0) - file_pages)

    def oom_kills(self) -> int | None:
        """Return how many of the group's processes were killed for lack of memory; None if not reported."""
        return _read_counts(self.kills_file).get("oom_kill")


@dataclass(frozen=True)
class CpuGroup:
    """A control group whose quota is shared by its processes and those of all groups below it.

    Attributes:
        version: version of the cgroup interface, 1 or 2.
        folder: folder of the group's files.
    """

    version: int
    folder: Path

    def cpus(self) -> float | None:
        """Return the quota in CPUs; None if there is none."""
        if self.version == 2:
            quota, _, period = _read_text(self.folder / "cpu.max").strip().partition(" ")
        else:
            quota = _read_text(self.folder / "cpu.cfs_quota_us").strip()
            period = _read_text(self.folder / "cpu.cfs_period_us").strip()
        # "max" (version 2) and -1 (version 1) mean that there is no quota.
        return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else None

    def throttled_periods(self) -> int:
        """Return in how many periods the group's processes were throttled because the quota was used up."""
        return _read_counts(self.folder / "cpu.stat").get("nr_throttled", 0)


def memory_groups(root: Path = Path("/")) -> list[MemoryGroup]:
    """Return this process's memory group and all of its visible ancestors, innermost first.

    If the group itself is not visible (a container may show it under another name, as the root of the mount),
    the list begins with the nearest visible ancestor.

    Args:
        root: folder that contains `proc` and `sys`.
    """
    return [MemoryGroup(version, folder) for version, folder in _find_groups("memory", root)]


def cpu_groups(root: Path = Path("/")) -> list[CpuGroup]:
    """Return this process's CPU group and its visible ancestors; see `memory_groups`."""
    return [CpuGroup(version, folder) for version, folder in _find_groups("cpu", root)]


def _find_groups(controller: str, root: Path) -> Iterator[tuple[int, Path]]:
    mounts = list(_read_mounts(controller, root))
    for version, own in _read_own_paths(controller, root):
        for folder in _walk_up(own, [mount for mount in mounts if mount.version == version]):
            yield version, folder


def oom_kill_group(root: Path = Path("/")) -> MemoryGroup | None:
    """Return the group that counts OOM kills of this process and its children; None if there is none."""
    return next((group for group in memory_groups(root) if group.oom_kills() is not None), None)


def oom_kill_count(root: Path = Path("/")) -> int:
    """Return how many processes of this process's group were killed for lack of memory; 0 if not reported."""
    group = oom_kill_group(root)
    return (group.oom_kills() or 0) if group else 0


@dataclass(frozen=True)
class _Mount:
    """The mount of a hierarchy, or of the part of it below the group `top`."""

    version: int
    top: PurePosixPath
    folder: Path


def _read_own_paths(controller: str, root: Path) -> Iterator[tuple[int, PurePosixPath]]:
    """Yield the version and path of this process's group in each hierarchy that may have a controller."""
    for line in _read_text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            yield 1, PurePosixPath(path)
        elif (number, controllers) == ("0", ""):
            yield 2, PurePosixPath(path)


def _read_mounts(controller: str, root: Path) -> Iterator[_Mount]:
    for line in _read_text(root / "proc/self/mountinfo").splitlines():
        mounted, _, source = line.partition(" - ")
        top, point = (_unescape(field) for field in mounted.split()[3:5])
        kind, *_, options = source.split()
        if kind == "cgroup2" or (kind == "cgroup" and controller in options.split(",")):
            yield _Mount(2 if kind == "cgroup2" else 1, PurePosixPath(top), root / point.lstrip("/"))


def _walk_up(own: PurePosixPath, mounts: list[_Mount]) -> Iterator[Path]:
    """Yield the visible folders from a group's own up to the root of its mount."""
    if not mounts:
        return
    # A hierarchy may be mounted more than once; the mount with the highest top shows the most ancestors.
    mount = min(mounts, key=lambda mount: (not own.is_relative_to(mount.top), len(mount.top.parts)))
    below = own.relative_to(mount.top if own.is_relative_to(mount.top) else "/")
    if ".." in below.parts:  # outside this process's namespace, so without a name here
        below = PurePosixPath()
    for path in (below, *below.parents):
        if (mount.folder / path).is_dir():
            yield mount.folder / path


def _unescape(field: str) -> str:
    """Decode a field of mountinfo, where a space is written as `\\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _read_number(file: Path) -> int | None:
    text = _read_text(file).strip()
    return int(text) if text.isdecimal() else None


def _read_counts(file: Path) -> dict[str, int]:
    """Read a file of lines like `oom_kill 3`."""
    lines = (line.split() for line in _read_text(file).splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdecimal()}
