"""Hash the code behind a component: files where they may be edited, versions of what is installed."""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from importlib.machinery import all_suffixes
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

from xbench.components.code_files import MAX_READ_BYTES, CodeFile, ImportDirs, code_file, code_files
from xbench.components.images import IMAGE_SUFFIXES
from xbench.components.imports import imported_names
from xbench.components.registry import Kind, find
from xbench.errors import XbenchError
from xbench.storage.atomic import read_regular

# The subpackages of xbench whose code a cell or its memory pass runs.
_OF_CELLS = ("capacity", "components", "data", "isolation", "memory", "training")

_XBENCH = Path(__file__).parents[1]

# Every cell depends on them, whatever its components import.
_OF_ALL = frozenset({"xbench", "torch", "torchvision", "numpy"})

# Stands for every `module:attribute`: each may import from any allowed folder.
_ANY: tuple[Kind, str] = ("model", ":")


@cache
def code_stamp(
    kind: Kind,
    reference: str,
    import_dirs: Sequence[str] | ImportDirs = (),
    only_modules: bool = False,
) -> str:
    """Hash the code of a component; "" for what is built in or installed and imports nothing of its own.

    A `module:attribute` is all files below the allowed folders, a package that is installed in place (`pip
    install -e`) all files below its folder, and both are the versions of the packages that they import.

    Args:
        import_dirs: the allowed folders; hashable.
        only_modules: leave out the files that are not Python modules: code may write such files as it runs.

    Raises:
        XbenchError: a folder holds too many files, or its `.xbenchignore` is not valid.
    """
    if ":" not in reference:
        registration = find(kind, reference)
        modules = [claim.module for claim in registration.claims] if registration else []
        own = {module.partition(".")[0] for module in modules} - _OF_ALL
        files = [file for package in sorted(own) for file in _files_of(package)]
        return _hash([file for file in files if not only_modules or _is_module(file)], own)
    if (kind, reference) != _ANY:
        return code_stamp(*_ANY, import_dirs, only_modules)  # read once, for all components
    allowed = ImportDirs.of(import_dirs)
    files = [file for file in _files_below(allowed) if not file.path.is_relative_to(_XBENCH)]
    if only_modules:
        files = list(filter(_is_module, files))
    return _hash(files, {name for file in files if (name := _module_name(file))}, allowed)


@cache
def own_stamp() -> str:
    """Hash the code of xbench that cells run, if it is installed in place; else "": its version tells."""
    if _is_installed(_XBENCH):
        return ""
    digest = hashlib.sha256()
    for path in sorted(path for room in _OF_CELLS for path in (_XBENCH / room).rglob("*.py")):
        digest.update(f"\0{path.name}\0".encode(errors="surrogateescape") + path.read_bytes())
    return digest.hexdigest()[:16]


def latest_change(import_dirs: Sequence[str] | ImportDirs, only_modules: bool = False) -> CodeFile | None:
    """Find the file below the allowed folders that was changed last; None if there is none."""
    try:
        files = _files_below(ImportDirs.of(import_dirs))
    except XbenchError:  # by now there are too many
        return None
    files = [file for file in files if not only_modules or _is_module(file)]
    return max(files, key=lambda file: file.changed_ns, default=None)


def _files_below(allowed: ImportDirs) -> list[CodeFile]:
    return [file for folder in allowed for file in code_files(Path(folder), allowed.left_out)]


def _is_module(file: CodeFile) -> bool:
    return file.name.endswith(tuple(all_suffixes()))


def _module_name(file: CodeFile) -> str | None:
    """What an import calls a file at the top of an allowed folder, or the package that a file is in."""
    parts = file.name.split("/")
    if len(parts) == 1:
        suffix = next((suffix for suffix in all_suffixes() if file.name.endswith(suffix)), None)
        return file.name.removesuffix(suffix) if suffix else None
    # A folder without it gives way to an installed package of its name.
    return parts[0] if parts[1] == "__init__.py" else None


def _hash(files: list[CodeFile], own: set[str], allowed: Iterable[str] = ()) -> str:
    """Hash files, those of in-place packages that they import, and the versions of installed packages.

    Args:
        files: those of installed packages are only searched for imports.
        own: top-level names by which the files import each other.
        allowed: folders whose files are all among `files`, or are to be left out.
    """
    known = own | _OF_ALL | sys.stdlib_module_names
    digest, versions = hashlib.sha256(), set()
    has_files, unread = False, files
    while unread:  # of what is installed the version stands for what it imports, too
        names: set[str] = set()
        for file in unread:
            content = _content_of(file)
            if file.name.endswith(".py"):
                names |= imported_names(content)
            if allowed or not _is_installed(file.path):
                has_files = True
                digest.update(f"\0{file.name}\0".encode(errors="surrogateescape"))
                digest.update(hashlib.sha256(content).digest())
        names -= known
        known |= names
        unread = []
        for name in sorted(names):
            places = _places_of(name)
            if any(map(_is_installed, places)):
                versions |= _versions_of(name)
            elif not any(place.is_relative_to(folder) for place in places for folder in allowed):
                unread += _files_of(name)
    digest.update("\0".join(sorted(versions)).encode())
    return digest.hexdigest()[:16] if has_files or versions else ""


def _content_of(file: CodeFile) -> bytes:
    """What stands for a file: its bytes, or of large ones and of images the size and time of change."""
    if file.size_bytes <= MAX_READ_BYTES and file.path.suffix.lower() not in IMAGE_SUFFIXES:
        with suppress(OSError):  # it may not be read, or is gone
            return read_regular(file.path)
    return f"{file.size_bytes} {file.changed_ns}".encode()


def _is_installed(path: Path) -> bool:
    """Whether a file or folder is as an installer has put it; else it may be edited (`pip install -e`)."""
    places = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return any(path.is_relative_to(place) for place in places)


def _places_of(package: str) -> list[Path]:
    """The folders of a package, or the file of a module that is one file."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return []
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    if spec is not None and not places and spec.origin:
        places = [spec.origin]
    return [path for path in map(Path, places) if path.exists()]  # "built-in" is not a file


def _versions_of(package: str) -> set[str]:
    """The distributions that install a package, as `name version`.

    `importlib.metadata.packages_distributions` tells the same, but parses the lists of all files: that takes
    longer than all else that a finished suite needs to answer.
    """
    starts = (f"\n{package}/", f"\n{package}.")
    return {
        f"{each.name} {each.version}"
        for each in distributions()
        if any(start in f"\n{each.read_text('RECORD') or ''}" for start in starts)
        or package in (each.read_text("top_level.txt") or "").split()
    }


def _files_of(package: str) -> list[CodeFile]:
    """The files of a package; of an installed one those that may import others."""
    files: list[CodeFile] = []
    for place in _places_of(package):
        if place.is_dir() and not _is_installed(place):
            files += code_files(place)
        else:
            modules = sorted(place.rglob("*.py")) if place.is_dir() else [place]
            files += [code_file(path, path.name) for path in modules]
    return files
