"""The kinds of faults, and how a run of the command meets each of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random

import psutil

from tests.faults.fault_scene import Ended, Scene, Started, wait_for_change, wait_until

INTERRUPTED, KILLED = 130, -signal.SIGKILL
FINISHED = (0, 1)

# The command's first seconds have no changes among the results by which an instant could be told.
_START_S = 2.5


class NotRefused(Exception):
    """A second run was let in beside a first."""


def _at_some_instant(scene: Scene, started: Started, random: Random) -> None:
    """While it starts, or among the changes that are made by one that has."""
    if random.random() < 0.4:
        time.sleep(random.uniform(0.0, _START_S))
    else:
        # Most are the few changes that a record or a checkpoint is made of.
        wait_for_change(scene, started, random.randint(1, 30))
        time.sleep(random.choice([0.0, 0.0, random.uniform(0.0, 0.3)]))


@dataclass(frozen=True)
class Live:
    """Something that happens to a run at work.

    Attributes:
        act: does it; False if there was nothing to do it to.
        exits: the exit codes that may follow.
        attempts: whether a cell may have failed of it.
        wait: until it is to happen.
    """

    name: str
    act: Callable[[Scene, Started, Random], bool]
    exits: tuple[int, ...]
    attempts: bool = False
    wait: Callable[[Scene, Started, Random], None] = _at_some_instant

    def meet(self, scene: Scene, random: Random) -> tuple[bool, Ended, tuple[int, ...]]:
        """Start a run, let it happen, and wait for the end.

        Returns:
            Whether it happened, how the command ended, and with which exit codes it might.
        """
        started = scene.start()
        while self.exits != (KILLED,) and started.is_alive and not started.heeds_signals():
            time.sleep(0.01)
        self.wait(scene, started, random)
        try:
            happened = started.is_alive and self.act(scene, started, random)
        finally:
            ended = started.wait()
        return happened, ended, (*self.exits, *FINISHED) if happened else FINISHED


@dataclass(frozen=True)
class Hindered:
    """A run that is started where something is in its way.

    Attributes:
        flags: of the command.
        most_file_bytes: draws the size above which no file can grow.
    """

    name: str
    exits: tuple[int, ...]
    flags: tuple[str, ...] = ()
    most_file_bytes: Callable[[Random], int] | None = None
    attempts: bool = False

    def meet(self, scene: Scene, random: Random) -> tuple[bool, Ended, tuple[int, ...]]:
        """Start it, and wait for the end; see `Live.meet`."""
        most = self.most_file_bytes(random) if self.most_file_bytes else None
        return True, scene.start(*self.flags, most_file_bytes=most).wait(), self.exits


def _signal(*numbers: signal.Signals) -> Callable[[Scene, Started, Random], bool]:
    """Signals to the command alone, or to its group, as a terminal or a service manager sends them."""

    def act(scene: Scene, started: Started, random: Random) -> bool:
        send = random.choice([os.kill, os.killpg])
        for number in numbers:
            with suppress(ProcessLookupError):
                send(started.process.pid, number)
            time.sleep(random.uniform(0.0, 0.2) if len(numbers) > 1 else 0.0)
        return True

    return act


def _kill(scene: Scene, started: Started, random: Random) -> bool:
    started.process.kill()
    return True


def _kill_group(scene: Scene, started: Started, random: Random) -> bool:
    os.killpg(started.process.pid, signal.SIGKILL)
    return True


def _to(find: Callable[[Started], psutil.Process | None], number: signal.Signals):
    def act(scene: Scene, started: Started, random: Random) -> bool:
        deadline, process = time.monotonic() + 10, None
        while process is None and started.is_alive and time.monotonic() < deadline:
            process = find(started)
        with suppress(psutil.NoSuchProcess):
            if process is not None:
                process.send_signal(number)
                return True
        return False

    return act


def _pause(scene: Scene, started: Started, random: Random) -> bool:
    started.process.send_signal(signal.SIGSTOP)
    time.sleep(1.0)
    started.process.send_signal(signal.SIGCONT)
    return True


def _holder(scene: Scene) -> str:
    """Who says that it holds the results."""
    try:
        return (scene.results / "steady" / ".lock").read_text().partition("\n")[0]
    except FileNotFoundError:
        return ""


def _second_run(scene: Scene, started: Started, random: Random) -> bool:
    """Start another one. It must be refused as long as the first has not ended."""
    wait_until(lambda: _holder(scene) == str(started.process.pid), started)
    second = scene.start().wait()
    if second.exit_code == 2 and "another run of this suite is using" in second.err:
        return True
    if started.is_alive:
        raise NotRefused(f"a second run was let in: {second}")
    return False  # the first had ended, and this one found all there is


# A signal that comes when the interpreter has put its handlers away, at its very end, has its own effect.

KILL = Live("SIGKILL of the command", _kill, (KILLED,))


def kill_once(is_so: Callable[[Scene], object]) -> Live:
    """A kill of the command as soon as something is so."""
    return replace(KILL, wait=lambda scene, started, random: wait_until(lambda: is_so(scene), started))


LIVE = (
    KILL,
    Live("SIGKILL of its group", _kill_group, (KILLED,)),
    Live("SIGTERM", _signal(signal.SIGTERM), (INTERRUPTED, -signal.SIGTERM)),
    Live("SIGHUP", _signal(signal.SIGHUP), (INTERRUPTED, -signal.SIGHUP)),
    Live("SIGINT", _signal(signal.SIGINT), (INTERRUPTED, -signal.SIGINT)),
    Live("SIGINT twice", _signal(signal.SIGINT, signal.SIGINT), (INTERRUPTED, -signal.SIGINT)),
    Live("SIGKILL of a worker", _to(Started.worker, signal.SIGKILL), (2,), attempts=True),
    Live("SIGTERM of a worker", _to(Started.worker, signal.SIGTERM), (2,), attempts=True),
    Live("SIGKILL of the fork server", _to(Started.server, signal.SIGKILL), (2,), attempts=True),
    Live("SIGSTOP, SIGCONT", _pause, ()),
    Live("a second run", _second_run, ()),
)
_SIZES = (2000, 5000, 9000, 16000)

# What gives the command no time to put anything away.
KILLS = ("SIGKILL of the command", "SIGKILL of its group")

HINDERED = (
    Hindered("disk full", (0, 1, 2), most_file_bytes=lambda random: random.choice(_SIZES), attempts=True),
    Hindered("results not writable", (2,), flags=("--out", "/proc/results")),
)
