"""What an image is, independent of where it lies: a hash of its content.

Reading thousands of files to hash them is slow on a cold disk, so hashes are remembered beside size and
modification time, which only say whether a remembered hash is still good.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from xbench.components.specs import Example
from xbench.paths import cache_dir


def content_hashes(examples: Sequence[Example]) -> tuple[list[str | None], dict[str, str]]:
    """Hash what each example is made of.

    Returns:
        For each example its hash, or None if its file cannot be read; and the reason for each such name.
    """
    files = [example.path for example in examples if example.path is not None]
    store = _StampStore(files)
    reasons: dict[str, str] = {}

    def hash_of(example: Example) -> str | None:
        declared = hashlib.sha256(example.content.encode()).hexdigest()
        if example.path is None:
            return declared
        try:
            of_file = store.hash_of(example.path)
        except OSError as error:
            reasons[example.name] = f"cannot be read: {error.strerror}"
            return None
        return f"{of_file} {declared}" if example.content else of_file

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = list(pool.map(hash_of, examples))
    store.save()
    return hashes, reasons


def are_known(examples: Sequence[Example]) -> bool:
    """Whether all hashes can be told without reading a file."""
    files = [example.path for example in examples if example.path is not None]
    store = _StampStore(files)
    try:
        return all(store.is_known(path) for path in files)
    except OSError:
        return False


class _StampStore:
    """Remembered hashes of the files of one folder: path -> [size, mtime_ns, sha256]."""

    def __init__(self, files: Sequence[Path]):
        common = os.path.commonpath([os.path.abspath(file) for file in files]) if files else ""
        name = hashlib.sha256(common.encode()).hexdigest()[:16]
        self._path = cache_dir() / "stamps" / f"{name}.json" if files else None
        self._known = self._load()
        self._seen: dict[str, list] = {}

    def _load(self) -> dict[str, list]:
        try:
            return json.loads(self._path.read_text()) if self._path else {}
        except (OSError, ValueError):
            return {}  # only a memory of hashes: without it they are computed again

    def is_known(self, path: Path) -> bool:
        stat, stamp = path.stat(), self._known.get(os.path.abspath(path))
        return stamp is not None and stamp[:2] == [stat.st_size, stat.st_mtime_ns]

    def hash_of(self, path: Path) -> str:
        stat = path.stat()
        key = os.path.abspath(path)
        stamp = self._known.get(key)
        if not self.is_known(path):
            stamp = [stat.st_size, stat.st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()]
        self._seen[key] = stamp
        return stamp[2]

    def save(self) -> None:
        kept = self._known | self._seen  # others may list another part of the folder
        if self._path is None or kept == self._known:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        aside = self._path.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps(kept))
        aside.replace(self._path)
