"""The records of an experiment's target, the quality to which optimizers are compared, and of the memory that
it takes to reach it."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from xbench.records.base import CellId, Record, Whole


class TargetRecord(Record):
    """A quality that optimizers are to reach. One of `value` and `within` is set.

    Attributes:
        metric: name of the metric of an epoch that is compared with the target.
        direction: whether the metric is to be at least (`"max"`) or at most (`"min"`) as large as the target.
        value: the target itself.
        within: the share of the best value that any cell of the experiment has reached on the same rows by
            which the target is worse than this value.
        on_test: whether the metric is measured on the test rows, so that they decide when a run has reached
            it.
        bytes: whether the smallest memory limit is searched under which the target is still reached.
    """

    metric: str
    direction: Literal["max", "min"]
    value: float | None = None
    within: float | None = None
    on_test: bool = False
    bytes: bool = False

    def find_level(self, best: float | None) -> float | None:
        """Return the value that meets the target.

        Args:
            best: the best value of the metric on the data; None if there is none.

        Returns:
            `value` or, with `within`, `best` made worse by that share of its magnitude: an accuracy of 0.95
            becomes 0.9405 within 0.01, and a loss of 0.2 becomes 0.202. None if it depends on a best value
            and there is none.
        """
        if self.within is None or best is None:
            return self.value
        margin = self.within * abs(best)
        return best - margin if self.direction == "max" else best + margin

    def is_met(self, value: float | None, level: float) -> bool:
        """Return whether a value of the metric meets the target; one that is not finite does not."""
        if value is None or not math.isfinite(value):
            return False
        return value >= level if self.direction == "max" else value <= level


class BytesTrialRecord(Record):
    """A training under a smaller memory limit, which tells whether the target is reached under it.

    Attributes:
        cell_id: the cell that was trained, whose record is in `cells.jsonl`.
        sizes: the sizes that it ran with, by setting.
        limit_bytes: the memory limit that it ran under.
        status: how it ended.
        reached: whether it reached the target.
    """

    cell_id: CellId
    sizes: dict[str, Whole]
    limit_bytes: Whole
    status: str
    reached: bool


class BytesPeakRecord(Record):
    """The memory that some sizes need.

    Attributes:
        sizes: the sizes, by setting.
        peak_bytes: the peak of their memory pass.
    """

    sizes: dict[str, Whole]
    peak_bytes: Whole


# See `BytesRecord.waits_for`.
WaitsFor = Literal["", "time", "retry"]


class BytesRecord(Record):
    """The smallest memory limit under which a cell still reaches a target.

    A search is recorded before each of its trainings, so that one that is interrupted goes on.

    Attributes:
        metric: the metric of the target.
        level: the value of the metric that was to be reached.
        limit_bytes: the smallest limit that was found; None if nothing was measured.
        sizes: the sizes that fit this limit, by setting.
        is_trained: whether the target was reached under this limit. Otherwise these sizes differ from those
            of the cell in nothing but the micro-batch, which changes only rounding, and were measured but not
            trained.
        fails_bytes: the largest smaller limit under which the target was not reached; None if there is none.
        trials: the trainings under smaller limits that tell whether the target is reached, in order.
        peaks: the sizes that were measured.
        note: why the search ended; "" if no smaller limit is left to try, or if one more size would tell
            nothing.
        waits_for: what the search needs in order to go on with the next run: `time`, or `retry` for another
            try of a training or a measurement that failed or was interrupted; "" if it has ended.
    """

    metric: str
    level: float
    limit_bytes: Whole | None = None
    sizes: dict[str, Whole]
    is_trained: bool
    fails_bytes: Whole | None = None
    trials: list[BytesTrialRecord] = Field(default_factory=list)
    peaks: list[BytesPeakRecord] = Field(default_factory=list)
    note: str = ""
    waits_for: WaitsFor = ""
