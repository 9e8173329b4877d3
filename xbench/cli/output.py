"""Print results to stdout in the requested format, and progress to stderr."""

from __future__ import annotations

import gc
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from rich.console import Console
from rich.text import Text

from xbench.errors import XbenchError
from xbench.storage.paths import cache_note
from xbench.text import escape_controls

if TYPE_CHECKING:
    from xbench.records.store import RunFolder
    from xbench.report.comparison import View
    from xbench.report.document import Document

# Width of output that does not go to a terminal, so that tables are not squeezed into 80 columns.
_PIPE_WIDTH = 200

# Hint for output that cannot be written.
REDIRECT_OUTPUT = "free some space there, or redirect the output"


class Format(StrEnum):
    """Output format of results."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"
    LATEX = "latex"


class FindingsFormat(StrEnum):
    """Output format of findings."""

    TABLE = "table"
    JSON = "json"


class _ResultsConsole(Console):
    def on_broken_pipe(self) -> None:
        _redirect_to_null(sys.stdout)


class _ForgivingStream:
    """A stream that discards its output once its reader has gone or its terminal is closed."""

    def __init__(self, stream: TextIO):
        self._stream = getattr(stream, "rich_proxied_file", stream)  # a progress bar may wrap the stream

    def write(self, text: str) -> int:
        with self._discard_on_error():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._discard_on_error():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _discard_on_error(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            _redirect_to_null(self._stream)


def print_json(document: Any) -> None:
    """Print a JSON document in ASCII. Otherwise a stream that lacks a character would escape it in Python's
    syntax, not in JSON's.

    Args:
        document: a JSON-serializable value, or the text of a document.
    """
    text = document if isinstance(document, str) else json.dumps(document, indent=2)
    print(re.sub(r"[^\x00-\x7f]+", lambda match: json.dumps(match[0])[1:-1], text))


def print_cache_note() -> None:
    """Print a note to stderr if the cache is not in its default folder."""
    note = cache_note()
    if note:
        stderr_console().print(Text(escape_controls(f"note: {note}"), style="yellow"), soft_wrap=True)


def stdout_console() -> Console:
    """Make a console for results."""
    return _ResultsConsole(width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def stderr_console() -> Console:
    """Make a console for progress and warnings, which ignores errors of stderr."""
    stream = cast(TextIO, _ForgivingStream(sys.stderr))  # other attributes are delegated
    return Console(file=stream, width=None if sys.stderr.isatty() else _PIPE_WIDTH)


def print_in_form(document: Document, form: Format, findings: bool = False, trials: bool = False) -> None:
    """Print a document.

    Args:
        findings: whether CSV holds the findings, in place of the figures.
        trials: whether CSV holds the trials of searches, in place of the figures.
    """
    from xbench.report.emit import print_document, to_csv, to_json, to_latex, to_markdown
    from xbench.report.layout import print_line

    if form is Format.JSON:
        print_json(to_json(document))
    elif form is Format.CSV:
        print(to_csv(document, findings, trials), end="")
        for warning in document.csv_warnings:
            print_line(stderr_console(), f"warning: {warning}", "bold yellow")
    elif form is Format.MARKDOWN:
        print(to_markdown(document))
    elif form is Format.LATEX:
        print(to_latex(document))
    else:
        print_document(stdout_console(), document)


def print_results(
    folder: RunFolder,
    form: Format,
    view: View | None = None,
    findings: bool = False,
    trials: bool = False,
    hint: str = REDIRECT_OUTPUT,
) -> None:
    """Print a run from its records alone.

    Args:
        view: which figures, and how to compare them.
        findings, trials: as `print_in_form` takes them.
        hint: hint for output that cannot be written.
    """
    from xbench.report.comparison import comparisons
    from xbench.report.notes import describe_empty_run
    from xbench.report.run_document import make_run_document

    with no_garbage_collection():
        run, records = folder.read()
        if headline := describe_empty_run(records):
            run = run.model_copy(update={"warnings": [headline, *run.warnings]})
        document = make_run_document(run, records, comparisons(run, records, view), shorten_path(folder.path))
        if headline := describe_empty_run(records, "the column `reason` says why"):
            document = replace(document, csv_warnings=(headline,))
        with tolerate_closed_pipe(hint):
            print_in_form(document, form, findings, trials)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Pause Python's search for cyclic garbage. Records have none, and searching thousands of them takes as
    long as parsing them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _redirect_to_null(stream: TextIO) -> None:
    """Redirect a stream to the null device, so that pending output is discarded."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


@contextmanager
def tolerate_closed_pipe(hint: str = REDIRECT_OUTPUT) -> Iterator[None]:
    """Ignore a reader that closes the pipe early, as in `xbench show | head`.

    Args:
        hint: hint for output that cannot be written.

    Raises:
        XbenchError: output cannot be written for another reason, such as a full disk.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _redirect_to_null(sys.stdout)
    except OSError as error:
        _redirect_to_null(sys.stdout)
        raise XbenchError(f"results cannot be printed to stdout: {error.strerror}", hint) from error


def shorten_path(path: Path) -> str:
    """Return a path relative to the current folder, if it is below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
