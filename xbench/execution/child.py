"""Entry points of child processes. They import torch and components, which the parent must not import."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

from xbench.capacity.workload import TrainingWorkload
from xbench.records.memory import MemoryPassRecord
from xbench.training.component_code import check_running_code
from xbench.training.events import CellResult, FeatureReport
from xbench.training.job import CellJob

Send = Callable[[Any], None]


def train(send: Send, job: CellJob) -> CellResult | None:
    """Train a cell; see `training.cell.train_cell`.

    Raises:
        XbenchError: the components' code has changed since the cell was planned.
    """
    with check_running_code(job):
        from xbench.training.cell import train_cell

        return train_cell(send, job, _watch_for_stop)


def measure_memory(send: Send, workload: TrainingWorkload, micro_batch: int) -> MemoryPassRecord:
    """Take a memory pass; see `capacity.workload.TrainingWorkload.take_pass`."""
    return workload.take_pass(micro_batch)


def make_features(send: Send, *args: Any) -> FeatureReport:
    """Compute features; see `training.features.make_features`."""
    from xbench.training.features import make_features

    return make_features(send, *args)


def _watch_for_stop() -> Callable[[], bool]:
    """Handle SIGTERM as a request to stop, from now on. Return a function that says whether it has come."""
    requested = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: requested.set())
    return requested.is_set
