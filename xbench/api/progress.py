"""Report the progress of a run in lines of text, which scripts and notebooks show alike."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from xbench.planning.observer import Observer
from xbench.records.capacity import TrialRecord
from xbench.records.schema import CellKey, CellRecord, RunRecord
from xbench.report.capacity import describe_outcome
from xbench.report.rows import find_headline, show_metric
from xbench.report.trial_line import describe_trial
from xbench.text import escape_controls, pluralize
from xbench.units import format_bytes, format_seconds


class Quiet(Observer):
    """An observer that shows nothing."""


class Lines(Observer):
    """An observer that prints a line on stderr for each warning, each cell that ended and each trial of a
    size.

    Work before the first cell, such as decoding and downloads, is named when it begins.
    """

    def __init__(self) -> None:
        self._total = self._ended = 0
        self._work = self._trial = ""
        self._is_saved = False  # whether the running cell is saved when it is asked to stop

    def working(self, what: str, done: int = 0, total: int = 0) -> None:
        self._begin(what)

    def warned(self, warning: str) -> None:
        self._print(f"warning: {warning}")

    def decoding(self, dataset: str, done: int, total: int) -> None:
        self._begin(f"decoding {dataset}")

    def fetching(self, name: str, done_bytes: int, total_bytes: int) -> None:
        self._begin(f"fetching {name}")

    def run_started(self, folder: Path, run: RunRecord, warnings: list[str]) -> None:
        for warning in warnings:
            self.warned(warning)
        self._total = len({cell.cell_id for cell in run.cells})
        self._run = run
        self._print(f"{pluralize(self._total, 'cell')}; records in {folder}")

    def cells_kept(self, count: int, total: int) -> None:
        self._ended = count
        self._print(f"{count} of {pluralize(total, 'cell')} already have results")

    def fitting(self, cell: CellKey, setting: str, trial: TrialRecord | None = None) -> None:
        if trial is None:
            self._print(f"fitting {setting} of {cell.experiment} / {cell.column}")
            return
        fits = describe_outcome(trial)
        peak = f", peak {format_bytes(trial.peak_bytes)}" if trial.peak_bytes is not None else ""
        self._print(f"  {setting} {trial.value:,}: {fits}{peak}")

    def cell_adapted(self, record: CellRecord, changes: str) -> None:
        self._print(f"{_name(record)}: {record.status}: {record.reason}; again with {changes}")

    def attempt_started(self, cell: CellKey) -> None:
        self._is_saved = False

    def cell_message(self, message: Any) -> None:
        # Of what a cell sends, only `training.events.Prepared` says it.
        self._is_saved = getattr(message, "is_saved", self._is_saved)

    def stopping(self) -> None:
        if self._is_saved:
            self._print("stopping once the running cell is saved; interrupt again to stop at once")
        else:
            self._print("stopping; the next call starts the running cell over")

    def trial_started(self, cell: CellKey, number: int, budget: str) -> None:
        self._trial = f"trial {number:,} {budget}"

    def cell_ended(self, record: CellRecord) -> None:
        if record.trial is not None:
            reason = record.reason and f": {record.reason}"
            figures = describe_trial(record, self._run)
            self._print(f"{self._trial} of {_name(record)}: {record.status}{reason}{figures}")
            return
        self._ended += 1
        parts = [record.status, record.reason, *self._list_figures(record)]
        line = f"[{self._ended}/{self._total}] {_name(record)}: {', '.join(filter(None, parts))}"
        self._print(line)

    def _list_figures(self, record: CellRecord) -> list[str]:
        headline = find_headline(self._run.metrics_of(record.experiment), record)
        training_s = record.time.training_s
        figures = [] if headline is None else [f"{headline[0].title} {show_metric(*headline)}"]
        if training_s is not None:
            figures.append(f"training {format_seconds(training_s)}")
        if record.needed_bytes is not None:
            figures.append(f"peak memory {format_bytes(record.needed_bytes)}")
        return figures

    def _begin(self, what: str) -> None:
        if what != self._work and not self._total:
            self._work = what
            self._print(what)

    def _print(self, line: str) -> None:
        if sys.stderr is not None:
            print(escape_controls(line), file=sys.stderr, flush=True)


def make_observer(progress: bool) -> Observer:
    """Return an observer that prints lines, or one that shows nothing."""
    # The methods of `Observer` do nothing, which mypy takes for abstract.
    return Lines() if progress else Quiet()  # type: ignore[abstract]


def _name(cell: CellRecord) -> str:
    return f"{cell.experiment} / {cell.column} / seed {cell.seed}"
