"""Where xbench keeps what it makes on this machine, and whether there is room for it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from platformdirs import user_cache_path

from xbench.errors import XbenchError
from xbench.units import format_bytes


def cache_dir() -> Path:
    """The cache folder: `XBENCH_CACHE_DIR` if set, else the user's cache folder. It may not exist yet."""
    override = os.environ.get("XBENCH_CACHE_DIR")
    return Path(override).expanduser() if override else user_cache_path("xbench")


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
            hint="make space, or move the cache with XBENCH_CACHE_DIR",
        )
