"""Run commands of xbench one after another in this process: they share its imports and its fork server."""

from __future__ import annotations

import os
import sys
from multiprocessing.connection import Connection

from xbench.cli import main
from xbench.components.code import forget_code


def serve(connection: Connection) -> None:
    """Run the commands that a connection sends, until it is closed, and answer each with its exit code."""
    while True:
        try:
            folder, args, streams = connection.recv()
        except EOFError:
            return
        connection.send(run(folder, args, streams))


def run(folder: str, args: tuple[str, ...], streams: tuple[str, str]) -> int:
    """Run a command as `python -m xbench` would in a folder, with files for its stdout and stderr."""
    for number, path in enumerate(streams, start=1):
        with open(path, "wb") as file:
            os.dup2(file.fileno(), number)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 -- until the next command
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.chdir(folder)
    sys.path[0], sys.argv = folder, ["xbench", *args]
    forget_code()  # files may have been edited since the last command
    try:
        main()
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    serve(Connection(descriptor))
