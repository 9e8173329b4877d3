"""Files and folders that are whole, or not there: written aside, seen to the disk, and renamed; also after a
power failure, as far as `fsync` can tell."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

# `.NAME.RANDOM.aside` is being made for `NAME`, or on its way out; `.NAME.RANDOM.older` was `NAME`, and is so
# again if the process that was to replace it has died.
_ASIDE, _OLDER = ".aside", ".older"
_OLDER_NAME = re.compile(r"\.(.+)\.[0-9a-f]{8}\.older", re.DOTALL)


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Let an OSError tell which file it is about: those of an open file, such as a full disk's, do not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place, see it to the disk, and rename it. For who is alone there.

    Raises:
        OSError: it cannot be written; what was there still is.
    """
    aside = path.with_name(f".{path.name}.partial")
    with naming_file(path), aside.open("wb") as file:
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
        with naming_file(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """See the names in a folder to the disk, where its file system can."""
    try:
        sync_file(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some can for files alone
            raise


def make_folder(folder: Path) -> None:
    """Make a folder, with its parents, and see the names of those that are new to the disk.

    Raises:
        OSError: it cannot be made.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def append_line(path: Path, line: bytes) -> None:
    """Add one line to a file and see it to the disk. Where that fails, nothing of the line is left.

    What a killed process has left of a line is cut off first.

    Raises:
        OSError: that cannot be done.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        with naming_file(path):
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


def read_regular(path: Path, most_bytes: int | None = None) -> bytes:
    """All of a file, as `open_regular` opens it.

    Args:
        most_bytes: a larger one is refused before it fills memory; by default none is.

    Raises:
        OSError: it cannot be read, is none, or is too large.
    """
    with open_regular(path) as file:
        content = file.read(-1 if most_bytes is None else most_bytes + 1)
    if most_bytes is not None and len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"larger than {most_bytes:,} bytes", str(path))
    return content


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


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@contextmanager
def folder_aside(place: Path, alone: bool = False) -> Iterator[Path]:
    """A new, empty folder beside a place: to be filled, then `put_in_place`. It is gone afterwards.

    A lock says that it is in use, which the kernel lets go of when this process ends, however it ends. What
    killed processes have left beside it is removed, or put back where it was. On a file system without locks
    nothing is known of other processes: what they left stays, and nobody is told that another one is at work.

    Args:
        place: its parent is made.
        alone: only one process at a time may have such a folder for this place, where there are locks.

    Raises:
        BlockingIOError: `alone`, and another process has one.
        OSError: it cannot be made.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with _locked(place.parent) as has_locks:
        in_use = _sweep(place.parent) if has_locks else []
        if alone and any(_is_for(name, place) for name in in_use):
            raise BlockingIOError(errno.EWOULDBLOCK, "another process is filling it", str(place))
        aside = _beside(place, _ASIDE)
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

    Whenever this process dies, what was there or what is to be there is whole: what was is removed only once
    the new one is in its place, and the next `folder_aside` beside it puts it back if that never came. (On a
    file system without locks it stays there, as `.NAME.RANDOM.older`.)

    Args:
        stays: asked if something is at `place`: whether it is to stay there, as another process may have put
            the same in the meantime, and may be using it. If not, it is removed.

    Raises:
        OSError: the disk is full, or fails; then what was at `place` is still there.
    """
    _to_disk(aside)
    older = _beside(place, _OLDER)
    leaving = None
    with _locked(place.parent):
        if os.path.lexists(place) and stays():
            return
        try:
            if os.path.lexists(place):
                place.rename(older)
            aside.rename(place)
        except BaseException:
            if os.path.lexists(older) and not os.path.lexists(place):
                older.rename(place)
            raise
        sync_folder(place.parent)
        with suppress(OSError):  # nothing was there, or it stays until the next one looks
            leaving = _taken_away(older, place)
    if leaving is not None:
        shutil.rmtree(leaving, ignore_errors=True)


def _taken_away(older: Path, place: Path) -> Path | None:
    """What was replaced, under a name that nobody puts back: half of it may be removed when a process dies.
    None if it is gone already, as a file or a link is at once."""
    if older.is_symlink() or not older.is_dir():
        older.unlink()
        return None
    return older.rename(_beside(place, _ASIDE))


def _beside(place: Path, kind: str) -> Path:
    return place.with_name(f".{place.name}.{secrets.token_hex(4)}{kind}")


def _is_for(name: str, place: Path) -> bool:
    return name.removesuffix(_ASIDE).rpartition(".")[0] == f".{place.name}"


def _sweep(parent: Path) -> list[str]:
    """Put back what was to be replaced and was not, and remove what was made aside and nobody holds any more.
    For who has locked `parent`.

    Returns:
        The names of what is in use.
    """
    with os.scandir(parent) as entries:
        names = [entry.name for entry in entries]
    for match in filter(None, map(_OLDER_NAME.fullmatch, names)):
        older, place = parent / match[0], parent / match[1]
        with suppress(OSError):  # what cannot be moved is in nobody's way
            if not os.path.lexists(place):
                older.rename(place)
            elif (leaving := _taken_away(older, place)) is not None:
                names.append(leaving.name)
    in_use = []
    for name in names:
        if not (name.startswith(".") and name.endswith(_ASIDE)):
            continue
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
def _locked(folder: Path) -> Iterator[bool]:
    """One process at a time, for moments; False on a file system without locks, where nobody waits."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        has_locks = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            has_locks = False
        yield has_locks
    finally:
        os.close(descriptor)


def _to_disk(folder: Path) -> None:
    """Wait until a folder with all that is in it would survive a power cut."""
    found = list(os.walk(folder))
    with ThreadPoolExecutor(8) as pool:  # the disk may do many at once
        list(pool.map(sync_file, (Path(where, name) for where, _, names in found for name in names)))
        list(pool.map(sync_folder, (Path(where) for where, _, _ in found)))
