"""Who may import whom, and that what must answer at once does not load torch."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import xbench

PACKAGE = Path(xbench.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# Room -> the rooms that it may import, or single modules of them.
ALLOWED = {
    "errors": set(),
    "text": set(),
    "units": {"errors", "text"},
    "storage": {"errors", "text", "units"},
    "components": {"errors", "storage", "text"},
    "data": {"components", "errors", "memory", "storage", "units"},
    "memory": {"errors", "text", "units"},
    "isolation": {"memory", "errors", "units"},
    "records": {"errors", "storage"},
    "training": {"components", "data", "memory", "records", "errors", "storage"},
    "tuning": {"components"},
    "suite": {"components", "training.settings", "tuning", "errors", "text", "units"},
    "capacity": {
        "components",
        "data",
        "errors",
        "isolation",
        "memory",
        "records",
        "storage",
        "training",
    },
    "planning": {
        "capacity",
        "components",
        "data",
        "errors",
        "isolation",
        "memory",
        "records",
        "storage",
        "suite",
        "text",
        "training",
        "tuning",
        "units",
    },
    "execution": {
        "capacity",
        "components",
        "data",
        "errors",
        "isolation",
        "memory",
        "planning",
        "records",
        "storage",
        "suite",
        "text",
        "training",
        "tuning",
        "units",
    },
    "conformance": {
        "components",
        "data",
        "errors",
        "isolation",
        "memory",
        "planning",
        "text",
        "training",
        "units",
    },
    "testing": {"components", "conformance", "errors"},
    "report": {"errors", "records", "text", "units"},
    "api": {
        "capacity",
        "components",
        "errors",
        "execution",
        "isolation",
        "planning",
        "records",
        "report",
        "storage",
        "suite",
        "text",
        "units",
    },
    "cli": {
        "capacity",
        "components",
        "conformance",
        "data",
        "errors",
        "execution",
        "isolation",
        "memory",
        "planning",
        "records",
        "report",
        "storage",
        "suite",
        "text",
        "training",
        "units",
    },
    "__main__": {"cli"},
    "__init__": {"api", "components", "errors", "memory.exhaustion"},
}

FOR_PEOPLE = {"rich", "typer"}
FOR_PEOPLE_ROOMS = {"api", "cli", "report"}

HEAVY = {
    "torch",
    "torchvision",
    "torchmetrics",
    "sklearn",
    "pandas",
    "scipy",
    "optuna",
    "pyarrow",
    "matplotlib",
    "plotly",
}
LIGHT_ROOMS = {
    "__init__",
    "__main__",
    "api",
    "capacity",
    "cli",
    "components",
    "data",
    "errors",
    "execution",
    "planning",
    "records",
    "report",
    "storage",
    "suite",
    "testing",
    "text",
    "tuning",
    "units",
}
# Modules that factories import when they are called.
HEAVY_COMPONENTS = {"gpt_network.py"}
LIGHT_MEMORY = {
    "cgroups.py",
    "devices.py",
    "exhaustion.py",
    "host.py",
    "limits.py",
    "machine.py",
    "processor.py",
}
LIGHT_CONFORMANCE = {"checks.py", "common.py", "run.py"}
LIGHT_TRAINING = {
    "component_code.py",
    "events.py",
    "param_groups.py",
    "recipe_mistakes.py",
    "schedules.py",
    "seeding.py",
    "settings.py",
    "splits.py",
    "job.py",
}
LIGHT_MODULES = {"conformance": LIGHT_CONFORMANCE, "memory": LIGHT_MEMORY, "training": LIGHT_TRAINING}


def room_of(path: Path) -> str:
    """`components` for a module in that folder, `errors` for `errors.py`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE.parent))


def is_light(path: Path) -> bool:
    room = room_of(path)
    light = LIGHT_MODULES.get(room, set())
    if room == "components" and path.name in HEAVY_COMPONENTS:
        return False
    return room in LIGHT_ROOMS or path.name in light


def imported_modules(path: Path, statements: Iterator[ast.stmt]) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, in full, with its line: for `from a import b` it is `a.b`."""
    package = list(path.relative_to(PACKAGE.parent).with_suffix("").parts[:-1])
    for statement in statements:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield statement.lineno, alias.name
        elif isinstance(statement, ast.ImportFrom):
            base = package[: len(package) - statement.level + 1] if statement.level else []
            for alias in statement.names:
                yield statement.lineno, ".".join([*base, *filter(None, [statement.module]), alias.name])


def all_statements(path: Path) -> Iterator[ast.stmt]:
    """Within functions and TYPE_CHECKING blocks as well."""
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.stmt))


def run_on_import(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """What runs when a module is imported: not the bodies of functions, nor what is for type checkers."""
    for statement in statements:
        yield statement
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(statement, ast.If) and ast.unparse(statement.test).endswith("TYPE_CHECKING"):
            yield from run_on_import(statement.orelse)
            continue
        for block in ("body", "orelse", "finalbody"):
            yield from run_on_import(getattr(statement, block, []))
        for handler in getattr(statement, "handlers", []):
            yield from run_on_import(handler.body)


def is_allowed(room: str, target: str) -> bool:
    """Whether a room may import `xbench.TARGET`."""
    return any(f"{target}.".startswith(f"{allowed}.") for allowed in (room, *ALLOWED[room]))


def test_every_room_has_its_place():
    assert {room_of(path) for path in MODULES} == set(ALLOWED)


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_the_rooms_it_may(room):
    violations = [
        f"{name_of(path)}:{line} imports {module}"
        for path in MODULES
        if room_of(path) == room
        for line, module in imported_modules(path, all_statements(path))
        if module.split(".")[0] == "xbench" and not is_allowed(room, module.removeprefix("xbench."))
    ]
    assert violations == []


def test_rooms_make_no_circles():
    above: set[str] = set()
    waiting = {room: {target.split(".")[0] for target in targets} for room, targets in ALLOWED.items()}
    while ready := [room for room, targets in waiting.items() if targets <= above]:
        above.update(ready)
        for room in ready:
            del waiting[room]
    assert waiting == {}


def test_nothing_imports_the_command_line():
    assert [room for room, targets in ALLOWED.items() if "cli" in targets] == ["__main__"]


def test_only_what_people_look_at_imports_rich_and_typer():
    violations = [
        f"{name_of(path)}:{line} imports {module}"
        for path in MODULES
        if room_of(path) not in FOR_PEOPLE_ROOMS
        for line, module in imported_modules(path, all_statements(path))
        if module.split(".")[0] in FOR_PEOPLE
    ]
    assert violations == []


def test_heavy_packages_are_imported_where_they_are_used():
    violations = [
        f"{name_of(path)}:{line} imports {module}"
        for path in MODULES
        if is_light(path)
        for line, module in imported_modules(path, run_on_import(ast.parse(path.read_text()).body))
        if module.split(".")[0] in HEAVY
    ]
    assert violations == []


@pytest.mark.parametrize(("room", "names"), LIGHT_MODULES.items())
def test_the_light_modules_of_a_room_are_there(room, names):
    assert {path.name for path in MODULES if room_of(path) == room} >= names


def run_python(code: str, folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


SHOW_HEAVY = f"print('loaded:', *sorted(set({sorted(HEAVY)!r}) & sys.modules.keys()))"


def test_light_modules_load_nothing_heavy(tmp_path):
    modules = [
        name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in MODULES
        if is_light(path) and path.name != "__main__.py"
    ]
    code = f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
    listing = (
        "from xbench.components.registry import KINDS, registrations\n"
        "print('names:', *(name for kind in KINDS for name in registrations(kind)))\n"
    )
    output = run_python(code + listing + SHOW_HEAVY, tmp_path)
    names, loaded = output.splitlines()
    assert {"report-cnn", "chest-xray", "adam", "lbfgs"} <= set(names.split())
    assert loaded == "loaded:"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["--help"], "Usage"), (["run", "--help"], "--dry-run"), (["list"], "lbfgs"), (["plugins"], "lbfgs")],
)
def test_commands_that_answer_at_once_load_nothing_heavy(tmp_path, arguments, expected):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['xbench', *{arguments!r}]\n"
        "try: runpy.run_module('xbench', run_name='__main__')\n"
        "except SystemExit as ended: assert not ended.code, ended.code\n"
    )
    *output, loaded = run_python(code + SHOW_HEAVY, tmp_path).splitlines()
    assert expected in "\n".join(output)
    assert loaded == "loaded:"
