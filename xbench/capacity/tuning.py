"""Find the micro-batch with the best throughput that fits, by timing a few closures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xbench.capacity.workload import TrainingWorkload
from xbench.errors import XbenchError
from xbench.isolation.child import Limits
from xbench.isolation.run import run_in_child
from xbench.training.component_code import check_running_code

_MAX_SIZE = 512
_ROUNDS = 3
_ROUND_S = 0.1
# After two sizes in a row that are slower than the fastest by this factor, no larger size is tried.
_STOP_FACTOR = 1.1
# The smallest size that is slower than the fastest by at most this factor is preferred, as it takes less
# memory.
_TIE_FACTOR = 1.03


@dataclass(frozen=True)
class TimedMicroBatch:
    """The median time of forward and backward, including loading, with one micro-batch size."""

    micro_batch: int
    seconds_per_example: float


@dataclass(frozen=True)
class TuningResult:
    """The result of tuning.

    Attributes:
        micro_batch: the selected size; None if not even one example fits.
        ran_out: whether memory ran out before larger sizes were clearly slower.
    """

    micro_batch: int | None
    ran_out: bool


def tune_micro_batch(
    workload: TrainingWorkload,
    limits: Limits,
    highest: int,
    on_timed: Callable[[TimedMicroBatch], None] = lambda timed: None,
) -> TuningResult:
    """Time micro-batches of 1, 2, 4, ... in one child process, until they get slower or do not fit.

    Only closures are run. The selected size need not leave enough memory for the optimizer's state.

    Args:
        workload: a workload on the micro-batch axis.
        limits: the limits of the child process.
        highest: the size of the batch.
        on_timed: called with the time of each size.

    Returns:
        The smallest size that is within 3 % of the fastest, if any fits.

    Raises:
        XbenchError: a closure failed for a reason other than memory.
    """
    timed: list[TimedMicroBatch] = []

    def on_message(message: TimedMicroBatch) -> None:
        timed.append(message)
        on_timed(message)

    ending = run_in_child(_time_sizes, workload, highest, on_message=on_message, limits=limits)
    if ending.outcome != "returned" and not ending.out_of_memory:
        raise ending.error or XbenchError(f"no micro-batch could be timed: {ending.reason}")
    return TuningResult(best_micro_batch(timed) if timed else None, ran_out=ending.out_of_memory)


def best_micro_batch(timed: list[TimedMicroBatch]) -> int:
    """Return the smallest size that is about as fast as the fastest."""
    fastest = min(t.seconds_per_example for t in timed)
    return min(t.micro_batch for t in timed if t.seconds_per_example <= fastest * _TIE_FACTOR)


def is_past_the_best(timed: list[TimedMicroBatch]) -> bool:
    """Check whether the last two sizes were clearly slower than the fastest."""
    fastest = min(t.seconds_per_example for t in timed)
    return len(timed) > 2 and all(t.seconds_per_example > fastest * _STOP_FACTOR for t in timed[-2:])


def _time_sizes(send: Callable[[Any], None], workload: TrainingWorkload, highest: int) -> None:
    timed: list[TimedMicroBatch] = []
    sizes = [1 << power for power in range(_MAX_SIZE.bit_length()) if 1 << power < highest]
    with check_running_code(workload.job):
        workload.check_micro_batches(1)
        for size in [*sizes, *([highest] if highest <= _MAX_SIZE else [])]:
            timed.append(TimedMicroBatch(size, _time_closures(workload, size)))
            send(timed[-1])
            if is_past_the_best(timed):
                return


def _time_closures(workload: TrainingWorkload, size: int) -> float:
    """Return the median seconds per example of closures with one micro-batch size."""
    closure, examples = workload.closure(size)
    float(closure())
    rounds = []
    for _ in range(_ROUNDS):
        calls, started = 0, time.perf_counter()
        while calls == 0 or time.perf_counter() - started < _ROUND_S:
            float(closure())  # on a device, waits until the work is done
            calls += 1
        rounds.append((time.perf_counter() - started) / calls)
    return sorted(rounds)[_ROUNDS // 2] / examples
