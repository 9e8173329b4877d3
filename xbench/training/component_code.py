"""Check that a process runs the code by which its cell is known, and name the component that raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from xbench.components.code import code_stamp, latest_change, own_stamp
from xbench.components.code_files import IGNORE_FILE, ImportDirs
from xbench.components.registry import Kind
from xbench.components.tracebacks import raised_in
from xbench.errors import XbenchError
from xbench.training.settings import CellSettings
from xbench.training.task import Task


def code_of(settings: CellSettings, import_dirs: ImportDirs) -> tuple[str, str, str]:
    """Hash the code of a cell as this process sees it; it is read once."""
    model = code_stamp("model", settings.model.name, import_dirs, only_modules=True)
    optimizer = code_stamp("optimizer", settings.optimizer.name, import_dirs, only_modules=True)
    return own_stamp(), model, optimizer


@contextmanager
def running_code_of(task: Task) -> Iterator[None]:
    """Check that this process sees the code by which a cell is known, and add a note to an exception that a
    component raises: which one it was.

    Raises:
        XbenchError: the code was changed.
    """
    if task.code and code_of(task.settings, task.import_dirs) != task.code:
        latest = latest_change(task.import_dirs, only_modules=True)
        which = f" ({latest.path})" if latest else ""
        raise XbenchError(
            f"its code was changed while the run went on{which}; run the suite again, or name what is not "
            f"code in a {IGNORE_FILE}"
        )
    try:
        yield
    except Exception as error:
        components: list[tuple[Kind, str]] = [
            ("optimizer", task.settings.optimizer.name),
            ("model", task.settings.model.name),
        ]
        if component := raised_in(error, components):
            error.add_note(f"raised in {component}")
        raise
