"""`xbench` as a user starts it: a process of its own, in a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

USER_CODE = Path(__file__).parent / "user_code"
STANDING_PROCESS = Path(__file__).parent / "standing_process.py"
# What would change widths, colours, places and data, if the one who runs the tests has set it.
UNWANTED = ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "XBENCH_CHEST_XRAY_ROOT")


class Started(subprocess.Popen):
    """A command that is killed at the end of its `with` block, unless it has ended by then."""

    def __exit__(self, *error: Any) -> None:
        self.kill()
        super().__exit__(*error)


class Cli:
    """Starts `python -m xbench`."""

    def __init__(self, cache: Path):
        kept = {key: value for key, value in os.environ.items() if key not in UNWANTED}
        self.environment = {**kept, "XBENCH_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"}

    def __call__(self, folder: Path, *args: str, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
        """Run a command to its end.

        Args:
            python: options of the interpreter.
        """
        return self.run_python(folder, *python, "-m", "xbench", *args)

    def run_suite(self, folder: Path, *flags: str, code: str = "code") -> subprocess.CompletedProcess:
        """Run `suite.toml` of a folder to its end; it may import from the folder `code`."""
        return self(folder, "run", "suite.toml", "--allow-import", code, *flags)

    def run_python(self, folder: Path, *args: str) -> subprocess.CompletedProcess:
        """Run the interpreter to its end."""
        # Into files: a pipe would end only with the fork server, which a command may leave behind importing.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            done = subprocess.run(
                [sys.executable, *args],
                cwd=folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                timeout=220,
            )
            for stream in (out, err):
                stream.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, out.read(), err.read())

    def into_closed_pipe(self, folder: Path, *args: str) -> subprocess.CompletedProcess:
        """Run a command whose output nobody reads, as behind `| true`."""
        reader, writer = os.pipe()
        os.close(reader)
        try:
            return subprocess.run(
                [sys.executable, "-m", "xbench", *args],
                cwd=folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=subprocess.PIPE,
                text=True,
                timeout=220,
            )
        finally:
            os.close(writer)

    def start(self, folder: Path, *args: str, before: tuple[str, ...] = (), **options: Any) -> Started:
        """Start a command, at the head of a process group, as a shell would.

        Args:
            before: a command that starts it, such as `nohup`.
            options: of `subprocess.Popen`, in place of these.
        """
        usual = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "start_new_session": True,
            "preexec_fn": _heed_interrupts,
        }
        command = [*before, sys.executable, "-m", "xbench", *args]
        return Started(command, cwd=folder, env=self.environment, **usual | options)


class StandingCli(Cli):
    """Runs commands one after another in one process, whose fork server imports torch once for all of them.

    The process has the environment that was set when the first command was given. What a test says of the
    process of a command is tested of one that runs `alone`.
    """

    _process: subprocess.Popen | None = None

    def __enter__(self) -> StandingCli:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._process is not None:
            self._stop_process()

    def _start_process(self) -> None:
        self._connection, end = Pipe()
        with end:
            self._process = subprocess.Popen(
                [sys.executable, STANDING_PROCESS, str(end.fileno())],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[end.fileno()],
            )

    def _stop_process(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()
        self._process = None

    def __call__(self, folder: Path, *args: str, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
        if python:
            return self.alone(folder, *args, python=python)
        if self._process is None:
            self._start_process()
        with tempfile.TemporaryDirectory() as scratch:
            out, err = Path(scratch, "out"), Path(scratch, "err")
            try:
                self._connection.send((str(folder), args, (str(out), str(err))))
                if not self._connection.poll(220):
                    raise subprocess.TimeoutExpired(args, 220, out.read_text(), err.read_text())
                code = self._connection.recv()
            except BaseException:  # a later answer would be taken for that to the next command
                self._stop_process()
                raise
            return subprocess.CompletedProcess(args, code, out.read_text(), err.read_text())

    def alone(self, folder: Path, *args: str, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
        """Run a command to its end in a process of its own."""
        return super().__call__(folder, *args, python=python)


def _heed_interrupts() -> None:
    # Tests that run in the background of a shell, or under `nohup`, ignore these and would pass that on.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def copy_user_code(to: Path, *names: str) -> None:
    """Copy modules of `user_code` into a folder, which is made if need be."""
    to.mkdir(exist_ok=True)
    for name in names:
        shutil.copy(USER_CODE / name, to)


def wait_for(condition: Callable[[], bool], what: str, process: subprocess.Popen | None = None) -> None:
    """Wait for up to two minutes, but not longer than a process runs."""
    deadline = time.monotonic() + 120
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def records_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of the one run below a folder, as they were written."""
    (path,) = folder.glob("results/*/*/cells.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def one_line(text: str) -> str:
    """Text as it was before it was broken into lines."""
    return " ".join(text.split())


class Ran:
    """A run that has ended, and the folder in which it was given.

    Attributes:
        lines: of `cells.jsonl`: every attempt.
    """

    def __init__(self, done: subprocess.CompletedProcess, folder: Path):
        self.done, self.folder = done, folder

    @property
    def lines(self) -> list[dict[str, Any]]:
        return records_of(self.folder)

    def cells(self, experiment: str, column: str | None = None) -> list[dict[str, Any]]:
        """The last line of each cell, in their order."""
        last = {line["cell_id"]: line for line in self.lines if line["experiment"] == experiment}
        return [line for line in last.values() if column in (None, line["column"])]

    @property
    def fitting(self) -> list[str]:
        """The lines on stderr that tell of sizes being fitted."""
        return [line for line in self.done.stderr.splitlines() if line.startswith("fitting ")]
