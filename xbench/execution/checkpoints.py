"""Save and load a cell's checkpoints, together with the messages that its process had sent until then."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xbench.capacity.cost_model import count_steps
from xbench.planning.identity import training_key
from xbench.planning.planned import PlannedCell
from xbench.records.schema import EpochRecord, EvaluationRecord
from xbench.records.traces import TraceRow, read_trace, write_trace
from xbench.storage.atomic import atomic_replace, atomic_write, read_regular
from xbench.training.events import CheckpointWritten, EpochDone, EvaluationDone, Prepared, StepsDone


@dataclass
class Transcript:
    """Messages of a cell, collected over all the processes in which it was resumed.

    Attributes:
        checkpoint: folder of the checkpoint to resume from; None if the cell starts from its first step.
        trace: steps so far.
        epochs, evaluations: epochs and evaluations so far.
        resumed_at: steps after which the cell was resumed.
        processors: models of the processors (on CUDA, of the devices) that the cell ran on until the
            checkpoint.
        was_exact: whether the cell ran with exact malloc settings until the checkpoint.
        prepared: the latest `Prepared` message, sent when training begins.
        pairing_note: how the cell's start differs from that of another cell, if that may be due to rounding.
    """

    checkpoint: Path | None = None
    trace: list[TraceRow] = field(default_factory=list)
    epochs: list[EpochRecord] = field(default_factory=list)
    evaluations: list[EvaluationRecord] = field(default_factory=list)
    resumed_at: list[int] = field(default_factory=list)
    processors: list[str] = field(default_factory=list)
    was_exact: bool = False
    prepared: Prepared | None = None
    pairing_note: str = ""

    def processors_with(self, name: str) -> list[str]:
        """Return the distinct processors of the cell, including the one it now runs on."""
        return list(dict.fromkeys([*self.processors, name]))

    def note(self, message: Any) -> None:
        """Add a message to the transcript."""
        if isinstance(message, Prepared):
            self.prepared = message
            if message.resumed_at:
                self.resumed_at.append(message.resumed_at)
            else:  # the checkpoint could not be used
                self.trace, self.epochs, self.evaluations = [], [], []
                self.resumed_at, self.processors = [], []
        elif isinstance(message, StepsDone):
            self.trace += message.rows
        elif isinstance(message, EvaluationDone):
            self.evaluations.append(message.record)
        elif isinstance(message, EpochDone):
            self.epochs.append(message.record)


_TRACE, _MESSAGES = "trace.parquet", "heard.json"


def save_checkpoint(written: CheckpointWritten, cell: PlannedCell, transcript: Transcript) -> None:
    """Make the checkpoint that a cell has written the current one, and delete the earlier ones.

    Raises:
        OSError: the checkpoint cannot be saved; the previous one stays current.
    """
    write_trace(written.aside / _TRACE, transcript.trace)
    messages = {
        "identity": training_key(cell),
        "epochs": [epoch.model_dump() for epoch in transcript.epochs],
        "evaluations": [evaluation.model_dump() for evaluation in transcript.evaluations],
        "resumed_at": transcript.resumed_at,
        "processors": transcript.processors_with(cell.machine.device_facts["name"]),
        "was_exact": cell.memory.malloc == "exact",
    }
    atomic_write(written.aside / _MESSAGES, json.dumps(messages).encode())
    shutil.rmtree(written.place, ignore_errors=True)
    atomic_replace(written.aside, written.place)
    for older in written.place.parent.glob("step-*"):
        if older != written.place:
            shutil.rmtree(older, ignore_errors=True)


def find_saved_step(folder: Path) -> int:
    """Return the step of the latest checkpoint in a cell's folder of checkpoints; 0 if there is none."""
    return max((int(path.name.removeprefix("step-")) for path in folder.glob("step-*")), default=0)


def find_done_share(folders: Iterable[Path], cell: PlannedCell) -> float:
    """Return the share of a cell's steps that its latest checkpoint has completed, 0 to 1.

    Args:
        folders: folders in which the cell may have checkpoints.
    """
    saved = max(map(find_saved_step, folders), default=0)
    return min(1.0, saved / count_steps(cell.sized))


def load_checkpoint(folder: Path, cell: PlannedCell) -> Transcript:
    """Load the latest usable checkpoint of a cell. If there is none, remove the folder.

    Args:
        folder: the folder of the cell's checkpoints.

    Returns:
        The transcript until the checkpoint; an empty one if there is no usable checkpoint.
    """
    remove_unfinished(folder)
    for checkpoint in sorted(folder.glob("step-*"), reverse=True):
        try:
            transcript = _read(checkpoint, cell)
        except Exception:  # a damaged checkpoint may raise anything
            continue
        if transcript is not None:
            return transcript
    shutil.rmtree(folder, ignore_errors=True)
    return Transcript()


def remove_unfinished(folder: Path) -> None:
    """Remove checkpoints left by a process that died while writing them."""
    for unfinished in folder.glob(".step-*"):
        shutil.rmtree(unfinished, ignore_errors=True)


def _read(checkpoint: Path, cell: PlannedCell) -> Transcript | None:
    """Read a checkpoint; return None if it belongs to a training with other settings.

    Raises:
        Exception: any exception, if the checkpoint is damaged.
    """
    messages = json.loads(read_regular(checkpoint / _MESSAGES))
    if messages["identity"] != training_key(cell):
        return None
    trace = read_trace(checkpoint / _TRACE)
    if [row.step for row in trace] != list(range(1, int(checkpoint.name.removeprefix("step-")) + 1)):
        raise ValueError("the trace of the checkpoint is incomplete")
    epochs = [EpochRecord.model_validate(epoch) for epoch in messages["epochs"]]
    evaluations = [EvaluationRecord.model_validate(found) for found in messages["evaluations"]]
    # Older checkpoints do not name processors.
    steps, processors = messages["resumed_at"], messages.get("processors", [])
    was_exact = bool(messages.get("was_exact"))
    return Transcript(
        checkpoint,
        trace,
        epochs,
        evaluations,
        list(map(int, steps)),
        list(map(str, processors)),
        was_exact,
    )
