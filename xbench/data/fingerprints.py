"""Hash the content of images, wherever their files are.

Reading thousands of files to hash them is slow on a cold disk, so hashes are remembered together with each
file's size, times and inode, which show whether a remembered hash is still valid. (Size and modification time
alone do not, since tools that copy files set their times.) If a file was written just before it was hashed, a
change right after hashing may leave all of these as they are, so its hash is not remembered.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from xbench.components.image_dataset import Example
from xbench.memory.processor import usable_cpus
from xbench.storage.atomic import open_regular
from xbench.storage.cache import load, save

_NAMESPACE = "file hashes"

# A file that is older than this when it is hashed cannot change again and keep its modification time: the
# clocks of file systems are up to this coarse (FAT: 2 s), and those of servers differ slightly.
_SETTLED_NS = 2_000_000_000

# Images per progress report: reporting each one would take longer than looking up a remembered hash.
_REPORT_EVERY = 100


def content_hashes(
    examples: Sequence[Example], on_progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[list[str | None], dict[str, str]]:
    """Hash the content of each example.

    Args:
        on_progress: called with (hashed, total) at intervals.

    Returns:
        The hash of each example, or None if its file cannot be read; and the reason, by name, for the latter.
    """
    files = [example.path for example in examples if example.path is not None]
    store = _StampStore(files)
    reasons: dict[str, str] = {}

    def hash_of(example: Example) -> str | None:
        declared = hashlib.sha256(example.content.encode()).hexdigest()
        if example.path is None:
            return declared
        try:
            file_hash = store.hash_of(example.path)
        except OSError as error:
            reasons[example.name] = f"cannot be read: {error.strerror or error}"
            return None
        return f"{file_hash} {declared}" if example.content else file_hash

    hashes: list[str | None] = []
    with ThreadPoolExecutor(usable_cpus()) as pool:
        for content in pool.map(hash_of, examples):
            if len(hashes) % _REPORT_EVERY == 0:
                on_progress(len(hashes), len(examples))
            hashes.append(content)
    store.save()
    return hashes, reasons


def are_known(examples: Sequence[Example]) -> bool:
    """Return whether all hashes are remembered, so that no file needs to be read."""
    files = [example.path for example in examples if example.path is not None]
    store = _StampStore(files)
    try:
        return all(store.is_known(path) for path in files)
    except OSError:
        return False


class _StampStore:
    """Remembered hashes of the files in one folder: path -> [size, mtime_ns, ctime_ns, inode, sha256]."""

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
        return stamp[-1] if stamp and stamp[:-1] == _identify(stat) else None

    def hash_of(self, path: Path) -> str:
        remembered = self._recall(path, path.stat())
        if remembered is not None:
            return remembered
        with open_regular(path) as file:
            stat, now_ns = os.fstat(file.fileno()), time.time_ns()
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if stat.st_mtime_ns < now_ns - _SETTLED_NS:
            self._new[os.path.abspath(path)] = [*_identify(stat), digest]
        return digest

    def save(self) -> None:
        """Remember the new hashes, if the cache can be written."""
        if self._new:
            # In the meantime, other processes may have hashed other files of the folder.
            save(_NAMESPACE, self._folder, self._load() | self._new)


def _identify(stat: os.stat_result) -> list[int]:
    """Return the numbers that show whether a file is unchanged."""
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
