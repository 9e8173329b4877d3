"""Results to stdout, progress to stderr, in the form that was asked for."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO, cast

from rich.console import Console
from rich.text import Text

from xbench.errors import XbenchError
from xbench.records.store import RunFolder
from xbench.storage.paths import cache_note
from xbench.text import escape_controls

# Where nobody watches, tables keep their whole width instead of being squeezed into 80 columns.
_PIPE_WIDTH = 200


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"


class FindingsFormat(StrEnum):
    """How findings are printed."""

    TABLE = "table"
    JSON = "json"


class _ResultsConsole(Console):
    def on_broken_pipe(self) -> None:
        _close(sys.stdout)


class _UntilItFails:
    """A stream whose reader may leave, or whose terminal may be closed: from then on it says nothing."""

    def __init__(self, stream: TextIO):
        self._stream = getattr(stream, "rich_proxied_file", stream)  # a progress bar may stand before it

    def write(self, text: str) -> int:
        with self._forgive():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._forgive():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _forgive(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            _close(self._stream)


def print_json(document: Any) -> None:
    """Print a JSON document, in ASCII: a stream that lacks a character would escape it as Python does,
    and not as JSON does.

    Args:
        document: a value that `json` can write, or a document's text.
    """
    text = document if isinstance(document, str) else json.dumps(document, indent=2)
    print(re.sub(r"[^\x00-\x7f]+", lambda match: json.dumps(match[0])[1:-1], text))


def tell_where_cache_is() -> None:
    """Tell on stderr if the cache is not in its usual place."""
    note = cache_note()
    if note:
        stderr_console().print(Text(escape_controls(f"note: {note}"), style="yellow"), soft_wrap=True)


def stdout_console() -> Console:
    """Rich's console for results."""
    return _ResultsConsole(width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def stderr_console() -> Console:
    """Rich's console for progress and warnings. Nothing that happens to stderr is a failure of a run."""
    stream = cast(TextIO, _UntilItFails(sys.stderr))  # it passes on whatever else a stream has
    return Console(file=stream, width=None if sys.stderr.isatty() else _PIPE_WIDTH)


def print_results(folder: RunFolder, form: Format, memory: bool = False) -> None:
    """Print a run from its records alone.

    Args:
        memory: the parts of each cell's memory instead of its results.
    """
    from xbench.report.breakdown import MEMORY_ROWS, NOTE
    from xbench.report.comparison import comparisons
    from xbench.report.export import to_csv, to_json, to_markdown
    from xbench.report.layout import print_line
    from xbench.report.notes import nothing_ran
    from xbench.report.terminal import print_run

    run, records = folder.read()
    if headline := nothing_ran(records):
        run = run.model_copy(update={"warnings": [headline, *run.warnings]})
    compared = comparisons(run, records, MEMORY_ROWS, NOTE) if memory else comparisons(run, records)
    where = _shortest(folder.path)
    with reader_may_leave("`xbench show` prints the results of a run again"):
        if form is Format.JSON:
            print_json(to_json(run, compared, where))
        elif form is Format.CSV:
            print(to_csv(run, records), end="")
            if headline := nothing_ran(records, "the column `reason` says why"):
                print_line(stderr_console(), f"warning: {headline}", "bold yellow")
        elif form is Format.MARKDOWN:
            print(to_markdown(run, compared))
        else:
            print_run(stdout_console(), run, compared, where)


def _close(stream: TextIO) -> None:
    """Let what is still to be written go nowhere, quietly."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def reader_may_leave(hint: str = "make space there, or send the output elsewhere") -> Iterator[None]:
    """`xbench show | head`: that the reader has enough is no failure, and says nothing about the cells.

    Args:
        hint: what to do where the output is not taken.

    Raises:
        XbenchError: what takes the output is full, or fails.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _close(sys.stdout)
    except OSError as error:
        _close(sys.stdout)
        raise XbenchError(f"results cannot be printed to stdout: {error.strerror}", hint) from error


def _shortest(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
