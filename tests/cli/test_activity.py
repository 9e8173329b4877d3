"""Progress lines: how often they are printed, what they say, and where. Tests set the time."""

from __future__ import annotations

import io
import math
import os
import re
import sys
import threading
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.progress import Progress

from xbench.cli import activity as activity_module
from xbench.cli.activity import MAX_SILENCE_S, Activity, ActivityDisplay, _Bars, _choose_columns


@pytest.fixture
def display(clock, printed) -> ActivityDisplay:
    return ActivityDisplay(clock)


@pytest.fixture
def line_after(clock, display, printed):
    """`line_after(seconds)`: what is printed when that time has passed; "" for nothing."""

    def after(seconds: float) -> str:
        clock.now_s += seconds
        display.print_if_due()
        return printed()

    return after


def test_a_line_is_printed_once_nothing_was_for_so_long(display, line_after):
    display.begin("measuring the memory of table-1 / sgd")
    assert line_after(MAX_SILENCE_S - 1) == ""
    assert line_after(1) == "measuring the memory of table-1 / sgd: 30.0 s so far\n"
    assert line_after(MAX_SILENCE_S - 1) == ""
    assert line_after(1) == "measuring the memory of table-1 / sgd: 1m 00s so far\n"


def test_a_line_of_another_kind_breaks_the_silence_too(display, line_after, printed):
    display.begin("fitting")
    assert line_after(20) == ""
    display.say("one size fits")
    assert printed() == "one size fits\n"
    assert line_after(20) == ""
    assert line_after(10) == "fitting: 50.0 s so far\n"


def test_short_activities_one_after_the_other_are_not_silent_either(display, line_after):
    lines = ""
    for cell in range(10):
        display.begin(f"cell {cell}")
        lines += line_after(10)
    assert lines == "".join(f"cell {cell}: 10.0 s so far\n" for cell in (2, 5, 8))


def test_nothing_in_hand_is_not_told(display, line_after):
    assert line_after(100) == ""
    display.begin("decoding")
    display.show(None)
    assert line_after(100) == ""


@pytest.mark.parametrize(
    ("unit", "done", "total", "line"),
    [
        ("images", 1200, 2400, "work: 1,200 of 2,400 images, 40.0 s so far, 40.0 s left"),
        ("images", 0, 2400, "work: 0 of 2,400 images, 40.0 s so far"),
        ("images", 2400, 2400, "work: 2,400 of 2,400 images, 40.0 s so far"),
        ("", 10, 40, "work: 10 of 40, 40.0 s so far, 2m 00s left"),
        ("", 7, 0, "work: 7, 40.0 s so far"),
        ("step", 30, 40, "work: step 30 of 40, 40.0 s so far, 13.3 s left"),
        ("bytes", 80e6, 240e6, "work: 80 MB of 240 MB, 40.0 s so far, 2.00 MB/s, 1m 20s left"),
        ("bytes", 80e6, 0, "work: 80 MB, 40.0 s so far"),
    ],
)
def test_what_is_counted_is_told_with_the_time_left(display, line_after, unit, done, total, line):
    display.report("work", 0, total, unit)
    assert line_after(0) == ""
    display.report("work", int(done), int(total), unit)
    assert line_after(40) == f"{line}\n"


def test_what_was_done_before_does_not_count_for_the_time_left(display, line_after):
    display.begin("cell", done=90, total=200, unit="step")
    display.advance(100)
    assert line_after(40) == "cell: step 100 of 200, 40.0 s so far, 6m 40s left\n"


def test_counts_that_start_over_have_a_time_of_their_own(display, line_after, clock):
    display.report("hashing", 10, 10)
    clock.now_s += 20
    display.report("hashing", 1, 4)
    assert line_after(30) == "hashing: 1 of 4, 30.0 s so far, 1m 30s left\n"


def test_an_activity_that_was_interrupted_by_another_goes_on(display, line_after, clock):
    outer = display.begin("estimating times")
    clock.now_s += 20
    display.begin("features")
    display.show(outer)
    assert line_after(30) == "estimating times: 50.0 s so far\n"


def test_lines_hold_nothing_that_a_terminal_would_obey(display, line_after):
    display.begin("fitting \x1b[31mred\r\nname")
    display.advance(1, 2)
    assert line_after(30) == "fitting \\x1b[31mred\\r\\nname: 1 of 2, 30.0 s so far, 30.0 s left\n"


def test_lines_can_be_written_in_ascii(clock, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii", errors="backslashreplace"))
    display = ActivityDisplay(clock)
    display.begin("decoding Gr\u00f6\u00dfe")
    clock.now_s += 30
    display.print_if_due()
    assert raw.getvalue() == b"decoding Gr\\xf6\\xdfe: 30.0 s so far\n"


def test_nobody_reads_stderr(clock, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with ActivityDisplay(clock) as display:
            display.begin("decoding")
            clock.now_s += 30
            display.print_if_due()


class Stream(io.StringIO):
    """Tells that a line was written."""

    def __init__(self, is_terminal: bool = False):
        super().__init__()
        self.has_line, self._is_terminal = threading.Event(), is_terminal

    def write(self, text: str) -> int:
        count = super().write(text)
        if "so far" in text:
            self.has_line.set()
        return count

    def isatty(self) -> bool:
        return self._is_terminal


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "progress-lines"]


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(activity_module, "MAX_SILENCE_S", 0.0)
    monkeypatch.setattr(activity_module, "_CHECK_EVERY_S", 0.001)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("is_terminal", "term"), [(False, "xterm"), (True, "dumb")])
def test_where_no_bars_are_drawn_lines_come_by_themselves(impatient, monkeypatch, is_terminal, term):
    stream = Stream(is_terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", term)
    with ActivityDisplay() as display:
        display.begin("one long trial")
        assert stream.has_line.wait(60)
        assert len(watchers()) == 1
    assert watchers() == []
    assert all(line.startswith("one long trial: ") for line in stream.getvalue().splitlines())
    assert "\x1b" not in stream.getvalue()


def test_on_a_terminal_there_are_bars_instead(impatient, monkeypatch):
    stream = Stream(is_terminal=True)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with ActivityDisplay() as display:
        display.begin("decoding", total=10, unit="images")
        assert watchers() == []
    assert "decoding" in stream.getvalue() and "0/10 images" in stream.getvalue()
    assert "so far" not in stream.getvalue()


def test_no_thread_is_left_behind_an_interrupt(impatient, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Stream())
    with pytest.raises(KeyboardInterrupt), ActivityDisplay() as display:
        display.begin("decoding")
        raise KeyboardInterrupt
    assert watchers() == []


class TestColumns:
    """Bars on terminals of several widths and encodings."""

    def drawn(self, width: int, encoding: str = "utf-8", share: float | None = 0.5) -> str:
        output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        console = Console(file=output, width=width, force_terminal=True, color_system=None)
        work = Activity("[4/9] table-2 / adam / seed 1", 0.0, 600, 3592, "step", detail="loss 0.4321")
        work.memory_share = share
        bars = Progress(*_choose_columns(console, lambda: 10.0), console=console)
        bars.add_task(work.what, completed=work.done, total=work.total, activity=work)
        console.print(bars.get_renderable())
        output.flush()
        return output.buffer.getvalue().decode(encoding)

    @pytest.mark.parametrize("width", [140, 110, 80, 70, 60, 40, 20])
    def test_stay_on_one_line(self, width):
        (line,) = self.drawn(width).splitlines()
        assert len(line.rstrip()) <= width

    @pytest.mark.parametrize("width", [140, 80])
    def test_show_progress_memory_and_loss(self, width):
        line = self.drawn(width)
        assert "600/3,592, 49.9 s left" in line
        assert "████░░░░" in line
        assert "loss 0.4321" in line

    def test_without_a_limit_there_is_no_memory_bar(self):
        assert not {"█", "░"} & set(self.drawn(80, share=None))

    def test_memory_above_its_limit_fills_the_bar(self):
        assert "████████" in self.drawn(80, share=1.7)

    def test_plain_characters_where_there_are_no_others(self):
        assert "####...." in self.drawn(80, encoding="ascii")


class TestResizing:
    """Bars on a terminal whose width changes while they are shown."""

    @pytest.fixture
    def terminal(self, monkeypatch):
        """A terminal of 140 columns, with the bars of a run and of its cell."""
        monkeypatch.delenv("XTERM_VERSION", raising=False)
        console = Console(file=io.StringIO(), width=140, height=40, force_terminal=True, color_system=None)
        bars = _Bars(console, lambda: 10.0)
        for what in ("cells", "[4/9] table-2 / adam / seed 1"):
            work = Activity(what, 0.0, 600, 3592, "step", detail="loss 0.4321, epoch 1/4, 465 MB of 2.00 GB")
            bars.add_task(what, completed=work.done, total=work.total, activity=work)
        bars.live.auto_refresh = False
        with bars:
            yield SimpleNamespace(console=console, bars=bars)

    def draw(self, terminal, width: int) -> tuple[list[str], int]:
        """Draw at a width.

        Returns:
            The lines, and how many rows above the last one were erased before.
        """
        terminal.console.width = width
        terminal.console.file = io.StringIO()
        terminal.bars.refresh()
        text = terminal.console.file.getvalue()
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text).splitlines(), text.count("\x1b[1A\x1b[2K")

    def test_bars_fit_the_width_of_the_moment(self, terminal):
        for width in (140, 50, 80, 30, 140):
            lines, _ = self.draw(terminal, width)
            assert len(lines) == 2
            assert max(map(len, lines)) <= width
            assert ("loss" in lines[1]) is (width >= 70)
            assert ("━" in lines[1]) is (width == 140)

    def test_rows_of_bars_that_a_narrower_terminal_folded_are_erased(self, terminal):
        before, erased = self.draw(terminal, 140)
        assert erased == 1
        _, erased = self.draw(terminal, 50)
        assert erased == 2 * math.ceil(max(map(len, before)) / 50) - 1 > 3
        assert self.draw(terminal, 50)[1] == self.draw(terminal, 140)[1] == 1

    def test_a_line_printed_right_after_a_resize_erases_them_too(self, terminal):
        self.draw(terminal, 140)
        terminal.console.width, terminal.console.file = 50, io.StringIO()
        terminal.console.print("a line")
        assert terminal.console.file.getvalue().split("a line")[0].count("\x1b[1A\x1b[2K") == 5

    def test_xterm_folds_nothing(self, terminal, monkeypatch):
        monkeypatch.setenv("XTERM_VERSION", "XTerm(390)")
        bars = _Bars(terminal.console, lambda: 10.0)
        assert not bars.live._live_render._folds
