"""Find the smallest memory limit under which each optimizer of an experiment still reaches the target."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from xbench.capacity.axes import Axis, size_of, with_size
from xbench.execution.bytes_search import Found, Search, Stopped, list_sizes
from xbench.execution.cell import CellRunner, keep_log
from xbench.execution.fitting import RESERVE
from xbench.execution.history import TrialHistory, has_ended, is_settled
from xbench.execution.schedule import TimeLimit
from xbench.isolation.run import ChildResult
from xbench.planning.planned import MemoryPlan, PlannedCell
from xbench.records.bytes_outcomes import choose_seed, find_bytes
from xbench.records.schema import CellRecord, ExperimentRecord
from xbench.records.target_outcomes import TargetLevels
from xbench.records.targets import BytesPeakRecord, BytesRecord, BytesTrialRecord
from xbench.training.settings import CellSettings

# A training under a smaller limit has taken up to this many times as long as the cell: smaller micro-batches
# are slower.
_SLOWDOWN = 2.0
_NO_TIME = "no time was left"


def find_bytes_to_targets(
    experiments: Sequence[ExperimentRecord],
    cells: Sequence[PlannedCell],
    runner: CellRunner,
    trials: TrialHistory,
    limit: TimeLimit | None = None,
) -> None:
    """Search for each column of each experiment whose target asks for bytes, and record what is found.

    One seed of a column stands for it (see `choose_seed`).

    Args:
        cells: all cells of the run, which have ended.
        trials: the trainings of such searches that have ended, in this run and in earlier ones.
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
        for column in dict.fromkeys(record.column for record in ended):
            record = choose_seed((r for r in ended if r.column == column), levels)
            if record is None:
                continue
            cell = of_experiment[record.cell_id]
            cell = cell if record.tuned is None else cell.with_tuned(record.tuned)
            # Another experiment may have the same cell, with another target.
            records[record.cell_id] = _BytesSearch(runner, cell, record, levels, trials, limit).run()


@dataclass
class _BytesSearch:
    """The search for one cell.

    Attributes:
        cell: the cell, as it was planned.
        record: its last record, whose sizes the search begins with.
        ended: the trainings so far that tell whether the target is reached.
    """

    runner: CellRunner
    cell: PlannedCell
    record: CellRecord
    levels: TargetLevels
    history: TrialHistory
    limit: TimeLimit | None
    ended: list[BytesTrialRecord] = field(default_factory=list)

    def run(self) -> CellRecord:
        """Search, unless that was done earlier. Return the cell's record with the result."""
        known = find_bytes(self.record, self.levels)
        if known is not None and not known.waits_for:
            return self.record
        self.search = Search(self._measure, self._reaches, self._resize(self.record.ran))
        if known is not None:
            self.ended = list(known.trials)
            self.search.peaks = {_key(peak.sizes): peak.peak_bytes for peak in known.peaks}
            self.search.outcomes = {_key(trial.sizes): trial.reached for trial in known.trials}
        self._save(self.search.run(self.cell.adapt_order))
        return self.record

    def _save(self, found: Found) -> None:
        """Append the cell's record with what was found, if that is news."""
        level, known = self.levels.find_level(self.record), find_bytes(self.record, self.levels)
        assert level is not None, "the cell has reached the target"
        result = BytesRecord(
            metric=self.levels.target.metric,
            level=level,
            limit_bytes=None if found.peak_bytes is None else _limit_for(found.peak_bytes),
            sizes=list_sizes(found.settings),
            is_trained=found.is_trained,
            fails_bytes=None if found.fails_bytes is None else _limit_for(found.fails_bytes),
            trials=list(self.ended),
            peaks=[BytesPeakRecord(sizes=dict(k), peak_bytes=b) for k, b in self.search.peaks.items()],
            note=found.note,
            waits_for=found.waits_for,
        )
        if result != known:
            others = [other for other in self.record.bytes_to_targets if other is not known]
            self.record = self.record.model_copy(update={"bytes_to_targets": [*others, result]})
            self.runner.folder.append(self.record)

    def _resize(self, ran: Mapping[str, object]) -> CellSettings:
        """Return the settings of the cell, with the sizes that it ran with."""
        settings = self.cell.sized
        for axis in Axis:
            size = ran.get(axis.setting)
            if isinstance(size, int) and size_of(settings, axis) is not None:
                settings = with_size(settings, axis, size)
        return settings

    def _measure(self, settings: CellSettings) -> int | None:
        """Measure the peak of settings; None if they cannot be run, as with micro-batches of some models.

        Raises:
            Stopped: the time limit has passed.
        """
        if self.limit is not None and self.limit.left_s <= 0:
            raise Stopped(_NO_TIME, "time")
        cell = self._make_trial(settings)
        with keep_log(self.runner.folder, cell.key) as log:
            cell = self.runner.features.for_training(cell, log)
            measured = None if cell.skip is not None else self.runner.passes.measure(cell, log)
        if measured is None or isinstance(measured, ChildResult) or measured.memory.measured is None:
            return None
        return measured.memory.measured.peak_bytes

    def _reaches(self, settings: CellSettings, peak_bytes: int) -> bool:
        """Train with settings under the limit that their peak needs, unless an earlier run has.

        Raises:
            Stopped: no time is left, or the training does not tell whether the target is reached.
        """
        cell = self._make_trial(settings)
        cell = replace(cell, memory=MemoryPlan(_limit_for(peak_bytes)))
        record = self.history.take_over(cell.key)
        if record is None:
            record = self._train(cell, self.history.find_attempt(cell.key))
        if not has_ended(record):
            how = f"{record.status}: {record.reason}" if record.reason else record.status
            note = f"the training with {self._describe_changes(settings)} ended as {how}"
            raise Stopped(note, "" if is_settled(record) else "retry")
        met = self.levels.find_first_met(record)
        self.ended.append(
            BytesTrialRecord(
                cell_id=record.cell_id,
                sizes=list_sizes(settings),
                limit_bytes=record.memory.limit_bytes or _limit_for(peak_bytes),
                status=record.status,
                reached=met is not None,
            )
        )
        return met is not None

    def _train(self, cell: PlannedCell, earlier: CellRecord | None) -> CellRecord:
        """Train a cell, after recording that the search is at it.

        Args:
            earlier: the record of an earlier attempt, which is returned if there were too many.
        """
        if earlier is not None and is_settled(earlier):
            return earlier
        if self.limit is not None and self.limit.left_s < self._expected_s:
            raise Stopped(_NO_TIME, "time")
        changes = self._describe_changes(cell.sized)
        self._save(self.search.describe(f"the training with {changes} has not ended", "retry"))
        record = self.runner.run(cell, earlier)
        self.history.add(record)
        return record

    @property
    def _expected_s(self) -> float:
        times = self.record.time
        return _SLOWDOWN * sum(s or 0.0 for s in (times.prepare_s, times.training_s, times.evaluation_s))

    def _make_trial(self, settings: CellSettings) -> PlannedCell:
        """Make a cell with other sizes, which has an identity of its own and is not adapted any further."""
        cell = self.cell.with_sizes(
            settings, "the memory limit is searched under which the target is reached"
        )
        key, sizes = self.cell.key, list_sizes(settings)
        identity = hashlib.sha256(repr((key.cell_id, "bytes to target", sizes)).encode()).hexdigest()[:16]
        column = f"{key.column} with {self._describe_changes(settings)}"
        return replace(
            cell,
            declared=replace(cell.declared, adapt=(), expect=None),
            identity=key.model_copy(update={"cell_id": identity, "column": column}),
            skip=None,
            bytes_trial_of=key.cell_id,
        )

    def _describe_changes(self, settings: CellSettings) -> str:
        """Name the sizes that are not those of the cell."""
        changed = {n: size for n, size in list_sizes(settings).items() if size != self.record.ran.get(n)}
        return " ".join(f"{name}={size}" for name, size in changed.items()) or "its own sizes"


def _key(sizes: Mapping[str, int]) -> frozenset[tuple[str, int]]:
    return frozenset(sizes.items())


def _limit_for(peak_bytes: int) -> int:
    """Return a limit with the reserve that fitted sizes have, in whole megabytes."""
    return math.ceil(peak_bytes / (1 - RESERVE) / 1e6) * 10**6
