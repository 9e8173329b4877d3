"""The record of how much metrics depend on the test set."""

from __future__ import annotations

from xbench.records.base import Record, Whole


class SamplingRecord(Record):
    """How much a cell's metrics depend on which test rows were drawn.

    Attributes:
        rows: number of test rows.
        groups: number of their groups, such as patients, which were resampled; rows without a group are one
            each.
        half_widths: metric name -> half the width of its 95 % bootstrap interval.
    """

    rows: Whole
    groups: Whole
    half_widths: dict[str, float]
