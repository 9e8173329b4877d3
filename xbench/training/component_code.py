"""Check that a process runs the code that identifies its cell, and name the component that raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from xbench.components.code import code_stamp, latest_change, own_stamp
from xbench.components.code_files import IGNORE_FILE, ImportDirs
from xbench.components.registry import Kind
from xbench.components.tracebacks import find_component, place_in_own_code
from xbench.errors import XbenchError
from xbench.training.settings import CellSettings
from xbench.training.task import Task


def hash_code(settings: CellSettings, import_dirs: ImportDirs) -> tuple[str, str, str]:
    """Hash the code of a cell as this process sees it; files are read only once."""
    model = code_stamp("model", settings.model.name, import_dirs, only_modules=True)
    optimizer = code_stamp("optimizer", settings.optimizer.name, import_dirs, only_modules=True)
    return own_stamp(), model, optimizer


@contextmanager
def check_running_code(task: Task) -> Iterator[None]:
    """Check that this process sees the code that identifies a cell.

    A note on an exception that leaves the block names the component that raised it, and the line of code.

    Raises:
        XbenchError: the code has changed.
    """
    if task.code and hash_code(task.settings, task.import_dirs) != task.code:
        latest = latest_change(task.import_dirs, only_modules=True)
        which = f" ({latest.path})" if latest else ""
        raise XbenchError(
            f"its code changed during the run{which}; run the suite again, or list files that are not code "
            f"in a {IGNORE_FILE}"
        )
    try:
        yield
    except Exception as error:
        components: list[tuple[Kind, str]] = [
            ("optimizer", task.settings.optimizer.name),
            ("model", task.settings.model.name),
        ]
        if component := find_component(error, components):
            place = place_in_own_code(error)
            error.add_note(f"raised in {component}{f' ({place})' if place else ''}")
        raise
