"""Find the component and the line of code that raised an exception."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path

from xbench.components.registry import Kind, find, origin

# Folders of Python's own modules, and of installed packages, which may be in the former.
_PYTHON = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
_PACKAGES = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))


def find_component(error: BaseException, components: Sequence[tuple[Kind, str]]) -> str:
    """Find the component that was running when an exception was raised.

    Args:
        components: kinds and names of the candidates.

    Returns:
        The candidate whose package is innermost in the traceback, as in
        `optimizer 'sam' of xbench-sam 0.1.0`; "" if no candidate is in it.
    """
    packages: dict[str, str] = {}
    for kind, name in components:
        distribution = origin(kind, name)
        shown = f"{kind} '{name}'{f' of {distribution}' if distribution else ''}"
        for package in _list_packages(kind, name):
            packages.setdefault(package, shown)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame in reversed(frames)]
    return next((packages[module] for module in modules if module in packages), "")


def describe_error(error: BaseException) -> str:
    """Describe an exception by its type, its message, and the line of the user's own code if there is one.

    Returns:
        One line, as in `ValueError: width is 0 (nets.py:12)`.
    """
    # `str(error)` may itself raise, but the other way would show the source of a SyntaxError.
    if isinstance(error, SyntaxError):
        text = f"{type(error).__name__}: {error}"
    else:
        text = " ".join("".join(traceback.format_exception_only(error)).split())
    place = place_in_own_code(error)
    return f"{text} ({place})" if place else text


def place_in_own_code(error: BaseException) -> str:
    """Find the innermost line in a traceback that is not in torch, torchvision, xbench or Python itself.

    A line in an installed package is named only if there is none elsewhere.

    Returns:
        The file and line, as in `nets.py:12`; "" if there is none.
    """
    own, packaged = [], []
    for frame, line in traceback.walk_tb(error.__traceback__):
        file, package = frame.f_code.co_filename, str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if file.startswith("<") or package in ("xbench", "torch", "torchvision"):  # as in `<frozen os>`
            continue
        path = Path(file)
        if any(map(path.is_relative_to, _PACKAGES)):
            packaged.append(f"{path.name}:{line}")
        elif not any(map(path.is_relative_to, _PYTHON)):
            own.append(f"{path.name}:{line}")
    return next(reversed(own or packaged), "")


def _list_packages(kind: Kind, name: str) -> list[str]:
    """List the top-level packages of a component's code."""
    if ":" in name:
        return [name.partition(":")[0].partition(".")[0]]
    registration = find(kind, name)
    modules = [claim.module for claim in registration.claims] if registration else []
    # A built-in component is not to blame: its failures are those of xbench or torch.
    return [module.partition(".")[0] for module in modules if not module.startswith("xbench.")]
