"""What the processes of cells say while they work, and what they return."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from xbench.data.features import FeatureFile
from xbench.records.schema import EpochRecord, MemoryRecord, Times
from xbench.records.traces import TraceRow


@dataclass(frozen=True)
class FeatureReport:
    """What came of asking for the features of a model's frozen part.

    Attributes:
        file: where they are; None if there are none to be had.
        note: why not, where a part of the model is frozen; "" where no part is.
        computed: images that were not there yet, and `missing` those that still are not.
        seconds: that those which were computed took.
        image_s: what one image takes; None if none was computed.
        is_disturbed: other programs took the CPU meanwhile; `image_s` is the fastest observed.
    """

    file: FeatureFile | None = None
    note: str = ""
    computed: int = 0
    missing: int = 0
    seconds: float = 0.0
    image_s: float | None = None
    is_disturbed: bool = False


@dataclass(frozen=True)
class Prepared:
    """The model stands and has warmed up; training begins.

    Attributes:
        ran: train_size, history_size, batch_size, micro_batch in effect.
        steps: of the whole training.
        weights_sha256, order_sha256: see `PairingRecord`.
        resumed_at: the step after which it goes on; 0 if it begins anew.
        is_saved: whether it saves itself when it is asked to stop.
        is_on_cuda: whether it trains on a CUDA device.
    """

    ran: dict[str, int | str | None]
    steps: int
    epochs: int
    memory: MemoryRecord
    weights_sha256: str = ""
    order_sha256: str = ""
    resumed_at: int = 0
    is_saved: bool = False
    is_on_cuda: bool = False


@dataclass(frozen=True)
class StepsDone:
    """Trace rows since the last such message."""

    rows: tuple[TraceRow, ...]


@dataclass(frozen=True)
class Evaluating:
    """So many examples of those that are being evaluated are done; none when it begins."""

    done: int
    total: int


@dataclass(frozen=True)
class EpochDone:
    """An epoch was trained and validated."""

    record: EpochRecord


@dataclass(frozen=True)
class CheckpointWritten:
    """What the training can go on from after a step. It counts once the folder is renamed to `place`."""

    aside: Path
    step: int

    @property
    def place(self) -> Path:
        """Where it belongs."""
        return self.aside.with_name(self.aside.name.removeprefix("."))


@dataclass(frozen=True)
class Scores:
    """What the selected weights give.

    Attributes:
        logits, labels: (n, classes) float64 and (n,) int64, of the test split in the order of the dataset.
        values: metrics that were measured in training, by their declared names: `test_loss` and
            `train_accuracy`. Others are computed from the logits (see `training.metrics`).
    """

    logits: np.ndarray
    labels: np.ndarray
    values: dict[str, float]


@dataclass(frozen=True)
class CellResult:
    """What a cell's process returns; scores only if it is done."""

    status: Literal["done", "diverged", "skipped"]
    reason: str = ""
    selected_epoch: int | None = None
    scores: Scores | None = None
    time: Times = field(default_factory=Times)
    memory: MemoryRecord = field(default_factory=MemoryRecord)
