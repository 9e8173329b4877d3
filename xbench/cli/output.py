"""Results to stdout, progress to stderr, in the form that was asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from rich.console import Console

from xbench.records.store import RunFolder

# Where nobody watches, tables keep their whole width instead of being squeezed into 80 columns.
_PIPE_WIDTH = 200


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"


class _ResultsConsole(Console):
    def on_broken_pipe(self) -> None:
        _close_stdout()


def stdout_console() -> Console:
    """Rich's console for results."""
    return _ResultsConsole(width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def stderr_console() -> Console:
    """Rich's console for progress and warnings."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else _PIPE_WIDTH)


def print_results(folder: RunFolder, form: Format, memory: bool = False) -> None:
    """Print a run from its records alone.

    Args:
        memory: the parts of each cell's memory instead of its results.
    """
    from xbench.report.breakdown import MEMORY_ROWS, NOTE
    from xbench.report.comparison import comparisons
    from xbench.report.export import to_csv, to_json, to_markdown
    from xbench.report.terminal import print_run

    run, records = folder.read()
    compared = comparisons(run, records, MEMORY_ROWS, NOTE) if memory else comparisons(run, records)
    where = _shortest(folder.path)
    with reader_may_leave():
        if form is Format.JSON:
            print(to_json(run, compared, where))
        elif form is Format.CSV:
            print(to_csv(records), end="")
        elif form is Format.MARKDOWN:
            print(to_markdown(run, compared))
        else:
            print_run(stdout_console(), run, compared, where)


def _close_stdout() -> None:
    """Let what is still to be written go nowhere, quietly."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """`xbench show | head`: that the reader has enough is no failure, and says nothing about the cells."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _close_stdout()


def _shortest(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
