"""Where xbench keeps what it makes on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_dir() -> Path:
    """The cache folder: `XBENCH_CACHE_DIR` if set, else the user's cache folder. It may not exist yet."""
    override = os.environ.get("XBENCH_CACHE_DIR")
    return Path(override).expanduser() if override else user_cache_path("xbench")
