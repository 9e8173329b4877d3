"""Hash the code of components that may be edited. Installed packages are identified by their version."""

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

from xbench.components.code_files import (
    MAX_READ_BYTES,
    CodeFile,
    ImportDirs,
    PackedComponent,
    code_files,
    place_of,
)
from xbench.components.images import IMAGE_SUFFIXES
from xbench.components.registry import Kind, find
from xbench.errors import XbenchError
from xbench.storage.atomic import read_regular

# The subpackages of xbench whose code a cell or its memory pass runs.
_CELL_PACKAGES = ("capacity", "components", "data", "isolation", "memory", "training")

XBENCH = Path(__file__).parents[1]

# Stands for every `module:attribute`, as all of them may import from any allowed folder.
_ANY_REFERENCE: tuple[Kind, str] = ("model", ":")


@cache
def code_stamp(
    kind: Kind,
    reference: str,
    import_dirs: Sequence[str] = (),
    only_modules: bool = False,
) -> str:
    """Hash the files of a component's code.

    A `module:attribute` consists of all files below the allowed folders. A plugin that is installed in place
    (`pip install -e`) consists of all files below its package's folder. Other packages that they import are
    not hashed. A component that was registered from Python is identified as `object_code` tells.

    Args:
        import_dirs: the allowed folders, as a hashable sequence.
        only_modules: hash Python modules only, because code may write other files while it runs.

    Returns:
        16 hex digits; "" for a built-in or installed component, whose version `registry.origin` returns.

    Raises:
        XbenchError: a folder holds too many files, or its `.xbenchignore` is not valid.
    """
    packed = ImportDirs.of(import_dirs).find_packed(kind, reference)
    if packed is not None:
        return _stamp_packed(packed, only_modules)
    if ":" not in reference:
        return _hash_files(_list_editable_files(kind, reference), only_modules)
    if (kind, reference) != _ANY_REFERENCE:
        return code_stamp(*_ANY_REFERENCE, import_dirs, only_modules)  # read once, for all components
    return _hash_files(_list_allowed_files(ImportDirs.of(import_dirs)), only_modules)


@cache
def own_stamp() -> str:
    """Hash the code of xbench that cells run if xbench may be edited; "" if its version identifies it."""
    if is_installed(XBENCH):
        return ""
    digest = hashlib.sha256()
    paths = [path for package in _CELL_PACKAGES for path in (XBENCH / package).rglob("*.py")]
    for path in sorted([*paths, XBENCH / "records" / "metrics.py"]):  # metrics decide which epoch is best
        digest.update(f"\0{path.name}\0".encode(errors="surrogateescape") + path.read_bytes())
    return digest.hexdigest()[:16]


def latest_change(import_dirs: Sequence[str], only_modules: bool = False) -> CodeFile | None:
    """Find the file below the allowed folders that was changed last; None if there are no files."""
    try:
        files = _list_allowed_files(ImportDirs.of(import_dirs))
    except XbenchError:  # there are too many files by now
        return None
    files = [file for file in files if not only_modules or _is_module(file)]
    return max(files, key=lambda file: file.changed_ns, default=None)


def forget_code() -> None:
    """Read code again the next time, as it may have been edited since."""
    code_stamp.cache_clear()
    own_stamp.cache_clear()


def _stamp_packed(packed: PackedComponent, only_modules: bool) -> str:
    """Hash a component that was registered from Python, with the files of the modules that it uses."""
    files = _hash_files(_list_allowed_files(ImportDirs(packed.places)), only_modules)
    return hashlib.sha256(f"{packed.digest} {files}".encode()).hexdigest()[:16] if files else packed.digest


def _list_allowed_files(allowed: ImportDirs) -> list[CodeFile]:
    left_out = allowed.left_out | {place_of(XBENCH)}  # `own_stamp` covers xbench
    return [file for folder in allowed for file in code_files(Path(folder), left_out)]


def _list_editable_files(kind: Kind, name: str) -> list[CodeFile]:
    """List the files of the packages that register a component, except xbench and installed packages."""
    registration = find(kind, name)
    claims = registration.claims if registration else ()
    packages = {claim.module.partition(".")[0] for claim in claims} - {"xbench"}
    places = [place for package in sorted(packages) for place in _locate(package)]
    return [file for place in places if not is_installed(place) for file in code_files(place)]


def _locate(package: str) -> list[Path]:
    """Find the folders of a package, or the file of a single-file module."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    places = spec.submodule_search_locations or [spec.origin or ""]
    return [Path(place) for place in places if place and os.path.exists(place)]


def _hash_files(files: list[CodeFile], only_modules: bool) -> str:
    digest = hashlib.sha256()
    files = [file for file in files if not only_modules or _is_module(file)]
    for file in files:
        digest.update(f"\0{file.name}\0".encode(errors="surrogateescape"))
        digest.update(hashlib.sha256(_read_content(file)).digest())
    return digest.hexdigest()[:16] if files else ""


def _is_module(file: CodeFile) -> bool:
    return file.name.endswith(tuple(all_suffixes()))


def _read_content(file: CodeFile) -> bytes:
    """Read a file; for a large file or an image, return its size and time of change instead."""
    if file.size_bytes <= MAX_READ_BYTES and file.path.suffix.lower() not in IMAGE_SUFFIXES:
        with suppress(OSError):  # it may be unreadable or deleted
            return read_regular(file.path)
    return f"{file.size_bytes} {file.changed_ns}".encode()


def is_installed(path: Path) -> bool:
    """Check whether a path is in an installation folder. Other code may be edited (`pip install -e`)."""
    places = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return any(path.is_relative_to(place) for place in places)
