"""Remember measurements between runs: times, capacities, hashes of files.

Each value is a small JSON file with a checksum, so no lock is needed and network file systems will do. If a
file is damaged or cannot be written, its value is measured again. Two processes that save the same key at the
same moment may lose the value, but never mix the two.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from xbench.storage.atomic import read_json, write_json
from xbench.storage.paths import cache_dir


def load(namespace: str, key: str) -> Any | None:
    """Return the value saved under a key; None if there is none or it is damaged."""
    entry = read_json(_path(namespace, key))
    if not isinstance(entry, dict) or entry.get("key") != [namespace, key]:
        return None
    return entry.get("value")


def save(namespace: str, key: str, value: Any) -> None:
    """Save a JSON value under a key. Errors are ignored: the cache may not be writable."""
    path = _path(namespace, key)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"key": [namespace, key], "value": value})


def drop(namespace: str, key: str) -> None:
    """Delete the value saved under a key."""
    with suppress(OSError):
        _path(namespace, key).unlink()


def _path(namespace: str, key: str) -> Path:
    digest = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()
    return cache_dir() / "measurements" / namespace / f"{digest[:32]}.json"
