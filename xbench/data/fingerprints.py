"""What an image is, independent of where it lies: a hash of its content.

Reading thousands of files to hash them is slow on a cold disk, so hashes are remembered beside size, times
and number of the file, which only say whether a remembered hash is still good. (Size and modification time
alone do not: what copies files sets their times.) They cannot say so of a file that was written at about the
moment of hashing: a change right after may leave all as they are. Its hash is not remembered.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from xbench.components.specs import Example
from xbench.memory.processor import usable_cpus
from xbench.storage.atomic import open_regular
from xbench.storage.cache import load, save

_NAMESPACE = "file hashes"

# Older than this at its hashing, a file cannot change again and keep its time: clocks of file systems are
# that coarse (FAT: 2 s), and those of servers differ a little.
_SETTLED_NS = 2_000_000_000

# Remembered hashes are told at once: a report for each would take longer.
_REPORT_EVERY = 100


def content_hashes(
    examples: Sequence[Example], on_progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[list[str | None], dict[str, str]]:
    """Hash what each example is made of.

    Args:
        on_progress: called with (hashed, total) now and then.

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
            reasons[example.name] = f"cannot be read: {error.strerror or error}"
            return None
        return f"{of_file} {declared}" if example.content else of_file

    hashes: list[str | None] = []
    with ThreadPoolExecutor(usable_cpus()) as pool:
        for content in pool.map(hash_of, examples):
            if len(hashes) % _REPORT_EVERY == 0:
                on_progress(len(hashes), len(examples))
            hashes.append(content)
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
    """Remembered hashes of the files of one folder: path -> [size, mtime_ns, ctime_ns, inode, sha256]."""

    def __init__(self, files: Sequence[Path]):
        self._folder = os.path.commonpath([os.path.abspath(file) for file in files]) if files else ""
        self._known = self._load()
        self._new: dict[str, list] = {}

    def _load(self) -> dict[str, list]:
        return load(_NAMESPACE, self._folder) or {}

    def is_known(self, path: Path) -> bool:
        return self._recall(path, path.stat()) is not None

    def _recall(self, path: Path, stat: os.stat_result) -> str | None:
        stamp = self._known.get(os.path.abspath(path))
        return stamp[-1] if stamp and stamp[:-1] == _told(stat) else None

    def hash_of(self, path: Path) -> str:
        remembered = self._recall(path, path.stat())
        if remembered is not None:
            return remembered
        with open_regular(path) as file:
            stat, now_ns = os.fstat(file.fileno()), time.time_ns()
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if stat.st_mtime_ns < now_ns - _SETTLED_NS:
            self._new[os.path.abspath(path)] = [*_told(stat), digest]
        return digest

    def save(self) -> None:
        """Remember what was hashed, if the cache can be written."""
        if self._new:
            # Other processes may have hashed another part of the folder meanwhile.
            save(_NAMESPACE, self._folder, self._load() | self._new)


def _told(stat: os.stat_result) -> list[int]:
    """What tells that a file is still the same."""
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
