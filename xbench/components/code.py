"""Hash the code behind a component where it may be edited; what is installed is identified by its version."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.machinery import all_suffixes
from importlib.util import find_spec
from pathlib import Path

from xbench.components.code_files import MAX_READ_BYTES, CodeFile, ImportDirs, code_files, place_of
from xbench.components.images import IMAGE_SUFFIXES
from xbench.components.registry import Kind, find
from xbench.errors import XbenchError
from xbench.storage.atomic import read_regular

# The subpackages of xbench whose code a cell or its memory pass runs.
_OF_CELLS = ("capacity", "components", "data", "isolation", "memory", "training")

_XBENCH = Path(__file__).parents[1]

# Stands for every `module:attribute`: each may import from any allowed folder.
_ANY: tuple[Kind, str] = ("model", ":")


@cache
def code_stamp(
    kind: Kind,
    reference: str,
    import_dirs: Sequence[str] = (),
    only_modules: bool = False,
) -> str:
    """Hash the files behind a component; "" for one that is built in or installed: `registry.origin` tells
    its version.

    The files of a `module:attribute` are all below the allowed folders. Those of a plugin that is installed
    in place (`pip install -e`) are all below its package's folder. Other packages that these import are not
    looked at.

    Args:
        import_dirs: the allowed folders; hashable.
        only_modules: leave out the files that are not Python modules: code may write such files as it runs.

    Raises:
        XbenchError: a folder holds too many files, or its `.xbenchignore` is not valid.
    """
    if ":" not in reference:
        return _hash(_files_in_place(kind, reference), only_modules)
    if (kind, reference) != _ANY:
        return code_stamp(*_ANY, import_dirs, only_modules)  # read once, for all components
    return _hash(_files_below(ImportDirs.of(import_dirs)), only_modules)


@cache
def own_stamp() -> str:
    """Hash the code of xbench that cells run, if it is installed in place; else "": its version tells."""
    if _is_installed(_XBENCH):
        return ""
    digest = hashlib.sha256()
    paths = [path for room in _OF_CELLS for path in (_XBENCH / room).rglob("*.py")]
    for path in sorted([*paths, _XBENCH / "records" / "metrics.py"]):  # they say which epoch is the best
        digest.update(f"\0{path.name}\0".encode(errors="surrogateescape") + path.read_bytes())
    return digest.hexdigest()[:16]


def latest_change(import_dirs: Sequence[str], only_modules: bool = False) -> CodeFile | None:
    """Find the file below the allowed folders that was changed last; None if there is none."""
    try:
        files = _files_below(ImportDirs.of(import_dirs))
    except XbenchError:  # by now there are too many
        return None
    files = [file for file in files if not only_modules or _is_module(file)]
    return max(files, key=lambda file: file.changed_ns, default=None)


def _files_below(allowed: ImportDirs) -> list[CodeFile]:
    left_out = allowed.left_out | {place_of(_XBENCH)}  # it has a stamp of its own
    return [file for folder in allowed for file in code_files(Path(folder), left_out)]


def _files_in_place(kind: Kind, name: str) -> list[CodeFile]:
    """List the files of the packages that register a component, but for xbench and what is installed."""
    registration = find(kind, name)
    claims = registration.claims if registration else ()
    packages = {claim.module.partition(".")[0] for claim in claims} - {"xbench"}
    places = [place for package in sorted(packages) for place in _places_of(package)]
    return [file for place in places if not _is_installed(place) for file in code_files(place)]


def _places_of(package: str) -> list[Path]:
    """The folders of a package, or the file of a module that is one file."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    places = spec.submodule_search_locations or [spec.origin or ""]
    return [Path(place) for place in places if place and os.path.exists(place)]


def _hash(files: list[CodeFile], only_modules: bool) -> str:
    digest = hashlib.sha256()
    files = [file for file in files if not only_modules or _is_module(file)]
    for file in files:
        digest.update(f"\0{file.name}\0".encode(errors="surrogateescape"))
        digest.update(hashlib.sha256(_content_of(file)).digest())
    return digest.hexdigest()[:16] if files else ""


def _is_module(file: CodeFile) -> bool:
    return file.name.endswith(tuple(all_suffixes()))


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
