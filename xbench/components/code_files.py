"""List the files below a folder that are part of what a cell is.

All of them are, whatever their suffix: a model may read its layout from a JSON file, or import a module whose
name it learns at run time. Left out is what cannot be code: hidden files, byte code, virtual environments,
`node_modules`, logs, xbench's own runs, suites and cache, and what a `.xbenchignore` names.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

from xbench.errors import XbenchError
from xbench.storage.atomic import read_regular
from xbench.storage.paths import cache_dir

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILE = ".xbenchignore"

# A project's folder has hundreds. Above this, a home folder or a data set was meant by mistake.
MAX_FILES = 20_000
MAX_TOTAL_BYTES = 2 * 10**9

# Larger files count by their size and time of change: reading them would take seconds at each start.
MAX_READ_BYTES = 10**7

# Ignored everywhere, as if they stood in each `.xbenchignore`: hidden files, what tools install and generate,
# and what is written while a run goes on (`nohup` writes `nohup.out`) or left by editors.
_IGNORED = (".*", "__pycache__/", "node_modules/", "*.log", "nohup.out", "*~")

# The two tables of a suite. It is not parsed: one that is being written may not be TOML yet.
_SUITE_TABLES = tuple(
    re.compile(rb"""^\s*\[{0,2}\s*["']?%s["']?\s*[\].=]""" % name, re.MULTILINE)
    for name in (b"suite", b"experiment")
)

# Device and inode number: they name a file or folder whatever path leads to it.
Place = tuple[int, int]


@dataclass(frozen=True)
class ImportDirs(Sequence[str]):
    """The folders that `module:attribute` components may be imported from, as a sequence of their paths.

    Attributes:
        folders: absolute paths, in the order in which they are searched.
        left_out: files and folders below them that are not code, though their names do not tell.
    """

    folders: tuple[str, ...] = ()
    left_out: frozenset[Place] = frozenset()

    @classmethod
    def of(cls, folders: Sequence[str]) -> ImportDirs:
        """Wrap paths; an `ImportDirs` is returned as it is."""
        return folders if isinstance(folders, ImportDirs) else cls(tuple(folders))

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self.folders[index]

    def __len__(self) -> int:
        return len(self.folders)


@dataclass(frozen=True, order=True)
class CodeFile:
    """A file that counts.

    Attributes:
        name: its path relative to the folder that was listed, with `/`.
        size_bytes, changed_ns: from its status.
    """

    name: str
    path: Path
    size_bytes: int
    changed_ns: int


def place_of(path: str | Path | int) -> Place | None:
    """The device and inode number behind a path or an open descriptor; None if there is nothing."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def code_files(root: Path, left_out: Set[Place | None] = frozenset()) -> list[CodeFile]:
    """List the files below a folder that count as code, sorted by name; or the one file that `root` is.

    Symbolic links are followed; a folder is entered once, whichever links lead to it.

    Raises:
        XbenchError: there are too many of them, or `.xbenchignore` is not valid.
    """
    if root.is_file():
        status = root.stat()
        return [CodeFile(root.name, root, status.st_size, status.st_mtime_ns)]
    ignored = _read_ignore_file(root)
    skipped = {*left_out, place_of(cache_dir()), place_of(root)}
    found: list[CodeFile] = []
    waiting, total_bytes = [(root, "")], 0
    while waiting:
        folder, prefix = waiting.pop()
        entries = _entries(folder)
        if folder != root and _is_not_code({entry.name for entry in entries}):
            continue
        for entry in entries:
            name = prefix + entry.name
            try:
                status = entry.stat()
            except OSError:  # a link to nowhere, or gone since it was listed
                continue
            place = status.st_dev, status.st_ino
            is_folder = stat.S_ISDIR(status.st_mode)
            if place in skipped or ignored.match_file(f"{name}/" if is_folder else name):
                continue
            if is_folder:
                skipped.add(place)
                waiting.append((Path(entry.path), f"{name}/"))
            elif stat.S_ISREG(status.st_mode):
                file = CodeFile(name, Path(entry.path), status.st_size, status.st_mtime_ns)
                if _is_suite(file):
                    continue
                found.append(file)
                total_bytes += file.size_bytes if file.size_bytes <= MAX_READ_BYTES else 0
        if len(found) + len(skipped) > MAX_FILES or total_bytes > MAX_TOTAL_BYTES:
            raise XbenchError(
                f"{root} holds more than {MAX_FILES:,} files or {MAX_TOTAL_BYTES / 1e9:.0f} GB: all files "
                "below a folder of code are part of what a cell is, and are read at each start",
                hint=f"allow a smaller folder, or name what is not code in {root / IGNORE_FILE}, one pattern "
                "a line, as in a .gitignore",
            )
    return sorted(found)


def _read_ignore_file(root: Path) -> GitIgnoreSpec:
    """Read the patterns of a folder's `.xbenchignore`; those that hold everywhere come before them."""
    from pathspec import GitIgnoreSpec  # only where it is needed: it takes a while to import

    path = root / IGNORE_FILE
    try:
        lines = read_regular(path).decode().splitlines()
    except FileNotFoundError:
        lines = []
    except (OSError, UnicodeDecodeError) as error:
        raise XbenchError(f"{path} cannot be read: {error}") from error
    try:
        return GitIgnoreSpec.from_lines([*_IGNORED, *lines])
    except ValueError as error:
        raise XbenchError(f"{path}: {error}", hint="patterns are those of a .gitignore") from error


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, sorted by name; nothing if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _is_not_code(names: set[str]) -> bool:
    """Whether a folder of these files is a virtual environment, or a run of xbench."""
    return "pyvenv.cfg" in names or ("run.json" in names and bool({"suite.toml", "cells.jsonl"} & names))


def _is_suite(file: CodeFile) -> bool:
    """Whether a file is a suite: editing one must not change the cells of another."""
    if not file.name.endswith(".toml") or file.size_bytes > MAX_READ_BYTES:
        return False
    try:
        content = read_regular(file.path)
    except OSError:
        return False
    return all(table.search(content) for table in _SUITE_TABLES)
