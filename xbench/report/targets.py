"""Find what each column of an experiment needed to reach its target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from xbench.records.bytes_outcomes import choose_seed, find_bytes
from xbench.records.schema import CellRecord, EvaluationRecord, ExperimentRecord, MetricRecord, RunRecord
from xbench.records.target_outcomes import TargetLevels
from xbench.records.targets import TargetRecord
from xbench.report.columns import Column
from xbench.report.rows import Row, collect_figure
from xbench.units import format_bytes, format_seconds

# Cells that ended in these ways have shown that they do not reach the target with the time and memory they
# had.
_CONCLUSIVE = ("done", "diverged", "oom", "timeout")


@dataclass(frozen=True)
class Attempt:
    """Whether and when a cell met the target.

    Attributes:
        steps: number of steps that the cell was trained for.
        level: the value that meets the target on the cell's rows; None if no cell has a value on them.
        met: the first evaluation that meets the target, however the cell ended; None if there is none.
    """

    seed: int
    status: str
    steps: int
    level: float | None
    met: EvaluationRecord | None


@dataclass(frozen=True)
class TargetColumn:
    """What one column needed to reach the target.

    Attributes:
        attempts: one for each seed that reached the target or shows that it does not. Those that were
            skipped, or ended in an error, show neither.
        column: the column, whose figures are those of `TargetComparison.rows` over the seeds that reached it.
    """

    attempts: tuple[Attempt, ...]
    column: Column

    @property
    def name(self) -> str:
        return self.column.name

    @property
    def reached(self) -> tuple[Attempt, ...]:
        """The attempts that reached the target."""
        return tuple(attempt for attempt in self.attempts if attempt.met is not None)

    @property
    def always_reached(self) -> bool:
        """Whether all of its attempts reached the target, of which there is at least one."""
        return bool(self.attempts) and len(self.reached) == len(self.attempts)


@dataclass(frozen=True)
class TargetComparison:
    """What the columns of an experiment needed to reach its target.

    Attributes:
        metric: declaration of the metric.
        rows: the figures of the first evaluation that meets the target.
        levels: the values that meet the target.
        searched: column -> the cell that stands for it in the search for bytes, if the target asks for them.
    """

    target: TargetRecord
    metric: MetricRecord
    columns: tuple[TargetColumn, ...]
    rows: tuple[Row, ...]
    levels: TargetLevels
    searched: Mapping[str, CellRecord]


def compare_to_target(
    run: RunRecord, experiment: ExperimentRecord, columns: Sequence[Column]
) -> TargetComparison | None:
    """Find what each column needed to reach the experiment's target; None if the experiment has none."""
    target = experiment.target
    if target is None:
        return None
    metric = _find_declaration(run, target)
    records = [record for column in columns for record in column.records]
    levels = TargetLevels.of(target, records)
    searched = _choose_searched(columns, levels) if target.bytes else {}
    rows = (*_make_rows(levels), *([_make_bytes_row(levels, searched)] if target.bytes else []))
    compared = tuple(_make_column(column, rows, levels) for column in columns)
    return TargetComparison(target, metric, compared, rows, levels, searched)


def _find_declaration(run: RunRecord, target: TargetRecord) -> MetricRecord:
    declared = next((metric for metric in run.epoch_metrics if metric.name == target.metric), None)
    return declared or MetricRecord(
        name=target.metric,
        title=target.metric.replace("_", " "),
        direction=target.direction,
        split="test" if target.on_test else "validation",
    )


def _make_rows(levels: TargetLevels) -> tuple[Row, ...]:
    def read(key: str) -> Callable[[CellRecord], float | None]:
        return lambda record: None if (met := levels.find_first_met(record)) is None else getattr(met, key)

    def count(key: str, title: str) -> Row:
        return Row(
            f"{key}_to_target", title, read("step" if key == "steps" else key), _format_count, _format_count,
            better="min", finding="ratio",
        )  # fmt: skip

    return (
        count("steps", "steps"),
        count("closures", "gradient evaluations"),
        count("examples", "examples"),
        Row(
            "training_s_to_target",
            "training time",
            read("training_s"),
            format_seconds,
            format_seconds,
            is_time=True,
            better="min",
            finding="ratio",
        ),
    )


def _choose_searched(columns: Sequence[Column], levels: TargetLevels) -> dict[str, CellRecord]:
    chosen = {column.name: choose_seed(column.records, levels) for column in columns}
    return {name: record for name, record in chosen.items() if record is not None}


def _make_bytes_row(levels: TargetLevels, searched: Mapping[str, CellRecord]) -> Row:
    """Make the row of the smallest memory limit, which is that of one cell of each column."""
    ids = {record.cell_id for record in searched.values()}

    def read(record: CellRecord) -> float | None:
        found = find_bytes(record, levels) if record.cell_id in ids else None
        return None if found is None else found.limit_bytes

    return Row(
        "bytes_to_target",
        "memory limit",
        read,
        format_bytes,
        better="min",
        measurement=lambda record: record.cell_id,  # found once, however many seeds there are
    )


def _format_count(value: float) -> str:
    return f"{value:,.0f}"


def _make_column(column: Column, rows: Sequence[Row], levels: TargetLevels) -> TargetColumn:
    attempts = [
        Attempt(record.seed, record.status, record.steps, levels.find_level(record), met)
        for record in column.records
        if _is_conclusive(record, met := levels.find_first_met(record))
    ]
    found = {row.key: collect_figure(row, column.records) for row in rows}
    figures = {key: figure for key, figure in found.items() if figure is not None}
    return TargetColumn(tuple(attempts), replace(column, figures=figures))


def _is_conclusive(record: CellRecord, met: EvaluationRecord | None) -> bool:
    """Return whether a cell tells if it reaches the target; records without evaluations do not."""
    if met is not None:
        return True
    return record.status in _CONCLUSIVE and (record.status != "done" or bool(record.evaluations))
