"""Find a capacity by running sizes that `search` chooses, in child processes under the hard limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from xbench.capacity.search import (
    Bounds,
    Grid,
    first_failure,
    largest_fit,
    next_size,
    next_slope_size,
    predict_peak,
)
from xbench.errors import RefusedValue, XbenchError
from xbench.isolation.child import Limits
from xbench.isolation.run import ChildResult, run_in_child
from xbench.records.capacity import TrialRecord
from xbench.records.memory import MemoryPassRecord

# The largest size to consider on an axis without an end.
_UNBOUNDED = 1 << 30


class Workload(Protocol):
    """The work whose peak memory is probed. It is sent to child processes, so it must be picklable."""

    def prepare(self) -> Callable[[int], MemoryPassRecord | None]:
        """Prepare the work. Called once in each child process.

        Returns:
            A function that does all the work whose peak counts (whole optimizer steps) at the given size. All
            memory that it allocates must be free when it returns. If it resets the process's peak, it returns
            its own measurement. If it raises an error that means out of memory, the size does not fit; if it
            raises `RefusedValue`, no larger size is tried; any other error ends the probe.
        """
        ...


@dataclass(frozen=True)
class Capacity:
    """The largest size on one axis that fits.

    Attributes:
        found: the largest size that ran; None if not even the smallest one did.
        fails: the smallest size above `found` that ran out of memory, or the size that failed for another
            reason and so ended the probe; None if no size failed up to the end of the axis, or up to a size
            that a component refuses.
        refused: the trial of the smallest size above `found` if a component refuses that size; None
            otherwise.
        peak_bytes: peak memory of `found`.
        trials: the trials in the order in which they ran.
        seconds: wall time of the whole probe.
    """

    found: int | None
    fails: int | None
    peak_bytes: int | None
    trials: tuple[TrialRecord, ...]
    seconds: float
    refused: TrialRecord | None = None


class ProbeFailed(XbenchError):
    """A size failed for a reason other than memory.

    Attributes:
        so_far: the result up to then.
    """

    def __init__(self, message: str, hint: str | None, so_far: Capacity):
        super().__init__(message, hint)
        self.so_far = so_far


@dataclass
class _Trials:
    """The trials of a probe so far.

    Attributes:
        grid: the values of the sizes. Searches count sizes; callbacks and records have values.
        on_try: called with each size before it is tried.
        on_trial: called with each trial.
        log: file for stderr of the children, such as a traceback. It is kept only if a trial failed for a
            reason other than memory. None for no file.
        done: the trials in the order in which they ran, with sizes.
        refusal: the error with which a component last refused a size.
    """

    grid: Grid
    on_try: Callable[[int], None]
    on_trial: Callable[[TrialRecord], None]
    log: Path | None = None
    done: list[TrialRecord] = field(default_factory=list)
    refusal: XbenchError | None = None

    def run(self, limits: Limits, workload: Workload, bounds: Bounds, size: int | None) -> list[TrialRecord]:
        """Run trials in a new child process.

        Args:
            size: the size to try; None to try ascending sizes, all in this process.

        Returns:
            The new trials.

        Raises:
            _Failed: a size failed for a reason other than memory.
        """
        before = len(self.done)
        predicted = None if size is None else predict_peak(self.done, size, bounds.is_curved)
        trying, started = size or 1, time.perf_counter()

        def on_message(message: int | TrialRecord) -> None:
            nonlocal trying, started
            if isinstance(message, int):
                trying = message
                self.on_try(self.grid.value(trying))
                return
            seconds = time.perf_counter() - started
            self._add(message.model_copy(update={"predicted_bytes": predicted, "seconds": seconds}))
            started = time.perf_counter()

        limits = replace(limits, malloc="exact")
        job = (_measure, workload, bounds, self.grid, limits.device, size)
        self._remove_log()
        ending = run_in_child(*job, on_message=on_message, stderr_path=self.log, limits=limits)
        if ending.outcome != "returned":
            is_refused = isinstance(ending.error, RefusedValue)
            trial = TrialRecord(
                value=trying,
                outcome="oom" if ending.out_of_memory else "refused" if is_refused else "error",
                predicted_bytes=predicted,
                seconds=time.perf_counter() - started,
                reason=ending.reason,
            )
            self._add(trial)
            if trial.outcome == "error":
                raise _Failed(self.grid.value(trying), ending)
            if trial.outcome == "refused":
                self.refusal = ending.error
        self._remove_log()
        return self.done[before:]

    def _remove_log(self) -> None:
        if self.log is not None:
            self.log.unlink(missing_ok=True)

    def _add(self, trial: TrialRecord) -> None:
        self.done.append(trial)
        self.on_trial(self.in_values(trial))

    def take_over(self, earlier: Sequence[TrialRecord], bounds: Bounds) -> bool:
        """Take over trials of an interrupted search, with values, unless it has not measured a slope yet.

        Returns:
            Whether they are taken over.
        """
        for trial in earlier:
            size = self.grid.size(trial.value)
            if 0 < size <= bounds.highest and self.grid.value(size) == trial.value:
                self.done.append(trial.model_copy(update={"value": size}))
        if next_slope_size(self.done, bounds) is not None:
            self.done.clear()
        return bool(self.done)

    def in_values(self, trial: TrialRecord) -> TrialRecord:
        """Return a trial with the value of its size."""
        return trial.model_copy(update={"value": self.grid.value(trial.value)})


class _Failed(Exception):
    """A trial failed for a reason other than memory."""

    def __init__(self, size: int, ending: ChildResult):
        self.size, self.ending = size, ending


def find_capacity(
    workload: Workload,
    limits: Limits,
    *,
    tolerance: float = 0.01,
    highest: int | None = None,
    enough: int | None = None,
    start: tuple[int, int | None] | None = None,
    earlier: Sequence[TrialRecord] = (),
    on_try: Callable[[int], None] = lambda size: None,
    on_trial: Callable[[TrialRecord], None] = lambda trial: None,
    log: Path | None = None,
    grid: Grid | None = None,
    is_curved: bool = False,
) -> Capacity:
    """Find the largest size whose peak memory stays within `limits.memory_bytes`.

    One child process measures a few small sizes, whose slope predicts the capacity. The predicted size and
    those that follow from it each run in a new child process, until a size that fits and a size that fails
    are within the tolerance.

    Args:
        limits: the limits of the child processes. `memory_bytes` must be set.
        tolerance: the difference between the two sizes, as a share of the smaller one; 0 for an exact answer.
        highest: the largest size to consider; None for no end.
        enough: the largest size that is useful in itself; see `search.Bounds`. By default `highest`.
        start: (found, fails) of an earlier probe, which are tried first.
        earlier: the trials of a probe with the same arguments that was interrupted. They are not run again.
        on_try: called with each size before it is tried.
        on_trial: called with each trial as it ends.
        log: file for the traceback of a trial that fails for a reason other than memory. It is removed if
            there is no such trial.
        grid: the sizes that may be tried; by default all whole numbers from 1.
        is_curved: whether the peak may rise with the square of the size.

    Raises:
        ProbeFailed: a trial failed for a reason other than memory.
        XbenchError: not even the smallest size is possible with these settings.
        ValueError: `limits.memory_bytes` is None.
    """
    if limits.memory_bytes is None:
        raise ValueError("a capacity needs a memory limit: limits.memory_bytes is None")
    started = time.perf_counter()
    grid = grid or Grid()
    end = grid.size(highest) if highest else _UNBOUNDED
    if not end:
        raise XbenchError(f"there is no size from {grid.lowest:,} to {highest:,}")
    bounds = Bounds(
        limits.memory_bytes, end, min(grid.size(enough) if enough else end, end), tolerance, is_curved
    )
    trials = _Trials(grid, on_try, on_trial, log)

    def capacity(failed_at: int | None = None) -> Capacity:
        done = [trials.in_values(trial) for trial in trials.done]
        best, failure = largest_fit(done), first_failure(done)
        out_of_memory = failure if failure and failure.outcome == "oom" else None
        return Capacity(
            found=best.value if best else None,
            fails=failed_at or (out_of_memory.value if out_of_memory else None),
            peak_bytes=best.peak_bytes if best else None,
            trials=tuple(done),
            seconds=time.perf_counter() - started,
            refused=failure if failed_at is None and out_of_memory is None else None,
        )

    try:
        is_begun = trials.take_over(earlier, bounds) or (
            start is not None and _still_holds(trials, limits, workload, bounds, grid, start)
        )
        if not is_begun:
            trials.run(limits, workload, bounds, None)
        while (size := next_size(trials.done, bounds)) is not None:
            trials.run(limits, workload, bounds, size)
    except _Failed as error:
        refusal = error.ending.error
        if refusal is not None and largest_fit(trials.done) is None:
            raise refusal from None
        so_far = capacity(failed_at=error.size)
        raise ProbeFailed(_format_failure(error, log), refusal.hint if refusal else None, so_far) from None
    found = capacity()
    if found.found is None and found.refused is not None and trials.refusal is not None:
        raise trials.refusal
    return found


def _still_holds(
    trials: _Trials,
    limits: Limits,
    workload: Workload,
    bounds: Bounds,
    grid: Grid,
    start: tuple[int, int | None],
) -> bool:
    """Check whether the result of an earlier probe still holds, by running both of its sizes again."""
    found, fails = start
    if trials.run(limits, workload, bounds, grid.size(found))[-1].outcome != "fits":
        return False
    return fails is None or trials.run(limits, workload, bounds, grid.size(fails))[-1].outcome == "oom"


def _format_failure(failed: _Failed, log: Path | None) -> str:
    message = f"size {failed.size:,} failed for a reason other than memory: {failed.ending.reason}"
    if log is None or not failed.ending.stderr.strip():
        return message
    written = "its traceback" if failed.ending.outcome == "failed" else "its output"
    return f"{message}; {written} is in {log}"


def _measure(
    send: Callable[[Any], None],
    workload: Workload,
    bounds: Bounds,
    grid: Grid,
    device: str,
    size: int | None,
) -> None:
    """Measure one size, or ascending sizes until a slope can be taken. Runs in a child process.

    Sends each size before it is tried, and then its trial.
    """
    from xbench.memory.devices import allocator_retries
    from xbench.memory.limits import (
        calibrate_device_limit_again,
        calibrate_host_limit_again,
        charged_peak_bytes,
    )
    from xbench.memory.peaks import peak_meter, release_all

    step = workload.prepare()
    step(grid.value(1))  # libraries allocate memory at their first use
    calibrate_host_limit_again()
    release_all(device)
    calibrate_device_limit_again()
    meter = peak_meter(device)
    ascending: list[TrialRecord] = []
    trying = size if size is not None else next_slope_size(ascending, bounds)
    while trying is not None:
        send(trying)
        meter.reset()
        retries = 0 if device == "cpu" else allocator_retries(device)
        measured = step(grid.value(trying))
        peak_bytes = meter.peak_bytes()
        if measured is not None and device == "cpu":  # the workload has reset the meter
            peak_bytes = max(peak_bytes, measured.peak_bytes)
        charged_bytes = charged_peak_bytes(device) or peak_bytes
        if device != "cpu":
            retries = allocator_retries(device) - retries
        trial = TrialRecord(
            value=trying,
            outcome="fits",
            peak_bytes=peak_bytes,
            charged_bytes=charged_bytes,
            alloc_retries=retries,
        )
        ascending.append(trial)
        send(trial)
        if size is not None:
            return
        release_all(device)
        trying = next_slope_size(ascending, bounds)
