"""The command line. One file a command; this module turns errors into text and exit codes.

Kept light: every worker process imports it again, as `multiprocessing` does with the main module.
"""

from __future__ import annotations

import sys

EXIT_CELL_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def main() -> None:
    """Entry point of the `xbench` command."""
    from xbench.cli.app import app
    from xbench.errors import XbenchError

    try:
        app()
    except XbenchError as error:
        for line in error.message.splitlines():
            print(f"error: {line}", file=sys.stderr)
        for line in (error.hint or "").splitlines():
            print(f"  hint: {line}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
