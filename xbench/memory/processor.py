"""Name this machine's processor, and count the CPUs that this process may use."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

from xbench.memory.cgroups import cpu_groups


def processor_name() -> str:
    """Return the processor's model, or at least its architecture if the system does not report the model."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def usable_cpus(root: Path = Path("/")) -> int:
    """Count the CPUs that this process may use, as limited by its affinity mask and by the CPU quotas of its
    control group and that group's ancestors. A fraction of a CPU counts as one.

    Args:
        root: folder that contains `proc` and `sys`.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    count = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    quotas = [group.cpus() for group in cpu_groups(root)]
    return max(1, min([count, *(math.ceil(cpus) for cpus in quotas if cpus is not None)]))
