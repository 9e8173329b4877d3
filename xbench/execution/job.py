"""A cell with everything that running it needs."""

from __future__ import annotations

from dataclasses import dataclass

from xbench.data.decoded import DecodedDataset
from xbench.execution.inspection import Machine
from xbench.execution.plan import ResolvedData
from xbench.records.schema import PlannedCell
from xbench.training.settings import CellSettings


@dataclass(frozen=True)
class Job:
    """One cell, ready to run.

    Attributes:
        planned: its place in the records.
        experiment_path: key path of its experiment in the suite, for messages.
        memory_limit_bytes: hard limit of its process; None for none.
    """

    planned: PlannedCell
    experiment_path: tuple[str | int, ...]
    settings: CellSettings
    resolved: ResolvedData
    data: DecodedDataset
    machine: Machine
    memory_limit_bytes: int | None
    import_dirs: tuple[str, ...]
