"""The fork server gives its children torch, and nothing that would harm or distort them."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path

import psutil
import pytest

from tests.isolation import isolation_jobs as jobs
from tests.isolation.process_watch import wait_until_gone
from xbench.components.registry import KINDS
from xbench.isolation.run import run_in_child

# Counted after a fork, as in a server that has served a child: OpenBLAS ends its idle threads before one.
COUNT_THREADS = """
import os
if os.fork() == 0:
    os._exit(0)
os.wait()
print(len(os.listdir("/proc/self/task")))
"""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def threads_after(code: str) -> int:
    """The number of threads of a fresh process that has run some code, and may compute with two."""
    command = [sys.executable, "-c", f"{code}\n{COUNT_THREADS}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment)
    return int(done.stdout)


@pytest.fixture(scope="module")
def child():
    return run_in_child(jobs.inheritance).get()


@pytest.fixture(scope="module")
def threads_of_import() -> int:
    return threads_after("import torch, torchvision")


@linux_only
class TestServer:
    def test_is_a_process_of_its_own(self, child):
        assert child["server"] != os.getpid()
        assert psutil.Process(child["server"]).ppid() == os.getpid()

    def test_serves_every_child(self, child):
        assert run_in_child(jobs.inheritance).get()["server"] == child["server"]

    def test_has_started_no_threads(self, child, threads_of_import):
        assert child["server_threads"] == threads_of_import

    @pytest.mark.slow
    def test_and_a_parallel_operation_would_show(self, threads_of_import):
        operation = "import torch, torchvision\ntorch.ones(1 << 20).add_(1.0)"
        assert threads_after(operation) > threads_of_import


class TestInheritance:
    def test_torch_is_there(self, child):
        assert {"torch", "torchvision"} <= set(child["modules"])

    def test_no_cuda_context(self, child):
        assert not child["cuda"]

    def test_nothing_that_counts_as_memory(self, child):
        loaded = {name.partition(".")[0] for name in child["modules"]}
        assert not loaded & {"sklearn", "scipy", "pandas", "pyarrow", "typer"}

    def test_the_code_that_trains(self, child):
        assert {"xbench.training.cell", "xbench.training.memory_pass"} <= set(child["modules"])

    def test_no_component_and_no_part_of_another_job(self, child):
        components = {entry.module for kind in KINDS for entry in entry_points(group=f"xbench.{kind}s")}
        assert len(components) > 5
        assert not components & set(child["modules"])
        assert not any(name.startswith("xbench.execution") for name in child["modules"])


PARENT = """
import os, sys
from tests.isolation import isolation_jobs as jobs
from xbench.isolation.run import run_in_child

if __name__ == "__main__":
    print("the parent's own line", flush=True)
    run_in_child(jobs.write_much, 10)
    run_in_child(jobs.sleep_forever, on_message=lambda pid: print(pid, flush=True))
"""


class TestParent:
    @pytest.fixture
    def parent(self):
        """A process that runs a noisy job, then one that never ends."""
        environment = {**os.environ, "PYTHONPATH": str(Path(jobs.__file__).parents[2])}
        with subprocess.Popen(
            [sys.executable, "-c", PARENT],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        ) as process:
            yield process
            process.kill()

    def test_hears_nothing_on_its_stdout_and_takes_its_children_along(self, parent):
        assert parent.stdout.readline() == "the parent's own line\n"
        child = psutil.Process(int(parent.stdout.readline()))  # the noisy job before has left no line
        server = child.parent()
        try:
            parent.kill()
            wait_until_gone(child.pid, seconds=10)
            wait_until_gone(server.pid, seconds=10)
        finally:
            for process in (child, server):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
