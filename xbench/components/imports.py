"""Which files importing a module would run, found out without running them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from importlib.machinery import PathFinder
from modulefinder import Module, ModuleFinder
from pathlib import Path
from typing import Any

_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*(\.\w+)*", re.ASCII)

_PACKAGE = 5  # as `modulefinder` calls a folder


def files_behind(module: str, import_dirs: Sequence[str]) -> list[Path]:
    """The files of a module, and of all that it imports from the same folders; what lies elsewhere is passed
    over. None of it is run; of a file that is no Python, what it would import is not known."""
    finder = _Finder(path=list(import_dirs))
    try:
        finder.import_hook(module)
    except (ImportError, SyntaxError, OSError, ValueError):
        return []  # importing it tells what is wrong
    found = [Path(each.__file__) for each in finder.modules.values() if each.__file__]
    return [path / "__init__.py" if path.is_dir() else path for path in found]


def imported_names(files: Iterable[Path]) -> set[str]:
    """The top-level names of all that files import, wherever in them they do. A text of the form
    `"module:attribute"` is an import, too: so a spec may name its factory."""
    names: set[str] = set()
    for file in files:
        try:
            statements = ast.walk(ast.parse(file.read_bytes()))
        except (SyntaxError, ValueError):
            continue  # importing it tells what is wrong
        for statement in statements:
            if isinstance(statement, ast.Import):
                names.update(alias.name for alias in statement.names)
            elif isinstance(statement, ast.ImportFrom) and statement.level == 0:
                names.add(statement.module)
            elif isinstance(statement, ast.Constant) and _is_reference(statement.value):
                names.add(statement.value.partition(":")[0])
    return {name.partition(".")[0] for name in names}


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


class _Finder(ModuleFinder):
    """Knows folders without an `__init__.py`, too, which are packages since Python 3.3."""

    def find_module(self, name: str, path: list[str] | None, parent: Module | None = None) -> tuple:
        spec = PathFinder.find_spec(name, self.path if path is None else path)
        if spec is not None and spec.origin is None and spec.submodule_search_locations:
            return None, list(spec.submodule_search_locations), ("", "", _PACKAGE)
        return super().find_module(name, path, parent)

    def load_package(self, name: str, places: str | list[str]) -> Any:
        if isinstance(places, str):
            return super().load_package(name, places)
        package = self.add_module(name)
        package.__path__ = places
        return package
