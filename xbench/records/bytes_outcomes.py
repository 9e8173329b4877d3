"""Find what is recorded of the bytes that a target takes."""

from __future__ import annotations

from collections.abc import Iterable

from xbench.records.schema import CellRecord
from xbench.records.target_outcomes import TargetLevels
from xbench.records.targets import BytesRecord


def find_bytes(record: CellRecord, levels: TargetLevels) -> BytesRecord | None:
    """Return the search of a cell for a target; None if there was none."""
    metric, level = levels.target.metric, levels.find_level(record)
    known = (found for found in record.bytes_to_targets if (found.metric, found.level) == (metric, level))
    return next(known, None)


def choose_seed(records: Iterable[CellRecord], levels: TargetLevels) -> CellRecord | None:
    """Choose the cell that stands for its column: the first that is done and has reached the target.

    A cell that has been searched already goes first, so that seeds can be added without a further search.

    Args:
        records: the cells of the column.

    Returns:
        None if no cell of the column that is done has reached the target.
    """

    def rank(record: CellRecord) -> int:
        found = find_bytes(record, levels)
        return 2 if found is None else 1 if found.waits_for else 0

    able = (record for record in records if record.status == "done" and levels.find_first_met(record))
    return min(able, key=rank, default=None)
