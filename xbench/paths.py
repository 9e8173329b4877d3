"""Where xbench keeps what it makes on this machine: whole and checked, or not at all; and whether there is
room for it."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from platformdirs import user_cache_path

from xbench.errors import XbenchError
from xbench.units import format_bytes

_ASIDE = ".aside"

_FULL = "make space, or move the cache with XBENCH_CACHE_DIR"
_HINTS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "a limit on the size of files is in force (`ulimit -f`): raise it, or move the cache to "
    "another disk with XBENCH_CACHE_DIR",
}


def cache_dir() -> Path:
    """The cache folder: `XBENCH_CACHE_DIR` if set, else the user's cache folder. It may not exist yet."""
    override = os.environ.get("XBENCH_CACHE_DIR")
    return Path(override).expanduser() if override else user_cache_path("xbench")


@contextmanager
def folder_aside(place: Path, alone: bool = False) -> Iterator[Path]:
    """A new, empty folder beside a place: to be filled, then `put_in_place`. It is gone afterwards.

    A lock says that it is in use, which the kernel lets go of when this process ends, however it ends; what
    killed processes have left beside it is removed. Where a file system has no locks, nothing is.

    Args:
        place: its parent is made.
        alone: only one process at a time may have such a folder for this place.

    Raises:
        BlockingIOError: `alone`, and another process has one.
        OSError: it cannot be made.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with _locked(place.parent):
        in_use = _sweep(place.parent)
        if alone and any(_is_for(name, place) for name in in_use):
            raise BlockingIOError(errno.EWOULDBLOCK, "another process is filling it", str(place))
        aside = _new_name(place)
        aside.mkdir()
        lock = os.open(aside, os.O_RDONLY | os.O_DIRECTORY)
        _try_lock(lock)
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        os.close(lock)


def put_in_place(aside: Path, place: Path, stays: Callable[[], bool]) -> None:
    """Rename a folder that was made aside to where it belongs, when all of it has reached the disk.

    Args:
        stays: asked if something is at `place`: whether it is to stay there, as another process may have put
            the same in the meantime, and may be using it. If not, it is removed.

    Raises:
        OSError: the disk is full, or fails; then what was at `place` is still there.
    """
    _to_disk(aside)
    older = _new_name(place)
    with _locked(place.parent):
        if os.path.lexists(place):
            if stays():
                return
            place.rename(older)
        try:
            aside.rename(place)
        except BaseException:
            if os.path.lexists(older):
                older.rename(place)
            raise
        _sync(place.parent)
    with suppress(OSError):
        older.unlink() if older.is_symlink() or older.is_file() else shutil.rmtree(older)


def keep_json(path: Path, content: Any) -> None:
    """Write a small file that `kept_json` reads: whole, or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with folder_aside(path) as aside:
        write_json(aside / "content", content)
        (aside / "content").replace(path)


def write_json(path: Path, content: Any) -> None:
    """What `keep_json` does, within a folder that is itself aside.

    Raises:
        OSError: it cannot be written.
    """
    document = {"sha256": _digest(content), "content": content}
    path.write_text(json.dumps(document), encoding="utf-8")


def kept_json(path: Path) -> Any | None:
    """What `keep_json` wrote; None if there is nothing, or it is damaged."""
    try:
        with open_regular(path) as file:
            document = json.load(file)
        return document["content"] if document["sha256"] == _digest(document["content"]) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def open_regular(path: Path) -> BinaryIO:
    """Open a file to be read. Never waits, as a pipe would have it, for somebody to write.

    Raises:
        OSError: it cannot be read, or is none: a folder, a pipe, a device.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(descriptor, "rb")


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn what a disk objects to into an error that a user can mend.

    Args:
        what: could not be done, as a sentence without its reason.

    Raises:
        XbenchError: in place of any OSError.
    """
    try:
        yield
    except OSError as error:
        is_in_the_way = error.errno in (errno.EEXIST, errno.ENOTDIR)
        reason = "a file is where a folder is needed" if is_in_the_way else error.strerror or str(error)
        hint = _HINTS.get(error.errno, "XBENCH_CACHE_DIR moves the cache")
        raise XbenchError(f"{what}: {reason}", hint) from error


def require_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Check that a file system has room before something large is written to it.

    Args:
        folder: where it will be; it need not exist yet.
        what: is to be written, as the subject of a sentence.

    Raises:
        XbenchError: there is too little.
    """
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < needed_bytes:
        raise XbenchError(
            f"{what} needs {format_bytes(needed_bytes)} in {folder}, and {format_bytes(free_bytes)} are free",
            hint=_FULL,
        )


def _new_name(place: Path) -> Path:
    return place.with_name(f".{place.name}.{secrets.token_hex(4)}{_ASIDE}")


def _is_for(name: str, place: Path) -> bool:
    return name.removesuffix(_ASIDE).rpartition(".")[0] == f".{place.name}"


def _sweep(parent: Path) -> list[str]:
    """Remove what was made aside and nobody holds any more; the names of what is in use."""
    in_use = []
    with os.scandir(parent) as entries:
        names = [entry.name for entry in entries if entry.name.endswith(_ASIDE) and entry.name[0] == "."]
    for name in names:
        try:
            lock = os.open(parent / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # gone meanwhile, or not ours
        try:
            if _try_lock(lock):
                shutil.rmtree(parent / name, ignore_errors=True)
            else:
                in_use.append(name)
        finally:
            os.close(lock)
    return in_use


def _try_lock(descriptor: int) -> bool:
    """Whether it can be locked: not if another process has done so, nor on a file system without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time, for moments; on a file system without locks nobody waits."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _to_disk(folder: Path) -> None:
    """Wait until a folder with all that is in it would survive a power cut."""
    paths = [Path(where, name) for where, _, names in os.walk(folder) for name in (*names, ".")]
    with ThreadPoolExecutor(8) as pool:  # the disk may do many at once
        list(pool.map(_sync, paths))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot for folders
            raise
    finally:
        os.close(descriptor)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
