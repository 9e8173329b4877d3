"""Make folders beside their place and rename them once they are complete."""

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

# `.NAME.RANDOM.aside` holds a lock file, and the folder that is being made for `NAME`.
_SUFFIX = ".aside"
_LOCK = ".lock"


@contextmanager
def staging_folder(place: Path) -> Iterator[Path]:
    """Make an empty folder on the file system of `place`; it is removed afterwards, unless it was renamed.

    Those that killed processes have left beside `place` are removed first.

    Args:
        place: where the content is to go; its parent is made.

    Raises:
        OSError: the folder cannot be made.
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
        with suppress(LockHeld):  # another process is about to remove it as stale: make a new one
            stack.enter_context(hold(outer / _LOCK))
            return outer


def remove_stale(parent: Path) -> None:
    """Remove the staging folders in `parent` that no process holds."""
    for outer in parent.glob(f".*{_SUFFIX}"):
        if outer.is_symlink() or not outer.is_dir():
            continue  # not made here
        with suppress(LockHeld, OSError), hold(outer / _LOCK):
            shutil.rmtree(outer, ignore_errors=True)


def replace_folder(staged: Path, place: Path) -> None:
    """Fsync a staged folder and rename it to `place`; what was there is removed.

    The caller must hold the lock of `place`. A process that is killed between the two renames leaves nothing
    there.

    Raises:
        OSError: the disk is full, or fails. What was there is kept.
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
    """Remove a folder under another name, so that nobody finds a part of it.

    Raises:
        OSError: it cannot be renamed.
    """
    shutil.rmtree(_move_away(place), ignore_errors=True)


def _move_away(place: Path) -> Path:
    """Rename a folder to that of a stale one; remove a file or link."""
    stale = place.with_name(f".{place.name}.{secrets.token_hex(4)}{_SUFFIX}")
    if place.is_dir() and not place.is_symlink():
        place.rename(stale)
    else:
        place.unlink(missing_ok=True)
    return stale


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder for temporary files in the cache; it is removed afterwards.

    Raises:
        XbenchError: the folder cannot be made.
    """
    place = cache_dir() / "scratch" / "trial"
    with ExitStack() as stack:
        with disk_errors(f"temporary files cannot be kept in {place.parent}"):
            folder = stack.enter_context(staging_folder(place))
        yield folder
