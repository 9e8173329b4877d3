"""Choose units and scales of axes."""

from __future__ import annotations

import math
from collections.abc import Collection

# An axis is logarithmic if its values are positive and differ by more than this factor.
MIN_LOG_RATIO = 20.0


def choose_size_unit(sizes_bytes: Collection[float]) -> tuple[float, str]:
    """Choose a unit for sizes; return its bytes and its name."""
    largest = max(sizes_bytes, default=0.0)
    if largest >= 1e9:
        return 1e9, "GB"
    return (1e3, "kB") if 0 < largest < 1e4 else (1e6, "MB")


def choose_time_unit(times_s: Collection[float]) -> tuple[float, str]:
    """Choose a unit for durations; return its seconds and its name."""
    longest_s = max(times_s, default=0.0)
    if longest_s >= 2 * 3600:
        return 3600.0, "h"
    return (60.0, "min") if longest_s >= 600 else (1.0, "s")


def needs_log_scale(values: Collection[float]) -> bool:
    """Return whether values are shown better on a logarithmic axis."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) / min(finite) > MIN_LOG_RATIO
