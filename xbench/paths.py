"""Where xbench keeps what it makes on this machine, whether there is room for it, and what to tell of a disk
that does not take it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

from xbench.errors import XbenchError
from xbench.units import format_bytes

_FULL = "make space, or move the cache with XBENCH_CACHE_DIR"
_HINTS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "a limit on the size of files is in force (`ulimit -f`): raise it, or move the cache to "
    "another disk with XBENCH_CACHE_DIR",
}


def cache_dir() -> Path:
    """The cache folder: `XBENCH_CACHE_DIR` if set, else the user's cache folder. It may not exist yet."""
    override = os.environ.get("XBENCH_CACHE_DIR")
    return Path(override).expanduser() if override else user_cache_path("xbench")


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn what a disk objects to into an error that a user can mend.

    Args:
        what: could not be done, as a sentence without its reason.

    Raises:
        XbenchError: in place of any OSError.
    """
    try:
        yield
    except OSError as error:
        is_in_the_way = error.errno in (errno.EEXIST, errno.ENOTDIR)
        reason = "a file is where a folder is needed" if is_in_the_way else error.strerror or str(error)
        hint = _HINTS.get(error.errno, "XBENCH_CACHE_DIR moves the cache")
        raise XbenchError(f"{what}: {reason}", hint) from error


def require_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Check that a file system has room before something large is written to it.

    Args:
        folder: where it will be; it need not exist yet.
        what: is to be written, as the subject of a sentence.

    Raises:
        XbenchError: there is too little.
    """
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < needed_bytes:
        raise XbenchError(
            f"{what} needs {format_bytes(needed_bytes)} in {folder}, and {format_bytes(free_bytes)} are free",
            hint=_FULL,
        )
