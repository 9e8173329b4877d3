"""The micro-batch with the best throughput that fits, from a few timed closures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xbench.capacity.workload import TrainingWorkload
from xbench.errors import XbenchError
from xbench.isolation.child import Limits
from xbench.isolation.run import run_in_child
from xbench.training.component_code import running_code_of

_MAX_SIZE = 512
_ROUNDS = 3
_ROUND_S = 0.1
# So much slower than the best, twice in a row, and larger ones are not tried; so much slower at most, and a
# smaller one is preferred: it takes less memory.
_WORSE, _AS_GOOD = 1.1, 1.03


@dataclass(frozen=True)
class TimedMicroBatch:
    """Median time of forward and backward, loading included."""

    micro_batch: int
    seconds_per_example: float


@dataclass(frozen=True)
class Tuned:
    """What was picked, None if not even one example fits; and whether memory ran out before larger ones were
    clearly slower."""

    micro_batch: int | None
    ran_out: bool


def tune_micro_batch(
    workload: TrainingWorkload,
    limits: Limits,
    highest: int,
    on_timed: Callable[[TimedMicroBatch], None] = lambda timed: None,
) -> Tuned:
    """Time micro-batches of 1, 2, 4, ... in one child under the limit, until they get slower or do not fit.

    Args:
        workload: on the axis of micro-batches.
        highest: the batch's size.

    Returns:
        The smallest that is within 3 % of the fastest, if any fits. Closures alone are run: an optimizer's
        state may not fit beside it.

    Raises:
        XbenchError: a closure failed for another reason than memory.
    """
    timed: list[TimedMicroBatch] = []

    def hear(message: TimedMicroBatch) -> None:
        timed.append(message)
        on_timed(message)

    ending = run_in_child(_time_sizes, workload, highest, on_message=hear, limits=limits)
    if ending.outcome != "returned" and not ending.out_of_memory:
        raise ending.error or XbenchError(f"no micro-batch could be timed: {ending.reason}")
    return Tuned(best_micro_batch(timed) if timed else None, ran_out=ending.out_of_memory)


def best_micro_batch(timed: list[TimedMicroBatch]) -> int:
    """The smallest that is as good as the fastest."""
    fastest = min(t.seconds_per_example for t in timed)
    return min(t.micro_batch for t in timed if t.seconds_per_example <= fastest * _AS_GOOD)


def is_past_the_best(timed: list[TimedMicroBatch]) -> bool:
    """Whether the last two were clearly slower than the fastest."""
    fastest = min(t.seconds_per_example for t in timed)
    return len(timed) > 2 and all(t.seconds_per_example > fastest * _WORSE for t in timed[-2:])


def _time_sizes(send: Callable[[Any], None], workload: TrainingWorkload, highest: int) -> None:
    timed: list[TimedMicroBatch] = []
    sizes = [1 << power for power in range(_MAX_SIZE.bit_length()) if 1 << power < highest]
    with running_code_of(workload.task):
        workload.check_micro_batches(1)
        for size in [*sizes, *([highest] if highest <= _MAX_SIZE else [])]:
            timed.append(TimedMicroBatch(size, _seconds_per_example(workload, size)))
            send(timed[-1])
            if is_past_the_best(timed):
                return


def _seconds_per_example(workload: TrainingWorkload, size: int) -> float:
    closure, examples = workload.closure(size)
    float(closure())
    rounds = []
    for _ in range(_ROUNDS):
        calls, started = 0, time.perf_counter()
        while calls == 0 or time.perf_counter() - started < _ROUND_S:
            float(closure())  # the loss's value: on a device, that is when the work is done
            calls += 1
        rounds.append((time.perf_counter() - started) / calls)
    return sorted(rounds)[_ROUNDS // 2] / examples
