"""Download files of known hash. A file appears only once it is complete and its hash is verified."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from xbench.errors import DownloadFailed, XbenchError
from xbench.storage.atomic import atomic_replace
from xbench.storage.locks import hold_place
from xbench.storage.paths import disk_errors, require_space
from xbench.storage.staging import staging_folder
from xbench.units import format_bytes

OnProgress = Callable[[int, int], None]
OnStep = Callable[[str], None]

# How long a server may be silent before it answers, and between any two chunks.
_CONNECT_TIMEOUT_S = 15
_READ_TIMEOUT_S = 60

_CHUNK_BYTES = 1 << 18
_HASH_BLOCK_BYTES = 1 << 24
_HASH = re.compile(r"[0-9a-f]{8,64}")
_HINT = "check the network (and HTTPS_PROXY, if you are behind a proxy), then try again"


def download(
    url: str,
    path: Path,
    sha256: str,
    on_progress: OnProgress,
    on_step: OnStep = lambda step: None,
) -> None:
    """Download a file to `path`, unless it is already there.

    If two processes download the same file, the second waits for the first.

    Args:
        url: address of the file, http or https.
        path: where the file is saved. Missing parent folders are created.
        sha256: the file's hash in hex, or at least its first 8 digits.
        on_progress: called with (done_bytes, total_bytes) as data arrives; total_bytes is 0 while unknown.
        on_step: called before waiting for another process, and before verifying the download.

    Raises:
        DownloadFailed: the server cannot be reached, refuses the request, or closes the connection early.
        XbenchError: the hash differs, the disk has no room, the file cannot be written, or the URL is not
            http or https.
    """
    wanted = sha256.lower()
    if not _HASH.fullmatch(wanted):
        raise XbenchError(f"'{sha256}' is not a sha256", hint="give 8 to 64 hexadecimal digits")
    if not re.match(r"https?://[^/]", url, re.IGNORECASE):
        raise XbenchError(f"'{url}' is not a web address", hint="start it with https:// or http://")
    with disk_errors(f"cannot save {path.name} in {path.parent}"):
        if not _has_hash(path, wanted):
            _replace(url, path, wanted, on_progress, on_step)


def _replace(url: str, path: Path, wanted: str, on_progress: OnProgress, on_step: OnStep) -> None:
    def on_wait() -> None:
        on_step("waiting for another process to finish downloading it")

    with hold_place(path, on_wait), staging_folder(path) as folder:
        if _has_hash(path, wanted):  # another process downloaded it in the meantime
            return
        with (folder / path.name).open("w+b") as file:
            _fetch(url, file, path, on_progress)
            on_step("verifying it")
            file.seek(0)
            got = hashlib.file_digest(file, "sha256").hexdigest()
            if not got.startswith(wanted):
                raise XbenchError(
                    f"checksum mismatch for {url}: expected sha256 {wanted}, got {got} (file discarded)",
                    hint="the published file has changed, or it was altered in transit",
                )
            os.fsync(file.fileno())
        atomic_replace(folder / path.name, path)


def sha256_of(path: Path, on_progress: OnProgress | None = None) -> str:
    """Hash a file with SHA-256.

    Args:
        on_progress: called with (done_bytes, total_bytes) after each block.

    Returns:
        The hash in hex.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        if on_progress is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest, total_bytes = hashlib.sha256(), os.fstat(file.fileno()).st_size
        while part := file.read(_HASH_BLOCK_BYTES):
            digest.update(part)
            on_progress(file.tell(), total_bytes)
        return digest.hexdigest()


def _has_hash(path: Path, wanted: str) -> bool:
    return path.is_file() and sha256_of(path).startswith(wanted)


class _Progress:
    """A progress bar for pooch, which sets `total`, then calls `update` for every chunk."""

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

    def update(self, _: int) -> None:  # pooch passes the size of its buffer, not of the chunk
        self._on_progress(self.done_bytes, self._total_bytes)

    def reset(self) -> None:
        pass

    def close(self) -> None:
        pass


def _fetch(url: str, file: BinaryIO, path: Path, on_progress: OnProgress) -> None:
    # Imported here because most importers of this module never download anything.
    import pooch
    import requests
    import urllib3

    progress = _Progress(file, path, on_progress)
    downloader = pooch.HTTPDownloader(
        progressbar=progress,
        chunk_size=_CHUNK_BYTES,
        timeout=(_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S),
        # Without compression, the announced length is the size of the file.
        headers={"Accept-Encoding": "identity", "User-Agent": "xbench"},
    )
    try:
        downloader(url, file, None)
    except requests.HTTPError as error:
        response = error.response
        answer = str(error) if response is None else f"{response.status_code} {response.reason}"
        raise DownloadFailed(
            f"{url}: the server answered {answer}".rstrip(),
            hint="the file may have moved, or the server may have a problem: try again later",
        ) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
        # ValueError is raised for malformed headers.
        raise DownloadFailed(f"{url} {_explain_failure(error, progress)}", hint=_HINT) from error
    if progress.total and progress.done_bytes != progress.total:
        raise DownloadFailed(f"{url} {_describe_break(progress)}", hint=_HINT)


def _explain_failure(error: BaseException, progress: _Progress) -> str:
    import requests

    if progress.done_bytes or progress.total:
        return _describe_break(progress)
    if isinstance(error, requests.Timeout):
        return "did not answer in time"
    # requests wraps three errors in each other; the innermost has the system's own message.
    reason = ""
    cause: BaseException | None = error
    while cause is not None:
        reason = getattr(cause, "strerror", None) or reason
        cause = cause.__cause__ or cause.__context__
    return f"cannot be reached: {reason or ' '.join(str(error).split())}"


def _describe_break(progress: _Progress) -> str:
    of_total = f" of {format_bytes(progress.total)}" if progress.total else ""
    return f"broke off after {format_bytes(progress.done_bytes)}{of_total}"
