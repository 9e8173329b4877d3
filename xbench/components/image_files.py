"""Find the image files of a folder, and tell what else lies there."""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from xbench.components.images import IMAGE_SUFFIXES
from xbench.errors import XbenchError
from xbench.text import some_of

# Folders beside `train` that hold images for validation: xbench holds its own out of train.
VALIDATION_FOLDERS = ("val", "valid", "validation")

# Folders and files that file managers, NAS systems and archivers add, in lower case.
_CLUTTER = frozenset(
    {
        "__macosx",
        "@eadir",
        "@tmp",
        "#recycle",
        "@recycle",
        "#snapshot",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
    }
)
# Of these a note is made even though they are not images: they hold thumbnails.
_THUMBNAIL_FILES = frozenset({"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db"})

_MAX_KINDS = 3


def is_clutter(name: str) -> bool:
    """Tell whether a file or folder of that name does not belong to a dataset: it is hidden, or was added by
    a file manager, a NAS system or macOS."""
    return name.startswith(".") or name.casefold() in _CLUTTER


@dataclass
class FoundFiles:
    """The files at any depth below a folder; names are relative to it.

    Attributes:
        images: regular files with a suffix of an image, sorted.
        irregular: other entries with such a suffix, sorted: links to nowhere, pipes, devices.
        others: regular files with another suffix, sorted.
        clutter: how many images and thumbnails were left out as clutter, by the name of the hidden or added
            file or folder.
    """

    images: list[PurePosixPath] = field(default_factory=list)
    irregular: list[PurePosixPath] = field(default_factory=list)
    others: list[PurePosixPath] = field(default_factory=list)
    clutter: Counter[str] = field(default_factory=Counter)

    def add(self, found: FoundFiles, place: str) -> None:
        """Add what was found in the folder `place` of this one."""
        for mine, its in (
            (self.images, found.images),
            (self.irregular, found.irregular),
            (self.others, found.others),
        ):
            mine.extend(place / name for name in its)
        self.clutter.update(found.clutter)


def find_files(folder: Path) -> FoundFiles:
    """Sort the files at any depth below a folder into images and others. Links are followed.

    Raises:
        XbenchError: a folder cannot be read, or a name is not UTF-8.
    """
    found = FoundFiles()
    # A stack: folders may lie in each other as deep as names may be long.
    waiting: list[tuple[str, str, frozenset[tuple[int, int]]]] = [(str(folder), "", frozenset())]
    while waiting:
        place, relative, above = waiting.pop()
        itself, entries = _look_into(place)
        if itself in above:
            continue  # a link to a folder that it lies in
        for name, kind in entries:
            if is_clutter(name):
                if count := _count_clutter(f"{place}/{name}", name):
                    found.clutter["._*" if name.startswith("._") else name] += count
            elif stat.S_ISDIR(kind):
                waiting.append((f"{place}/{name}", f"{relative}{name}/", above | {itself}))
            elif _has_image_suffix(name):
                (found.images if stat.S_ISREG(kind) else found.irregular).append(
                    PurePosixPath(relative, name)
                )
            elif stat.S_ISREG(kind):
                found.others.append(PurePosixPath(relative, name))
    for names in (found.images, found.irregular, found.others):
        names.sort()
    return found


def list_images(folder: Path) -> list[PurePosixPath]:
    """List the images at any depth below a folder, relative to it, sorted; links are followed.

    Raises:
        XbenchError: a folder cannot be read, or a name is not UTF-8.
    """
    return find_files(folder).images


def loose_images(folder: Path) -> list[str]:
    """List the images that lie directly in a folder, sorted.

    Raises:
        XbenchError: the folder cannot be read, or a name is not UTF-8.
    """
    _, entries = _look_into(str(folder))
    return sorted(
        name
        for name, kind in entries
        if stat.S_ISREG(kind) and _has_image_suffix(name) and not is_clutter(name)
    )


def notes_on_left_out(found: FoundFiles) -> list[str]:
    """Write notes, for the readers of results, on the files that are not used; none if there are none."""
    notes = []
    if found.irregular:
        notes.append(f"not used, because they are not regular files: {some_of(found.irregular)}")
    if found.others:
        kinds = Counter(name.suffix.lower() or "no suffix" for name in found.others)
        most = sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))[:_MAX_KINDS]
        counts = ", ".join(f"{count:,} {kind}" for kind, count in most)
        more = f", {len(kinds) - _MAX_KINDS} other kinds" if len(kinds) > _MAX_KINDS else ""
        notes.append(
            f"{len(found.others):,} files in the classes' folders are not images that can be read "
            f"({counts}{more}): {some_of(found.others)}"
        )
    if found.clutter:
        counts = ", ".join(f"{count:,} '{name}'" for name, count in sorted(found.clutter.items()))
        notes.append(
            f"{found.clutter.total():,} thumbnails and hidden images that other programs add were left out: "
            f"{counts}"
        )
    return notes


def _has_image_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _count_clutter(path: str, name: str) -> int:
    """Count the images and thumbnails in a file or folder that is clutter. Links to folders count as none."""
    if not os.path.isdir(path):
        return int(_has_image_suffix(name) or name.casefold() in _THUMBNAIL_FILES)
    if os.path.islink(path):
        return 0
    return sum(_has_image_suffix(file) for _, _, files in os.walk(path) for file in files)


def _look_into(folder: str) -> tuple[tuple[int, int], list[tuple[str, int]]]:
    """Return what tells a folder from all others, and name and kind of each of its entries. A link to nowhere
    is of kind 0."""
    try:
        folder.encode()
        itself = os.stat(folder)
        with os.scandir(folder) as entries:
            found = list(entries)
        for entry in found:
            if not is_clutter(entry.name):
                entry.name.encode()
    except OSError as error:
        raise XbenchError(f"{folder} cannot be listed: {error.strerror}") from error
    except UnicodeEncodeError as error:
        raise XbenchError(
            f"{error.object!a}, at or in {folder!a}, is no UTF-8 name", hint="rename it"
        ) from error
    return (itself.st_dev, itself.st_ino), [(entry.name, _kind(entry)) for entry in found]


def _kind(entry: os.DirEntry[str]) -> int:
    try:
        return stat.S_IFMT(entry.stat().st_mode)
    except OSError:
        return 0
