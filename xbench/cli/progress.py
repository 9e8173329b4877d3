"""Show a run's progress on stderr: a line per cell, and bars or lines for the work under way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from xbench.capacity.tuning import TimedMicroBatch
from xbench.cli.activity import Activity, ActivityDisplay, Clock
from xbench.execution.checkpoints import find_saved_step
from xbench.records.capacity import TrialRecord
from xbench.records.schema import CellKey, CellRecord, RunRecord
from xbench.records.store import RunFolder
from xbench.report.capacity import describe_outcome
from xbench.report.rows import find_headline, show_metric
from xbench.report.trial_line import describe_trial
from xbench.text import pluralize
from xbench.training.events import Compiling, EpochDone, Evaluating, EvaluationDone, Prepared, StepsDone
from xbench.units import format_bytes, format_seconds


class ProgressDisplay:
    """Display of what a `planning.observer.Observer` is told, to be used as a context manager.

    Args:
        clock: function that returns the time in seconds.
    """

    _cells: Activity  # set when the run starts
    _training: Activity  # set when a cell's training starts

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.display = ActivityDisplay(clock)
        self._announced: set[str] = set()
        self._outer: Activity | None = None
        self._cell = ""
        self._running: CellKey | None = None
        self._prepared: Prepared | None = None
        self._count = self._total = 0
        self._trial = ""  # the place of the running trial in its search; "" if no trial is running
        self._run: RunRecord | None = None
        self.folder: Path | None = None

    def __enter__(self) -> ProgressDisplay:
        self.display.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.display.__exit__(*exception)

    def working(self, what: str, done: int = 0, total: int = 0) -> None:
        self.display.report(what, done, total)

    def warned(self, warning: str) -> None:
        self._say(f"warning: {warning}", "bold yellow")

    def decoding(self, dataset: str, done: int, total: int) -> None:
        self._announce(f"decoding {total:,} images of {dataset}, once")
        self.display.report(f"decoding {dataset}", done, total, "images")

    def fetching(self, name: str, done_bytes: int, total_bytes: int) -> None:
        if done_bytes or total_bytes:
            self._announce(f"downloading {name}")
        self.display.report(f"downloading {name}", done_bytes, total_bytes, "bytes")

    def computing_features(self, cell: CellKey, done: int, total: int) -> None:
        if total:
            self._announce(f"computing features of {total:,} examples for {_format_name(cell)}, once")
        else:
            self._outer = self.display.current
        self.display.report(f"features for {_format_name(cell)}", done, total, "examples")

    def features_computed(self, cell: CellKey) -> None:
        self.display.show(self._outer)

    def estimating(self, cell: CellKey, done: int = 0, total: int = 0) -> None:
        self._announce("estimating times")
        self.display.begin(f"estimating the time of {_format_name(cell)}", done, total, "cells")

    def machine_is_busy(self) -> None:
        self._announce("warning: other programs are using the CPU, so timings may be too high", "bold yellow")

    def waiting_for_quiet(self, may_wait_s: float) -> None:
        what = "waiting for the machine to become idle before measuring"
        self._announce(f"{what}, for at most {format_seconds(may_wait_s)}", key=what)
        self.display.begin(what)

    def _announce(self, text: str, style: str = "dim", key: str = "") -> None:
        """Print a line unless one with the same key was printed before. By default, the key is the text."""
        if (key or text) not in self._announced:
            self._announced.add(key or text)
            self._say(text, style)

    def fitting(self, cell: CellKey, setting: str, trial: TrialRecord | None = None) -> None:
        what = f"fitting {setting} of {_format_configuration(cell)}"
        self._say(what if trial is None else f"  {format_trial(setting, trial)}", "dim")
        self.display.begin(what)

    def trying(self, cell: CellKey, setting: str, value: int) -> None:
        self.display.begin(f"trying {setting} {value:,} of {_format_configuration(cell)}")

    def micro_batch_timed(self, cell: CellKey, timed: TimedMicroBatch) -> None:
        rate = f"{1000 * timed.seconds_per_example:.3g} ms per example"
        self._say(f"  micro_batch {timed.micro_batch:,}: {rate}", "dim")

    def cell_adapted(self, record: CellRecord, changes: str) -> None:
        self._say(
            f"{_format_name(record)}: {record.status}: {record.reason}; trying again with {changes}", "yellow"
        )

    def run_started(self, folder: Path, run: RunRecord, warnings: list[str]) -> None:
        for warning in warnings:
            self.warned(warning)
        self._run = run
        self._total = len({cell.cell_id for cell in run.cells})
        self._say(f"{pluralize(self._total, 'cell')}; records in {folder}", "dim")
        self._cells = self.display.add_overall("cells", self._total)
        self.folder = folder
        self.display.begin("preparing the cells")

    def measuring_memory(self, cell: CellKey) -> None:
        what = f"measuring the memory of {_format_configuration(cell)}"
        self._say(what, "dim")
        self.display.begin(what)

    def trial_started(self, cell: CellKey, number: int, budget: str) -> None:
        self._trial = f"trial {number:,} {budget}"
        self._begin_cell(cell)

    def cell_started(self, cell: CellKey) -> None:
        self._count += 1
        self._total = max(self._total, self._count)  # trainings under smaller limits are not declared
        self._trial = ""
        self._begin_cell(cell)

    def _begin_cell(self, cell: CellKey) -> None:
        self._prepared = None
        self._cell, self._running = _format_name(cell), cell
        self.display.begin(f"{self._format_place()}: preparing")

    def attempt_started(self, cell: CellKey) -> None:
        self._prepared = None
        self.display.begin(f"{self._format_place()}: loading the model and the data")

    def cell_message(self, message: Any) -> None:
        if isinstance(message, Compiling):
            if message.done:
                self.display.advance(message.done)
            else:
                what = f"{self._format_place()}: compiling the model"
                self.display.begin(what, 0, message.total, "shapes")
        elif isinstance(message, Prepared):
            self._prepared = message
            if message.resumed_at:
                self._say(f"{self._cell}: resumed after step {message.resumed_at:,}", "dim")
            detail = "" if message.resumed_at else _format_epoch(1, message)
            training = (message.resumed_at, message.steps, "step", detail)
            self._training = self.display.begin(self._format_place(), *training)
        elif self._prepared is not None:
            self._show_training(message, self._prepared)

    def _show_training(self, message: Any, prepared: Prepared) -> None:
        if isinstance(message, StepsDone):
            last = message.rows[-1]
            peak_bytes = last.device_peak_bytes if prepared.is_on_cuda else last.host_peak_bytes
            limit_bytes = prepared.memory.limit_bytes
            memory = format_bytes(peak_bytes) if peak_bytes else ""
            if peak_bytes and limit_bytes:
                memory += f" of {format_bytes(limit_bytes)}"
                self._training.memory_share = peak_bytes / limit_bytes
            parts = [f"loss {last.loss:.4f}", _format_epoch(last.epoch, prepared), memory]
            self._train(last.step, ", ".join(filter(None, parts)))
        elif isinstance(message, EvaluationDone | EpochDone):
            record, detail = message.record, self._training.detail
            if (loss := record.values.get("validation_loss")) is not None:
                detail = f"{_format_epoch(record.epoch, prepared)}, validation loss {loss:.4f}"
            self._train(self._training.done, detail)
        elif isinstance(message, Evaluating):
            if message.done:
                self.display.advance(message.done)
            else:
                after = f"after step {self._training.done:,} of {self._training.total:,}"
                what = f"{self._format_place()}: evaluating {after}"
                self.display.begin(what, 0, message.total, "examples")

    def _train(self, step: int, detail: str) -> None:
        if self.display.current is not self._training:
            self.display.show(self._training)
        self.display.advance(step, detail=detail)

    def _format_place(self) -> str:
        """Return the running cell's number and name."""
        return f"{self._format_count()} {self._cell}"

    def _format_count(self) -> str:
        return f"{self._trial} of" if self._trial else f"[{self._count}/{self._total}]"

    def stopping(self) -> None:
        if self._prepared is not None and self._prepared.is_saved:
            self._say("stopping once the running cell is saved; interrupt again to stop at once", "yellow")
        else:
            self._say("stopping; the next run starts the running cell over", "yellow")

    def cells_kept(self, count: int, total: int) -> None:
        self._count = count
        self._cells.done = count
        self.display.update(self._cells)
        if count == total:
            self._say("every cell has already ended, so nothing is run (--fresh runs all cells again)", "dim")
        else:
            self._say(f"{count} of {pluralize(total, 'cell')} already have results", "dim")

    def cell_ended(self, record: CellRecord) -> None:
        line = f"{self._format_count()} {_format_name(record)}: {record.status}"
        if record.trial is None:
            self._cells.done += 1
        self._running = None
        self.display.update(self._cells)
        self.display.begin("preparing the next cell")
        if record.reason:
            line += f": {record.reason}"
        line += self._format_figures(record)
        if record.expect:
            line += " (was expected to run out of memory)" if record.is_failure else " (as expected)"
        self._say(line, "yellow" if record.is_failure or record.status == "skipped" else "")

    def describe_outcome(self) -> str:
        """Say what an interrupted run has left: how many cells ended, and how much of the running one is
        saved. Return "" if the run has not started."""
        if self.folder is None:
            return ""
        done = self._cells.done
        if done:
            has = "has" if done == 1 else "have"
            outcome = f"{done} of {pluralize(self._total, 'cell')} {has} ended, recorded in {self.folder}"
        else:
            outcome = "no cell has ended"
        if self._running is None:
            return outcome
        saved = find_saved_step(RunFolder(self.folder).checkpoint_folder(self._running.cell_id))
        running = f"{self._trial} of {self._cell}" if self._trial else self._cell
        if saved:
            return f"{outcome}; the next run continues {running} after step {saved:,}"
        return f"{outcome}; nothing of {running} is saved"

    def _format_figures(self, record: CellRecord) -> str:
        """Format the quality, time and memory of a cell that finished; return "" for other cells."""
        if record.trial is not None:
            return describe_trial(record, self._run)
        metrics = self._run.metrics_of(record.experiment) if self._run else ()
        headline, training_s = find_headline(metrics, record), record.time.training_s
        if headline is None or training_s is None:
            return ""
        metric, value = headline
        figures = f", {metric.title} {show_metric(metric, value)}, training {format_seconds(training_s)}"
        if (needed_bytes := record.needed_bytes) is not None:
            figures += f", peak memory {format_bytes(needed_bytes)}"
        return figures

    def _say(self, text: str, style: str) -> None:
        self.display.say(text, style)


def format_trial(setting: str, trial: TrialRecord) -> str:
    """Format a trial of a probe as one line."""
    if trial.outcome == "fits" and trial.peak_bytes is not None:
        outcome = f"fits, peak {format_bytes(trial.peak_bytes)}"
    else:
        outcome = describe_outcome(trial)
    return f"{setting} {trial.value:,}: {outcome} ({format_seconds(trial.seconds)})"


def _format_epoch(epoch: int, prepared: Prepared) -> str:
    return f"epoch {epoch:,}/{prepared.epochs:,}"


def _format_name(cell: CellKey | CellRecord) -> str:
    return f"{cell.experiment} / {cell.column} / seed {cell.seed}"


def _format_configuration(cell: CellKey) -> str:
    return f"{cell.experiment} / {cell.column}"
