"""Find out from records whether and when cells met a target."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from xbench.records.schema import CellRecord, EvaluationRecord
from xbench.records.targets import TargetRecord

# Identifies the rows that are held out: the data, the seed by which rows are drawn, and their share.
HeldOutRows = tuple[str, int, object]


@dataclass(frozen=True)
class TargetLevels:
    """The values that meet a target.

    Values on different rows cannot be compared. So a target that depends on the best value depends on the
    best of the cells that hold out the same rows: those with the same data, the same seed of the split and
    the same `validation`.

    Attributes:
        best: held-out rows -> the best value that any of their cells has reached at any time.
    """

    target: TargetRecord
    best: Mapping[HeldOutRows, float]

    @classmethod
    def of(cls, target: TargetRecord, records: Iterable[CellRecord]) -> TargetLevels:
        """Find the best values in the cells of an experiment. Values that are not finite do not count."""
        values: dict[HeldOutRows, list[float]] = {}
        for record in records:
            of_cell = (evaluation.values.get(target.metric) for evaluation in record.evaluations)
            known = [value for value in of_cell if value is not None and math.isfinite(value)]
            values.setdefault(_identify_rows(record), []).extend(known)
        choose = max if target.direction == "max" else min
        return cls(target, {key: choose(found) for key, found in values.items() if found})

    def find_level(self, record: CellRecord) -> float | None:
        """Return the value that meets the target on a cell's rows; None if it is not known."""
        return self.target.find_level(self.best.get(_identify_rows(record)))

    def find_first_met(self, record: CellRecord) -> EvaluationRecord | None:
        """Find the first evaluation of a cell that meets the target, however the cell ended; None if there is
        none."""
        level, metric = self.find_level(record), self.target.metric
        if level is None:
            return None
        met = (found for found in record.evaluations if self.target.is_met(found.values.get(metric), level))
        return next(met, None)


def _identify_rows(record: CellRecord) -> HeldOutRows:
    data = record.dataset
    # Records of older versions may have no fingerprint.
    name = data.fingerprint or repr((data.name, data.params))
    return name, record.seed_parts.split, record.settings.get("validation")
