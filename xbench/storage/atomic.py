"""Write files and folders atomically, so that even after a power failure each is complete or absent, and read
regular files without blocking."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Name the file in any OSError that lacks its name, such as one raised by an open file."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def atomic_write(path: Path, content: bytes) -> None:
    """Write a temporary file beside `path`, fsync it, and rename it. The caller must be the only writer.

    Raises:
        OSError: the file cannot be written; an existing one is left unchanged.
    """
    temporary = path.with_name(f".{path.name}.partial")
    with naming_file(path), temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    atomic_replace(temporary, path)


def atomic_replace(temporary: Path, path: Path) -> None:
    """Rename a complete file or folder to `path`, and fsync the new name."""
    temporary.replace(path)
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Fsync a file that another library wrote."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming_file(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Fsync the names in a folder, if its file system supports that."""
    try:
        sync_file(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems can fsync only files
            raise


def sync_tree(folder: Path) -> None:
    """Fsync a folder and everything below it."""
    found = list(os.walk(folder))
    with ThreadPoolExecutor(8) as pool:  # a disk may serve several requests at once
        list(pool.map(sync_file, (Path(where, name) for where, _, names in found for name in names)))
        list(pool.map(sync_folder, (Path(where) for where, _, _ in found)))


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, and fsync the new names.

    Raises:
        OSError: the folder cannot be created.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def append_line(path: Path, line: bytes) -> None:
    """Append a line to a file and fsync it. If that fails, no part of the line is left in the file.

    An incomplete last line left by a killed process is removed first.

    Raises:
        OSError: the line cannot be written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        with naming_file(path):
            end = _find_end_of_lines(descriptor)
            os.ftruncate(descriptor, end)
            try:
                rest, offset = line + b"\n", end
                while rest:  # writes to a disk that fills up may be partial
                    written = os.pwrite(descriptor, rest, offset)
                    rest, offset = rest[written:], offset + written
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, end)
                raise
        if end == 0:
            sync_folder(path.parent)  # the file may be new
    finally:
        os.close(descriptor)


def _find_end_of_lines(descriptor: int) -> int:
    """Return the size of a file up to and including its last line feed."""
    block, end = 1 << 16, os.fstat(descriptor).st_size
    while end:
        start = max(0, end - block)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading. Anything else is refused: opening a pipe would block.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(descriptor, "rb")


def open_inside(folder: Path, path: Path) -> io.BufferedReader:
    """Open a regular file inside a folder for reading. Links that lead out of the folder are refused.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is outside the folder.
    """
    real = Path(os.path.realpath(path, strict=True))
    if not real.is_relative_to(os.path.realpath(folder)):
        raise OSError(errno.EXDEV, "a link to a file outside the folder", str(path))
    return open_regular(real)


def read_regular(path: Path, most_bytes: int | None = None) -> bytes:
    """Read a regular file.

    Args:
        most_bytes: the largest size to read. A larger file is refused before it fills memory. Unlimited by
            default.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is too large.
    """
    with open_regular(path) as file:
        content = file.read(-1 if most_bytes is None else most_bytes + 1)
    if most_bytes is not None and len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"larger than {most_bytes:,} bytes", str(path))
    return content


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file with a checksum atomically. The caller must be the only writer.

    Raises:
        OSError: the file cannot be written; an existing one is left unchanged.
    """
    atomic_write(path, json.dumps({"sha256": _digest(value), "content": value}).encode())


def read_json(path: Path) -> Any | None:
    """Read what `write_json` wrote; return None if the file is missing or damaged."""
    try:
        with open_regular(path) as file:
            document = json.load(file)
        return document["content"] if document["sha256"] == _digest(document["content"]) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
