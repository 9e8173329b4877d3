"""What is found out about the machine before a run."""

from __future__ import annotations

import pytest

from xbench.memory.limits import can_limit_host_memory
from xbench.memory.machine import host_bounds
from xbench.planning.machine import describe_machine, examine_machine
from xbench.units import DeviceChoice


@pytest.mark.skipif(not can_limit_host_memory(), reason="no process of this system has a limit")
def test_no_limit_of_xbench_is_among_the_bounds_of_the_machine():
    machine = examine_machine(describe_machine, DeviceChoice("cpu"))
    assert {bound.source for bound in machine.memory_bounds} == {bound.source for bound in host_bounds()}
