"""Order the blocks of a run, and skip those that do not fit into the time that is left, each at its turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from xbench.execution.estimates import Estimator
from xbench.planning.planned import PlannedCell
from xbench.units import format_seconds

# What is still disturbed after that wait may take this many times the time that is left, and is tried.
SLACK = 2.0

# A run waits this long at most for other programs to leave it the CPU, and this share of its limit.
MAX_WAIT_S, _MAX_WAIT_SHARE = 60.0, 0.25

# What takes more of the limit than this before the first cell is named in the reason to skip one.
_LARGE_SHARE = 0.25


def blocks(cells: Sequence[PlannedCell], by_time: bool) -> list[list[PlannedCell]]:
    """Group the cells that belong together: all optimizers of one seed of an experiment. They run or are
    skipped as one, so that no comparison is left with half of its columns.

    Args:
        by_time: seed by seed, and of each seed what takes least time first, and last what may take any; else
            in the order declared.
    """
    found: dict[tuple[str, int], list[PlannedCell]] = {}
    for cell in cells:
        found.setdefault((cell.declared.experiment, cell.declared.seed), []).append(cell)
    if not by_time:
        return list(found.values())
    seeds = list(dict.fromkeys(seed for _, seed in found))

    def place(key: tuple[str, int]) -> tuple[int, bool, float]:
        return seeds.index(key[1]), is_unknown(found[key]), estimate_s(found[key])

    return [found[key] for key in sorted(found, key=place)]


def is_unknown(block: Sequence[PlannedCell]) -> bool:
    """Whether nothing can be said of how long one of its cells will take."""
    return any(cell.estimate.seconds is None for cell in block if cell.skip is None)


def estimate_s(block: Sequence[PlannedCell], made_s: Mapping[str, float] = MappingProxyType({})) -> float:
    """What a block will take; 0 for what is not to run, or of which nothing is known.

    Args:
        made_s: the time of the features that are made before it; see `features_s`.
    """
    cells_s = sum(cell.estimate.seconds or 0.0 for cell in block if cell.skip is None)
    needed = features_s(block).items()
    return cells_s + sum(max(0.0, seconds - made_s.get(key, 0.0)) for key, seconds in needed)


def features_s(block: Sequence[PlannedCell]) -> dict[str, float]:
    """The time of all the features that a block needs, each counted once for all cells that share them."""
    needed: dict[str, float] = {}
    for cell in block:
        key, seconds = cell.estimate.features_key, cell.estimate.features_s
        if cell.skip is None:
            needed[key] = max(seconds, needed.get(key, 0.0))
    return needed


def skip_if_late(
    block: list[PlannedCell],
    left_s: float,
    limit_s: float,
    made_s: Mapping[str, float] = MappingProxyType({}),
    correction: float = 1.0,
    slack: float = 1.0,
    spent: str = "",
) -> list[PlannedCell]:
    """Skip a block that would take longer than what is left.

    Args:
        limit_s: the run's time limit, for the reason.
        spent: what has used up a large part of it, for the reason; "" for nothing in particular.
        made_s: as `estimate_s` takes it.
        correction: what estimates are multiplied by that nothing has disturbed.
        slack: what estimates are divided by that were measured while other programs took the CPU: they are
            too high.

    Returns:
        The block's cells; if it is skipped, `skip` gives the estimate.
    """
    rough_s = estimate_s([cell for cell in block if cell.estimate.is_rough], made_s)
    sure_s = (estimate_s(block, made_s) - rough_s) * correction
    if sure_s + rough_s / slack <= left_s:
        return block
    needed = f"about {format_seconds(sure_s + rough_s)}"
    if is_unknown(block):
        needed = "a time that cannot be estimated"
    elif rough_s:
        needed += " (by its fastest step, measured while other programs were running)"
    left, limit = format_seconds(max(0.0, left_s)), format_seconds(limit_s)
    reason = (
        f"'{block[0].declared.experiment}' needs {needed}, and {left} of the time limit of {limit} are left"
    )
    reason = "; ".join(filter(None, [reason, spent, block[0].model.missing]))
    return [cell if cell.skip else cell.with_skip("skipped", reason, waits_for="time") for cell in block]


def is_skipped(block: Sequence[PlannedCell]) -> bool:
    """Whether nothing of a block is to run."""
    return all(cell.skip is not None for cell in block)


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
            made_s: as `estimate_s` takes it.
            may_wait: wait for other programs to end.
        """
        by_now = self._skip_if_late(block, made_s)
        if not is_skipped(by_now) or is_skipped(block) or self.left_s <= 0:
            return by_now

        def is_enough(cells: list[PlannedCell]) -> bool:
            return not may_wait or self.left_s <= 0 or not is_skipped(self._skip_if_late(cells, made_s))

        block = self._estimator.estimate_anew(block, is_enough)
        return self._skip_if_late(block, made_s, SLACK)

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

    def _skip_if_late(
        self, block: list[PlannedCell], made_s: Mapping[str, float], slack: float = 1.0
    ) -> list[PlannedCell]:
        return skip_if_late(
            block, self.left_s, self._limit_s, made_s, self._estimator.correction, slack, self._spent
        )
