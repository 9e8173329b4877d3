"""What the processor of this machine is called."""

from __future__ import annotations

import platform


def processor_name() -> str:
    """As the system tells it: the model, or at least the architecture."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
