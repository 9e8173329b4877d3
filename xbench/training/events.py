"""Messages that cell processes send while they work, and the results they return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from xbench.data.features import FeatureFile
from xbench.records.memory import MemoryRecord
from xbench.records.schema import EpochRecord, EvaluationRecord, Times
from xbench.records.traces import TraceRow


@dataclass(frozen=True)
class FeatureReport:
    """Result of a request for the features of a model's frozen part.

    Attributes:
        file: the file with the features; None if there are none.
        note: why there are no features, although part of the model is frozen; otherwise "".
        computed: number of examples whose features were computed for this request.
        missing: number of examples whose features are still missing.
        seconds: seconds that the computation took.
        example_s: seconds per example; None if none was computed.
        is_disturbed: whether other programs took the CPU meanwhile; `example_s` is then the fastest observed.
    """

    file: FeatureFile | None = None
    note: str = ""
    computed: int = 0
    missing: int = 0
    seconds: float = 0.0
    example_s: float | None = None
    is_disturbed: bool = False


@dataclass(frozen=True)
class Compiling:
    """Progress of compiling the model, in batch shapes."""

    done: int
    total: int


@dataclass(frozen=True)
class Prepared:
    """Message that the model is built and warmed up, and training begins.

    Attributes:
        ran: the sizes in effect, such as train_size, batch_size and micro_batch, and the optimizer's
            history_size.
        steps: number of steps of the whole training.
        weights_sha256, order_sha256: see `PairingRecord`.
        resumed_at: the step after which training resumes; 0 if it starts from the beginning.
        is_saved: whether the cell saves a checkpoint when it is asked to stop.
        is_on_cuda: whether the cell trains on a CUDA device.
        parameters_by_role: see `CellRecord`.
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
    parameters_by_role: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class StepsDone:
    """Message with the trace rows since the last such message."""

    rows: tuple[TraceRow, ...]


@dataclass(frozen=True)
class Evaluating:
    """Progress of an evaluation, in examples; `done` is 0 when it begins."""

    done: int
    total: int


@dataclass(frozen=True)
class EvaluationDone:
    """Message that the weights were evaluated, within an epoch or after it."""

    record: EvaluationRecord


@dataclass(frozen=True)
class EpochDone:
    """Message that an epoch was trained and validated."""

    record: EpochRecord


@dataclass(frozen=True)
class CheckpointWritten:
    """Message that a checkpoint was written after a step. It becomes valid once it is renamed to `place`."""

    aside: Path
    step: int

    @property
    def place(self) -> Path:
        """Path of the valid checkpoint."""
        return self.aside.with_name(self.aside.name.removeprefix("."))


@dataclass(frozen=True)
class Scores:
    """Scores of the selected weights.

    Attributes:
        values: values that the cell's process measured, by declared name: losses and averages.
        losses: (n,) float64: the loss of each test row (of each training row, if there are no test rows), in
            the order of the dataset, without the weight of its class.
        collected: what the task collects of each of these rows, as nested arrays. Metrics that are functions
            of it are computed outside of this process.
    """

    values: dict[str, float]
    losses: np.ndarray | None
    collected: Any


@dataclass(frozen=True)
class CellResult:
    """Result of a cell's process; it has scores only if its status is "done" and it is not a trial."""

    status: Literal["done", "diverged", "skipped"]
    reason: str = ""
    selected_epoch: int | None = None
    scores: Scores | None = None
    time: Times = field(default_factory=Times)
    memory: MemoryRecord = field(default_factory=MemoryRecord)
