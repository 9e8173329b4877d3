"""Describe the machine and its limits, in a child process like those that train."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, TypeVar

from xbench.errors import UnusableDevice
from xbench.isolation.run import run_in_child
from xbench.memory.cgroups import oom_kill_group
from xbench.memory.devices import slice_name
from xbench.memory.host import PeakMethod, host_peak_meter, resident_bytes
from xbench.memory.limits import can_limit_host_memory, host_reserve_bytes
from xbench.memory.machine import Bound, device_bounds, host_bounds
from xbench.memory.malloc import FAST_SETTINGS, allocator_settings
from xbench.memory.processor import processor_name, usable_cpus
from xbench.units import DeviceChoice

MachineT = TypeVar("MachineT")


@dataclass(frozen=True)
class Machine:
    """The machine on which a run takes place.

    Attributes:
        device: torch's name of the device: `"cpu"`, `"cuda:0"`.
        device_facts: type, name and size of the device, for the records.
        threads: number of threads in torch's CPU pool, unless a suite sets another one.
        versions: versions of Python, packages and libraries, by name.
        hardware: facts about the hardware, for the records.
        memory_bounds: what limits the memory of one worker: device memory on CUDA, otherwise host memory.
        allocator: environment variables that configure how a worker allocates memory.
        idle_bytes: resident size of a worker before it does anything, with the reserve of a limit: the least
            limit under which a worker starts. 0 if the device is not the CPU, or the system has no limits.
    """

    device: str
    device_facts: dict[str, Any]
    threads: int
    versions: dict[str, str]
    hardware: dict[str, Any]
    memory_bounds: tuple[Bound, ...]
    allocator: dict[str, str] = field(default_factory=dict)
    idle_bytes: int = 0


def examine_machine(job: Callable[..., MachineT], wanted: DeviceChoice) -> MachineT:
    """Call `describe_machine` or `check_up` in a child process.

    The child has no memory limit, which would be taken for one of the machine's bounds.

    Raises:
        XbenchError: the machine does not have this device, or the child failed.
    """
    return run_in_child(job, wanted).get()


def describe_machine(send: Callable[[Any], None], wanted: DeviceChoice) -> Machine:
    """Find the device that a suite asks for, and describe the machine. Runs in a child process.

    Raises:
        UnusableDevice: the machine does not have this device, or CUDA cannot use it.
    """
    # Measured first, because what follows loads libraries that a worker may not need.
    idle_bytes = resident_bytes() + host_reserve_bytes() if can_limit_host_memory() else 0

    import psutil
    import torch

    facts: dict[str, Any]
    has_cuda = torch.cuda.is_available()
    if wanted.kind == "cpu" or (wanted.kind == "auto" and not has_cuda):
        device, facts = "cpu", {"type": "cpu", "name": processor_name(), "cores": usable_cpus()}
    else:
        index = wanted.index
        if not has_cuda or index >= torch.cuda.device_count():
            raise UnusableDevice(
                f"device '{wanted}' not found: torch sees {torch.cuda.device_count()} CUDA devices",
                hint="use --device cpu",
            )
        properties = torch.cuda.get_device_properties(index)
        device = f"cuda:{index}"
        facts = {"type": "cuda", "name": properties.name, "total_bytes": properties.total_memory}
    packages = ("xbench", "torch", "torchvision", "numpy")
    return Machine(
        device=device,
        device_facts=facts,
        threads=torch.get_num_threads(),
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
            "cuda": (torch.version.cuda or "") if device != "cpu" else "",
            "cudnn": str(torch.backends.cudnn.version()) if device != "cpu" else "",
        },
        hardware={
            "device": facts["name"],
            "system": platform.platform(),
            "cpu": processor_name(),
            "cores": usable_cpus(),
            "memory_bytes": psutil.virtual_memory().total,
        },
        memory_bounds=_find_memory_bounds(device),
        allocator=allocator_settings(facts["type"]),
        idle_bytes=idle_bytes if device == "cpu" else 0,
    )


def _find_memory_bounds(device: str) -> tuple[Bound, ...]:
    import torch

    if device != "cpu":
        try:
            return tuple(device_bounds(device))
        except RuntimeError as error:  # such as a device that another process has reserved
            reason = str(error).partition("\n")[0]
            raise UnusableDevice(
                f"device '{device}' cannot be used: {reason}", hint="use --device cpu"
            ) from error
    # Start torch's threads, as a worker does before it sets its limit: their stacks take address space.
    torch.ones(1 << 18).add_(1.0)
    return tuple(host_bounds())


@dataclass(frozen=True)
class Checkup:
    """A machine, and what can be limited and measured on it.

    Attributes:
        devices: for each CUDA device, torch's name of it, its own name, `total_bytes` and `mig` (the name of
            the MIG slice).
        peak_method: how peaks of host memory are read.
        oom_kills_file: the file in which the system counts how many workers its OOM killer has killed. If it
            is None, a worker killed for lack of memory cannot be distinguished from one killed by anyone
            else.
        has_hard_limit: whether the resident size of workers can be limited.
        reserve_bytes: the part of such a limit that is reserved for memory that the system does not count;
            None if there is no such limit.
        malloc: settings of malloc in a worker's environment.
    """

    machine: Machine
    devices: list[dict[str, Any]]
    peak_method: PeakMethod
    oom_kills_file: str | None
    has_hard_limit: bool
    reserve_bytes: int | None
    malloc: dict[str, str]


def check_up(send: Callable[[Any], None], wanted: DeviceChoice) -> Checkup:
    """Examine this machine. Runs in a child process.

    Raises:
        UnusableDevice: the machine does not have this device, or CUDA cannot use it.
    """
    machine = describe_machine(send, wanted)
    group = oom_kill_group()
    return Checkup(
        machine=machine,
        devices=_describe_cuda_devices(),
        peak_method=host_peak_meter().method,
        oom_kills_file=str(group.kills_file) if group else None,
        has_hard_limit=can_limit_host_memory(),
        reserve_bytes=host_reserve_bytes() if can_limit_host_memory() else None,
        malloc={name: os.environ.get(name, "") for name in FAST_SETTINGS},
    )


def _describe_cuda_devices() -> list[dict[str, Any]]:
    import torch

    devices = []
    for index in range(torch.cuda.device_count()):
        # This creates no context, which would take memory on devices that others use.
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
