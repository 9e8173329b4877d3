"""Check that a component's settings are in range."""

from __future__ import annotations

import math

from xbench.errors import XbenchError


def check_integer(component: str, name: str, value: int, least: int, most: int) -> None:
    """Check an integer setting.

    Raises:
        XbenchError: it is not an integer, or is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise XbenchError(
            f"{component}: {name} = {value!r} is not valid",
            hint=f"set {name} to an integer from {least:,} to {most:,}",
        )


def check_seed(component: str, name: str, value: int) -> None:
    """Check a setting that seeds a random number generator.

    Raises:
        XbenchError: it is not an integer, or is out of range.
    """
    check_integer(component, name, value, 0, 2**63 - 1)


def check_number(component: str, name: str, value: float, least: float, most: float = math.inf) -> None:
    """Check a setting that is a finite number.

    Raises:
        XbenchError: it is not a finite number, or is out of range.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not least <= value <= most:
        bound = f"of at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
        raise XbenchError(
            f"{component}: {name} = {value!r} is not valid", hint=f"set {name} to a number {bound}"
        )
