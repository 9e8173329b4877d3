"""Find the image files in a folder, and describe the files that are not used."""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from xbench.components.images import IMAGE_SUFFIXES
from xbench.errors import XbenchError
from xbench.text import quote_some

# Names of folders with images for validation. They count as train, from which xbench holds out its own.
VALIDATION_FOLDERS = ("val", "valid", "validation")

# Lower-case names of folders and files that file managers, NAS systems and archivers add.
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
# Not images, but reported like images, because they hold thumbnails.
_THUMBNAIL_FILES = frozenset({"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db"})

_MAX_KINDS = 3


def is_clutter(name: str) -> bool:
    """Check by name whether a file or folder is hidden, or was added by a file manager or a NAS system."""
    return name.startswith(".") or name.casefold() in _CLUTTER


@dataclass
class FoundFiles:
    """The files at any depth below a folder, with names relative to it.

    Attributes:
        images: regular files with an image suffix, sorted.
        irregular: broken links, pipes and devices with an image suffix, sorted.
        others: regular files with any other suffix, sorted.
        clutter: number of images and thumbnails that were left out as clutter, by the name of the hidden or
            added file or folder.
    """

    images: list[PurePosixPath] = field(default_factory=list)
    irregular: list[PurePosixPath] = field(default_factory=list)
    others: list[PurePosixPath] = field(default_factory=list)
    clutter: Counter[str] = field(default_factory=Counter)

    def add(self, found: FoundFiles, place: str) -> None:
        """Add the files that were found in the subfolder `place`."""
        for mine, its in (
            (self.images, found.images),
            (self.irregular, found.irregular),
            (self.others, found.others),
        ):
            mine.extend(place / name for name in its)
        self.clutter.update(found.clutter)


def find_files(folder: Path) -> FoundFiles:
    """Find the files at any depth below a folder, following links, and sort them into images and others.

    Raises:
        XbenchError: a folder cannot be read, or a name is not UTF-8.
    """
    found = FoundFiles()
    # A stack instead of recursion, because folders may be nested deeper than Python's recursion limit.
    waiting: list[tuple[str, str, frozenset[tuple[int, int]]]] = [(str(folder), "", frozenset())]
    while waiting:
        place, relative, above = waiting.pop()
        itself, entries = _list_entries(place)
        if itself in above:
            continue  # a link to one of its own parent folders
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
    """List the images at any depth below a folder, sorted and relative to it, following links.

    Raises:
        XbenchError: a folder cannot be read, or a name is not UTF-8.
    """
    return find_files(folder).images


def list_loose_images(folder: Path) -> list[str]:
    """List the images directly in a folder, sorted.

    Raises:
        XbenchError: the folder cannot be read, or a name is not UTF-8.
    """
    _, entries = _list_entries(str(folder))
    return sorted(
        name
        for name, kind in entries
        if stat.S_ISREG(kind) and _has_image_suffix(name) and not is_clutter(name)
    )


def note_unused_files(found: FoundFiles) -> list[str]:
    """Write notes on the files that are not used, for readers of the results."""
    notes = []
    if found.irregular:
        notes.append(f"not used, because they are not regular files: {quote_some(found.irregular)}")
    if found.others:
        kinds = Counter(name.suffix.lower() or "no suffix" for name in found.others)
        most = sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))[:_MAX_KINDS]
        counts = ", ".join(f"{count:,} {kind}" for kind, count in most)
        more = f", {len(kinds) - _MAX_KINDS} other kinds" if len(kinds) > _MAX_KINDS else ""
        notes.append(
            f"{len(found.others):,} files in the classes' folders are not images in a supported format "
            f"({counts}{more}): {quote_some(found.others)}"
        )
    if found.clutter:
        counts = ", ".join(f"{count:,} '{name}'" for name, count in sorted(found.clutter.items()))
        total = found.clutter.total()
        notes.append(f"{total:,} hidden images and thumbnails of other programs were left out: {counts}")
    return notes


def _has_image_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _count_clutter(path: str, name: str) -> int:
    """Count the images and thumbnails in a file or folder of clutter; a link to a folder counts as 0."""
    if not os.path.isdir(path):
        return int(_has_image_suffix(name) or name.casefold() in _THUMBNAIL_FILES)
    if os.path.islink(path):
        return 0
    return sum(_has_image_suffix(file) for _, _, files in os.walk(path) for file in files)


def _list_entries(folder: str) -> tuple[tuple[int, int], list[tuple[str, int]]]:
    """List the entries of a folder.

    Returns:
        The folder's device and inode number, and the name and file type of each entry.
    """
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
            f"the name {error.object!a}, at or in {folder!a}, is not valid UTF-8", hint="rename it"
        ) from error
    return (itself.st_dev, itself.st_ino), [(entry.name, _file_type(entry)) for entry in found]


def _file_type(entry: os.DirEntry[str]) -> int:
    """Return the file type bits of an entry's mode; 0 for a broken link."""
    try:
        return stat.S_IFMT(entry.stat().st_mode)
    except OSError:
        return 0
