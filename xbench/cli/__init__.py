"""The command line. One file a command; this module turns errors into text and exit codes.

Kept light: every worker process imports it again, as `multiprocessing` does with the main module.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import NoReturn

EXIT_CELL_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def main() -> None:
    """Entry point of the `xbench` command."""
    try:
        _run_command()
    except KeyboardInterrupt:  # while modules are imported; later on, commands tell more
        sys.exit(EXIT_INTERRUPTED)


def _run_command() -> None:
    from xbench.cli.app import app
    from xbench.errors import XbenchError

    if sys.stdout is None:  # it was closed: nobody wants to read
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 -- until the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may not know every character
    try:
        _in_a_folder()
        app()
    except XbenchError as error:
        _refuse(error.message, error.hint)
    except OSError as error:  # a full disk, a file that is gone
        _refuse(str(error))


def _in_a_folder() -> None:
    """Raises:
    XbenchError: the current folder was removed.
    """
    from xbench.errors import XbenchError

    try:
        os.getcwd()
    except OSError as error:
        raise XbenchError("the current folder is gone", hint="change to one that is there") from error


def _refuse(message: str, hint: str = "") -> NoReturn:
    from xbench.text import visible

    # Not splitlines: it also splits at characters that names may hold.
    for line in message.split("\n"):
        print(f"error: {visible(line)}", file=sys.stderr)
    for line in hint.split("\n") if hint else ():
        print(f"  hint: {visible(line)}", file=sys.stderr)
    sys.exit(EXIT_USAGE)
