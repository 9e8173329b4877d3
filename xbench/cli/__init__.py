"""The command line. One file a command; this module turns errors into text and exit codes.

Kept light: every worker process imports it again, as `multiprocessing` does with the main module.
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
EXIT_INTERRUPTED = 130

# Characters of tables and notes, for streams whose encoding has none of them.
_ASCII = {"±": "+-", "█": "#", "…": "..."}


def main() -> None:
    """Entry point of the `xbench` command."""
    try:
        _run_command()
    except KeyboardInterrupt:  # while modules are imported; later on, commands tell more
        sys.exit(EXIT_INTERRUPTED)


def _run_command() -> None:
    _prepare_streams()
    try:
        from xbench.cli.app import app
        from xbench.errors import Mistakes, XbenchError
    except (ImportError, MemoryError) as error:
        _refuse_for_address_space(error)
        raise
    try:
        _in_a_folder()
        app()
    except Mistakes as error:
        _refuse_for_mistakes(error.mistakes)
    except XbenchError as error:
        _refuse(error.message, error.hint)
    except OSError as error:
        hint = _hint(error)
        if not hint or error.filename is None:
            _tell_of_fault(error)
        _refuse(f"{error.filename}: {error.strerror}", hint)
    except Exception as error:
        if isinstance(error, ImportError | MemoryError):
            _refuse_for_address_space(error)
        _tell_of_fault(error)


def _prepare_streams() -> None:
    # What was closed nobody wants to read. `print` to a stderr that is None would go to stdout.
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 -- until the end
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 -- until the end
    codecs.register_error("xbench", _replace_characters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="xbench")  # a terminal may not know every character


def _replace_characters(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write characters that an encoding lacks with others, or as Python escapes them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start]
    if found in _ASCII:
        return _ASCII[found], error.start + 1
    error.end = error.start + 1
    return codecs.backslashreplace_errors(error)


def _in_a_folder() -> None:
    """Raises:
    XbenchError: the current folder was removed.
    """
    from xbench.errors import XbenchError

    try:
        os.getcwd()
    except OSError as error:
        raise XbenchError("the current folder is gone", hint="change to one that is there") from error


def _hint(error: OSError) -> str:
    """Return what the user can do about an error of a disk; "" for any other. Errors of results name --out
    before they come here."""
    from xbench.errors import XbenchError
    from xbench.storage.paths import MOVE_CACHE, cache_dir, concerns, disk_hint

    hint = disk_hint(error)
    with suppress(XbenchError):  # there may be no cache
        if hint and concerns(error, cache_dir()):
            return disk_hint(error, MOVE_CACHE)
    return hint


def _refuse_for_mistakes(mistakes: Sequence[XbenchError]) -> NoReturn:
    """Show every mistake with its hint; a hint that several share stands below the last of them."""
    last_of = {mistake.hint: place for place, mistake in enumerate(mistakes)}
    for place, mistake in enumerate(mistakes):
        _show_error(mistake.message, mistake.hint if last_of[mistake.hint] == place else None)
    sys.exit(EXIT_USAGE)


def _refuse(message: str, hint: str | None = None) -> NoReturn:
    _show_error(message, hint)
    sys.exit(EXIT_USAGE)


def _show_error(message: str, hint: str | None) -> None:
    from xbench.text import escape_controls

    # Not splitlines: it also splits at characters that names may hold.
    for line in message.split("\n"):
        print(f"error: {escape_controls(line)}", file=sys.stderr)
    for line in hint.split("\n") if hint else ():
        print(f"  hint: {escape_controls(line)}", file=sys.stderr)


def _refuse_for_address_space(error: Exception) -> None:
    """Exit with what to do, if this process is under a limit on address space."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        _refuse(
            f"xbench cannot run under the limit on address space of {soft // 1024:,} kB "
            f"(`ulimit -v {soft // 1024}`): {type(error).__name__}: {error}",
            "lift it: `ulimit -v unlimited`",
        )


def _tell_of_fault(error: Exception) -> NoReturn:
    """Show an error that is no user's mistake, with its traceback, and exit."""
    import traceback

    from xbench.text import escape_controls

    traceback.print_exc()
    what = f"{type(error).__name__}: {error}".partition("\n")[0]
    print(f"error: xbench failed: {escape_controls(what)} (its traceback is above)", file=sys.stderr)
    hint = "this is a bug in xbench, or a problem with this machine; please report it"
    print(f"  hint: {hint}", file=sys.stderr)
    sys.exit(EXIT_INTERNAL)
