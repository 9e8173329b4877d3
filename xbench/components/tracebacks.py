"""Tell whose code an exception was raised in, and where."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path

from xbench.components.registry import Kind, find, origin


def raised_in(error: BaseException, components: Sequence[tuple[Kind, str]]) -> str:
    """The component that was at work when an exception was raised, as `optimizer 'sam' of xbench-sam 0.1.0`.

    Args:
        components: kinds and names of those that may have been.

    Returns:
        That whose package is the innermost one in the traceback; "" if it is none of them.
    """
    packages: dict[str, str] = {}
    for kind, name in components:
        of = origin(kind, name)
        for package in _packages(kind, name):
            packages.setdefault(package, f"{kind} '{name}'{f' of {of}' if of else ''}")
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame in reversed(frames)]
    return next((packages[module] for module in modules if module in packages), "")


def in_one_line(error: BaseException) -> str:
    """Describe an exception: its type, its message, and the file and line of the user's own code, if any of
    that was at work: `ValueError: width is 0 (nets.py:12)`."""
    # Not `str(error)`, which may raise in its turn.
    told = " ".join("".join(traceback.format_exception_only(error)).split())
    place = place_in_own_code(error)
    return f"{told} ({place})" if place else told


def place_in_own_code(error: BaseException) -> str:
    """Return the innermost file and line of other code than torch's and xbench's in a traceback, as
    `nets.py:12`; "" if there is none."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in ("xbench", "torch", "torchvision"):
            return f"{Path(frame.f_code.co_filename).name}:{line}"
    return ""


def _packages(kind: Kind, name: str) -> list[str]:
    if ":" in name:
        return [name.partition(":")[0].partition(".")[0]]
    registration = find(kind, name)
    modules = [claim.module for claim in registration.claims] if registration else []
    # What is built in is no plugin: its faults are xbench's own, or torch's.
    return [module.partition(".")[0] for module in modules if not module.startswith("xbench.")]
