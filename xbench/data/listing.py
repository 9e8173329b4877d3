"""Whether the folders of a dataset still hold what they held, without opening or listing it as a dataset.

Thousands of images take some milliseconds, so that a later process can tell at once that nothing has changed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path


def listing_folders(files: Iterable[Path]) -> tuple[str, ...]:
    """The folders that tell whether a file was added, removed, renamed or changed.

    Args:
        files: of a dataset.

    Returns:
        The folders that files lie in, and those above them up to the one that holds all: absolute, sorted.
    """
    parents = {os.path.dirname(os.path.abspath(file)) for file in files}
    if not parents:
        return ()
    common = os.path.commonpath(parents)
    folders = {common}
    for parent in parents:
        while parent not in folders:
            folders.add(parent)
            parent = os.path.dirname(parent)
    return tuple(sorted(folders))


def listing_stamp(folders: Sequence[str]) -> str:
    """A hash of name, size, times, number and kind of whatever lies directly in some folders.

    Links are followed. A folder that is gone, or cannot be read, gives a stamp, too, which is another one.
    """
    digest = hashlib.sha256()
    for folder in folders:
        digest.update(os.fsencode(folder) + b"\0")
        for line in _entries(folder):
            digest.update(line)
        digest.update(b"\0")
    return digest.hexdigest()


def _entries(folder: str) -> list[bytes]:
    try:
        with os.scandir(folder) as entries:
            return sorted(os.fsencode(entry.name) + b"\0" + _told(entry) for entry in entries)
    except OSError as error:
        return [b"/%d" % error.errno]  # no name has a slash


def _told(entry: os.DirEntry[str]) -> bytes:
    try:
        found = entry.stat()
    except OSError as error:  # a link to nowhere, or gone since it was listed
        return b"/%d\0" % error.errno
    times = found.st_mtime_ns, found.st_ctime_ns  # the first may be set to anything
    return b"%d %d %d %d %d\0" % (stat.S_IFMT(found.st_mode), found.st_size, *times, found.st_ino)
