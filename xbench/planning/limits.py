"""Check that the memory limits of a suite leave room for a worker process."""

from __future__ import annotations

from collections.abc import Iterable

from xbench.memory.machine import binding
from xbench.planning.machine import Machine
from xbench.suite.cells import Cell
from xbench.suite.reader import Suite
from xbench.units import format_bytes

_GRAIN_BYTES = 10**7


def check_limits(suite: Suite, cells: Iterable[Cell], machine: Machine) -> None:
    """Add a mistake for each limit that a worker process exceeds before it trains anything.

    Cells that are meant to run out of memory may have any limit.
    """
    if not machine.idle_bytes:
        return
    whole_bytes = binding(machine.memory_bounds).limit_bytes
    smallest_bytes = (machine.idle_bytes // _GRAIN_BYTES + 1) * _GRAIN_BYTES
    for cell in cells:
        for limit in cell.memory_limits:
            if cell.expect == "oom" or limit.bytes_of(whole_bytes) >= machine.idle_bytes:
                continue
            is_suites = limit == suite.header.memory_limit
            table = ("suite",) if is_suites else cell.path[:2]
            size = "" if limit.percent is None else f" ({format_bytes(limit.bytes_of(whole_bytes))})"
            suite.problems.add(
                (*table, "memory_limit"),
                f"memory_limit {limit.written}{size} is too low: a process needs "
                f"{format_bytes(machine.idle_bytes)} before it trains anything",
                f"set memory_limit to at least {format_bytes(smallest_bytes)}, and more for the model, its "
                "data and the optimizer's state",
            )
