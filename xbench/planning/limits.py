"""Check that memory limits leave room for a worker process, and warn of those above the machine's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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


def collect_limit_warnings(cells: Iterable[Cell], machine: Machine) -> Iterator[str]:
    """Yield a warning for each limit that is above what the machine can give a worker process."""
    bound = binding(machine.memory_bounds)
    for asked in dict.fromkeys(limit for cell in cells for limit in cell.memory_limits):
        if asked.bytes_of(bound.limit_bytes) > bound.limit_bytes:
            yield (
                f"memory_limit {asked.written} is more than this machine allows: cells are limited to "
                f"{format_bytes(bound.limit_bytes)} ({bound.source}; {bound.detail})"
            )
