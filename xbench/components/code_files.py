"""List the files below a folder that identify a cell, because its code may depend on them.

These are all files, whatever their suffix: a model may read its layout from a JSON file, or import a module
whose name is only known at run time. The exceptions are hidden files, byte code, virtual environments,
`node_modules`, logs, xbench's own runs, suites and cache, and files that a `.xbenchignore` names.
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

# A project's folder has hundreds of files. A folder with more than this is probably a home folder or a data
# set, and was allowed by mistake.
MAX_FILES = 20_000
MAX_TOTAL_BYTES = 2 * 10**9

# Larger files are identified by their size and time of change: reading them would take seconds at each start.
MAX_READ_BYTES = 10**7

# Ignored in every folder, as if each `.xbenchignore` named them: hidden files, files that tools install or
# generate, files that are written during a run (`nohup` writes `nohup.out`), and backups of editors.
_IGNORED = (".*", "__pycache__/", "node_modules/", "*.log", "nohup.out", "*~")

# The two tables of a suite. Files are searched, not parsed, because a half-written suite may not be TOML.
_SUITE_TABLES = tuple(
    re.compile(rb"""^\s*\[{0,2}\s*["']?%s["']?\s*[\].=]""" % name, re.MULTILINE)
    for name in (b"suite", b"experiment")
)

# Device and inode number, which identify a file or folder whatever path leads to it.
Place = tuple[int, int]


@dataclass(frozen=True)
class PackedComponent:
    """A component that was registered from Python, in the form in which other processes get it.

    Attributes:
        kind: `"model"`, `"optimizer"` or `"dataset"`.
        name: the name that suites use.
        path: file with the pickled spec.
        digest: identifies its source and the values that it uses; 16 hex digits.
        places: folders of the modules that it uses and that may be edited.
    """

    kind: str
    name: str
    path: Path
    digest: str
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImportDirs(Sequence[str]):
    """The folders that `module:attribute` components may be imported from, as a sequence of paths.

    Attributes:
        folders: absolute paths, in the order in which they are searched.
        left_out: files and folders below them that are not code, although their names do not show it.
        packed: components that need no import, because they were registered from Python.
    """

    folders: tuple[str, ...] = ()
    left_out: frozenset[Place] = frozenset()
    packed: tuple[PackedComponent, ...] = ()

    @classmethod
    def of(cls, folders: Sequence[str]) -> ImportDirs:
        """Make an `ImportDirs` from paths; return one unchanged."""
        return folders if isinstance(folders, ImportDirs) else cls(tuple(folders))

    def find_packed(self, kind: str, name: str) -> PackedComponent | None:
        """Return the component of a kind that was registered under a name; None if none was."""
        return next((one for one in self.packed if (one.kind, one.name) == (kind, name)), None)

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
    """A file that counts as code.

    Attributes:
        name: path relative to the folder that was listed, with `/` as the separator.
        path: path to read the file from.
        size_bytes: size of the file.
        changed_ns: time of the last change, in nanoseconds since the epoch.
    """

    name: str
    path: Path
    size_bytes: int
    changed_ns: int


def place_of(path: str | Path | int) -> Place | None:
    """Return the device and inode number of a path or an open file descriptor; None if `stat` fails."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def code_files(root: Path, left_out: Set[Place | None] = frozenset()) -> list[CodeFile]:
    """List the files below a folder that count as code, sorted by name; or only `root` if it is a file.

    Symbolic links are followed, but a folder is listed only once.

    Raises:
        XbenchError: there are too many files, or `.xbenchignore` is not valid.
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
        entries = _list_entries(folder)
        if folder != root and _is_not_code({entry.name for entry in entries}):
            continue
        for entry in entries:
            name = prefix + entry.name
            try:
                status = entry.stat()
            except OSError:  # a broken link, or a file that was just deleted
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
                f"{root} holds more than {MAX_FILES:,} files or {MAX_TOTAL_BYTES / 1e9:.0f} GB: xbench reads "
                "all files in a folder of code at each start, because a cell may depend on them",
                hint=f"allow a smaller folder, or list files that are not code in {root / IGNORE_FILE}, one "
                "pattern per line, as in a .gitignore",
            )
    return sorted(found)


def _read_ignore_file(root: Path) -> GitIgnoreSpec:
    """Read the patterns of a folder's `.xbenchignore`, and put those that apply everywhere before them."""
    from pathspec import GitIgnoreSpec  # imported late, because it is slow to import

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
        raise XbenchError(f"{path}: {error}", hint="write patterns as in a .gitignore") from error


def _list_entries(folder: Path) -> list[os.DirEntry[str]]:
    """List the entries of a folder, sorted by name; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _is_not_code(names: set[str]) -> bool:
    """Check whether a folder with these files is a virtual environment, or a run of xbench."""
    return "pyvenv.cfg" in names or ("run.json" in names and bool({"suite.toml", "cells.jsonl"} & names))


def _is_suite(file: CodeFile) -> bool:
    """Check whether a file is a suite, because editing a suite must not change the cells of another."""
    if not file.name.endswith(".toml") or file.size_bytes > MAX_READ_BYTES:
        return False
    try:
        content = read_regular(file.path)
    except OSError:
        return False
    return all(table.search(content) for table in _SUITE_TABLES)
