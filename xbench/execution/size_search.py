"""Search the largest size on one axis of a cell that fits the cell's limit, and remember it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from xbench.capacity.axis import AnyAxis, Axis, ScaledSetting
from xbench.capacity.probe import Capacity, find_capacity
from xbench.capacity.search import Grid
from xbench.capacity.workload import TrainingWorkload
from xbench.errors import XbenchError
from xbench.isolation.child import Limits
from xbench.memory.malloc import MallocProfile
from xbench.planning.identity import capacity_key
from xbench.planning.observer import Observer
from xbench.planning.planned import PlannedCell
from xbench.records.capacity import TrialRecord
from xbench.storage.cache import drop, load, save
from xbench.storage.paths import cache_dir
from xbench.training.settings import CellSettings

# Share of the limit that trials leave free: a long run's heap may need a little more memory than the trials.
RESERVE = 0.01

# Trials of searches that have not ended.
_UNFINISHED = "capacity-trials"


class FoundSize(NamedTuple):
    """The largest size that fits, and the smallest larger one that ran out of memory; None if none did."""

    value: int
    fails: int | None


def recall_size(
    cell: PlannedCell, settings: CellSettings, axis: AnyAxis, wanted: int | None
) -> FoundSize | None:
    """Return the largest size that an earlier search has found; None if there was no such search.

    Args:
        wanted: the largest size that is useful; None if there is no end.
    """
    known = load("capacity", capacity_key(cell, settings, axis, cell.memory.limit_bytes))
    if known is None:
        return None
    if wanted is not None and known["found"] >= wanted:
        return FoundSize(wanted, known["fails"] if known["found"] == wanted else None)
    if known["fails"] is None and not known.get("is_last"):
        return None
    return FoundSize(known["found"], known["fails"])


def find_size(
    cell: PlannedCell, settings: CellSettings, axis: AnyAxis, wanted: int | None, observer: Observer
) -> FoundSize | None:
    """Search the largest size up to `wanted` that fits, and remember it.

    Each trial is remembered until the search ends, so that an interrupted search continues from there.

    Returns:
        The size; None if not even the smallest fits.

    Raises:
        XbenchError: see `probe_axis`.
    """
    observer.fitting(cell.key, axis.setting)
    key = capacity_key(cell, settings, axis, cell.memory.limit_bytes)
    trials = {trial.value: trial for trial in _recall_trials(key)}

    def remember(trial: TrialRecord) -> None:
        if trial.outcome in ("fits", "oom"):  # others may end otherwise the next time
            trials[trial.value] = trial
            save(_UNFINISHED, key, [trial.model_dump() for trial in trials.values()])

    capacity = probe_axis(
        cell,
        settings,
        axis,
        highest=wanted,
        reserve=RESERVE,
        earlier=tuple(trials.values()),
        on_trial=remember,
        observer=observer,
    )
    drop(_UNFINISHED, key)
    if capacity.found is None:
        return None
    found = {"found": capacity.found, "fails": capacity.fails, "is_last": capacity.refused is not None}
    save("capacity", key, found)
    return FoundSize(capacity.found, capacity.fails)


def _recall_trials(key: str) -> list[TrialRecord]:
    """Return the trials of a search that was interrupted; none if there was no such search."""
    try:
        return [TrialRecord.model_validate(trial) for trial in load(_UNFINISHED, key) or ()]
    except (ValidationError, TypeError):  # of another version
        return []


def probe_axis(
    cell: PlannedCell,
    settings: CellSettings,
    axis: AnyAxis,
    *,
    highest: int | None = None,
    enough: int | None = None,
    reserve: float = 0.0,
    start: tuple[int, int | None] | None = None,
    earlier: Sequence[TrialRecord] = (),
    on_trial: Callable[[TrialRecord], None] = lambda trial: None,
    observer: Observer,
) -> Capacity:
    """Probe one axis of a cell's settings under the cell's limit, and report each trial to the observer.

    Args:
        highest, enough, start, earlier, on_trial: see `find_capacity`.

    Raises:
        ProbeFailed: a size failed for a reason other than memory.
        XbenchError: not even the smallest size is possible with these settings.
    """

    def tell(trial: TrialRecord) -> None:
        on_trial(trial)
        observer.fitting(cell.key, axis.setting, trial)

    is_exact = axis is Axis.HISTORY_SIZE or (isinstance(axis, ScaledSetting) and axis.component == "model")
    return find_capacity(
        TrainingWorkload(cell.job(settings), axis),
        process_limits(cell, reserve),
        tolerance=0.0 if is_exact else 0.01,
        highest=highest,
        enough=enough,
        start=start,
        on_try=lambda value: observer.trying(cell.key, axis.setting, value),
        earlier=earlier,
        on_trial=tell,
        log=_trial_log(f"{axis}-{capacity_key(cell, settings, axis, cell.memory.limit_bytes)}"),
        grid=_make_grid(cell, axis) if isinstance(axis, ScaledSetting) else None,
        is_curved=isinstance(axis, ScaledSetting),
    )


def _make_grid(cell: PlannedCell, axis: ScaledSetting) -> Grid:
    """Make the grid of a setting's values, which the setting that they are multiples of may determine."""
    choice = cell.settings.model if axis.component == "model" else cell.resolved.choice
    multiple = choice.params.get(axis.multiple_of, axis.multiple)
    if not isinstance(multiple, int) or multiple < 1:
        raise XbenchError(
            f"{choice.name}: {axis.multiple_of} = {multiple!r} is not a positive integer, and {axis.setting} "
            "must be a multiple of it"
        )
    return Grid.of_multiples(axis.lowest, multiple)


def _trial_log(name: str) -> Path | None:
    """Return the log file for tracebacks of a probe's trials; None if the cache is not writable."""
    folder = cache_dir() / "probes"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder / f"{name}.stderr" if os.access(folder, os.W_OK) else None


def process_limits(cell: PlannedCell, reserve: float, malloc: MallocProfile = "exact") -> Limits:
    """Return the limits of a process that runs trials for a cell.

    Args:
        reserve: share of the memory limit that is left free.
    """
    limit_bytes = cell.memory.limit_bytes
    if limit_bytes is not None:
        limit_bytes = int(limit_bytes * (1 - reserve))
    return Limits(cell.machine.device, cell.settings.training.threads, limit_bytes, malloc)
