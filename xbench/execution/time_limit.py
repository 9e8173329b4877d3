"""Decide which blocks of a run fit into its time limit, each at its turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from xbench.execution.estimates import Estimator
from xbench.execution.job import Job
from xbench.execution.schedule import blocks, is_skipped, within
from xbench.units import parse_duration

# A run waits this long at most for other programs to leave it the processor, and this share of its limit.
MAX_WAIT_S, _MAX_WAIT_SHARE = 60.0, 0.25


def longest_wait_s(text: str) -> float:
    """Return how long a run with a time limit may wait in all for a quiet moment, in seconds.

    Args:
        text: the limit as it was given.
    """
    return min(MAX_WAIT_S, _MAX_WAIT_SHARE * parse_duration(text))


class TimeLimit:
    """A run's time limit.

    Args:
        text: as it was given.
        started: when the command began, on `clock`.
        clock: as `time.monotonic`, in seconds.
    """

    def __init__(
        self, text: str, started: float, estimator: Estimator, clock: Callable[[], float] = time.monotonic
    ):
        self._text, self._ends_at = text, started + parse_duration(text)
        self._estimator, self._clock = estimator, clock

    @property
    def left_s(self) -> float:
        """Seconds until it is reached; below zero afterwards."""
        return self._ends_at - self._clock()

    def admit(
        self,
        block: list[Job],
        made_s: Mapping[str, float] = MappingProxyType({}),
        is_its_turn: bool = True,
    ) -> list[Job]:
        """Skip a block that does not fit into the time that is left.

        Its estimate is corrected by what earlier blocks took. If it does not fit by that, it is measured
        again first.

        Args:
            made_s: as `schedule.estimate_s` takes it.
            is_its_turn: the block is to run next. Before that, nobody waits for a quiet moment to measure in,
                and a block is not skipped by what other programs have disturbed.
        """
        by_now = within(block, self.left_s, self._text, made_s, self._estimator.correction)
        if not is_skipped(by_now) or is_skipped(block) or self.left_s <= 0:
            return by_now

        def is_enough(jobs: list[Job]) -> bool:
            return not is_its_turn or not is_skipped(within(jobs, self.left_s, self._text, made_s))

        block = self._estimator.estimate_anew(block, is_enough)
        if not is_its_turn and any(job.is_rough for job in block):
            return block
        return within(block, self.left_s, self._text, made_s)

    def without_hopeless(self, jobs: list[Job]) -> list[Job]:
        """Skip the blocks that would not fit if they were the only one, before weights are fetched and sizes
        fitted for them."""
        found = blocks(jobs, by_time=False)
        return [job for block in found for job in self.admit(block, is_its_turn=False)]
