"""A cell's checkpoints, as the listening process keeps them: with all that it had heard of the cell."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xbench.capacity.cost_model import steps_of
from xbench.planning.identity import training_key
from xbench.planning.planned import PlannedCell
from xbench.records.schema import EpochRecord
from xbench.records.traces import TraceRow, read_trace, write_trace
from xbench.storage.atomic import atomic_replace, atomic_write, read_regular
from xbench.training.events import CheckpointWritten, EpochDone, Prepared, StepsDone


@dataclass
class Transcript:
    """Messages of a cell, over all the processes in which it went on from checkpoints.

    Attributes:
        checkpoint: folder of what the cell can go on from; None if it begins anew.
        trace, epochs: so far.
        resumed_at: steps at which it went on.
        processors: models of the processors (on CUDA of the device) on which it ran until the checkpoint.
        was_exact: whether it ran under exact malloc settings until the checkpoint.
        prepared: the latest message that training begins.
        pairing_note: how its start differs from another cell's, where that may be rounding.
    """

    checkpoint: Path | None = None
    trace: list[TraceRow] = field(default_factory=list)
    epochs: list[EpochRecord] = field(default_factory=list)
    resumed_at: list[int] = field(default_factory=list)
    processors: list[str] = field(default_factory=list)
    was_exact: bool = False
    prepared: Prepared | None = None
    pairing_note: str = ""

    def processors_with(self, name: str) -> list[str]:
        """The models on which the cell ran, each once, if it now runs on one of that name."""
        return list(dict.fromkeys([*self.processors, name]))

    def note(self, message: Any) -> None:
        """Take a message in."""
        if isinstance(message, Prepared):
            self.prepared = message
            if message.resumed_at:
                self.resumed_at.append(message.resumed_at)
            else:  # the checkpoint could not be used
                self.trace, self.epochs, self.resumed_at, self.processors = [], [], [], []
        elif isinstance(message, StepsDone):
            self.trace += message.rows
        elif isinstance(message, EpochDone):
            self.epochs.append(message.record)


_TRACE, _REST = "trace.parquet", "heard.json"


def save_checkpoint(written: CheckpointWritten, cell: PlannedCell, transcript: Transcript) -> None:
    """Let a checkpoint count that a cell has written, in place of those before it.

    Raises:
        OSError: it cannot be kept; the one before it still counts.
    """
    write_trace(written.aside / _TRACE, transcript.trace)
    rest = {
        "identity": training_key(cell),
        "epochs": [epoch.model_dump() for epoch in transcript.epochs],
        "resumed_at": transcript.resumed_at,
        "processors": transcript.processors_with(cell.machine.device_facts["name"]),
        "was_exact": cell.memory.malloc == "exact",
    }
    atomic_write(written.aside / _REST, json.dumps(rest).encode())
    shutil.rmtree(written.place, ignore_errors=True)
    atomic_replace(written.aside, written.place)
    for older in written.place.parent.glob("step-*"):
        if older != written.place:
            shutil.rmtree(older, ignore_errors=True)


def done_share(folders: Iterable[Path], cell: PlannedCell) -> float:
    """Return how much of a cell's steps the latest checkpoint has done, 0 to 1.

    Args:
        folders: where its checkpoints may be.
    """
    saved = (int(path.name.removeprefix("step-")) for folder in folders for path in folder.glob("step-*"))
    return min(1.0, max(saved, default=0) / steps_of(cell.sized))


def load_checkpoint(folder: Path, cell: PlannedCell) -> Transcript:
    """What a cell can go on from. What cannot be used is removed.

    Args:
        folder: of the cell's checkpoints.
    """
    remove_unfinished(folder)
    for checkpoint in sorted(folder.glob("step-*"), reverse=True):
        try:
            transcript = _read(checkpoint, cell)
        except Exception:  # what is damaged may raise anything
            continue
        if transcript is not None:
            return transcript
    shutil.rmtree(folder, ignore_errors=True)
    return Transcript()


def remove_unfinished(folder: Path) -> None:
    """Remove what a process has left that died while it wrote."""
    for unfinished in folder.glob(".step-*"):
        shutil.rmtree(unfinished, ignore_errors=True)


def _read(checkpoint: Path, cell: PlannedCell) -> Transcript | None:
    """A checkpoint; None if it is of another training.

    Raises:
        Exception: of any kind, if it is damaged.
    """
    rest = json.loads(read_regular(checkpoint / _REST))
    if rest["identity"] != training_key(cell):
        return None
    trace = read_trace(checkpoint / _TRACE)
    if [row.step for row in trace] != list(range(1, int(checkpoint.name.removeprefix("step-")) + 1)):
        raise ValueError("its trace is not whole")
    epochs = [EpochRecord.model_validate(epoch) for epoch in rest["epochs"]]
    steps, processors = rest["resumed_at"], rest.get("processors", [])  # older checkpoints do not name them
    was_exact = bool(rest.get("was_exact"))
    return Transcript(checkpoint, trace, epochs, list(map(int, steps)), list(map(str, processors)), was_exact)
