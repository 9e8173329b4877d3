"""A run's progress on stderr: bars where somebody watches, a line a cell everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from xbench.capacity.search import Trial
from xbench.cli.output import stderr_console
from xbench.records.schema import CellRecord, PlannedCell
from xbench.report.terminal import print_line
from xbench.text import counted, visible
from xbench.training.events import EpochDone, Prepared, StepsDone
from xbench.units import format_bytes, format_seconds


class ProgressDisplay:
    """Draws what an `execution.observer.Observer` hears. Use as a context manager."""

    def __init__(self) -> None:
        self._console = stderr_console()
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            console=self._console,
            transient=True,
            disable=not self._console.file.isatty(),
        )
        self._once: dict[str, Any] = {}
        self._estimates = self._busy = self._waits = self._is_saved = False
        self._cells = self._steps = None
        self._cell = ""
        self._count = self._total = 0
        self.folder: Path | None = None

    def __enter__(self) -> ProgressDisplay:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def decoding(self, dataset: str, done: int, total: int) -> None:
        said = f"decoding {total:,} images of {dataset}, once"
        self._advance(said, f"decoding {dataset}", done, total)

    def fetching(self, name: str, done_bytes: int, total_bytes: int) -> None:
        self._advance(f"downloading {name}", f"downloading {name}", done_bytes, total_bytes)

    def computing_features(self, cell: PlannedCell, done: int, total: int) -> None:
        said = f"computing features of {total:,} images for {_name(cell)}, once"
        self._advance(said, "features", done, total)

    def estimating(self, cell: PlannedCell) -> None:
        if not self._estimates:
            self._say("estimating times", "dim")
        self._estimates = True

    def machine_is_busy(self) -> None:
        if not self._busy:
            self._say("warning: other programs are at work here: times may be too long", "bold yellow")
        self._busy = True

    def waiting_for_quiet(self, may_wait_s: float) -> None:
        if not self._waits:
            said = f"waiting for a quiet moment to measure in, {format_seconds(may_wait_s)} at most"
            self._say(said, "dim")
        self._waits = True

    def _advance(self, said: str, title: str, done: int, total: int) -> None:
        """A bar of work that is done once, and a line when it begins."""
        if said not in self._once:
            self._say(said, "dim")
            self._once[said] = self._bars.add_task(visible(title), total=total, detail="")
        self._bars.update(self._once[said], completed=done, visible=done < total)

    def fitting(self, cell: PlannedCell, setting: str, trial: Trial | None = None) -> None:
        if trial is None:
            self._say(f"fitting {setting} of {cell.experiment} / {cell.column}", "dim")
        else:
            self._say(f"  {trial_line(setting, trial)}", "dim")

    def cell_adapted(self, record: CellRecord, changes: str) -> None:
        self._say(f"{_name(record)}: {record.status}: {record.reason}; again with {changes}", "yellow")

    def run_started(self, folder: Path, cells: list[PlannedCell], warnings: list[str]) -> None:
        for warning in warnings:
            self._say(f"warning: {warning}", "bold yellow")
        self.folder = folder
        self._total = len({cell.cell_id for cell in cells})
        self._say(f"{counted(self._total, 'cell')}; records in {folder}", "dim")
        self._cells = self._bars.add_task("cells", total=self._total, detail="")

    def measuring_memory(self, cell: PlannedCell) -> None:
        self._say(f"measuring the memory of {cell.experiment} / {cell.column}", "dim")

    def cell_started(self, cell: PlannedCell) -> None:
        self._count += 1
        self._is_saved = False
        self._cell = _name(cell)
        self._steps = self._bars.add_task(visible(self._cell), total=None, detail="starting")

    def cell_message(self, message: Any) -> None:
        if isinstance(message, Prepared):
            self._is_saved = message.is_saved
            self._epochs = message.epochs
            done = message.resumed_at
            detail = f"after step {done:,}" if done else f"epoch 1/{self._epochs}"
            if done:
                self._say(f"{self._cell}: goes on after step {done:,}", "dim")
            self._bars.update(self._steps, total=message.steps, completed=done, detail=detail)
        elif isinstance(message, StepsDone):
            last = message.rows[-1]
            memory = format_bytes(last.device_peak_bytes or last.host_peak_bytes)
            detail = f"epoch {last.epoch}/{self._epochs}  loss {last.loss:.4f}  {memory}"
            self._bars.update(self._steps, completed=last.step, detail=detail)
        elif isinstance(message, EpochDone) and message.record.validation_loss is not None:
            record = message.record
            detail = f"epoch {record.epoch}/{self._epochs}  validation loss {record.validation_loss:.4f}"
            self._bars.update(self._steps, detail=detail)

    def stopping(self) -> None:
        if self._is_saved:
            self._say("stopping once the cell in flight is saved; another interrupt stops at once", "yellow")
        else:
            self._say("stopping; the cell in flight begins anew the next time", "yellow")

    def cells_kept(self, count: int, total: int) -> None:
        self._count = count
        self._bars.update(self._cells, completed=count)
        if count == total:
            self._say("every cell has its result already (--fresh runs all of them again)", "dim")
        else:
            self._say(f"{count} of {counted(total, 'cell')} have their result already", "dim")

    def cell_ended(self, record: CellRecord) -> None:
        self._bars.remove_task(self._steps)
        self._bars.advance(self._cells)
        line = f"[{self._count}/{self._total}] {_name(record)}: {record.status}"
        if record.reason:
            line += f": {record.reason}"
        if record.metrics.test_accuracy is not None and record.time.training_s is not None:
            line += f", test accuracy {record.metrics.test_accuracy:.3f}"
            line += f", training {format_seconds(record.time.training_s)}"
            if (needed_bytes := record.needed_bytes) is not None:
                line += f", peak memory {format_bytes(needed_bytes)}"
        if record.expect:
            line += " (was meant to run out of memory)" if record.is_failure else " (as expected)"
        self._say(line, "yellow" if record.is_failure or record.status == "skipped" else "")

    def _say(self, text: str, style: str) -> None:
        print_line(self._bars.console, text, style)


def trial_line(setting: str, trial: Trial) -> str:
    """A trial of a probe, in a line."""
    if trial.outcome == "fits":
        outcome = f"fits, peak {format_bytes(trial.peak_bytes)}"
    else:
        outcome = "does not fit" if trial.outcome == "oom" else f"failed: {trial.reason}"
    return f"{setting} {trial.value:,}: {outcome} ({format_seconds(trial.seconds)})"


def _name(cell: PlannedCell | CellRecord) -> str:
    return f"{cell.experiment} / {cell.column} / seed {cell.seed}"
