"""Find out from records whether and when cells met a target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from xbench.records.schema import CellRecord, EvaluationRecord
from xbench.records.targets import TargetRecord


@dataclass(frozen=True)
class TargetLevels:
    """The values that meet a target.

    A seed determines which rows are held out, and values on different rows cannot be compared. So a target
    that depends on the best value depends on the best of the cells with the same dataset and the same seed.

    Attributes:
        best: dataset and seed -> the best value that any of their cells has reached at any time.
    """

    target: TargetRecord
    best: Mapping[tuple[str, int], float]

    @classmethod
    def of(cls, target: TargetRecord, records: Iterable[CellRecord]) -> TargetLevels:
        """Find the best values in the cells of an experiment."""
        values: dict[tuple[str, int], list[float]] = {}
        for record in records:
            of_cell = (evaluation.values.get(target.metric) for evaluation in record.evaluations)
            # A value that is not a number is not equal to itself.
            known = [value for value in of_cell if value is not None and value == value]
            values.setdefault((record.dataset.name, record.seed_parts.split), []).extend(known)
        choose = max if target.direction == "max" else min
        return cls(target, {key: choose(found) for key, found in values.items() if found})

    def find_level(self, record: CellRecord) -> float | None:
        """Return the value that meets the target on a cell's rows; None if it is not known."""
        return self.target.find_level(self.best.get((record.dataset.name, record.seed_parts.split)))

    def find_first_met(self, record: CellRecord) -> EvaluationRecord | None:
        """Find the first evaluation of a cell that meets the target, however the cell ended; None if there is
        none."""
        level, metric = self.find_level(record), self.target.metric
        if level is None:
            return None
        met = (found for found in record.evaluations if self.target.is_met(found.values.get(metric), level))
        return next(met, None)
