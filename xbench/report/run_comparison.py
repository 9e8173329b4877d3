"""Compare runs: match their cells by experiment, column and seed, and estimate how each figure changed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cached_property

from xbench.records.aggregate import Interval, interval
from xbench.records.schema import CellRecord, MetricRecord, RunRecord
from xbench.report.declared_cells import list_ended, match_cells
from xbench.report.effects import Effect, EffectKind, paired_effect
from xbench.report.ranking import find_unranked_times
from xbench.report.repeatability import are_apart, drop_test, shares_measurements
from xbench.report.rows import Row, collect_figure, make_main_rows

# Rows whose values depend on how memory was measured.
_MEASURED_IN_PASS = frozenset({"needed_bytes", "above_base_bytes"})

# What stands in place of the status of a cell that a run declares and has not ended.
NOT_RUN = "not run"

# Why nothing is compared where a run took over the measurement of the other.
SAME_MEASUREMENT = "both runs have the same measurement"

_NOTHING = Interval(math.nan, None, ())


@dataclass(frozen=True)
class NamedRun:
    """A run to compare.

    Attributes:
        name: its short name in tables: `A` for the reference, then `B`, `C` and so on.
        path: where its records are.
    """

    name: str
    path: str
    run: RunRecord
    records: Sequence[CellRecord]

    @cached_property
    def statuses(self) -> dict[str, dict[str, dict[int, str]]]:
        """Experiment -> column -> seed -> the cell's status, or `NOT_RUN`."""
        found: dict[str, dict[str, dict[int, str]]] = {}
        for cell, record in match_cells(self.run, self.records):
            column = found.setdefault(cell.experiment, {}).setdefault(cell.column, {})
            column[cell.seed] = NOT_RUN if record is None else record.status
        return found

    @cached_property
    def cells(self) -> dict[str, dict[str, dict[int, CellRecord]]]:
        """Experiment -> column -> seed -> the record of a cell that ended."""
        found: dict[str, dict[str, dict[int, CellRecord]]] = {}
        for record in list_ended(self.run, self.records):
            column = found.setdefault(record.experiment, {}).setdefault(record.column, {})
            column[record.seed] = record
        return found

    def find_cells(self, experiment: str, column: str) -> dict[int, CellRecord]:
        """Find the records of a column, by seed."""
        return self.cells.get(experiment, {}).get(column, {})


@dataclass(frozen=True)
class Change:
    """How one figure of a column changed from the reference to another run.

    Attributes:
        before, after: the figure in the reference and in the other run, over the seeds that are done in each;
            None without any.
        effect: the paired difference or ratio, other run against reference; None if it cannot be told.
        reason: why it cannot; "" if it can.
        missing: seeds that are done in the reference and have no value, or are not done, in the other run.
        pairs: the figure in the other run and in the reference, without the seeds of which both runs have the
            same measurement; None where nothing may be compared.
        is_apart: of figures that were measured once in each run, whether they differ by more than repeated
            measurements; None for all others.
    """

    row: Row
    column: str
    kind: EffectKind
    before: Interval | None
    after: Interval | None
    effect: Effect | None
    reason: str = ""
    missing: tuple[int, ...] = ()
    pairs: tuple[Interval, Interval] | None = None
    is_apart: bool | None = None

    @property
    def is_shown(self) -> bool | None:
        """Whether a change is shown, by an interval that excludes no change or by measurements that are
        further apart than repeated ones; None if there is neither."""
        return self.effect.is_significant if self.effect and self.is_apart is None else self.is_apart

    @property
    def is_better(self) -> bool | None:
        """Whether the figure is shown to be better (True) or worse (False); None if neither is."""
        if self.effect is None or not self.is_shown or self.row.better is None:
            return None
        return (self.effect.estimate > self.effect.no_change) == (self.row.better == "max")


@dataclass(frozen=True)
class Gap:
    """A cell that ended otherwise in one of the two runs than in the other.

    Attributes:
        before, after: its status in the reference and in the other run; `NOT_RUN` if the run declares it
            and it has not ended, None if the run does not declare it.
        reason: why it is not done, from its record.
    """

    column: str
    seed: int
    before: str | None
    after: str | None
    reason: str = ""


@dataclass(frozen=True)
class ComparedExperiment:
    """One experiment of two runs.

    Attributes:
        repeated: column -> seeds of the cells that the other run took over from the reference, or that both
            took over from the same run. They are one measurement, not two.
        unlike: column -> seeds that have other parts in one run than in the other, and are not compared.
    """

    name: str
    title: str
    changes: tuple[Change, ...]
    gaps: tuple[Gap, ...]
    repeated: Mapping[str, tuple[int, ...]]
    unlike: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class RunComparison:
    """A run compared with the reference."""

    reference: NamedRun
    other: NamedRun
    experiments: tuple[ComparedExperiment, ...]


def merge_metrics(*runs: RunRecord) -> list[MetricRecord]:
    """List the metrics of all runs. A metric that several declare has the first one's declaration."""
    metrics = {metric.name: metric for run in reversed(runs) for metric in run.metrics}
    order = dict.fromkeys(metric.name for run in runs for metric in run.metrics)
    return [metrics[name] for name in order]


def list_figures(*runs: RunRecord) -> list[Row]:
    """List the rows that a gate may name: those with a better direction."""
    rows = make_main_rows(merge_metrics(*runs))
    return [row for row in rows if isinstance(row, Row) and row.better is not None]


def compare_runs(reference: NamedRun, other: NamedRun, keys: Sequence[str] = ()) -> RunComparison:
    """Compare a run with the reference, in the figures that findings are about.

    Args:
        keys: keys of further rows to compare.
    """
    figures = list_figures(reference.run, other.run)
    rows = [row for row in figures if row.finding is not None or row.key in keys]
    titles = {e.name: e.title for run in (other.run, reference.run) for e in run.experiments}
    names = dict.fromkeys(e.name for run in (reference.run, other.run) for e in run.experiments)
    experiments = tuple(_compare_experiment(reference, other, name, titles[name], rows) for name in names)
    return RunComparison(reference, other, experiments)


def _compare_experiment(
    reference: NamedRun, other: NamedRun, name: str, title: str, rows: Sequence[Row]
) -> ComparedExperiment:
    columns = dict.fromkeys(column for run in (reference, other) for column in run.statuses.get(name, {}))
    pairs = {column: _Pair(reference, other, name, column) for column in columns}
    changes = [pair.compare(row) for row in rows for pair in pairs.values()]
    repeated = {column: pair.find_repeated() for column, pair in pairs.items()}
    return ComparedExperiment(
        name,
        title,
        tuple(change for change in changes if change.before or change.after),
        tuple(gap for pair in pairs.values() for gap in pair.find_gaps()),
        {column: seeds for column, seeds in repeated.items() if seeds},
        {column: pair.unlike for column, pair in pairs.items() if pair.unlike},
    )


class _Pair:
    """A column of the reference beside that of another run."""

    def __init__(self, reference: NamedRun, other: NamedRun, experiment: str, column: str):
        self.column, self.runs, self.experiment = column, (reference, other), experiment
        self.records = [run.find_cells(experiment, column) for run in self.runs]
        self.done = [
            {seed: record for seed, record in found.items() if record.status == "done"}
            for found in self.records
        ]
        before, after = self.done
        both = [seed for seed in before if seed in after]
        shared = [seed for seed in both if before[seed].seed_parts == after[seed].seed_parts]
        self.unlike = tuple(seed for seed in both if seed not in shared)
        self.paired = [[found[seed] for seed in shared] for found in self.done]

    def compare(self, row: Row) -> Change:
        """Compare one figure of the two."""
        before, after = (collect_figure(row, found.values()) for found in self.done)
        kind: EffectKind = row.finding or "ratio"
        seeds = after.seeds if after else ()
        had = set(before.seeds if before else ()) | (set(self.done[0]) - set(self.done[1]))
        missing = tuple(seed for seed in self.done[0] if seed in had and seed not in seeds) if before else ()
        change = Change(row, self.column, kind, before, after, None, missing=missing)
        reason = self._find_obstacle(row)
        if before is None or after is None:
            lacking = self.runs[0 if before is None else 1]
            return replace(change, reason=f"{lacking.name} has no value")
        if reason:
            return replace(change, reason=reason)
        if not set(before.seeds) & set(after.seeds) - set(self.unlike):
            return replace(change, reason="the runs share no seed")
        left_out = {*self.unlike, *self.find_repeated()}
        pairs = _leave_out(after, left_out), _leave_out(before, left_out)
        if not set(pairs[0].seeds) & set(pairs[1].seeds):
            return replace(change, reason=SAME_MEASUREMENT)
        effect = paired_effect(kind, *pairs)
        if effect and any(shares_measurements(row, found) for found in self.paired):
            apart = are_apart(*pairs)
            return replace(change, effect=drop_test(effect), pairs=pairs, is_apart=apart)
        reason = "" if effect else "a value is not above zero"
        return replace(change, effect=effect, reason=reason, pairs=pairs)

    def _find_obstacle(self, row: Row) -> str:
        """Say why the figures of the two runs must not be compared; "" if they may be."""
        if row.is_time and (why := self.unranked_time):
            return f"the times are not ranked ({why})"
        if row.key in _MEASURED_IN_PASS:
            return self._compare_memory_methods()
        return ""

    @cached_property
    def unranked_time(self) -> str:
        """Why the times of the two must not be ranked; "" if they may be."""
        names = [run.name for run in self.runs]
        unranked = find_unranked_times(dict(zip(names, self.paired, strict=True)))
        reasons = [f"{name}: {why}" for name, why in unranked.items()]
        threads = [{record.device.get("threads") for record in found} for found in self.paired]
        if threads[0] != threads[1]:
            reasons.append(self._contrast("threads", threads))
        settings = [run.run.malloc for run in self.runs]
        if settings[0] != settings[1]:
            reasons.append("the runs had other malloc settings")
        return "; ".join(reasons)

    def _compare_memory_methods(self) -> str:
        methods = [{_name_memory_method(record) for record in found} - {""} for found in self.paired]
        if len(methods[0] | methods[1]) < 2:
            return ""
        return f"memory was measured in different ways ({self._contrast('method', methods)})"

    def _contrast(self, what: str, values: Sequence[AbstractSet[object]]) -> str:
        shown = (
            f"{run.name}: {' and '.join(sorted(map(str, found)))}"
            for run, found in zip(self.runs, values, strict=True)
        )
        return f"{what} in {', in '.join(shown)}"

    def find_gaps(self) -> list[Gap]:
        """Find the cells that ended differently, or that only one of the runs has."""
        before, after = (run.statuses.get(self.experiment, {}).get(self.column, {}) for run in self.runs)
        gaps = []
        for seed in dict.fromkeys([*before, *after]):
            statuses = before.get(seed), after.get(seed)
            if statuses[0] == statuses[1]:
                continue
            reasons = [found[seed].reason for found in self.records if seed in found]
            gaps.append(Gap(self.column, seed, *statuses, reason="; ".join(filter(None, reasons))))
        return gaps

    def find_repeated(self) -> tuple[int, ...]:
        """Find the seeds whose record is of the same execution in both runs."""
        return tuple(
            before.seed
            for before, after in zip(*self.paired, strict=True)
            if (before.cell_id, before.started_at, before.ended_at)
            == (after.cell_id, after.started_at, after.ended_at)
            and (before.reused_from or after.reused_from or self.runs[0].path == self.runs[1].path)
        )


def _leave_out(figure: Interval, seeds: Collection[int]) -> Interval:
    kept = [place for place, seed in enumerate(figure.seeds) if seed not in seeds]
    if not kept:
        return _NOTHING
    return interval(
        [figure.values[place] for place in kept],
        tuple(figure.seeds[place] for place in kept),
        tuple(figure.parts[place] for place in kept) if figure.parts else (),
    )


def _name_memory_method(record: CellRecord) -> str:
    """Name how the memory that a cell needs was measured; "" if it was not."""
    if record.memory.peak_device_bytes is not None:
        return "CUDA's allocator"
    if record.memory_pass is None:
        return ""
    return f"a memory pass under {record.memory_pass.malloc} malloc settings"


def describe_gap(gap: Gap, reference: str, other: str) -> str:
    """Say how a cell ended in each of the two runs.

    Args:
        reference, other: names of the runs.
    """
    reason = f" ({gap.reason})" if gap.reason else ""
    if gap.before is None:
        return f"only in {other}: {gap.after}{reason}"
    if gap.after is None:
        return f"only in {reference}: {gap.before}{reason}"
    return f"{gap.before} in {reference}, {gap.after} in {other}{reason}"
