"""Decide which blocks of a run fit into its time limit, each at its turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from xbench.execution.estimates import Estimator
from xbench.execution.planned import PlannedCell
from xbench.execution.schedule import blocks, is_skipped, within
from xbench.units import format_seconds

# What is still disturbed after that wait may take this many times the time that is left, and is tried.
SLACK = 2.0

# A run waits this long at most for other programs to leave it the CPU, and this share of its limit.
MAX_WAIT_S, _MAX_WAIT_SHARE = 60.0, 0.25

# What takes more of the limit than this before the first cell is named in the reason to skip one.
_LARGE_SHARE = 0.25


def longest_wait_s(limit_s: float) -> float:
    """Return how long a run with a time limit may wait in all for other programs to end, in seconds."""
    return min(MAX_WAIT_S, _MAX_WAIT_SHARE * limit_s)


class TimeLimit:
    """A run's time limit.

    Args:
        limit_s: the most seconds that the run may take.
        started: when the command began, on `clock`.
        clock: as `time.monotonic`, in seconds.
    """

    def __init__(
        self,
        limit_s: float,
        started: float,
        estimator: Estimator,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._limit_s, self._ends_at = limit_s, started + limit_s
        self._estimator, self._clock = estimator, clock
        self._spent = ""  # on what, before the first cell

    @property
    def left_s(self) -> float:
        """Seconds until it is reached; below zero afterwards."""
        return self._ends_at - self._clock()

    def admit(
        self,
        block: list[PlannedCell],
        made_s: Mapping[str, float] = MappingProxyType({}),
        may_wait: bool = True,
    ) -> list[PlannedCell]:
        """Skip a block that does not fit into the time that is left.

        Its estimate is corrected by what earlier cells took. If it does not fit by that, it is measured again
        first, on an idle machine if possible. Of what other programs still disturb then, only what would not
        fit into twice the time is skipped.

        Args:
            made_s: as `schedule.estimate_s` takes it.
            may_wait: wait for other programs to end.
        """
        by_now = self._within(block, made_s)
        if not is_skipped(by_now) or is_skipped(block) or self.left_s <= 0:
            return by_now

        def is_enough(cells: list[PlannedCell]) -> bool:
            return not may_wait or self.left_s <= 0 or not is_skipped(self._within(cells, made_s))

        block = self._estimator.estimate_anew(block, is_enough)
        return self._within(block, made_s, SLACK)

    def skip_hopeless(self, cells: list[PlannedCell]) -> list[PlannedCell]:
        """Skip the blocks that would not fit if they were the only one, before weights are fetched and sizes
        fitted for them. What other programs have disturbed is decided on at its turn, but for blocks whose
        weights are yet to be fetched.

        Returns:
            All cells, in the order declared.
        """
        spent_s = self._limit_s - self.left_s
        if spent_s > _LARGE_SHARE * self._limit_s:
            self._spent = f"starting and estimating took {format_seconds(spent_s)}"
        result = []
        for block in blocks(cells, by_time=False):
            must_fetch = any(cell.model.missing for cell in block)
            decided = self.admit(block, may_wait=must_fetch)
            if is_skipped(decided) and not must_fetch and any(cell.estimate.is_rough for cell in decided):
                decided = [replace(new, skip=old.skip) for new, old in zip(decided, block, strict=True)]
            result += decided
        self._spent = ""
        return result

    def _within(
        self, block: list[PlannedCell], made_s: Mapping[str, float], slack: float = 1.0
    ) -> list[PlannedCell]:
        return within(
            block, self.left_s, self._limit_s, made_s, self._estimator.correction, slack, self._spent
        )
