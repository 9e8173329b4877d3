"""Show what a command is doing: progress bars on a terminal, otherwise a line every 30 seconds."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rich.console import Console, RenderableType
from rich.control import Control
from rich.live_render import LiveRender
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from xbench.cli.output import stderr_console
from xbench.isolation.interrupts import SIGNALS
from xbench.report.layout import plain, print_line
from xbench.text import escape_controls
from xbench.units import format_bytes, format_seconds

# Without progress bars, a line is printed if nothing has been printed for this many seconds.
MAX_SILENCE_S = 30.0

_BAR_WIDTH, _MEMORY_WIDTH = 20, 8
# Widths of a terminal from which all columns are shown, and from which those but the bar are.
_WIDE, _MEDIUM = 110, 70
# Above this share of the limit the bar of the memory is red.
_HIGH_SHARE = 0.9

_CHECK_EVERY_S = 1.0

Clock = Callable[[], float]


@dataclass
class Activity:
    """A piece of work under way.

    Attributes:
        what: the work, such as "decoding chest-xray".
        started_s: start time, by the display's clock.
        done: amount that is done.
        total: total amount; 0 if it is not known.
        unit: what is counted: "bytes", "step" for numbered steps, or a plural noun such as "images".
        done_before: amount that was done before `started_s`.
        detail: additional information; may be empty.
        memory_share: peak memory as a share of the limit; None if there is no limit.
        bar: ID of the progress bar; None if it has none.
    """

    what: str
    started_s: float
    done: int = 0
    total: int = 0
    unit: str = ""
    done_before: int = 0
    detail: str = ""
    memory_share: float | None = None
    bar: Any = field(default=None, repr=False, compare=False)

    def line(self, now_s: float) -> str:
        """Describe the work and its progress in one line."""
        parts = [
            self._format_count(),
            f"{format_seconds(now_s - self.started_s)} so far",
            self._estimate_time_left(now_s),
        ]
        return f"{self.what}: {', '.join(filter(None, [*parts, self.detail]))}"

    def describe_progress(self, now_s: float) -> str:
        """Describe the progress in a few words, to be shown next to a bar."""
        time_text = self._estimate_time_left(now_s) or format_seconds(now_s - self.started_s)
        count = self._format_count().removeprefix("step ").replace(" of ", "/")
        return ", ".join(filter(None, [count, time_text]))

    def _format_count(self) -> str:
        if not self.total and not self.done:
            return ""
        if self.unit == "bytes":
            of_total = f" of {format_bytes(self.total)}" if self.total else ""
            return f"{format_bytes(self.done)}{of_total}"
        of_total = f" of {self.total:,}" if self.total else ""
        if self.unit == "step":
            return f"step {self.done:,}{of_total}"
        return f"{self.done:,}{of_total} {self.unit}".rstrip()

    def _estimate_time_left(self, now_s: float) -> str:
        """Estimate the time left; "" if there is no progress to estimate it from."""
        newly_done, taken_s = self.done - self.done_before, now_s - self.started_s
        if newly_done <= 0 or taken_s <= 0 or self.total <= self.done:
            return ""
        left = f"{format_seconds(taken_s * (self.total - self.done) / newly_done)} left"
        if self.unit == "bytes":
            left = f"{format_bytes(newly_done / taken_s)}/s, {left}"
        return left


class ActivityDisplay:
    """Display of one activity at a time on stderr, to be used as a context manager.

    On a terminal, the activity is shown as a bar. Otherwise a thread prints a line about it whenever nothing
    has been printed for `MAX_SILENCE_S`.

    Args:
        clock: function that returns the time in seconds.
    """

    def __init__(self, clock: Clock = time.monotonic):
        self._clock, self._printed_at_s = clock, clock()
        self.console = stderr_console()
        self._has_bars = self.console.file.isatty() and self.console.is_interactive
        self._bars = _Bars(self.console, clock, is_disabled=not self._has_bars)
        self._current: Activity | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> ActivityDisplay:
        self._printed_at_s = self._clock()
        self._bars.start()
        if not self._has_bars:
            self._thread = threading.Thread(target=self._watch, name="progress-lines", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        self._bars.stop()

    @property
    def current(self) -> Activity | None:
        """The activity that is shown."""
        return self._current

    def say(self, text: str, style: str = "dim") -> None:
        """Print a line."""
        self._printed_at_s = self._clock()
        print_line(self.console, text, style)

    def begin(self, what: str, done: int = 0, total: int = 0, unit: str = "", detail: str = "") -> Activity:
        """Show a new activity in place of the current one."""
        activity = Activity(what, self._clock(), done, total, unit, done, detail)
        self.show(activity)
        return activity

    def show(self, activity: Activity | None) -> None:
        """Show an earlier activity in place of the current one; None to show nothing."""
        if self._current is not None:
            self._bars.remove_task(self._current.bar)
        self._current = activity
        if activity is not None:
            self._add_bar(activity)

    def report(self, what: str, done: int = 0, total: int = 0, unit: str = "") -> None:
        """Update the progress of an activity; begin it if it is not the current one or starts over."""
        current = self._current
        if current is None or current.what != what or done < current.done:
            self.begin(what, unit=unit)  # the amount in the first report was done during the activity
        self.advance(done, total)

    def advance(self, done: int, total: int | None = None, detail: str | None = None) -> None:
        """Update the progress of the current activity."""
        activity = self._current
        if activity is None:
            return
        activity.done = done
        activity.total = activity.total if total is None else total
        activity.detail = activity.detail if detail is None else detail
        self.update(activity)

    def add_overall(self, what: str, total: int) -> Activity:
        """Add a permanent bar above that of the current activity. It is shown only on a terminal."""
        activity = Activity(what, self._clock(), total=total)
        self._add_bar(activity)
        return activity

    def update(self, activity: Activity) -> None:
        """Redraw the bar of an activity."""
        self._bars.update(activity.bar, completed=activity.done, total=activity.total or None)

    def print_if_due(self) -> None:
        """Print a line about the current activity if nothing has been printed for `MAX_SILENCE_S`."""
        now_s, activity = self._clock(), self._current
        if activity is not None and now_s - self._printed_at_s >= MAX_SILENCE_S:
            self.say(activity.line(now_s))

    def _add_bar(self, activity: Activity) -> None:
        activity.bar = self._bars.add_task(
            escape_controls(activity.what),
            completed=activity.done,
            total=activity.total or None,
            activity=activity,
        )

    def _watch(self) -> None:
        # Signals must reach the main thread, to wake it from whatever it is waiting for.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        while not self._stopped.wait(_CHECK_EVERY_S):
            self.print_if_due()


class _Bars(Progress):
    """Bars that fit the terminal each time they are drawn, whatever its width was before."""

    def __init__(self, console: Console, clock: Clock, is_disabled: bool = False):
        self._terminal, self._clock, self._fitted_width = console, clock, console.width
        super().__init__(
            *_choose_columns(console, clock), console=console, transient=True, disable=is_disabled
        )
        self.live._live_render = _FoldedRender(console)

    def get_renderables(self) -> Iterable[RenderableType]:
        if (width := self._terminal.width) != self._fitted_width:
            self._fitted_width, self.columns = width, tuple(_choose_columns(self._terminal, self._clock))
        return super().get_renderables()


class _FoldedRender(LiveRender):
    """Bars on a terminal that folds them when it becomes narrower. Before they are drawn again, all rows that
    they take are erased."""

    def __init__(self, console: Console):
        super().__init__("")
        self._console = console
        self._folds = "XTERM_VERSION" not in os.environ  # xterm cuts lines instead, as hardly any other does

    def position_cursor(self) -> Control:
        if self._shape is not None and self._folds:
            width, height = self._shape
            self._shape = width, height * max(1, math.ceil(width / max(1, self._console.width)))
        return super().position_cursor()


class _ProgressText(ProgressColumn):
    """Column that describes the progress of a bar's activity in words."""

    def __init__(self, clock: Clock, table_column: Column):
        super().__init__(table_column)
        self._clock = clock

    def render(self, task: Task) -> Text:
        return plain(task.fields["activity"].describe_progress(self._clock()), "cyan")


class _MemoryBar(ProgressColumn):
    """Column that shows the peak memory of an activity as a bar; a full bar is the limit."""

    def __init__(self, is_ascii: bool, table_column: Column):
        super().__init__(table_column)
        self._full, self._empty = ("#", ".") if is_ascii else ("█", "░")

    def render(self, task: Task) -> Text:
        share = task.fields["activity"].memory_share
        if share is None:
            return Text()
        full = min(_MEMORY_WIDTH, max(1, round(share * _MEMORY_WIDTH)))
        style = "red" if share > _HIGH_SHARE else "green"
        return Text(self._full * full + self._empty * (_MEMORY_WIDTH - full), style)


def _choose_columns(console: Console, clock: Clock) -> list[ProgressColumn]:
    """Choose the columns that fit the terminal. Texts are cut short, so that each bar stays on a line."""
    is_ascii = console.options.ascii_only
    cut = partial(Column, no_wrap=True, overflow="crop" if is_ascii else "ellipsis")
    if console.width >= _WIDE:
        widths: tuple[int | None, ...] = (None, None, None)
    else:
        widths = (max(10, console.width // 4), 24, max(10, console.width - console.width // 4 - 36))
    what = TextColumn("{task.description}", markup=False, table_column=cut(width=widths[0]))
    bar = BarColumn(bar_width=_BAR_WIDTH)
    progress = _ProgressText(clock, cut(width=widths[1]))
    memory = _MemoryBar(is_ascii, Column(width=_MEMORY_WIDTH))
    detail = TextColumn("{task.fields[activity].detail}", markup=False, table_column=cut(width=widths[2]))
    if console.width >= _WIDE:
        return [what, bar, progress, memory, detail]
    return [what, progress, memory, detail] if console.width >= _MEDIUM else [what, progress]
