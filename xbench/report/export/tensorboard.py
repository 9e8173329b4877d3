"""Write cells as TensorBoard event files: one folder for each cell, for the tabs SCALARS and HPARAMS."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xbench.errors import XbenchError
from xbench.report.export.contents import ExportedCell
from xbench.text import format_value

# File systems allow 255 bytes or less, of which a name may need several for a character.
_MAX_NAME_BYTES = 100


def write_tensorboard(cells: Iterable[ExportedCell], target: Path) -> int:
    """Write an event file for each cell, below a new or empty folder.

    Final metrics are scalars `final/NAME` at step 0. Values are stored in 32 bits, as TensorBoard does.

    Returns:
        The number of cells written.

    Raises:
        XbenchError: tensorboard is not installed, or the folder has content or cannot be written to.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        hint = "`pip install tensorboard`, or `pip install 'xbench[tensorboard]'`"
        raise XbenchError("tensorboard is not installed", hint) from error

    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise XbenchError(
            f"{target} exists already", hint="export to another folder, or delete this one: events would mix"
        )
    count = 0
    try:
        for cell in cells:
            place = _place(cell)
            writer = EventFileWriter(str(target / place))

            def write(summary: Any, step: int = 0, cell: ExportedCell = cell, writer: Any = writer) -> None:
                writer.add_event(Event(wall_time=cell.ended_s, step=step, summary=summary))

            try:
                parameters = {name: _simplify(value) for name, value in cell.hyperparameters.items()}
                write(hparams_pb(parameters, trial_id=str(place), start_time_secs=cell.started_s))
                for name, points in cell.series.items():
                    for point in points:
                        value = Summary.Value(tag=name, simple_value=point.value)
                        write(Summary(value=[value]), point.step)
                for name, final in cell.metrics.items():
                    write(Summary(value=[Summary.Value(tag=f"final/{name}", simple_value=final)]))
            finally:
                writer.close()
            count += 1
    except OSError as error:
        raise XbenchError(
            f"cannot write to {target}: {error.strerror}", hint="choose another folder"
        ) from error
    return count


def _place(cell: ExportedCell) -> Path:
    """Return the folder of a cell, relative to the target. Digests keep names apart that become the same."""
    record = cell.record
    experiment, column = _clean(record.experiment), _clean(record.column)
    if experiment != record.experiment:
        experiment += f"-{_digest(record.experiment)}"
    # Several experiments and columns may have the same cell.
    digest = _digest(record.experiment, record.column, record.cell_id)
    return Path(experiment) / f"{column}-seed-{record.seed}-{digest}"


def _clean(name: str) -> str:
    """Make a name that is not hidden and fits every file system."""
    name = re.sub(r"[^\w.=+-]+", "-", name).lstrip(".")
    return name.encode()[:_MAX_NAME_BYTES].decode(errors="ignore")


def _digest(*names: str) -> str:
    return hashlib.sha256(repr(names).encode()).hexdigest()[:8]


def _simplify(value: Any) -> bool | float | str:
    """Write a setting as TensorBoard takes it: anything but numbers and text as text."""
    return value if isinstance(value, bool | int | float | str) else format_value(value)
