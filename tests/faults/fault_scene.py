"""A folder in which one suite is run again and again, and all processes that come of it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import xbench
from tests.faults.fault_suites import USER_CODE, FaultSuite

# In the environment of each command and of all that it starts.
_MARK = "FAULT_SCENE"

_WAIT_S = 120

ALLOWED = ("--allow-import", str(USER_CODE))


class Scene:
    """A scratch folder with a suite, a cache, and a folder for temporary files.

    Attributes:
        starts: how often the command was started here.
    """

    def __init__(self, suite: FaultSuite):
        # Sockets lie below it, and their names must be short.
        self.scratch = Path(tempfile.mkdtemp(prefix="xbf-"))
        self.suite, self.starts = suite, 0
        for name in ("place", "cache", "tmp"):
            (self.scratch / name).mkdir()
        (self.place / "suite.toml").write_text(suite.text)

    @property
    def place(self) -> Path:
        """Where the command is run."""
        return self.scratch / "place"

    @property
    def results(self) -> Path:
        return self.place / "results"

    @property
    def runs(self) -> list[Path]:
        """Folders of runs, the oldest first."""
        return sorted(self.results.glob("*/[!.]*/"), key=lambda path: (path.name[:15], len(path.name), path))

    @property
    def run(self) -> Path | None:
        """The folder of the latest run."""
        return self.runs[-1] if self.runs else None

    def start(self, *flags: str, most_file_bytes: int | None = None) -> Started:
        """Start `xbench run`, at the head of a process group, as a shell would.

        Args:
            most_file_bytes: no file can be made larger by it.
        """
        self.starts += 1
        mark = f"{self.scratch}:{self.starts}"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.scratch),
            "PYTHONPATH": str(Path(xbench.__file__).parents[1]),
            "TMPDIR": str(self.scratch / "tmp"),
            "XBENCH_CACHE_DIR": str(self.scratch / "cache"),
            "OMP_NUM_THREADS": "1",
            _MARK: mark,
        }

        def prepare() -> None:
            # Tests that run in the background of a shell ignore interrupts, and would pass that on.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if most_file_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most_file_bytes, most_file_bytes))

        streams = self.scratch / f"out.{self.starts}", self.scratch / f"err.{self.starts}"
        with streams[0].open("wb") as out, streams[1].open("wb") as err:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "xbench",
                    "run",
                    "suite.toml",
                    "--allow-import",
                    str(USER_CODE),
                    *flags,
                ],
                cwd=self.place,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=prepare,
            )
        return Started(process, mark, *streams)

    def processes(self) -> list[tuple[int, psutil.Process]]:
        """Processes that live, and of which start they came."""
        found = []
        for process in psutil.process_iter():
            try:
                mark = process.environ().get(_MARK, "")
                if mark.startswith(f"{self.scratch}:") and process.status() != psutil.STATUS_ZOMBIE:
                    found.append((int(mark.rpartition(":")[2]), process))
            except (psutil.Error, OSError):
                continue
        return found

    def end_all(self) -> None:
        """End what is left, by its number."""
        for _, process in self.processes():
            process.kill()


@dataclass
class Ended:
    """A command that has ended."""

    exit_code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit code {self.exit_code}, stderr {self.err[-600:]!r}"


@dataclass
class Started:
    """A command at work."""

    process: subprocess.Popen
    mark: str
    out: Path
    err: Path

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def heeds_signals(self) -> bool:
        """Whether the command has got so far that it answers a SIGTERM by itself."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return False
        caught = next((line for line in status.splitlines() if line.startswith("SigCgt:")), "SigCgt: 0")
        return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)

    def server(self) -> psutil.Process | None:
        """Its fork server."""
        try:
            children = psutil.Process(self.process.pid).children()
            return next((child for child in children if "forkserver" in " ".join(child.cmdline())), None)
        except psutil.Error:
            return None

    def worker(self) -> psutil.Process | None:
        """A process in which something is trained, decoded or looked up."""
        try:
            server = self.server()
            return next(iter(server.children()), None) if server else None
        except psutil.Error:
            return None

    def wait(self) -> Ended:
        """Until it has ended.

        Raises:
            TimeoutExpired: it does not end.
        """
        try:
            self.process.wait(_WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        texts = [path.read_text(errors="replace") for path in (self.out, self.err)]
        return Ended(self.process.returncode, *texts)


def lines_of(run: Path) -> tuple[list[dict[str, Any]], list[bytes], bytes]:
    """What `cells.jsonl` holds: records, lines that are none, and what follows the last line feed."""
    path = run / "cells.jsonl"
    *lines, rest = path.read_bytes().split(b"\n") if path.exists() else [b""]
    records, damaged = [], []
    for line in lines:
        try:
            records.append(json.loads(line))
        except ValueError:
            damaged.append(line)
    return records, damaged, rest


def state_of(results: Path) -> frozenset[tuple[str, int]]:
    """All paths below a folder, and how long the list of records is."""
    found = set()
    for folder, _, names in os.walk(results):
        found.add((folder, 0))
        for name in names:
            path = os.path.join(folder, name)
            try:
                found.add((path, os.stat(path).st_size if name == "cells.jsonl" else 0))
            except FileNotFoundError:
                continue
    return frozenset(found)


def wait_until(is_so: Callable[[], object], started: Started) -> None:
    """Until something is so, or the command has ended."""
    deadline = time.monotonic() + _WAIT_S
    while not is_so() and started.is_alive and time.monotonic() < deadline:
        time.sleep(0.001)


def wait_for_change(scene: Scene, started: Started, number: int) -> None:
    """Until something has appeared, gone or grown among the results so many times."""
    seen, changes = state_of(scene.results), 0

    def has_changed() -> bool:
        nonlocal seen, changes
        before, seen = seen, state_of(scene.results)
        changes += seen != before
        return changes >= number

    wait_until(has_changed, started)
