"""Writing files that are whole or not there, also after a power failure (as far as `fsync` can tell)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from xbench.errors import XbenchError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place, see it to the disk, and rename it."""
    aside = path.with_name(f".{path.name}.partial")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    put_whole(aside, path)


def put_whole(aside: Path, path: Path) -> None:
    """Rename a file or folder that was written aside, and see the new name to the disk."""
    aside.replace(path)
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """See to the disk what another library has written."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """See the names in a folder to the disk."""
    sync_file(folder)


def append_line(path: Path, line: bytes) -> None:
    """Add one line to a file and see it to the disk. Where that fails, nothing of the line is left.

    What a killed process has left of a line is cut off first.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        end = _end_of_lines(descriptor)
        os.ftruncate(descriptor, end)
        try:
            rest, place = line + b"\n", end
            while rest:  # of a disk that fills up, the first write may take a part
                written = os.pwrite(descriptor, rest, place)
                rest, place = rest[written:], place + written
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, end)
            raise
        if end == 0:
            sync_folder(path.parent)  # the file may be new
    finally:
        os.close(descriptor)


def _end_of_lines(descriptor: int) -> int:
    """Size of a file without what follows its last line feed."""
    block, end = 1 << 16, os.fstat(descriptor).st_size
    while end:
        start = max(0, end - block)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def unwritable(folder: Path, error: OSError) -> XbenchError:
    """What to tell the user of a folder that cannot take results."""
    hint = "choose another folder with --out"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = f"make space, or {hint}"
    return XbenchError(f"cannot write results to {folder}: {error.strerror}", hint=hint)
