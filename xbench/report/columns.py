"""A column of a comparison: one optimizer with its records, figures and settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from xbench.records.aggregate import Interval
from xbench.records.schema import CellRecord, DataRecord
from xbench.report.settings import SettingValue


@dataclass(frozen=True)
class Column:
    """One optimizer of a comparison, with all of its seeds.

    Attributes:
        planned: number of seeds that the run declared.
        records: one record for each seed that has ended, including those that failed.
        figures: row key -> mean and interval over the seeds that are `done` and have a value.
        settings: setting key -> its distinct values, each with the seeds that used it.
        unranked_time: why its times must not be ranked with those of other columns; "" if they may be.
        along: the setting with the largest value that fits, if all columns have equal memory; otherwise "".
    """

    name: str
    planned: int
    records: tuple[CellRecord, ...]
    figures: dict[str, Interval]
    settings: dict[str, tuple[SettingValue, ...]] = field(default_factory=dict)
    unranked_time: str = ""
    along: str = ""

    @property
    def datasets(self) -> frozenset[str]:
        """The datasets of its cells, with their settings, except for one that memory decides."""
        return frozenset(self._identify(record.dataset) for record in self.records)

    def _identify(self, data: DataRecord) -> str:
        settings = {key: value for key, value in data.params.items() if key != self.along}
        return f"{data.name} {sorted(settings.items())}"


def group_by_data(columns: Sequence[Column]) -> list[list[Column]]:
    """Group columns by their datasets: a metric of one dataset says nothing about that of another, nor about
    that of the same dataset with more noise.

    A column without cells, whose dataset is not known, belongs to the first group.
    """
    first = next((column.datasets for column in columns if column.records), frozenset())
    groups: dict[frozenset[str], list[Column]] = {}
    for column in columns:
        groups.setdefault(column.datasets or first, []).append(column)
    return list(groups.values())
