"""Check that a process runs the code that identifies its cell, and name the component that raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from xbench.components.code import code_stamp, latest_change, own_stamp
from xbench.components.code_files import IGNORE_FILE, ImportDirs
from xbench.components.registry import Kind
from xbench.components.tracebacks import find_component, place_in_own_code
from xbench.data.prepared import PreparedData, RowData
from xbench.errors import XbenchError
from xbench.training.job import CellJob
from xbench.training.settings import CellSettings


def hash_code(settings: CellSettings, data: PreparedData, import_dirs: ImportDirs) -> tuple[str, ...]:
    """Hash the code of a cell as this process sees it; files are read only once.

    Code that makes images is not part of it, as they are decoded before; code that makes rows is.
    """
    components: list[tuple[Kind, str]] = [
        ("model", settings.model.name),
        ("optimizer", settings.optimizer.name),
    ]
    if settings.optimizer.rest is not None:
        components.append(("optimizer", settings.optimizer.rest.name))
    if isinstance(data, RowData):
        components.append(("dataset", data.name))
    return own_stamp(), *(code_stamp(kind, name, import_dirs, only_modules=True) for kind, name in components)


@contextmanager
def check_running_code(job: CellJob) -> Iterator[None]:
    """Check that this process sees the code that identifies a cell.

    A note on an exception that leaves the block names the component that raised it, and the line of code.

    Raises:
        XbenchError: the code has changed.
    """
    from xbench.training.preload import LOADED_CODE

    if job.code and job.code[0] != LOADED_CODE:
        raise XbenchError(
            "the code of xbench has changed since its worker processes were started",
            hint="run the command again; in a notebook, restart the kernel",
        )
    if job.code and hash_code(job.settings, job.data, job.import_dirs) != job.code:
        latest = latest_change(job.import_dirs, only_modules=True)
        which = f" ({latest.path})" if latest else ""
        raise XbenchError(
            f"its code changed during the run{which}; run the suite again, or list files that are not code "
            f"in a {IGNORE_FILE}"
        )
    try:
        yield
    except Exception as error:
        components: list[tuple[Kind, str]] = [
            ("optimizer", job.settings.optimizer.name),
            ("model", job.settings.model.name),
            ("dataset", job.data.name),
        ]
        if job.settings.optimizer.rest is not None:
            components.append(("optimizer", job.settings.optimizer.rest.name))
        if component := find_component(error, components):
            place = place_in_own_code(error)
            error.add_note(f"raised in {component}{f' ({place})' if place else ''}")
        raise
