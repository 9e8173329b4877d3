"""Build folders beside their destination, and rename them into place once they are complete."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from xbench.storage.atomic import sync_folder, sync_tree
from xbench.storage.locks import LockHeld, hold
from xbench.storage.paths import cache_dir, disk_errors

# `.NAME.RANDOM.aside` contains a lock file and the content that is being built for `NAME`.
_SUFFIX = ".aside"
_LOCK = ".lock"


@contextmanager
def staging_folder(place: Path) -> Iterator[Path]:
    """Create an empty folder beside `place`, and remove it afterwards unless it was renamed.

    Staging folders that killed processes left there are removed first.

    Args:
        place: destination of the content. Its parent is created.

    Raises:
        OSError: the folder cannot be created.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(place.parent)
    with ExitStack() as stack:
        content = _make_locked(place, stack) / "content"
        content.mkdir()
        yield content


def _make_locked(place: Path, stack: ExitStack) -> Path:
    while True:
        outer = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=_SUFFIX, dir=place.parent))
        stack.callback(shutil.rmtree, outer, ignore_errors=True)
        # Until it is locked, another process may remove it as stale: then create a new one.
        with suppress(LockHeld, FileNotFoundError, FileExistsError):
            stack.enter_context(hold(outer / _LOCK))
            return outer


def remove_stale(parent: Path) -> None:
    """Remove the staging folders in `parent` that no process has locked."""
    for outer in parent.glob(f".*{_SUFFIX}"):
        if outer.is_symlink() or not outer.is_dir():
            continue  # not a staging folder
        with suppress(LockHeld, OSError), hold(outer / _LOCK):
            shutil.rmtree(outer, ignore_errors=True)


def replace_folder(staged: Path, place: Path) -> None:
    """Fsync a staged folder and rename it to `place`, replacing what was there.

    The caller must hold the lock of `place`. If the process is killed between the two renames, nothing is
    left at `place`.

    Raises:
        OSError: the disk is full or failing. What was at `place` is kept.
    """
    sync_tree(staged)
    older = _move_away(place)
    try:
        staged.rename(place)
    except OSError:
        if older.exists():
            older.rename(place)
        raise
    sync_folder(place.parent)
    shutil.rmtree(older, ignore_errors=True)


def discard(place: Path) -> None:
    """Rename a folder, then remove it, so that no reader finds part of it.

    Raises:
        OSError: the folder cannot be renamed.
    """
    shutil.rmtree(_move_away(place), ignore_errors=True)


def _move_away(place: Path) -> Path:
    """Rename a folder like a stale staging folder and return its new path. A file or link is removed."""
    stale = place.with_name(f".{place.name}.{secrets.token_hex(4)}{_SUFFIX}")
    if place.is_dir() and not place.is_symlink():
        place.rename(stale)
    else:
        place.unlink(missing_ok=True)
    return stale


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Create a folder for temporary files in the cache, and remove it afterwards.

    Raises:
        XbenchError: the folder cannot be created.
    """
    place = cache_dir() / "scratch" / "trial"
    with ExitStack() as stack:
        with disk_errors(f"cannot create temporary files in {place.parent}"):
            folder = stack.enter_context(staging_folder(place))
        yield folder
