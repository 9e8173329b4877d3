"""Compare figures that were measured once for all seeds, of which the seeds therefore allow no test."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from xbench.records.aggregate import Interval
from xbench.records.schema import CellRecord
from xbench.report.effects import Effect
from xbench.report.rows import Row

# Sizes that differ by no more are not told apart. Peaks of repeated memory passes differed by 0.3 MB, 0.05 %
# of them (see docs/statistics.md). The rest is in reserve for other machines and libraries.
REPEATABLE_SHARE = 0.01
REPEATABLE_BYTES = 1_000_000
REPEATABILITY = f"{REPEATABLE_SHARE:.0%} (and at least {REPEATABLE_BYTES / 1e6:.0f} MB)"


def shares_measurements(row: Row, records: Iterable[CellRecord]) -> bool:
    """Return whether seeds of a column share the measurements of a figure, or a single one has no other.

    Args:
        records: records of the column; those that are not done are left out.
    """
    if row.measurement is None:
        return False
    done = [record for record in records if record.status == "done" and row.value(record) is not None]
    found = [row.measurement(record) for record in done]
    return bool(found) and None not in found and (len(found) == 1 or len(set(found)) < len(found))


def are_apart(figure: Interval, other: Interval) -> bool:
    """Return whether two sizes in bytes differ by more than repeated measurements do."""
    allowed = max(REPEATABLE_SHARE * max(figure.mean, other.mean), REPEATABLE_BYTES)
    return abs(figure.mean - other.mean) > allowed


def drop_test(effect: Effect) -> Effect:
    """Return an effect without its interval and p value, which would count a measurement several times."""
    return replace(effect, low=None, high=None, p=None, method="measured once")
