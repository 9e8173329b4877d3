"""The command line, with one module per command. This module turns errors into text and exit codes.

It imports as little as possible, because `multiprocessing` imports the main module in every worker process.
"""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from xbench.errors import XbenchError

EXIT_CELL_FAILED = 1
EXIT_INTERNAL = 1
EXIT_USAGE = 2
EXIT_GATE_FAILED = 3
EXIT_INTERRUPTED = 130

# Replacements for characters of tables and notes that a stream's encoding lacks.
_ASCII = {"±": "+-", "█": "#", "…": "..."}


def main() -> None:
    """Entry point of the `xbench` command."""
    try:
        _run_command()
    except KeyboardInterrupt:  # during imports; afterwards, commands handle it
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def _run_command() -> None:
    _prepare_streams()
    try:
        from xbench.cli.app import app
        from xbench.errors import Mistakes, XbenchError
    except (ImportError, MemoryError) as error:
        _exit_if_address_space_is_limited(error)
        raise
    try:
        _check_current_folder()
        app()
    except Mistakes as error:
        _exit_with_mistakes(error.mistakes)
    except XbenchError as error:
        _exit_with_error(error.message, error.hint)
    except OSError as error:
        hint = _find_disk_hint(error)
        if not hint or error.filename is None:
            _report_bug(error)
        _exit_with_error(f"{error.filename}: {error.strerror}", hint)
    except Exception as error:
        if isinstance(error, ImportError | MemoryError):
            _exit_if_address_space_is_limited(error)
        _report_bug(error)


def _prepare_streams() -> None:
    # Discard output to streams that were closed: with a stderr of None, `print` would write to stdout.
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 -- until the end
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 -- until the end
    codecs.register_error("xbench", _replace_characters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="xbench")  # the encoding may lack some characters


def _replace_characters(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace a character that an encoding lacks, or escape it as Python does."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if character in _ASCII:
        return _ASCII[character], error.start + 1
    error.end = error.start + 1
    return codecs.backslashreplace_errors(error)


def _check_current_folder() -> None:
    """Check that the current folder exists.

    Raises:
        XbenchError: the current folder has been removed.
    """
    from xbench.errors import XbenchError

    try:
        os.getcwd()
    except OSError as error:
        raise XbenchError(
            "the current folder no longer exists", hint="change to a folder that exists"
        ) from error


def _find_disk_hint(error: OSError) -> str:
    """Return what the user can do about a disk error; "" for other errors. Errors in the results folder are
    converted to errors that name --out before they get here."""
    from xbench.errors import XbenchError
    from xbench.storage.paths import MOVE_CACHE, cache_dir, concerns, disk_hint

    hint = disk_hint(error)
    with suppress(XbenchError):  # there may be no usable cache folder
        if hint and concerns(error, cache_dir()):
            return disk_hint(error, MOVE_CACHE)
    return hint


def _exit_with_mistakes(mistakes: Sequence[XbenchError]) -> NoReturn:
    """Print every mistake with its hint, and exit. A hint shared by several mistakes follows the last of
    them."""
    last_of = {mistake.hint: index for index, mistake in enumerate(mistakes)}
    for index, mistake in enumerate(mistakes):
        _show_error(mistake.message, mistake.hint if last_of[mistake.hint] == index else None)
    sys.exit(EXIT_USAGE)


def _exit_with_error(message: str, hint: str | None = None) -> NoReturn:
    _show_error(message, hint)
    sys.exit(EXIT_USAGE)


def _show_error(message: str, hint: str | None) -> None:
    from xbench.text import escape_controls

    # `splitlines` would also split at characters that names may contain.
    for line in message.split("\n"):
        print(f"error: {escape_controls(line)}", file=sys.stderr)
    for line in hint.split("\n") if hint else ():
        print(f"  hint: {escape_controls(line)}", file=sys.stderr)


def _exit_if_address_space_is_limited(error: Exception) -> None:
    """Exit with an error if this process has a limit on its address space, which explains import errors."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        _exit_with_error(
            f"xbench cannot run with an address space limit of {soft // 1024:,} kB "
            f"(`ulimit -v {soft // 1024}`): {type(error).__name__}: {error}",
            "remove the limit: `ulimit -v unlimited`",
        )


def _report_bug(error: Exception) -> NoReturn:
    """Print an unexpected error with its traceback, and exit."""
    import traceback

    from xbench.text import escape_controls

    traceback.print_exc()
    what = f"{type(error).__name__}: {error}".partition("\n")[0]
    print(f"error: xbench failed: {escape_controls(what)} (see the traceback above)", file=sys.stderr)
    hint = "this is a bug in xbench, or a problem with this machine; please report it"
    print(f"  hint: {hint}", file=sys.stderr)
    sys.exit(EXIT_INTERNAL)
