"""Find the control groups that limit this process's memory and CPU time, and read their files.

`/proc/self/cgroup` names a process's group in each hierarchy, `/proc/self/mountinfo` where a hierarchy is
mounted and which of its groups is the mount's root (cgroups(7), proc_pid_mountinfo(5)). Version 1 has a
hierarchy for each controller, version 2 one for all; a hybrid system has both, and a controller's files in
one of them.
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
    """One group; its limit holds for the processes in it and in all groups below it.

    Attributes:
        version: 1 or 2, of the cgroup interface.
        folder: where its files are.
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
        """The hard limit, None for none."""
        limit = _number(self.limit_file)
        return limit if limit is not None and limit < _NO_LIMIT_BYTES else None

    def held_bytes(self) -> int:
        """What counts against the limit and cannot be reclaimed: all but file pages, dirty ones aside."""
        usage = _number(self.folder / ("memory.current" if self.version == 2 else "memory.usage_in_bytes"))
        counts, prefix = _counts(self.folder / "memory.stat"), "" if self.version == 2 else "total_"
        file_pages = sum(counts.get(f"{prefix}{kind}_file", 0) for kind in ("inactive", "active"))
        return max(0, (usage or 0) - file_pages)

    def oom_kills(self) -> int | None:
        """How many of its processes the system has killed for memory; None where that is not told."""
        return _counts(self.kills_file).get("oom_kill")


@dataclass(frozen=True)
class CpuGroup:
    """One group; its quota holds for the processes in it and in all groups below it together.

    Attributes:
        version: 1 or 2, of the cgroup interface.
        folder: where its files are.
    """

    version: int
    folder: Path

    def cpus(self) -> float | None:
        """Return how many CPUs' time the group gets, None for no quota."""
        if self.version == 2:
            quota, _, period = _text(self.folder / "cpu.max").strip().partition(" ")
        else:
            quota = _text(self.folder / "cpu.cfs_quota_us").strip()
            period = _text(self.folder / "cpu.cfs_period_us").strip()
        # "max" (version 2) and -1 (version 1) are no quota.
        return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else None

    def throttled_periods(self) -> int:
        """Return how often its processes were held up because the quota was used up."""
        return _counts(self.folder / "cpu.stat").get("nr_throttled", 0)


def memory_groups(root: Path = Path("/")) -> list[MemoryGroup]:
    """This process's group and all of its ancestors that can be seen, the innermost first.

    Where the group itself cannot be seen (a container may show it as the mount's root, under another name),
    the list begins with the nearest ancestor that can.

    Args:
        root: folder that `proc` and `sys` are read below.
    """
    return [MemoryGroup(version, folder) for version, folder in _groups("memory", root)]


def cpu_groups(root: Path = Path("/")) -> list[CpuGroup]:
    """The same for the groups that limit CPU time."""
    return [CpuGroup(version, folder) for version, folder in _groups("cpu", root)]


def _groups(controller: str, root: Path) -> Iterator[tuple[int, Path]]:
    mounts = list(_mounts(controller, root))
    for version, own in _own_paths(controller, root):
        for folder in _folders(own, [mount for mount in mounts if mount.version == version]):
            yield version, folder


def oom_kill_group(root: Path = Path("/")) -> MemoryGroup | None:
    """The group whose count of OOM kills tells of this process and its children; None where none does."""
    return next((group for group in memory_groups(root) if group.oom_kills() is not None), None)


def oom_kill_count(root: Path = Path("/")) -> int:
    """How many processes of this group the system has killed for memory; 0 where it does not tell."""
    group = oom_kill_group(root)
    return (group.oom_kills() or 0) if group else 0


@dataclass(frozen=True)
class _Mount:
    """Where a hierarchy, or the part of it below the group `top`, can be seen."""

    version: int
    top: PurePosixPath
    folder: Path


def _own_paths(controller: str, root: Path) -> Iterator[tuple[int, PurePosixPath]]:
    """The version and the path of this process's group in each hierarchy that may have a controller."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            yield 1, PurePosixPath(path)
        elif (number, controllers) == ("0", ""):
            yield 2, PurePosixPath(path)


def _mounts(controller: str, root: Path) -> Iterator[_Mount]:
    for line in _text(root / "proc/self/mountinfo").splitlines():
        mounted, _, source = line.partition(" - ")
        top, point = (_unescape(field) for field in mounted.split()[3:5])
        kind, *_, options = source.split()
        if kind == "cgroup2" or (kind == "cgroup" and controller in options.split(",")):
            yield _Mount(2 if kind == "cgroup2" else 1, PurePosixPath(top), root / point.lstrip("/"))


def _folders(own: PurePosixPath, mounts: list[_Mount]) -> Iterator[Path]:
    """From a group's own folder up to the mount's."""
    if not mounts:
        return
    # The same hierarchy may be mounted more than once; the mount with the highest top shows most ancestors.
    mount = min(mounts, key=lambda mount: (not own.is_relative_to(mount.top), len(mount.top.parts)))
    below = own.relative_to(mount.top if own.is_relative_to(mount.top) else "/")
    if ".." in below.parts:  # outside of this process's namespace: it has no name here
        below = PurePosixPath()
    for path in (below, *below.parents):
        if (mount.folder / path).is_dir():
            yield mount.folder / path


def _unescape(field: str) -> str:
    """A field of mountinfo, where a space is written `\\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isdecimal() else None


def _counts(file: Path) -> dict[str, int]:
    """A file of lines like `oom_kill 3`."""
    lines = (line.split() for line in _text(file).splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdecimal()}
