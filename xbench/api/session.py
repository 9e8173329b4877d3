"""What every call that runs something needs: arguments, components, worker processes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from xbench.components.code import forget_code
from xbench.components.code_files import ImportDirs
from xbench.components.registered import pack
from xbench.components.registry import Kind
from xbench.errors import XbenchError
from xbench.isolation.server import start_server
from xbench.storage.paths import MOVE_CACHE, cache_dir, concerns, disk_hint, expand_user
from xbench.suite.overrides import SuiteOption
from xbench.text import format_value

PathLike = str | os.PathLike[str]


@contextmanager
def worker_processes(
    components: Iterable[tuple[Kind, str]], allow_import: PathLike | Iterable[PathLike]
) -> Iterator[ImportDirs]:
    """Start the server of worker processes, and pack the components that were registered from Python for
    them.

    Args:
        components: kinds and names of all components that are used.
        allow_import: folders that `module:attribute` components may be imported from.

    Yields:
        The folders, with the packed components.

    Raises:
        XbenchError: a folder does not exist, a component cannot be packed, no process can be started, or a
            disk is full.
    """
    folders = ImportDirs(tuple(_find_folder(folder) for folder in list_of(allow_import, os.PathLike)))
    forget_code()  # since the last call, files may have been edited
    with disk_errors(), tempfile.TemporaryDirectory(prefix="xbench-components-") as kept:
        start_server()
        yield replace(folders, packed=pack(sorted(components), Path(kept)))


def list_of(value: Any, *also: type) -> list[Any]:
    """Return the items of an argument that may be a single one.

    Args:
        also: types of a single item besides `str`.
    """
    return [value] if isinstance(value, (str, *also)) else list(value)


def suite_options(**given: object) -> list[SuiteOption]:
    """Make the options that set keys of `[suite]`, of the arguments that are not None."""
    return [
        SuiteOption(name.replace("_", "-"), str(value)) for name, value in given.items() if value is not None
    ]


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn an OSError that a user can do something about into an XbenchError.

    Raises:
        XbenchError: in place of the OSError.
    """
    try:
        yield
    except OSError as error:
        hint = disk_hint(error, MOVE_CACHE if concerns(error, cache_dir()) else "")
        if not disk_hint(error) or error.filename is None:
            raise
        raise XbenchError(f"{error.filename}: {error.strerror}", hint) from error


def _find_folder(path: PathLike) -> str:
    folder = expand_user(Path(path), "allow_import")
    if not folder.is_dir():
        problem = "not a folder" if folder.exists() else "no such folder"
        raise XbenchError(
            f"allow_import {format_value(str(path))}: {problem}", hint="name the folder your code is in"
        )
    return str(folder.resolve())
