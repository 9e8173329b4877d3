"""Whether a run that was finished would be the same today, found out without loading a component.

All that its results depend on goes into one hash: the suite and what the command line changed of it,
versions, code that has none, the machine, and the folders of its data, which are looked at for changes. Where
some of it cannot be told so (a dataset's fallback ran, and only loading the dataset tells whether it is here
now), there is no hash, and the run is planned as if it were new: its cells are then matched one by one.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbench.components.code import code_stamp, own_stamp
from xbench.components.code_files import ImportDirs
from xbench.components.registry import find, origin
from xbench.components.specs import DatasetSpec
from xbench.data.listing import listing_stamp
from xbench.errors import DataNotFound, XbenchError
from xbench.execution.allowed import allowed_folders
from xbench.execution.history import History
from xbench.memory.malloc import allocator_settings
from xbench.memory.processor import usable_cpus
from xbench.records.schema import RequestRecord
from xbench.records.store import RunFolder
from xbench.suite.grid import references
from xbench.suite.reader import Suite

if TYPE_CHECKING:
    from xbench.execution.plan import PlannedRun

_PACKAGES = ("xbench", "torch", "torchvision", "numpy", "pillow")

# They say where data and weights are, and what torch computes on.
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "TORCH_HOME", "XDG_CACHE_HOME")


def describe_request(plan: PlannedRun) -> RequestRecord:
    """What a run was asked for, to be compared with another day's."""
    absent = sorted({data.requested for data in plan.data if data.requested != data.choice.name})
    asked = [cell.dataset.chosen for cell in plan.cells if cell.dataset.chosen.name in absent]
    folders = sorted({folder for data in plan.data for folder in data.facts.folders})
    files = sorted({file for model in plan.models for file in model.files or ()})
    request = RequestRecord(folders=folders, files=files, absent=absent)
    # A `root` may be anywhere, so may a model's weights, and what a dataset reads beside its images.
    is_open = (
        any("root" in choice.params for choice in asked)
        or any(model.files is None for model in plan.models)
        or not all(data.facts.is_listed for data in plan.data)
    )
    if is_open or any(_is_here(name) is not False for name in absent):
        return request
    return request.model_copy(update={"stamp": _stamp(plan.suite, plan.import_dirs, request)})


def answered_before(suite: Suite, import_dirs: Sequence[str], results: Path) -> RunFolder | None:
    """The run that has a record of every cell, if it would be the same today."""
    if suite.problems:
        return None
    history = History.of(results, suite)
    if history.run is None or not history.run.request.stamp:
        return None
    if history.with_leftovers():
        return None
    cells = {cell.cell_id for cell in history.run.cells}
    if not all(history.is_settled(cell_id) for cell_id in cells):
        return None
    request = history.run.request
    if any(_is_here(name) is not False for name in request.absent):
        return None
    is_same = _stamp(suite, allowed_folders(import_dirs, suite), request) == request.stamp
    return history.same if is_same else None


def _is_here(dataset: str) -> bool | None:
    """Whether a dataset is on this machine; None if only loading it would tell."""
    registration = find("dataset", dataset)
    try:
        spec = registration.load_spec(dataset) if registration else None
        if not isinstance(spec, DatasetSpec) or spec.find_root is None:
            return None
        spec.find_root()
    except DataNotFound:
        return False
    except XbenchError:
        return None
    return True


def _stamp(suite: Suite, import_dirs: ImportDirs, request: RequestRecord) -> str:
    parts: list[Any] = [
        suite.text,
        suite.changes,
        sorted(
            (kind, name, origin(kind, name), code_stamp(kind, name, import_dirs))
            for kind, name in references(suite)
        ),
        own_stamp(),
        platform.python_version(),
        [version(name) for name in _PACKAGES],
        _environment(),
        listing_stamp(request.folders),
        [_file_stamp(Path(file)) for file in request.files],
    ]
    return hashlib.sha256(json.dumps(parts).encode(errors="surrogatepass")).hexdigest()


def _environment() -> list[Any]:
    variables = {
        name: value for name, value in os.environ.items() if name in _VARIABLES or name.startswith("XBENCH_")
    }
    devices = sorted(path.name for path in Path("/dev").glob("nvidia*"))
    machine = [platform.node(), platform.platform(), devices, usable_cpus()]
    allocator = allocator_settings("cuda")  # which device it will be takes torch to tell
    return [os.getcwd(), sorted(variables.items()), sorted(allocator.items()), machine]


def _file_stamp(file: Path) -> list[Any]:
    try:
        stat = file.stat()
    except OSError:
        return [str(file)]
    return [str(file), stat.st_size, stat.st_mtime_ns]
