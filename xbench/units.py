"""Sizes and times as people write and read them."""

from __future__ import annotations

import math
import re

from xbench.errors import XbenchError
from xbench.text import shortened, visible

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?))?B\s*", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_DURATION = re.compile(r"\s*(?:(\d+(?:\.\d+)?)h)?\s*(?:(\d+(?:\.\d+)?)m)?\s*(?:(\d+(?:\.\d+)?)s)?\s*")
_UNITS_S = (3600, 60, 1)
_SHARE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")


# A number of more would not fit into a float, and no machine has as much.
_MOST_DIGITS = 100


def parse_bytes(text: str) -> int:
    """Read a size: `12GB` is 12 * 10**9 bytes, `12GiB` is 12 * 2**30.

    Raises:
        XbenchError: the text is no size.
    """
    match = _SIZE.fullmatch(text)
    if not match or len(text) > _MOST_DIGITS:
        raise XbenchError(
            f"'{_told(text)}' is not a size", hint="write 12GB (10^9 bytes each) or 12GiB (2^30)"
        )
    number, prefix, binary = match.groups()
    return round(float(number) * (1024 if binary else 1000) ** _POWERS[(prefix or "").upper()])


def parse_limit(text: str, whole_bytes: int) -> int:
    """Read a limit: a size as `parse_bytes` takes it, or a share of a whole, `50%`.

    Args:
        whole_bytes: what `100%` is.

    Raises:
        XbenchError: the text is neither, or it is nothing, or a share above 100 %.
    """
    share = _SHARE.fullmatch(text)
    if share and 0 < float(share[1]) <= 100:
        return round(whole_bytes * float(share[1]) / 100)
    try:
        size = parse_bytes(text)
    except XbenchError:
        size = 0
    if size == 0:
        raise XbenchError(
            f"'{_told(text)}' is not a size or share",
            hint="write 12GB (10^9 bytes each), 12GiB (2^30) or 50% (of what the machine can give)",
        )
    return size


def parse_duration(text: str) -> float:
    """Read a duration in seconds: `90s`, `15m`, `1h30m`.

    Raises:
        XbenchError: the text is none, or it is nothing.
    """
    match = _DURATION.fullmatch(text)
    parts = match.groups(default="0") if match else ()
    seconds = sum(float(part) * unit_s for part, unit_s in zip(parts, _UNITS_S, strict=False))
    if not seconds or not math.isfinite(seconds):
        raise XbenchError(f"'{_told(text)}' is not a duration", hint="write 90s, 15m or 1h30m")
    return seconds


def _told(text: str) -> str:
    return shortened(visible(text))


def format_bytes(count: float) -> str:
    """A size in MB or GB (powers of ten), to three digits or so."""
    if abs(count) >= 1e9:
        return f"{count / 1e9:.2f} GB"
    return f"{count / 1e6:.0f} MB" if abs(count) >= 1e7 else f"{count / 1e6:.2f} MB"


def format_seconds(seconds: float) -> str:
    """A duration: `4.21 s`, `59.1 s`, `2m 05s`, `1h 02m`."""
    if not math.isfinite(seconds):
        return f"{seconds} s"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    return f"{minutes // 60}h {minutes % 60:02d}m"
