"""What limits a worker here, read from trees of files as systems of many kinds show them."""

from __future__ import annotations

import os
from collections.abc import Callable

import psutil
import pytest

from tests.memory import memory_jobs as jobs
from xbench.isolation.run import run_in_child
from xbench.memory.cgroups import memory_groups, oom_kill_count, oom_kill_group
from xbench.memory.machine import (
    GROUP_RESERVE_BYTES,
    Bound,
    binding,
    device_bounds,
    host_bounds,
    with_memory_limits,
)
from xbench.units import parse_limit

MB = 1_000_000
GIB = 1 << 30

V1_NO_LIMIT = 9223372036854771712
V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = "35 31 0:32 {top} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
V1_CPU_MOUNT = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
HYBRID_MOUNT = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"

MEMINFO = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    {} kB\n"
LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max data size             {data:<20} unlimited            bytes
Max address space         {space:<20} unlimited            bytes
"""
STATUS = "VmSize:\t 5000000 kB\nVmRSS:\t  400000 kB\nVmData:\t  900000 kB\n"


@pytest.fixture
def write(tmp_path) -> Callable[[str, object], None]:
    """Writes a file below the root."""

    def write_file(path: str, content: object) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{str(content).strip()}\n")

    write_file("proc/meminfo", MEMINFO.format(8_000_000))
    return write_file


@pytest.fixture
def v2_group(write):
    def group(path: str, limit: object, current: int = 0, inactive: int = 0, active: int = 0) -> None:
        folder = f"sys/fs/cgroup{path}"
        write(f"{folder}/memory.max", limit)
        write(f"{folder}/memory.current", current)
        write(f"{folder}/memory.stat", f"anon 5\ninactive_file {inactive}\nactive_file {active}")

    return group


@pytest.fixture
def v1_group(write):
    def group(path: str, limit: int, usage: int = 0, inactive: int = 0, active: int = 0) -> None:
        folder = f"sys/fs/cgroup/memory{path}"
        write(f"{folder}/memory.limit_in_bytes", limit)
        write(f"{folder}/memory.usage_in_bytes", usage)
        totals = f"total_inactive_file {inactive}\ntotal_active_file {active}"
        write(f"{folder}/memory.stat", f"inactive_file 1\nactive_file 1\n{totals}")

    return group


def of_groups(bounds: list[Bound]) -> list[tuple[str, int]]:
    """The bounds of groups, as they are without the reserve."""
    return [
        (bound.source, bound.limit_bytes + GROUP_RESERVE_BYTES)
        for bound in bounds
        if bound.source.startswith("cgroup")
    ]


class TestVersion2:
    @pytest.fixture(autouse=True)
    def system(self, write):
        write("proc/self/cgroup", "0::/jobs/mine")
        write("proc/self/mountinfo", V2_MOUNT)

    def test_all_ancestors_count_and_the_smallest_binds(self, v2_group, tmp_path):
        v2_group("/jobs/mine", 6 * GIB)
        v2_group("/jobs", 2 * GIB, current=600 * MB, inactive=200 * MB, active=100 * MB)
        bounds = host_bounds(tmp_path)
        assert of_groups(bounds) == [("cgroup v2", 6 * GIB), ("cgroup v2", 2 * GIB - 300 * MB)]
        bound = binding(bounds)
        assert bound.limit_bytes == 2 * GIB - 300 * MB - GROUP_RESERVE_BYTES
        for part in (str(tmp_path / "sys/fs/cgroup/jobs/memory.max"), "2.15 GB", "less 300 MB"):
            assert part in bound.detail

    def test_max_is_no_limit(self, v2_group, tmp_path):
        v2_group("/jobs/mine", "max", current=GIB)
        v2_group("/jobs", "max", current=GIB)
        assert [bound.source for bound in host_bounds(tmp_path)] == ["available memory"]

    def test_a_group_without_the_controller(self, v2_group, write, tmp_path):
        write("sys/fs/cgroup/jobs/mine/cgroup.procs", 1)
        v2_group("/jobs", 3 * GIB)
        assert of_groups(host_bounds(tmp_path)) == [("cgroup v2", 3 * GIB)]

    def test_a_group_that_is_over_its_limit(self, v2_group, tmp_path):
        v2_group("/jobs/mine", MB, current=3 * MB)
        assert binding(host_bounds(tmp_path)).limit_bytes == 0

    def test_usage_that_is_not_told(self, write, tmp_path):
        write("sys/fs/cgroup/jobs/mine/memory.max", GIB)
        assert of_groups(host_bounds(tmp_path)) == [("cgroup v2", GIB)]

    def test_kills(self, v2_group, write, tmp_path):
        v2_group("/jobs/mine", GIB)
        assert oom_kill_count(tmp_path) == 0
        assert oom_kill_group(tmp_path) is None
        write("sys/fs/cgroup/jobs/memory.events", "low 0\noom 8\noom_kill 9\noom_group_kill 1")
        assert oom_kill_count(tmp_path) == 9  # of an ancestor: its count has those below it
        write("sys/fs/cgroup/jobs/mine/memory.events", "low 0\noom 8\noom_kill 7\noom_group_kill 1")
        assert oom_kill_count(tmp_path) == 7


class TestVersion1:
    @pytest.fixture(autouse=True)
    def system(self, write):
        write("proc/self/cgroup", "5:cpuacct,cpu:/other\n4:hugetlb,memory:/box/a b\n1:name=systemd:/")
        write("proc/self/mountinfo", V1_CPU_MOUNT + V1_MOUNT.format(top="/"))

    def test_all_ancestors_count(self, v1_group, tmp_path):
        v1_group("/box/a b", 3 * GIB, usage=900 * MB, inactive=60 * MB, active=40 * MB)
        v1_group("/box", V1_NO_LIMIT, usage=GIB)
        v1_group("", 5 * GIB, usage=2 * GIB)
        expected = [("cgroup v1", 3 * GIB - 800 * MB), ("cgroup v1", 3 * GIB)]
        assert of_groups(host_bounds(tmp_path)) == expected

    def test_kills(self, v1_group, write, tmp_path):
        v1_group("/box/a b", V1_NO_LIMIT)
        write(
            "sys/fs/cgroup/memory/box/a b/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4"
        )
        assert oom_kill_count(tmp_path) == 4
        assert oom_kill_group(tmp_path).kills_file.name == "memory.oom_control"


class TestHybrid:
    """Memory is counted by version 1; the hierarchy of version 2 is there, and has no memory files."""

    @pytest.fixture(autouse=True)
    def system(self, write):
        write("proc/self/cgroup", "4:memory:/box/mine\n1:cpu:/\n0::/")
        write("proc/self/mountinfo", V1_CPU_MOUNT + V1_MOUNT.format(top="/") + HYBRID_MOUNT)
        write("sys/fs/cgroup/unified/memory.pressure", "some avg10=0.00")

    def test_is_read_from_version_1(self, v1_group, write, tmp_path):
        v1_group("/box/mine", GIB)
        v1_group("", V1_NO_LIMIT)
        write("sys/fs/cgroup/memory/box/mine/memory.oom_control", "oom_kill 2")
        assert of_groups(host_bounds(tmp_path)) == [("cgroup v1", GIB)]
        assert oom_kill_count(tmp_path) == 2


class TestContainers:
    """A group may be the mount's root, under a name that means nothing inside."""

    def test_the_mount_shows_a_part_of_the_hierarchy(self, v1_group, write, tmp_path):
        write("proc/self/cgroup", "4:memory:/docker/abc/inner")
        write("proc/self/mountinfo", V1_MOUNT.format(top="/docker/abc"))
        v1_group("/inner", 2 * GIB)
        v1_group("", GIB)
        assert of_groups(host_bounds(tmp_path)) == [("cgroup v1", 2 * GIB), ("cgroup v1", GIB)]

    @pytest.mark.parametrize(
        ("own", "top"),
        [
            ("/docker/abc", "/"),  # the path is the host's
            ("/kubepods/pod1/abc", "/docker/abc"),
            ("/docker/abc/gone", "/docker/abc"),
            ("/../sibling", "/"),  # moved out of its namespace
            ("/", "/../.."),  # the mount was made outside of the namespace
        ],
    )
    def test_the_nearest_ancestor_that_can_be_seen(self, own, top, v1_group, write, tmp_path):
        write("proc/self/cgroup", f"4:memory:{own}")
        write("proc/self/mountinfo", V1_MOUNT.format(top=top))
        v1_group("", GIB)
        assert of_groups(host_bounds(tmp_path)) == [("cgroup v1", GIB)]

    def test_an_ancestor_below_the_mount(self, v2_group, write, tmp_path):
        write("proc/self/cgroup", "0::/jobs/mine/gone (deleted)")
        write("proc/self/mountinfo", V2_MOUNT)
        v2_group("/jobs", GIB)
        assert of_groups(host_bounds(tmp_path)) == [("cgroup v2", GIB)]

    def test_of_two_mounts_the_one_that_shows_more(self, v2_group, write, tmp_path):
        write("proc/self/cgroup", "0::/jobs/mine")
        inner = V2_MOUNT.replace(" / /sys/fs/cgroup ", " /jobs/mine /mnt/with\\040space ")
        write("proc/self/mountinfo", inner + V2_MOUNT)
        v2_group("/jobs", GIB)
        write("mnt/with space/memory.max", 2 * GIB)
        assert of_groups(host_bounds(tmp_path)) == [("cgroup v2", GIB)]
        write("proc/self/mountinfo", inner)
        assert of_groups(host_bounds(tmp_path)) == [("cgroup v2", 2 * GIB)]


class TestOwnMemory:
    """Of a process that is like the worker: 300 MB, its own or shared with the fork server, and files."""

    STATUS = f"VmRSS:\t {500 * MB // 1000} kB\nRssAnon:\t {300 * MB // 1024} kB\nRssFile:\t 1 kB\n"
    OWN = 300 * MB // 1024 * 1024

    @pytest.fixture(autouse=True)
    def system(self, write):
        write("proc/self/status", self.STATUS)
        write("proc/self/cgroup", "0::/mine")
        write("proc/self/mountinfo", V2_MOUNT)

    def test_does_not_count_against_its_group_twice(self, v2_group, tmp_path):
        v2_group("/mine", GIB, current=900 * MB, inactive=300 * MB, active=200 * MB)
        # 400 MB cannot be reclaimed, of which others hold 100.
        assert of_groups(host_bounds(tmp_path)) == [("cgroup v2", GIB - 400 * MB + self.OWN)]

    def test_is_not_more_than_what_the_group_holds(self, v2_group, tmp_path):
        """As a process that was moved here after it had grown."""
        v2_group("/mine", GIB, current=10 * MB)
        assert of_groups(host_bounds(tmp_path)) == [("cgroup v2", GIB)]

    def test_is_no_longer_available_and_counts_all_the_same(self, write, tmp_path):
        write("proc/meminfo", MEMINFO.format(1_000_000))
        assert host_bounds(tmp_path)[-1].limit_bytes == 972_800_000 + self.OWN


class TestResourceLimits:
    @pytest.fixture(autouse=True)
    def status(self, write):
        write("proc/self/status", STATUS)

    def test_become_resident_sizes(self, write, tmp_path):
        write("proc/self/limits", LIMITS.format(data=4 * GIB, space=7 * GIB))
        data, space, _ = host_bounds(tmp_path)
        assert (data.source, data.limit_bytes) == ("RLIMIT_DATA", 4 * GIB - 500_000 * 1024)
        assert (space.source, space.limit_bytes) == ("RLIMIT_AS", 7 * GIB - 4_600_000 * 1024)
        assert "VmData less VmRSS" in data.detail

    def test_unlimited(self, write, tmp_path):
        write("proc/self/limits", LIMITS.format(data="unlimited", space="unlimited"))
        assert [bound.source for bound in host_bounds(tmp_path)] == ["available memory"]


class TestAvailableMemory:
    @pytest.mark.parametrize(
        ("kilobytes", "limit"),
        [(1_000_000, 972_800_000), (100_000_000, 102_400_000_000 - (512 << 20))],
    )
    def test_leaves_a_reserve(self, write, tmp_path, kilobytes, limit):
        write("proc/meminfo", MEMINFO.format(kilobytes))
        (bound,) = host_bounds(tmp_path)
        assert (bound.source, bound.limit_bytes) == ("available memory", limit)

    def test_where_nothing_can_be_read(self, tmp_path):
        (bound,) = host_bounds(tmp_path)
        assert bound.source == "available memory"
        assert 0 < bound.limit_bytes < psutil.virtual_memory().total
        assert memory_groups(tmp_path) == []


class TestThisMachine:
    def test_has_a_bound(self):
        assert 0 < binding(host_bounds()).limit_bytes <= psutil.virtual_memory().total

    @pytest.mark.skipif(not os.path.exists("/proc/self/limits"), reason="looks into /proc")
    def test_a_resource_limit_holds_where_its_bound_says(self):
        bound, largest = run_in_child(jobs.fill_under_rlimit, 150 * MB, 2 * MB).get()
        assert bound.source == "RLIMIT_DATA"
        assert largest == pytest.approx(bound.limit_bytes, abs=8 * MB)


class TestMemoryLimit:
    MACHINE = (Bound("cgroup v2", 8 * GIB, "a file"), Bound("available memory", 4 * GIB, "another"))

    @pytest.mark.parametrize(
        ("text", "source", "limit"),
        [
            (None, "available memory", 4 * GIB),
            ("1GiB", "memory_limit", GIB),
            ("4GiB", "memory_limit", 4 * GIB),
            ("50%", "memory_limit", 2 * GIB),
            ("6GiB", "available memory", 4 * GIB),
        ],
    )
    def test_binds_where_it_is_smallest(self, text, source, limit):
        bound = binding(with_memory_limits(self.MACHINE, [parse_limit(text)] if text else []))
        assert (bound.source, bound.limit_bytes) == (source, limit)


class TestDevice:
    """With a CUDA device that is made up."""

    @pytest.fixture(autouse=True)
    def cuda(self, made_up):
        made_up.reserved, made_up.others = 2_000 * MB, {1: 27_500 * MB}

    def test_is_what_is_free_and_what_this_process_has(self):
        (bound,) = device_bounds("cuda:1")
        assert (bound.source, bound.limit_bytes) == ("device memory", 52_500 * MB)
        for part in ("80.00 GB", "50.00 GB are free", "its context takes 500 MB", "processes use 27.50 GB"):
            assert part in bound.detail
        assert "estimated" not in bound.detail

    def test_of_a_slice(self, made_up):
        made_up.slice = "H100 MIG 1g.10gb"
        (bound,) = device_bounds("cuda:1")
        assert "H100 MIG 1g.10gb" in bound.detail

    def test_without_nvml_a_context_is_of_known_size(self, made_up):
        made_up.has_nvml = False
        (bound,) = device_bounds("cuda:1")
        assert bound.limit_bytes == 52_000 * MB + GIB
        assert "estimated" in bound.detail

    def test_a_cpu_is_none(self):
        assert device_bounds("cpu") == []
