"""The command line. One file a command; this module turns errors into text and exit codes.

Kept light: every worker process imports it again, as `multiprocessing` does with the main module.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper

EXIT_CELL_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def main() -> None:
    """Entry point of the `xbench` command."""
    from xbench.cli.app import app
    from xbench.errors import XbenchError
    from xbench.text import visible

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may not know every character
    try:
        app()
    except XbenchError as error:
        # Not splitlines: it also splits at characters that names may hold.
        for line in error.message.split("\n"):
            print(f"error: {visible(line)}", file=sys.stderr)
        for line in error.hint.split("\n") if error.hint else ():
            print(f"  hint: {visible(line)}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
