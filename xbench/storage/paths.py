"""Find the cache folder, check free disk space, and explain disk errors."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from platformdirs import user_cache_path

from xbench.errors import XbenchError
from xbench.text import escape_controls, format_value
from xbench.units import format_bytes

CACHE_VARIABLE = "XBENCH_CACHE_DIR"
MOVE_CACHE = f"move the cache with {CACHE_VARIABLE}"

# What the user can do about errors of a disk or its file system. Alternatives may be appended with "or".
_HINTS = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there (your quota is used up)",
    errno.EFBIG: "raise the limit on file size (`ulimit -f`)",
    errno.EROFS: "remount its file system writable (it is read-only)",
    errno.EACCES: "check its permissions",
    errno.EMFILE: "raise the limit on open files (`ulimit -n`)",
    errno.ENFILE: "close some programs (too many files are open on this machine)",
    errno.ENAMETOOLONG: "choose a shorter path",
}


def cache_dir() -> Path:
    """Return the cache folder, which may not exist yet.

    The folder is `XBENCH_CACHE_DIR` if that is set, otherwise the user's cache folder. If that cannot be
    written to, or the user has no home folder, a private folder is created among the temporary files.

    Raises:
        XbenchError: `XBENCH_CACHE_DIR` names the home folder of an unknown user, or no folder is writable.
    """
    return _find_cache()[0]


def cache_note() -> str:
    """Return a sentence that says where the cache is and why, if it is among the temporary files; else "".

    Raises:
        XbenchError: see `cache_dir`.
    """
    folder, reason = _find_cache()
    if not reason:
        return ""
    return f"{reason}, so the cache is in {folder}; set {CACHE_VARIABLE} to a permanent folder"


def _find_cache() -> tuple[Path, str]:
    """Return the cache folder and, if it is not the usual one, the reason."""
    override = os.environ.get(CACHE_VARIABLE)
    if override:
        return expand_user(override, CACHE_VARIABLE), ""
    try:
        usual = user_cache_path("xbench")
    except RuntimeError:  # newer versions of platformdirs
        usual = Path("~")
    if usual.parts[0] == "~":  # no home folder is known
        reason = "this user has no home folder (HOME is not set)"
    elif not _is_writable(usual):
        reason = f"{usual} cannot be written to"
    else:
        return usual, ""
    return _make_temporary_cache(reason), reason


def _make_temporary_cache(reason: str) -> Path:
    """Create the user's private folder among the temporary files, if needed, and return it.

    Raises:
        XbenchError: the folder cannot be created or written to, or other users could change its files.
    """
    hint = f"set {CACHE_VARIABLE} to a folder that you may write to"
    try:
        folder = Path(tempfile.gettempdir()) / f"xbench-cache-{os.getuid()}"
        # Create it now, before another user can, and without write access for others whatever the umask is.
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        found = folder.lstat()
    except OSError as error:
        raise XbenchError(f"there is no writable folder for the cache: {reason}", hint) from error
    is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    if not is_own or found.st_mode & 0o022:
        raise XbenchError(f"cannot use {folder} as the cache: another user could write to it", hint)
    if found.st_mode & 0o300 != 0o300:
        raise XbenchError(f"cannot use {folder} as the cache: you cannot write to it", hint)
    return folder


def _is_writable(folder: Path) -> bool:
    """Return whether a folder can be written to, or created if it does not exist."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def expand_user(path: str | Path, source: str) -> Path:
    """Replace a leading `~` or `~name` with that user's home folder.

    Args:
        source: where the user gave the path, for error messages.

    Raises:
        XbenchError: this machine does not know the user, or the user has no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        who = Path(path).parts[0].removeprefix("~")
        why = f"there is no user '{escape_controls(who)}'" if who else "this user has no home folder"
        hint = f"write the full path, or ./{path} for a folder whose name begins with ~"
        raise XbenchError(
            f"{source} {format_value(str(path))}: {why} on this machine", escape_controls(hint)
        ) from error


def concerns(error: OSError, folder: Path) -> bool:
    """Return whether an error is about a folder or a file in it."""
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str | os.PathLike)]
    return any(Path(name).absolute().is_relative_to(folder.absolute()) for name in names)


def disk_hint(error: OSError, instead: str = "") -> str:
    """Return a hint on what the user can do about a disk error; "" if there is none.

    Args:
        instead: an alternative for the hint, such as another folder; "" for none.
    """
    return ", or ".join(filter(None, [_HINTS.get(error.errno or 0), instead]))


def find_blocking_file(folder: Path) -> Path | None:
    """Return the file that is in the place of a folder or of one of its parents; None if there is none."""
    nearest = next((place for place in (folder, *folder.parents) if os.path.exists(place)), None)
    return None if nearest is None or nearest.is_dir() else nearest


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn an OSError into an XbenchError with a hint.

    Args:
        what: the message without the reason: says what could not be done.

    Raises:
        XbenchError: in place of any OSError.
    """
    try:
        yield
    except OSError as error:
        is_in_the_way = error.errno in (errno.EEXIST, errno.ENOTDIR)
        reason = "a file is where a folder is needed" if is_in_the_way else error.strerror or str(error)
        raise XbenchError(f"{what}: {reason}", disk_hint(error, MOVE_CACHE)) from error


def require_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Check that a file system has room before a large file or folder is written to it.

    Args:
        folder: destination, which need not exist yet.
        what: the subject of the error message, such as `downloading x.zip`.

    Raises:
        XbenchError: there is too little free space.
    """
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < needed_bytes:
        raise XbenchError(
            f"{what} needs {format_bytes(needed_bytes)} in {folder}, "
            f"but only {format_bytes(free_bytes)} is free",
            hint=f"{_HINTS[errno.ENOSPC]}, or {MOVE_CACHE}",
        )
