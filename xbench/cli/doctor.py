"""`xbench doctor`: show what limits a worker's memory on this machine, and how memory is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from xbench.cli.activity import ActivityDisplay
from xbench.cli.options import FindingsForm
from xbench.cli.output import (
    FindingsFormat,
    print_cache_note,
    print_json,
    stdout_console,
    tolerate_closed_pipe,
)
from xbench.report.layout import make_table, plain
from xbench.storage.paths import cache_dir
from xbench.text import pluralize
from xbench.units import format_bytes, parse_device, parse_limit

if TYPE_CHECKING:
    from xbench.memory.machine import Bound
    from xbench.planning.machine import Checkup

EXAMPLES = """
Examples:

- `xbench doctor`
- `xbench doctor --device cuda:1 --memory-limit 50%`
- `xbench doctor --format json | jq .memory.limit_bytes`
"""


def doctor(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    memory_limit: Annotated[
        str | None, typer.Option(help="another limit to consider, such as 12GB, 12GiB or 50%")
    ] = None,
    form: FindingsForm = FindingsFormat.TABLE,
) -> None:
    """Show what limits the memory of a worker on this machine, and how memory is measured."""
    # Imported here, so that other commands start quickly.
    from xbench.isolation.server import start_server
    from xbench.memory.machine import binding, with_memory_limits
    from xbench.planning.machine import check_up, examine_machine

    requested, limits = parse_device(device), [] if memory_limit is None else [parse_limit(memory_limit)]
    print_cache_note()
    with ActivityDisplay() as display:
        display.begin("examining this machine")
        start_server()
        checkup = examine_machine(check_up, requested)
    bounds = with_memory_limits(checkup.machine.memory_bounds, limits)
    with tolerate_closed_pipe():
        if form is FindingsFormat.JSON:
            print_json(_make_document(checkup, bounds, binding(bounds)))
        else:
            console = stdout_console()
            console.print(_make_bounds_table(checkup, bounds, binding(bounds)))
            console.print(_make_facts_table(checkup))


def _make_document(checkup: Checkup, bounds: list[Bound], binds: Bound) -> dict[str, Any]:
    machine = checkup.machine
    return {
        "device": machine.device,
        "memory": {
            "limit_bytes": binds.limit_bytes,
            "bound": binds.source,
            "hard": _is_hard(checkup),
            "reserve_bytes": _reserve_bytes(checkup),
            "bounds": [
                {
                    "source": bound.source,
                    "limit_bytes": bound.limit_bytes,
                    "detail": bound.detail,
                    "binds": bound is binds,
                }
                for bound in bounds
            ],
        },
        "host_peaks": checkup.peak_method,
        "oom_kills_file": checkup.oom_kills_file,
        "malloc": checkup.malloc,
        "threads": machine.threads,
        "versions": machine.versions,
        "hardware": machine.hardware,
        "devices": checkup.devices,
        "cache": str(cache_dir()),
    }


def _make_bounds_table(checkup: Checkup, bounds: list[Bound], binds: Bound) -> Table:
    title = f"memory of one worker on {checkup.machine.device}: {format_bytes(binds.limit_bytes)}"
    table = make_table(plain(title), ["", "bound", "limit", "where it comes from"])
    for bound in bounds:
        style = "bold" if bound is binds else ""
        cells = (
            "binds" if bound is binds else "",
            bound.source,
            format_bytes(bound.limit_bytes),
            bound.detail,
        )
        table.add_row(*(plain(cell) for cell in cells), style=style)
    return table


def _make_facts_table(checkup: Checkup) -> Table:
    machine = checkup.machine
    table = Table(title="this machine", title_justify="left", show_header=False)
    facts = {
        "limit": _describe_limit(checkup),
        "host peaks": (
            "exact: the kernel's high-water mark, reset through clear_refs"
            if checkup.peak_method == "clear_refs"
            else "sampled by a thread, which can miss peaks of a few milliseconds"
        ),
        "OOM killer": (
            f"its kills are counted in {checkup.oom_kills_file}"
            if checkup.oom_kills_file
            else "its kills are not counted on this system, and are reported as `error` instead of `oom`"
        ),
        "malloc": ", ".join(f"{name}={value}" for name, value in checkup.malloc.items()),
        "versions": ", ".join(f"{name} {value}" for name, value in machine.versions.items() if value),
        "threads": f"{machine.threads} in torch's pool, {pluralize(machine.hardware['cores'], 'core')}",
        "cpu": f"{machine.hardware['cpu']}, {format_bytes(machine.hardware['memory_bytes'])}",
        **{device["device"]: _describe_device(device) for device in checkup.devices},
        "cache": str(cache_dir()),
    }
    for name, fact in facts.items():
        table.add_row(plain(name), plain(fact))
    return table


def _describe_device(device: dict[str, Any]) -> str:
    slice_of = f" (slice {device['mig']})" if device["mig"] else ""
    return f"{device['name']}{slice_of}, {format_bytes(device['total_bytes'])}"


def _describe_limit(checkup: Checkup) -> str:
    if not _is_hard(checkup):
        return "not hard: this system cannot limit the resident memory of a process"
    fact = "hard: an allocation above it fails, in its own cell only"
    reserve_bytes = _reserve_bytes(checkup)
    if reserve_bytes:
        fact += (
            f"; {format_bytes(reserve_bytes)} of it is reserved for memory that the system cannot limit "
            "(library code that is loaded late)"
        )
    return fact


def _reserve_bytes(checkup: Checkup) -> int | None:
    """Return the reserved part of a limit on host memory; None if the limit is on a device."""
    return checkup.reserve_bytes if checkup.machine.device == "cpu" else None


def _is_hard(checkup: Checkup) -> bool:
    return checkup.machine.device != "cpu" or checkup.has_hard_limit
