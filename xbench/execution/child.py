"""What the children of a run do. torch and components are imported there: the parent has no need of them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from xbench.capacity.workload import TrainingWorkload
from xbench.components.code import latest_change
from xbench.components.code_files import IGNORE_FILE
from xbench.components.culprit import raised_in
from xbench.errors import XbenchError
from xbench.planning.identity import code_of
from xbench.records.schema import MemoryPassRecord
from xbench.training.events import CellResult, FeatureReport
from xbench.training.task import Task

Send = Callable[[Any], None]


def train(send: Send, task: Task) -> CellResult | None:
    """Train a cell; see `training.cell.train_cell`.

    Raises:
        XbenchError: the code is not that by which the cell is known.
    """
    check_code(task)
    from xbench.training.cell import train_cell

    with naming_culprit(task):
        return train_cell(send, task, _watch_for_stop)


def measure_memory(send: Send, workload: TrainingWorkload, micro_batch: int) -> MemoryPassRecord:
    """Take a memory pass.

    Raises:
        XbenchError: the code is not that by which the cell is known.
    """
    check_code(workload.task)
    with naming_culprit(workload.task):
        return workload.take_pass(micro_batch)


def make_features(send: Send, *args: Any) -> FeatureReport:
    """Compute features; see `training.features.make_features`."""
    from xbench.training.features import make_features

    return make_features(send, *args)


def check_code(task: Task) -> None:
    """Check that this process sees the code by which the cell is known.

    Raises:
        XbenchError: it was changed.
    """
    if code_of(task.settings, task.import_dirs) != task.code:
        latest = latest_change(task.import_dirs, only_modules=True)
        which = f" ({latest.path})" if latest else ""
        raise XbenchError(
            f"its code was changed while the run went on{which}; run the suite again, or name what is not "
            f"code in a {IGNORE_FILE}"
        )


@contextmanager
def naming_culprit(task: Task) -> Iterator[None]:
    """Add a note to an exception that a plugin's code has raised: which plugin it was."""
    try:
        yield
    except Exception as error:
        components = [("optimizer", task.settings.optimizer.name), ("model", task.settings.model.name)]
        culprit = raised_in(error, components)
        if culprit:
            error.add_note(f"raised in {culprit}")
        raise


def _watch_for_stop() -> Callable[[], bool]:
    """From here on a SIGTERM asks to stop; before, it ends the process."""
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    return asked.is_set
