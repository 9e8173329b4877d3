"""A column of a comparison: one optimizer, with its records, figures and settings."""

from __future__ import annotations

from dataclasses import dataclass, field

from xbench.records.aggregate import Interval
from xbench.records.schema import CellRecord
from xbench.report.settings import SettingValue


@dataclass(frozen=True)
class Column:
    """One optimizer of a comparison, over its seeds.

    Attributes:
        planned: number of seeds that the run declared.
        records: the record of each seed that has ended, failed ones included.
        figures: row key -> mean and interval over the seeds that are done and have a value.
        settings: setting key -> its values, with the seeds that ran with each.
        unranked_time: why its times may not be ranked beside those of other columns; "" if they may.
    """

    name: str
    planned: int
    records: tuple[CellRecord, ...]
    figures: dict[str, Interval]
    settings: dict[str, tuple[SettingValue, ...]] = field(default_factory=dict)
    unranked_time: str = ""
