"""What stands for the code of a component: of a user's module and of a package that is installed in place the
files, of all else versions."""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

from xbench.components.registry import Kind, find

# The rooms of xbench whose code a cell's process runs.
_OF_CELLS = ("components", "data", "isolation", "memory", "training")

# Every cell depends on them, whatever its components import.
_OF_ALL = frozenset({"xbench", "torch", "torchvision", "numpy"})


@cache
def code_stamp(kind: Kind, reference: str, import_dirs: Sequence[str] = ()) -> str:
    """Hash of the code of a component and of all that it imports, or names as `"module:attribute"`, as far as
    its files tell; "" for what is built in.

    Args:
        import_dirs: a tuple of the folders that `module:attribute` may be imported from.
    """
    # Rarely needed, and takes long to import.
    from xbench.components.imports import files_behind, imported_names

    folders: list[str] = []
    if ":" in reference:
        folders = [*import_dirs, *_in_place_folders()]
        files = set(files_behind(reference.partition(":")[0], folders))
        own = {_top_level_name(file, folders) for file in files}
    else:
        registration = find(kind, reference)
        modules = [claim.module for claim in registration.claims] if registration else []
        own = {module.partition(".")[0] for module in modules} - _OF_ALL
        files = {file for package in own for file in _files_of(package)}
    known = own | _OF_ALL | sys.stdlib_module_names
    versions: set[str] = set()
    unread = files
    while unread:  # of what is installed the version stands for what it imports, too
        names = imported_names(unread) - known
        known |= names
        imported = {file for name in names for file in (*files_behind(name, folders), *_files_of(name))}
        unread = set(filter(_is_in_place, imported)) - files
        files |= unread
        for name in names:
            versions.update(f"{dist} {version(dist)}" for dist in packages_distributions().get(name, ()))
    return _hash_of(filter(_is_in_place, files), versions)


@cache
def own_stamp() -> str:
    """Hash of the code of xbench that cells run, where it lies in place; else "", and its version says it."""
    package = Path(__file__).parents[1]
    if _is_installed(package):
        return ""
    return _hash_of(file for room in _OF_CELLS for file in (package / room).rglob("*.py"))


def _is_installed(path: Path) -> bool:
    """Whether a file or folder is as an installer has put it; else it may be edited (`pip install -e`)."""
    places = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return any(path.is_relative_to(place) for place in places)


def _is_in_place(file: Path) -> bool:
    """Whether it is what it was only as long as its content is. Of xbench itself `own_stamp` tells that."""
    return not _is_installed(file) and not file.is_relative_to(Path(__file__).parents[1])


def _top_level_name(file: Path, folders: Iterable[str]) -> str:
    """What an import of a module calls it, or the package that it is in."""
    parts = (file.relative_to(folder).parts for folder in folders if file.is_relative_to(folder))
    return Path(next(parts)[0]).stem


def _in_place_folders() -> list[str]:
    """Folders of `sys.path` in which nothing is installed: those of PYTHONPATH."""
    return [path for path in sys.path if Path(path).is_dir() and not _is_installed(Path(path))]


def _files_of(package: str) -> list[Path]:
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return []
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    if spec is not None and not places and spec.origin:
        return [Path(spec.origin)]
    return [file for place in places for file in Path(place).rglob("*.py")]


def _hash_of(files: Iterable[Path], versions: Iterable[str] = ()) -> str:
    digest, in_order, named = hashlib.sha256(), sorted(files), sorted(versions)
    for path in in_order:
        digest.update(f"\0{path.name}\0".encode(errors="surrogateescape") + path.read_bytes())
    digest.update("\0".join(named).encode())
    return digest.hexdigest()[:16] if in_order or named else ""
