"""What was found on this machine before, kept in the cache: capacities, micro-batches, times.

A file for each key, so that runs beside each other do not take away what the others have found.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any

from xbench.files import keep_json, kept_json
from xbench.paths import cache_dir


def remembered(key: str) -> dict[str, Any] | None:
    """What was found under a key; None if nothing was, or the file is damaged."""
    entry = kept_json(_path(key))
    if not isinstance(entry, dict) or entry.get("key") != key or not isinstance(entry.get("found"), dict):
        return None
    return entry["found"]


def remember(key: str, found: dict[str, Any]) -> None:
    """Keep something under a key. That it cannot be kept is no failure: it would be found again."""
    with contextlib.suppress(OSError):
        keep_json(_path(key), {"key": key, "found": found})


def forget(key: str) -> None:
    """Drop what was found under a key: it does not hold any more."""
    with contextlib.suppress(OSError):
        _path(key).unlink()


def trial_log(name: str) -> Path | None:
    """Return where the traceback of a probe's trial may be kept; None where the cache takes no files."""
    folder = cache_dir() / "probes"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder / f"{name}.stderr" if os.access(folder, os.W_OK) else None


def _path(key: str) -> Path:
    return cache_dir() / "capacity" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
