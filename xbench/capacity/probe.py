"""Finding a capacity: trials in children under the hard limit, led by `search`, each told as it happens."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from xbench.capacity.search import (
    Bounds,
    first_failure,
    largest_fit,
    next_size,
    next_slope_size,
    predict_peak,
)
from xbench.errors import XbenchError
from xbench.isolation.child import Limits
from xbench.isolation.run import ChildResult, run_in_child
from xbench.records.capacity import TrialRecord
from xbench.records.schema import MemoryPassRecord

# The end of an axis that has none of its own.
_UNBOUNDED = 1 << 30


class Workload(Protocol):
    """What is probed. It travels to the children, so it must pickle."""

    def prepare(self) -> Callable[[int], MemoryPassRecord | None]:
        """Called once in each child.

        Returns:
            A function that does all the work whose peak counts (whole optimizer steps) at a size. What it
            allocated must be free when it returns. It may return what it has measured itself, if it resets
            the process's peak. An exception that says that memory ran out makes the size one that does not
            fit; any other one ends the probe.
        """
        ...


@dataclass(frozen=True)
class Capacity:
    """The largest value of one axis that fits.

    Attributes:
        found: the largest size that ran; None if not even the smallest did.
        fails: the smallest size above it that ran out of memory; None if none did, up to the end of the axis.
            The size that failed for another reason, where that has ended the probe.
        peak_bytes: of `found`.
        trials: in the order in which they ran.
        seconds: wall time of all of it.
    """

    found: int | None
    fails: int | None
    peak_bytes: int | None
    trials: tuple[TrialRecord, ...]
    seconds: float


class ProbeFailed(XbenchError):
    """A size failed for another reason than memory.

    Attributes:
        so_far: what had been found by then.
    """

    def __init__(self, message: str, hint: str | None, so_far: Capacity):
        super().__init__(message, hint)
        self.so_far = so_far


@dataclass
class _Trials:
    """Trials so far.

    Attributes:
        on_try, on_trial: hear of each size before it is tried, and of its trial.
        log: a file for what a trial's child writes, a traceback above all; it stays where one failed for
            another reason than memory. None for no file.
    """

    on_try: Callable[[int], None]
    on_trial: Callable[[TrialRecord], None]
    log: Path | None = None
    done: list[TrialRecord] = field(default_factory=list)

    def run(self, limits: Limits, workload: Workload, bounds: Bounds, size: int | None) -> list[TrialRecord]:
        """Run one size in a fresh child, or (None) ascending sizes in one.

        Raises:
            _Failed: one failed for another reason than memory.
        """
        before = len(self.done)
        predicted = None if size is None else predict_peak(self.done, size)
        trying, started = size or 1, time.perf_counter()

        def hear(message: int | TrialRecord) -> None:
            nonlocal trying, started
            if isinstance(message, int):
                trying = message
                self.on_try(trying)
                return
            seconds = time.perf_counter() - started
            self._add(message.model_copy(update={"predicted_bytes": predicted, "seconds": seconds}))
            started = time.perf_counter()

        limits = replace(limits, malloc="exact")
        job = (_measure, workload, bounds, limits.device, size)
        self._remove_log()
        ending = run_in_child(*job, on_message=hear, stderr_path=self.log, limits=limits)
        if ending.outcome != "returned":
            trial = TrialRecord(
                value=trying,
                outcome="oom" if ending.out_of_memory else "error",
                predicted_bytes=predicted,
                seconds=time.perf_counter() - started,
                reason=ending.reason,
            )
            self._add(trial)
            if trial.outcome == "error":
                raise _Failed(trying, ending)
        self._remove_log()
        return self.done[before:]

    def _remove_log(self) -> None:
        if self.log is not None:
            self.log.unlink(missing_ok=True)

    def _add(self, trial: TrialRecord) -> None:
        self.done.append(trial)
        self.on_trial(trial)


class _Failed(Exception):
    """A trial failed for another reason than memory."""

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
    on_try: Callable[[int], None] = lambda size: None,
    on_trial: Callable[[TrialRecord], None] = lambda trial: None,
    log: Path | None = None,
) -> Capacity:
    """Find the largest size whose peak fits the limit of `limits.memory_bytes`.

    Small sizes give a slope, in one child; the size that it predicts, and what follows from that, are run
    each in a fresh child, until a size that fits and one that fails are within the tolerance.

    Args:
        tolerance: of the bracket, as a share of the size; 0 for an exact answer.
        highest: the end of the axis; by default it has none.
        enough: the largest size that is of use in itself; see `search.Bounds`. By default `highest`.
        start: (found, fails) of an earlier probe, to be tried first.
        on_try: hears of each size before it is tried.
        on_trial: hears of each trial as it ends.
        log: a file for the traceback of a trial that fails for another reason than memory. It is removed
            where none does.

    Raises:
        ProbeFailed: a trial failed for another reason than memory.
        XbenchError: not even the smallest size is possible with these settings.
    """
    if limits.memory_bytes is None:
        raise ValueError("a capacity is that of a memory limit")
    started = time.perf_counter()
    end = highest or _UNBOUNDED
    bounds = Bounds(limits.memory_bytes, end, min(enough or end, end), tolerance)
    trials = _Trials(on_try, on_trial, log)

    def capacity(failed_at: int | None = None) -> Capacity:
        best, failure = largest_fit(trials.done), first_failure(trials.done)
        return Capacity(
            found=best.value if best else None,
            fails=failed_at or (failure.value if failure else None),
            peak_bytes=best.peak_bytes if best else None,
            trials=tuple(trials.done),
            seconds=time.perf_counter() - started,
        )

    try:
        if start is None or not _stands(trials, limits, workload, bounds, start):
            trials.run(limits, workload, bounds, None)
        while (size := next_size(trials.done, bounds)) is not None:
            trials.run(limits, workload, bounds, size)
    except _Failed as error:
        refusal = error.ending.error
        if refusal is not None and largest_fit(trials.done) is None:
            raise refusal from None
        so_far = capacity(failed_at=error.size)
        raise ProbeFailed(_told(error, log), refusal.hint if refusal else None, so_far) from None
    return capacity()


def _stands(
    trials: _Trials, limits: Limits, workload: Workload, bounds: Bounds, start: tuple[int, int | None]
) -> bool:
    """Whether an earlier bracket is still right: both of its ends are run again."""
    found, fails = start
    if trials.run(limits, workload, bounds, found)[-1].outcome == "oom":
        return False
    return fails is None or trials.run(limits, workload, bounds, fails)[-1].outcome == "oom"


def _told(failed: _Failed, log: Path | None) -> str:
    message = f"size {failed.size:,} failed, and not for memory: {failed.ending.reason}"
    if log is None or not failed.ending.stderr.strip():
        return message
    written = "its traceback" if failed.ending.outcome == "failed" else "what it wrote"
    return f"{message}; {written} is in {log}"


def _measure(
    send: Callable[[Any], None], workload: Workload, bounds: Bounds, device: str, size: int | None
) -> None:
    """The job of a trial's child: one size, or ascending ones while their rise tells too little.

    Sends each size before it is tried, then its trial.
    """
    from xbench.memory.devices import allocator_retries
    from xbench.memory.limits import (
        calibrate_device_limit_again,
        calibrate_host_limit_again,
        charged_peak_bytes,
    )
    from xbench.memory.peaks import peak_meter, release_all

    step = workload.prepare()
    step(1)  # libraries load what they load at first use
    calibrate_host_limit_again()
    release_all(device)
    calibrate_device_limit_again()
    meter = peak_meter(device)
    ascending: list[TrialRecord] = []
    value = size if size is not None else next_slope_size(ascending, bounds)
    while value is not None:
        send(value)
        meter.reset()
        retries = 0 if device == "cpu" else allocator_retries(device)
        measured = step(value)
        peak_bytes = meter.peak_bytes()
        if measured is not None and device == "cpu":  # it has reset the meter
            peak_bytes = max(peak_bytes, measured.peak_bytes)
        charged_bytes = charged_peak_bytes(device) or peak_bytes
        if device != "cpu":
            retries = allocator_retries(device) - retries
        trial = TrialRecord(
            value=value,
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
        value = next_slope_size(ascending, bounds)
