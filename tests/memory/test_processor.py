"""The name of the processor, and the number of CPUs that this process may use."""

from __future__ import annotations

import builtins
import io
import os
import platform

import pytest

from xbench.memory.processor import processor_name, usable_cpus

CPUINFO = (
    "processor\t: 0\nmodel name\t: Some: CPU @ 2.00GHz\n\nprocessor\t: 1\nmodel name\t: Some: CPU @ 2.00GHz\n"
)


@pytest.fixture
def cpuinfo(monkeypatch):
    """What the system tells, in place of what it does."""
    told = {}
    monkeypatch.setattr(builtins, "open", lambda path: io.StringIO(told[path]))
    return told


def test_the_model(cpuinfo):
    cpuinfo["/proc/cpuinfo"] = CPUINFO
    assert processor_name() == "Some: CPU @ 2.00GHz"


@pytest.mark.parametrize(("processor", "name"), [("arm", "arm"), ("", "aarch64")])
def test_where_no_model_is_told(cpuinfo, monkeypatch, processor, name):
    cpuinfo["/proc/cpuinfo"] = "processor\t: 0\nBogoMIPS\t: 50.00\n"
    monkeypatch.setattr(platform, "processor", lambda: processor)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert processor_name() == name


V1_CPU_MOUNT = "32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


class TestUsableCpus:
    """Of eight that the affinity mask allows, where a test says nothing else."""

    @pytest.fixture(autouse=True)
    def affinity(self, monkeypatch):
        def allow(count: int) -> None:
            monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(count)), raising=False)

        allow(8)
        return allow

    @pytest.fixture
    def write(self, tmp_path):
        def write_file(path: str, content: object) -> None:
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{str(content).strip()}\n")

        return write_file

    @pytest.fixture
    def v1(self, write):
        """A process in /box/mine of version 1, and the quotas of groups there."""
        write("proc/self/cgroup", "5:cpu,cpuacct:/box/mine\n4:memory:/other\n")
        write("proc/self/mountinfo", V1_CPU_MOUNT.format(top="/"))

        def group(path: str, quota_us: int, period_us: int = 100_000) -> None:
            write(f"sys/fs/cgroup/cpu,cpuacct{path}/cpu.cfs_quota_us", quota_us)
            write(f"sys/fs/cgroup/cpu,cpuacct{path}/cpu.cfs_period_us", period_us)

        return group

    @pytest.fixture
    def v2(self, write):
        """The same of version 2."""
        write("proc/self/cgroup", "0::/box/mine")
        write("proc/self/mountinfo", V2_MOUNT)
        return lambda path, text: write(f"sys/fs/cgroup{path}/cpu.max", text)

    def test_those_of_the_affinity_mask(self, tmp_path, affinity):
        assert usable_cpus(tmp_path) == 8
        affinity(3)
        assert usable_cpus(tmp_path) == 3

    @pytest.mark.parametrize(("quota_us", "cpus"), [(-1, 8), (200_000, 2), (150_000, 2), (10_000, 1)])
    def test_a_quota_of_version_1(self, v1, tmp_path, quota_us, cpus):
        v1("/box/mine", quota_us)
        assert usable_cpus(tmp_path) == cpus

    @pytest.mark.parametrize(
        ("text", "cpus"), [("max 100000", 8), ("150000 50000", 3), ("50000 100000", 1), ("nonsense", 8)]
    )
    def test_a_quota_of_version_2(self, v2, tmp_path, text, cpus):
        v2("/box/mine", text)
        assert usable_cpus(tmp_path) == cpus

    def test_the_least_of_all_ancestors(self, v1, v2, tmp_path):
        v2("/box/mine", "600000 100000")
        v2("/box", "400000 100000")
        v2("", "500000 100000")
        assert usable_cpus(tmp_path) == 4

    def test_the_mask_may_be_less_than_the_quota(self, v1, tmp_path, affinity):
        v1("/box", 400_000)
        affinity(2)
        assert usable_cpus(tmp_path) == 2

    def test_a_period_of_zero_is_no_quota(self, v1, tmp_path):
        v1("/box", 400_000, 0)
        assert usable_cpus(tmp_path) == 8
