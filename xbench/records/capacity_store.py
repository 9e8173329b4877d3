"""Keep the results of capacity probes: `results/probe-OPTIMIZER/<time>/capacity.json`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from xbench.errors import XbenchError
from xbench.records.capacity import CapacityReport
from xbench.records.store import folder_of_suite, move_to_unique_name, unwritable
from xbench.storage.atomic import atomic_write, make_folder, read_regular
from xbench.storage.staging import staging_folder

FILE_NAME = "capacity.json"

_MAX_BYTES = 64 << 20


def write_capacity(results: Path, report: CapacityReport) -> Path:
    """Write a probe into a new folder, which is named after the current time and appears once it is complete.

    Returns:
        The folder.

    Raises:
        XbenchError: the folder cannot be written.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    parent = folder_of_suite(results, f"probe-{report.optimizer}")
    try:
        make_folder(parent)
        with staging_folder(parent / stamp) as staged:
            atomic_write(staged / FILE_NAME, report.model_dump_json(indent=2).encode() + b"\n")
            return move_to_unique_name(staged, parent, stamp)
    except OSError as error:
        raise unwritable(parent, error) from error


def find_capacity(results: Path, wanted: str) -> Path | None:
    """Find the folder of a probe: the folder itself, or one below `results`; None if neither is a probe's."""
    folders = (Path(wanted), results / wanted)
    return next((folder for folder in folders if (folder / FILE_NAME).is_file()), None)


def read_capacity(folder: Path) -> CapacityReport:
    """Read a probe.

    Raises:
        XbenchError: the file is missing or damaged.
    """
    path = folder / FILE_NAME
    try:
        return CapacityReport.model_validate_json(read_regular(path, _MAX_BYTES))
    except (OSError, ValueError) as error:
        hint = "run `xbench probe-capacity` again, which starts from what it found"
        raise XbenchError(f"{path} is missing or damaged", hint) from error
