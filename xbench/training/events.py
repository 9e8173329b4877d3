"""What a cell's process says while it trains, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from xbench.records.schema import EpochRecord, MemoryRecord, Times
from xbench.records.traces import TraceRow


@dataclass(frozen=True)
class Prepared:
    """The model stands and has warmed up; training begins.

    Attributes:
        ran: train_size, history_size, batch_size, micro_batch in effect.
        steps: of the whole training.
    """

    ran: dict[str, int | str | None]
    steps: int
    epochs: int
    memory: MemoryRecord


@dataclass(frozen=True)
class StepsDone:
    """Trace rows since the last such message."""

    rows: tuple[TraceRow, ...]


@dataclass(frozen=True)
class EpochDone:
    """An epoch was trained and validated."""

    record: EpochRecord


@dataclass(frozen=True)
class Scores:
    """Of the selected weights. `probabilities` (n, classes) and `labels` (n,) are of the test split."""

    probabilities: np.ndarray
    labels: np.ndarray
    test_loss: float
    train_accuracy: float


@dataclass(frozen=True)
class CellResult:
    """What a cell's process returns; scores only if it is done."""

    status: Literal["done", "diverged", "skipped"]
    reason: str = ""
    selected_epoch: int | None = None
    scores: Scores | None = None
    time: Times = field(default_factory=Times)
    memory: MemoryRecord = field(default_factory=MemoryRecord)
