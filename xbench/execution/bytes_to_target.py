"""Find the smallest memory limit under which each optimizer of an experiment still reaches the target."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from xbench.capacity.axes import Axis, size_of, with_size
from xbench.execution.bytes_search import NO_TIME, Search
from xbench.execution.cell import CellRunner, keep_log
from xbench.execution.fitting import RESERVE
from xbench.execution.schedule import TimeLimit
from xbench.isolation.run import ChildResult
from xbench.planning.planned import MemoryPlan, PlannedCell
from xbench.records.schema import CellRecord, ExperimentRecord
from xbench.records.target_outcomes import TargetLevels
from xbench.records.targets import BytesRecord, BytesTrialRecord
from xbench.training.settings import CellSettings

# A training under a smaller limit has taken up to this many times as long as the cell: micro-batches of one
# example are slow.
_SLOWDOWN = 2.0


def find_bytes_to_targets(
    experiments: Sequence[ExperimentRecord],
    cells: Sequence[PlannedCell],
    runner: CellRunner,
    limit: TimeLimit | None = None,
) -> None:
    """Search for each column of each experiment whose target asks for bytes, and record what is found.

    One seed of a column stands for it: the first that has reached the target.

    Args:
        cells: all cells of the run, which have ended.
        limit: the run's time limit, if it has one.

    Raises:
        KeyboardInterrupt: the command was interrupted. What was trained is recorded, and the next run goes
        on.
    """
    targets = {e.name: e.target for e in experiments if e.target is not None and e.target.bytes}
    if not targets:
        return
    records = runner.folder.read_cells()[0]
    for name, target in targets.items():
        of_experiment = {
            cell.key.cell_id: cell
            for cell in cells
            if cell.declared.experiment == name and cell.trial is None
        }
        ended = [records[cell_id] for cell_id in of_experiment if cell_id in records]
        levels = TargetLevels.of(target, ended)
        for record in _choose_seeds(ended, levels):
            cell = of_experiment[record.cell_id]
            cell = cell if record.tuned is None else cell.with_tuned(record.tuned)
            _BytesSearch(runner, cell, record, levels, limit).run(records)


def _choose_seeds(records: Sequence[CellRecord], levels: TargetLevels) -> Iterator[CellRecord]:
    """Choose the first cell of each column that is done and has reached the target."""
    columns: set[str] = set()
    for record in records:
        met = levels.find_first_met(record)
        if record.column not in columns and record.status == "done" and met is not None:
            columns.add(record.column)
            yield record


@dataclass
class _BytesSearch:
    """The search for one cell.

    Attributes:
        cell: the cell, as it was planned.
        record: its record, whose sizes the search begins with.
        trials: the trainings so far.
    """

    runner: CellRunner
    cell: PlannedCell
    record: CellRecord
    levels: TargetLevels
    limit: TimeLimit | None
    trials: list[BytesTrialRecord] = field(default_factory=list)

    def run(self, records: Mapping[str, CellRecord]) -> None:
        """Search, and append the cell's record with the result.

        Args:
            records: the last record of each cell of the run, among them earlier trials of this search.
        """
        known, level = self.record.bytes_to_target, self.levels.find_level(self.record)
        if level is None or (known is not None and known.level == level and known.note != NO_TIME):
            return
        started = self._resize(self.record.ran)
        peak_bytes = self._measure(started)
        if peak_bytes is None:
            return
        search = Search(self._measure, lambda settings, peak: self._reaches(settings, peak, records))
        found = search.run(started, peak_bytes, self.cell.adapt_order)
        result = BytesRecord(
            level=level,
            limit_bytes=_limit_for(found.peak_bytes),
            sizes=_list_sizes(found.settings),
            is_trained=found.is_trained,
            fails_bytes=None if found.fails_bytes is None else _limit_for(found.fails_bytes),
            trials=self.trials,
            note=found.note,
        )
        self.runner.folder.append(self.record.model_copy(update={"bytes_to_target": result}))

    def _resize(self, ran: Mapping[str, object]) -> CellSettings:
        """Return the settings of the cell, with the sizes that it ran with."""
        settings = self.cell.sized
        for axis in Axis:
            size = ran.get(axis.setting)
            if isinstance(size, int) and size_of(settings, axis) is not None:
                settings = with_size(settings, axis, size)
        return settings

    def _measure(self, settings: CellSettings) -> int | None:
        """Measure the peak of settings; None if they cannot be run, as with micro-batches of some models."""
        cell = self._make_trial(settings)
        with keep_log(self.runner.folder, cell.key) as log:
            cell = self.runner.features.for_training(cell, log)
            measured = None if cell.skip is not None else self.runner.passes.measure(cell, log)
        if measured is None or isinstance(measured, ChildResult) or measured.memory.measured is None:
            return None
        return measured.memory.measured.peak_bytes

    def _reaches(
        self, settings: CellSettings, peak_bytes: int, records: Mapping[str, CellRecord]
    ) -> bool | None:
        """Train with settings under the limit that their peak needs, unless an earlier run has."""
        cell = self._make_trial(settings)
        cell = replace(cell, memory=MemoryPlan(_limit_for(peak_bytes)))
        record = records.get(cell.key.cell_id)
        if record is None or record.status in ("error", "skipped"):
            if self.limit is not None and self.limit.left_s < self._expected_s:
                return None
            record = self.runner.run(cell, record)
        met = self.levels.find_first_met(record)
        self.trials.append(
            BytesTrialRecord(
                cell_id=record.cell_id,
                sizes=_list_sizes(settings),
                limit_bytes=record.memory.limit_bytes or _limit_for(peak_bytes),
                status=record.status,
                reached=met is not None,
            )
        )
        return met is not None

    @property
    def _expected_s(self) -> float:
        times = self.record.time
        return _SLOWDOWN * sum(s or 0.0 for s in (times.prepare_s, times.training_s, times.evaluation_s))

    def _make_trial(self, settings: CellSettings) -> PlannedCell:
        """Make a cell with other sizes, which has an identity of its own and is not adapted any further."""
        cell = self.cell.with_sizes(
            settings, "the memory limit is searched under which the target is reached"
        )
        sizes = _list_sizes(settings)
        key = self.cell.key
        identity = hashlib.sha256(repr((key.cell_id, "bytes to target", sizes)).encode()).hexdigest()[:16]
        changed = {name: size for name, size in sizes.items() if size != self.record.ran.get(name)}
        shown = " ".join(f"{name}={size}" for name, size in changed.items()) or "its own sizes"
        own = key.model_copy(update={"cell_id": identity, "column": f"{key.column} with {shown}"})
        return replace(
            cell,
            declared=replace(cell.declared, adapt=(), expect=None),
            identity=own,
            skip=None,
            bytes_trial_of=key.cell_id,
        )


def _limit_for(peak_bytes: int) -> int:
    """Return a limit with the reserve that fitted sizes have, in whole megabytes."""
    return math.ceil(peak_bytes / (1 - RESERVE) / 1e6) * 10**6


def _list_sizes(settings: CellSettings) -> dict[str, int]:
    sizes = {axis.setting: size_of(settings, axis) for axis in Axis}
    return {name: size for name, size in sizes.items() if isinstance(size, int)}
