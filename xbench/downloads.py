"""Downloading one file whose hash is known: it is there whole and right, or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from xbench.errors import DownloadFailed, XbenchError
from xbench.files import put_whole
from xbench.paths import disk_errors, require_space
from xbench.units import format_bytes

OnProgress = Callable[[int, int], None]
OnStep = Callable[[str], None]

# How long a server may be silent, at first and between any two pieces.
_CONNECT_TIMEOUT_S = 15
_READ_TIMEOUT_S = 60

_CHUNK_BYTES = 1 << 18
_HASHED_BYTES = 1 << 24
_HASH = re.compile(r"[0-9a-f]{8,64}")
_HINT = "check the network (and HTTPS_PROXY, if you are behind a proxy), then try again"


def download(
    url: str,
    path: Path,
    sha256: str,
    on_progress: OnProgress,
    size_bytes: int | None = None,
    on_step: OnStep = lambda step: None,
) -> None:
    """Make sure that a file is at `path`, whole and with the right content.

    If the right file is there, nothing is sent over the network. Two processes that want the same file do
    not fetch it twice: the second waits for the first.

    Args:
        url: http or https.
        path: of the file; folders above it are made.
        sha256: its hash in hex, or the first 8 or more digits of it.
        on_progress: called with (done_bytes, total_bytes) as data arrives; the total is 0 while unknown.
        size_bytes: of the file, if known: whether there is room is then checked before anything is sent.
        on_step: called when it starts to wait for another process, and when it checks what has arrived.

    Raises:
        DownloadFailed: the server cannot be reached, refuses, or breaks off.
        XbenchError: what it gave has another hash; there is no room for it, or it cannot be written; the URL
            is not of the web.
    """
    wanted = sha256.lower()
    if not _HASH.fullmatch(wanted):
        raise XbenchError(f"'{sha256}' is not a sha256", hint="give 8 to 64 hexadecimal digits")
    if not re.match(r"https?://[^/]", url, re.IGNORECASE):
        raise XbenchError(f"'{url}' is not an address of the web", hint="it begins with https:// or http://")
    with disk_errors(f"{path.name} cannot be kept in {path.parent}"):
        if not _is_right(path, wanted):
            _replace(url, path, wanted, on_progress, size_bytes, on_step)


def _replace(
    url: str, path: Path, wanted: str, on_progress: OnProgress, size_bytes: int | None, on_step: OnStep
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    with _alone(aside, on_step) as file:
        if _is_right(path, wanted):  # another process has fetched it meanwhile
            return
        if size_bytes is not None:
            require_space(path.parent, size_bytes, f"downloading {path.name}")
        _fetch(url, file, path, on_progress)
        on_step("checking it")
        file.seek(0)
        got = hashlib.file_digest(file, "sha256").hexdigest()
        if not got.startswith(wanted):
            raise XbenchError(
                f"{url} has another content than it should: sha256 {got}, not {wanted}; it was not kept",
                hint="the file was changed where it is published, or something between here and there did",
            )
        os.fsync(file.fileno())
        put_whole(aside, path)


def sha256_of(path: Path, on_progress: OnProgress | None = None) -> str:
    """Hash a file.

    Args:
        on_progress: called with (done_bytes, total_bytes) now and then.

    Returns:
        The SHA-256 in hex.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        if on_progress is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest, total_bytes = hashlib.sha256(), os.fstat(file.fileno()).st_size
        while part := file.read(_HASHED_BYTES):
            digest.update(part)
            on_progress(file.tell(), total_bytes)
        return digest.hexdigest()


def _is_right(path: Path, wanted: str) -> bool:
    return path.is_file() and sha256_of(path).startswith(wanted)


@contextmanager
def _alone(aside: Path, on_step: OnStep) -> Iterator[BinaryIO]:
    """An empty file that no other process writes to; it is gone afterwards, unless it was moved away.

    What a killed process has left under this name is written over.
    """
    while True:
        file = aside.open("a+b")
        try:
            # Waits for whoever holds it, whose last act is to move or remove it: then this is not the file
            # of that name any more. The kernel lets go of what a dead process held.
            with suppress(OSError):  # on a file system without locks nobody waits
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    on_step("waiting for another process to finish downloading it")
                    fcntl.flock(file, fcntl.LOCK_EX)
            if _is_named(file, aside):
                break
        except BaseException:
            file.close()
            raise
        file.close()
    try:
        file.truncate(0)
        yield file
    finally:
        if _is_named(file, aside):
            aside.unlink()
        file.close()


def _is_named(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


class _Progress:
    """What pooch takes for a progress bar: it sets `total`, then calls `update` for every piece."""

    def __init__(self, file: BinaryIO, path: Path, on_progress: OnProgress):
        self._file, self._path, self._on_progress = file, path, on_progress
        self._total_bytes = 0

    @property
    def total(self) -> int:
        return self._total_bytes

    @total.setter
    def total(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        require_space(self._path.parent, total_bytes, f"downloading {self._path.name}")

    @property
    def done_bytes(self) -> int:
        return self._file.tell()

    def update(self, _: int) -> None:  # pooch gives the size of its buffer, not of what arrived
        self._on_progress(self.done_bytes, self._total_bytes)

    def reset(self) -> None:
        pass

    def close(self) -> None:
        pass


def _fetch(url: str, file: BinaryIO, path: Path, on_progress: OnProgress) -> None:
    # Imported here: nearly nobody who imports this module downloads anything.
    import pooch
    import requests
    import urllib3

    progress = _Progress(file, path, on_progress)
    downloader = pooch.HTTPDownloader(
        progressbar=progress,
        chunk_size=_CHUNK_BYTES,
        timeout=(_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S),
        # The length that is announced is then the file's own, and so are the bytes.
        headers={"Accept-Encoding": "identity", "User-Agent": "xbench"},
    )
    try:
        downloader(url, file, None)
    except requests.HTTPError as error:
        response = error.response
        raise DownloadFailed(
            f"{url}: the server answers {response.status_code} {response.reason}".rstrip(),
            hint="the file may have moved, or the server may be in trouble: try later",
        ) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
        # ValueError: headers that make no sense.
        raise DownloadFailed(f"{url} {_what_happened(error, progress)}", hint=_HINT) from error
    except OSError as error:  # of the disk: those of the network are all RequestException
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise XbenchError(
            f"the disk of {path.parent} was full after {format_bytes(progress.done_bytes)} of {path.name}",
            hint="make space, or move the cache with XBENCH_CACHE_DIR",
        ) from error
    if progress.total and progress.done_bytes != progress.total:
        raise DownloadFailed(f"{url} {_broke_off(progress)}", hint=_HINT)


def _what_happened(error: BaseException, progress: _Progress) -> str:
    import requests

    if progress.done_bytes or progress.total:
        return _broke_off(progress)
    if isinstance(error, requests.Timeout):
        return "does not answer"
    # What requests says is three errors wrapped in each other; the innermost is the system's own word.
    reason, cause = "", error
    while cause is not None:
        reason = getattr(cause, "strerror", None) or reason
        cause = cause.__cause__ or cause.__context__
    return f"cannot be reached: {reason or ' '.join(str(error).split())}"


def _broke_off(progress: _Progress) -> str:
    of_total = f" of {format_bytes(progress.total)}" if progress.total else ""
    return f"broke off after {format_bytes(progress.done_bytes)}{of_total}"
