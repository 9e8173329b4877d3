"""What was found on this machine before, kept in the cache: capacities, micro-batches, times."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from xbench.paths import cache_dir


def remembered(key: str) -> dict[str, Any] | None:
    """What was found under a key; None if nothing was, or the file is damaged."""
    found = _read().get(key)
    return found if isinstance(found, dict) else None


def remember(key: str, found: dict[str, Any]) -> None:
    """Keep something under a key. That it cannot be kept is no failure: it would be found again."""
    _write(_read() | {key: found})


def forget(key: str) -> None:
    """Drop what was found under a key: it does not hold any more."""
    known = _read()
    if known.pop(key, None) is not None:
        _write(known)


def _write(known: dict[str, Any]) -> None:
    path = _path()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, written = tempfile.mkstemp(dir=path.parent)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(known, file, indent=1)
            os.replace(written, path)  # whole, or not at all
        except OSError:
            os.unlink(written)


def _path() -> Path:
    return cache_dir() / "capacity.json"


def _read() -> dict[str, Any]:
    try:
        content = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
