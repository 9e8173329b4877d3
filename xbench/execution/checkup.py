"""What a machine gives and tells: all that `xbench doctor` shows, found out in a child as a worker would."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xbench.execution.inspection import Machine, describe_machine
from xbench.memory.cgroups import oom_kill_group
from xbench.memory.devices import slice_name
from xbench.memory.host import PeakMethod, host_peak_meter
from xbench.memory.limits import can_limit_host_memory, host_reserve_bytes
from xbench.memory.malloc import FAST_SETTINGS
from xbench.units import DeviceChoice


@dataclass(frozen=True)
class Checkup:
    """A machine, and what can be measured on it.

    Attributes:
        devices: each CUDA device's torch name, its own name, `total_bytes` and `mig` (the slice's name).
        peak_method: how the host's peaks are read.
        oom_kills_file: where the system counts what its OOM killer does to workers; None where it does not,
            and a worker that is killed cannot be told from one that somebody else killed.
        has_hard_limit: whether workers can be held to a resident size.
        reserve_bytes: what is kept of such a limit for what the system cannot hold a worker to; None if
            there is no such limit.
        malloc: settings of malloc that a worker has in its environment.
    """

    machine: Machine
    devices: list[dict[str, Any]]
    peak_method: PeakMethod
    oom_kills_file: str | None
    has_hard_limit: bool
    reserve_bytes: int | None
    malloc: dict[str, str]


def check_up(send: Callable[[Any], None], wanted: DeviceChoice) -> Checkup:
    """A child's job: look at this machine.

    Raises:
        XbenchError: there is no such device here.
    """
    machine = describe_machine(send, wanted)
    group = oom_kill_group()
    return Checkup(
        machine=machine,
        devices=_cuda_devices(),
        peak_method=host_peak_meter().method,
        oom_kills_file=str(group.kills_file) if group else None,
        has_hard_limit=can_limit_host_memory(),
        reserve_bytes=host_reserve_bytes() if can_limit_host_memory() else None,
        malloc={name: os.environ.get(name, "") for name in FAST_SETTINGS},
    )


def _cuda_devices() -> list[dict[str, Any]]:
    import torch

    devices = []
    for index in range(torch.cuda.device_count()):
        # Without a context, which would take memory on devices that others use.
        properties = torch.cuda.get_device_properties(index)
        devices.append(
            {
                "device": f"cuda:{index}",
                "name": properties.name,
                "total_bytes": properties.total_memory,
                "mig": slice_name(f"cuda:{index}"),
            }
        )
    return devices
