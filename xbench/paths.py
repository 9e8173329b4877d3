"""Where xbench keeps what it makes on this machine, and whether there is room for it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path

from xbench.errors import XbenchError
from xbench.units import format_bytes


def cache_dir() -> Path:
    """The cache folder: `XBENCH_CACHE_DIR` if set, else the user's cache folder. It may not exist yet."""
    override = os.environ.get("XBENCH_CACHE_DIR")
    return Path(override).expanduser() if override else user_cache_path("xbench")


def put_in_place(aside: Path, folder: Path, is_whole: Callable[[], bool]) -> None:
    """Rename a folder that was made aside to where it belongs. Another process may have put the same one
    there in the meantime: that one stays, and may be in use.

    Args:
        is_whole: whether what lies at `folder` is there and not damaged.
    """
    if folder.exists() and not is_whole():
        damaged = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        folder.rename(damaged / "damaged")
        shutil.rmtree(damaged, ignore_errors=True)
    try:
        aside.rename(folder)
    except OSError:
        if not is_whole():
            raise


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
