"""Code that has no version of its own: a user's modules, and packages that are installed in place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import Distribution, distribution
from importlib.util import find_spec
from pathlib import Path

from xbench.components.registry import Kind, find

# The rooms of xbench whose code a cell's process runs.
_OF_CELLS = ("components", "data", "isolation", "memory", "training")


@cache
def code_stamp(kind: Kind, reference: str, import_dirs: Sequence[str] = ()) -> str:
    """Hash of a component's code, where no version stands for it; else "".

    Args:
        import_dirs: a tuple of the folders that `module:attribute` may be imported from.
    """
    if ":" in reference:
        return _hash_of(_modules_behind(reference.partition(":")[0], import_dirs))
    registration = find(kind, reference)
    claims = registration.claims if registration else ()
    packages = [claim.module.partition(".")[0] for claim in claims if claim.dist and is_in_place(claim.dist)]
    files = [file for package in packages if package != "xbench" for file in _files_of(package)]
    return _hash_of(files)


@cache
def own_stamp() -> str:
    """Hash of the code of xbench that cells run, where it is installed in place; else "" ."""
    if not is_in_place(distribution("xbench")):
        return ""
    package = Path(__file__).parents[1]
    return _hash_of(file for room in _OF_CELLS for file in (package / room).rglob("*.py"))


def is_in_place(installed: Distribution) -> bool:
    """Whether a distribution's code is edited where it lies (`pip install -e`)."""
    try:
        described = json.loads(installed.read_text("direct_url.json") or "{}")
    except ValueError:
        return False
    return bool(described.get("dir_info", {}).get("editable"))


def _modules_behind(module: str, import_dirs: Sequence[str]) -> list[Path]:
    """The files of a user's module and of all that it imports from the same folders."""
    from xbench.components.imports import files_behind  # rarely needed, and takes long to import

    return files_behind(module, import_dirs)


def _files_of(package: str) -> list[Path]:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return []
    origin = Path(spec.origin)
    return list(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]


def _hash_of(files: Iterable[Path]) -> str:
    digest, in_order = hashlib.sha256(), sorted(files)
    for path in in_order:
        digest.update(f"\0{path.name}\0".encode(errors="surrogateescape") + path.read_bytes())
    return digest.hexdigest()[:16] if in_order else ""
