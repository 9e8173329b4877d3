"""Fault after fault: each start of the command goes on with what the one before has left, up to a last one
that comes to the end."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.faults.fault_checks import Place, done_cells, left_in, place_of, reference_of, wrong_cells
from tests.faults.fault_damage import Damage
from tests.faults.fault_scene import Ended, Scene, lines_of
from tests.faults.fault_suites import STEADY
from tests.faults.faults import FINISHED, KILL, KILLS, Hindered, Live, NotRefused

# Beyond these, a cell that fails is not tried again.
_MAX_ATTEMPTS = 3

# Seconds that torch may take to be imported on a busy machine.
_LINGERS_S = 15.0

_SHARED_MEMORY = Path("/dev/shm")


@dataclass
class Tally:
    """What came of one kind of fault.

    Attributes:
        declared, right: cells of the runs that it happened to, and those that ended as they should.
        wrong: what was lost, doubled or changed; problems: what else was not as it should be.
    """

    injected: int = 0
    declared: int = 0
    right: int = 0
    wrong: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def undisturbed() -> dict[Place, dict[str, Any]]:
    """The results of a run that comes to its end at once."""
    scene = Scene(STEADY)
    try:
        ended = scene.start().wait()
        assert ended.exit_code == 0, ended
        return reference_of(scene.run)
    finally:
        shutil.rmtree(scene.scratch)


class Chain:
    """A scene in which one fault follows another.

    Args:
        reference: the results of a run that nothing disturbed.
        on_fault: called after each with its name and what was found wrong.

    Attributes:
        tallies: by kind of fault.
        left_by_kills: folders of sockets that killed commands could not remove.
    """

    def __init__(
        self,
        seed: int,
        reference: dict[Place, dict[str, Any]],
        on_fault: Callable[[str, list[str]], None] = lambda name, found: None,
    ):
        self.random, self.reference, self.on_fault = Random(seed), reference, on_fault
        self.scene = Scene(STEADY)
        self.tallies: dict[str, Tally] = {}
        self.left_by_kills = 0
        self._shared_memory = set(_SHARED_MEMORY.glob("*"))
        self._ended_at: dict[int, float] = {}
        self._found: list[str] = []
        self._begin_round()

    @property
    def found(self) -> list[str]:
        """All that is wrong."""
        return self._found

    def meet(self, fault: Live | Hindered | Damage) -> bool:
        """Let one fault happen.

        Returns:
            Whether it did.
        """
        if isinstance(fault, Damage):
            return self._damage(fault)
        if fault.attempts and self._attempts == _MAX_ATTEMPTS:
            fault = KILL
        self._make_room()
        checkpoints = self._checkpoints()
        try:
            happened, ended, exits = fault.meet(self.scene, self.random)
        except NotRefused as error:
            self._wrong(fault.name, str(error))
            return True
        if happened:
            self._note(fault.name)
            self._attempts += fault.attempts
        self._after_start(fault.name, ended, exits, checkpoints)
        return happened

    def finish(self) -> None:
        """Let a last run come to its end, and look at all that is left. What was right is removed."""
        try:
            for _ in range(2 + _MAX_ATTEMPTS):
                if not self._kinds:
                    break
                checkpoints = self._checkpoints()
                self._after_start("the last run", self.scene.start().wait(), FINISHED, checkpoints)
            else:
                self._problem("the last run", "it does not come to its end")
            self._look_for_leftovers()
        finally:
            self.scene.end_all()
        if not self.found:
            shutil.rmtree(self.scene.scratch)

    def _begin_round(self) -> None:
        self._has_ended, self._attempts = False, 0
        self._kinds: Counter[str] = Counter()
        self._seen: dict[Place, str] = {}
        self._known_damage: set[bytes] = set()
        self._hurt: set[Place] = set()

    def _make_room(self) -> None:
        """A run that has come to its end makes room for another, unless it was damaged."""
        if self._has_ended:
            shutil.rmtree(self.scene.results)
            self._begin_round()

    def _tally(self, name: str) -> Tally:
        return self.tallies.setdefault(name, Tally())

    def _note(self, name: str) -> None:
        self._tally(name).injected += 1
        self._kinds[name] += 1

    def _problem(self, name: str, text: str) -> None:
        self._found.append(f"{self.scene.scratch}, start {self.scene.starts}: {text}")
        self._tally(name).problems.append(self._found[-1])

    def _wrong(self, name: str, text: str) -> None:
        self._found.append(f"{self.scene.scratch}, start {self.scene.starts}: {text}")
        self._tally(name).wrong.append(self._found[-1])

    def _checkpoints(self) -> dict[str, int]:
        """The step that each cell in hand would go on from."""
        kept = self.scene.run.glob("checkpoints/*/step-*") if self.scene.run else []
        steps: dict[str, int] = {}
        for path in kept:
            steps[path.parent.name] = max(
                steps.get(path.parent.name, 0), int(path.name.removeprefix("step-"))
            )
        return steps

    def _damage(self, fault: Damage) -> bool:
        path = fault.do(self.scene, self.random)
        if path is None:
            return False
        self._note(fault.name)
        self._has_ended = False
        if self.scene.run is not None and path.is_relative_to(self.scene.run):
            _, damaged, rest = lines_of(self.scene.run)
            self._known_damage |= {*damaged, rest}
            done, problems = done_cells(self.scene.run)
            self._hurt |= problems.keys()
            self._seen = {place: at for place, at in self._seen.items() if place in done}
        self.on_fault(fault.name, [])
        return True

    def _after_start(
        self, name: str, ended: Ended, exits: tuple[int, ...], checkpoints: dict[str, int]
    ) -> None:
        before = len(self.found)
        if ended.exit_code not in exits:
            self._problem(name, str(ended))
        for text in (ended.out, ended.err):
            if "Traceback" in text or "Exception ignored" in text:
                self._problem(name, f"a traceback: {ended}")
        if self.scene.run is not None:
            self._look_at_run(name, ended, checkpoints)
        for number in range(1, self.scene.starts + 1):
            self._ended_at.setdefault(number, time.monotonic())
        self._look_for_processes(name)
        if ended.exit_code == 0:
            self._end_round(name)
        self.on_fault(name, self.found[before:])

    def _look_at_run(self, name: str, ended: Ended, checkpoints: dict[str, int]) -> None:
        records, damaged, _ = lines_of(self.scene.run)
        for line in damaged:
            if line not in self._known_damage:
                self._problem(name, f"half a record: {line[:80]!r}")
        done, problems = done_cells(self.scene.run)
        self._hurt -= done.keys()  # their records were damaged, too, and they ran again
        for place in problems.keys() - self._hurt:
            self._problem(name, problems[place])
        for place, record in done.items():
            before = self._seen.setdefault(place, record["ended_at"])
            if before != record["ended_at"]:
                self._wrong(name, f"{place} was done twice")
                self._seen[place] = record["ended_at"]
        if ended.exit_code == 1 and all(record["status"] == "done" for record in _last(records)):
            self._problem(name, f"no cell failed: {ended}")

    def _end_round(self, name: str) -> None:
        run, known = self.scene.run, self._known_damage
        declared, wrong = wrong_cells(run, STEADY, self.reference, known, self._hurt)
        kinds = self._kinds or {name: 1}
        for kind in kinds:
            tally = self._tally(kind)
            tally.declared += declared
            tally.right += declared - len(wrong)
        for text in wrong:
            self._wrong(name, f"after {', '.join(kinds)}: {text}")
        for text in left_in(self.scene.run):
            self._problem(name, f"left after {', '.join(kinds)}: {text}")
        self._has_ended, self._kinds = True, Counter()

    def _look_for_processes(self, name: str) -> None:
        """A fork server whose command was killed ends when it has imported torch, and not before."""
        for number, process in self.scene.processes():
            since_s = time.monotonic() - self._ended_at[number]
            if since_s > _LINGERS_S:
                self._problem(name, f"{process} of start {number} is still there after {since_s:.0f} s")
                process.kill()

    def _look_for_leftovers(self) -> None:
        deadline = time.monotonic() + _LINGERS_S
        while self.scene.processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        for number, process in self.scene.processes():
            self._problem("the last run", f"{process} of start {number} is still there")
        left_by_kills: list[str] = []
        for path in (self.scene.scratch / "tmp").iterdir():
            if path.name.startswith("torchinductor"):  # torch makes it when it is imported
                continue
            if _is_left_by_a_kill(path):
                left_by_kills.append(path.name)
            else:
                self._problem("the last run", f"left in the folder for temporary files: {path.name}")
        self.left_by_kills = len(left_by_kills)
        kills = sum(tally.injected for name, tally in self.tallies.items() if name in KILLS)
        if self.left_by_kills > 2 * kills:
            self._problem("the last run", f"{kills} kills have left {', '.join(left_by_kills)}")
        for path in (self.scene.scratch / "cache").rglob("*"):
            if (path.parent.name == "images" and "." in path.name) or path.name.startswith("tmp"):
                self._problem("the last run", f"left in the cache: {path.name}")
        for path in set(_SHARED_MEMORY.glob("*")) - self._shared_memory:
            if path.name.startswith(("torch_", "psm_", "sem.mp")):
                self._problem("the last run", f"left in shared memory: {path.name}")


def _last(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({place_of(record): record for record in records}.values())


def _is_left_by_a_kill(path: Path) -> bool:
    """Whether it is a folder of multiprocessing's sockets."""
    return path.name.startswith("pymp-") and all(inside.is_socket() for inside in path.iterdir())
