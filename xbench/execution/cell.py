"""One cell: run in a child, listened to, and written down however it ended."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from xbench.data.decoded import DecodedDataset
from xbench.execution.observer import Observer
from xbench.execution.plan import PlannedRun, ResolvedData
from xbench.isolation.child import Limits
from xbench.isolation.run import Ending, run_in_child
from xbench.records.schema import (
    CellRecord,
    Component,
    DataRecord,
    EpochRecord,
    MemoryRecord,
    Metrics,
    Status,
)
from xbench.records.store import RunFolder
from xbench.records.traces import TraceRow
from xbench.training.cell import train_cell
from xbench.training.events import CellResult, EpochDone, Prepared, StepsDone
from xbench.training.metrics import classification_metrics
from xbench.training.settings import Choice

if TYPE_CHECKING:
    from xbench.execution.run import Job
