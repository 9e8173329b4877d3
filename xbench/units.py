"""Parse and format sizes, durations and devices."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Literal

from xbench.errors import XbenchError
from xbench.text import escape_controls, pluralize, shorten

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?))?B\s*", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_DURATION = re.compile(r"\s*(?:(\d+(?:\.\d+)?)h)?\s*(?:(\d+(?:\.\d+)?)m)?\s*(?:(\d+(?:\.\d+)?)s)?\s*")
_UNITS_S = (3600, 60, 1)
_DEVICE = re.compile(r"\s*(?:(auto|cpu)|cuda(?::(\d{1,3}))?)\s*")
_SHARE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")


# More digits could overflow a float.
_MAX_SIZE_CHARS = 100


def parse_bytes(text: str) -> int:
    """Parse a size: `12GB` is 12 * 10**9 bytes, `12GiB` is 12 * 2**30.

    Raises:
        XbenchError: the text is not a size.
    """
    match = _SIZE.fullmatch(text)
    if not match or len(text) > _MAX_SIZE_CHARS:
        raise XbenchError(
            f"'{_escape(text)}' is not a size", hint="write 12GB (10^9 bytes each) or 12GiB (2^30)"
        )
    number, prefix, binary = match.groups()
    return round(float(number) * (1024 if binary else 1000) ** _POWERS[(prefix or "").upper()])


@dataclass(frozen=True)
class Limit:
    """A memory limit as the user gave it: a size or a share. The other one is None.

    Attributes:
        size_bytes: an exact size.
        percent: a share of the memory that the machine can give, above 0 and at most 100.
        written: the text that was parsed. It is ignored when limits are compared.
    """

    size_bytes: int | None = None
    percent: float | None = None
    written: str = field(default="", compare=False)

    def bytes_of(self, whole_bytes: int) -> int:
        """Return the limit in bytes.

        Args:
            whole_bytes: the size that `100%` stands for.
        """
        if self.percent is not None:
            return round(whole_bytes * self.percent / 100)
        assert self.size_bytes is not None  # one of the two is given
        return self.size_bytes

    def __str__(self) -> str:
        return str(self.size_bytes) if self.percent is None else f"{self.percent:.15g}%"


def tightest(limits: Iterable[Limit | None]) -> tuple[Limit, ...]:
    """Drop limits that others imply: only the smallest share and the smallest size are left, in this order.

    Args:
        limits: limits to compare; None stands for no limit.
    """
    asked = [limit for limit in limits if limit is not None]
    shares = [(limit.percent, limit) for limit in asked if limit.percent is not None]
    sizes = [(limit.size_bytes, limit) for limit in asked if limit.size_bytes is not None]
    smallest = (min(of_kind, key=itemgetter(0), default=None) for of_kind in (shares, sizes))
    return tuple(found[1] for found in smallest if found is not None)


def parse_limit(text: str) -> Limit:
    """Parse a limit: a size, as in `parse_bytes`, or a share such as `50%`. Surrounding blanks are ignored.

    Raises:
        XbenchError: the text is neither, or is zero, or is a share above 100 %.
    """
    share = _SHARE.fullmatch(text)
    if share and 0 < float(share[1]) <= 100:
        return Limit(percent=float(share[1]), written=text.strip())
    try:
        size = parse_bytes(text)
    except XbenchError:
        size = 0
    if size == 0:
        raise XbenchError(
            f"'{_escape(text)}' is not a size or share",
            hint="write 12GB (10^9 bytes each), 12GiB (2^30) or 50% (of the memory the machine can give)",
        )
    return Limit(size_bytes=size, written=text.strip())


def parse_duration(text: str) -> float:
    """Parse a duration, `90s`, `15m` or `1h30m`, and return it in seconds.

    Raises:
        XbenchError: the text is not a duration, or it is zero or infinite.
    """
    match = _DURATION.fullmatch(text)
    parts = match.groups(default="0") if match else ()
    seconds = sum(float(part) * unit_s for part, unit_s in zip(parts, _UNITS_S, strict=False))
    if not seconds or not math.isfinite(seconds):
        raise XbenchError(f"'{_escape(text)}' is not a duration", hint="write 90s, 15m or 1h30m")
    return seconds


@dataclass(frozen=True)
class DeviceChoice:
    """A device as the user named it.

    Attributes:
        kind: `"auto"` stands for CUDA if there is a CUDA device, otherwise for the CPU.
        index: index of a CUDA device.
    """

    kind: Literal["auto", "cpu", "cuda"] = "auto"
    index: int = 0

    def __str__(self) -> str:
        return f"cuda:{self.index}" if self.kind == "cuda" else self.kind


def parse_device(text: str) -> DeviceChoice:
    """Parse a device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        XbenchError: the text is none of these.
    """
    match = _DEVICE.fullmatch(text)
    if not match:
        raise XbenchError(f"'{_escape(text)}' is not a device", hint="write auto, cpu, cuda or cuda:N")
    if match[1] is None:
        return DeviceChoice("cuda", int(match[2] or 0))
    return DeviceChoice("cpu" if match[1] == "cpu" else "auto")


def _escape(text: str) -> str:
    return shorten(escape_controls(text))


def format_bytes(count: float) -> str:
    """Format a size to about three digits, with powers of ten: `1.50 GB`, `28 MB`, `0.25 MB`, `4.32 kB`."""
    if not count:
        return "0 MB"
    if abs(count) >= 1e9:
        return f"{count / 1e9:.2f} GB"
    if abs(count) >= 1e4:
        return f"{count / 1e6:.0f} MB" if abs(count) >= 1e7 else f"{count / 1e6:.2f} MB"
    return f"{count / 1e3:.2f} kB" if abs(count) >= 1e3 else f"{count:.0f} B"


def format_seconds(seconds: float) -> str:
    """Format a duration: `4.21 s`, `59.1 s`, `2m 05s`, `1h 02m`."""
    if not math.isfinite(seconds):
        return f"{seconds} s"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    return f"{minutes // 60}h {minutes % 60:02d}m"


def format_budget(amount: float, unit: Literal["trials", "closures", "seconds"]) -> str:
    """Format the budget of a search: `8 trials`, `20,000 gradient evaluations`, `10m 00s of training`."""
    if unit == "trials":
        return pluralize(round(amount), "trial")
    return (
        f"{amount:,.0f} gradient evaluations"
        if unit == "closures"
        else f"{format_seconds(amount)} of training"
    )
