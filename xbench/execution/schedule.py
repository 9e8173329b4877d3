"""Order the blocks of cells of a run, and skip blocks that do not fit into the remaining time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from xbench.execution.estimates import Estimator
from xbench.planning.planned import PlannedCell
from xbench.units import format_seconds

# A block whose estimate is still disturbed after waiting runs if it fits into this multiple of the remaining
# time, because the estimate is too high.
SLACK = 2.0

# Maximum wait for other programs to stop using the CPU: in seconds, and as a share of the time limit.
MAX_WAIT_S, _MAX_WAIT_SHARE = 60.0, 0.25

# If starting and estimating took more than this share of the time limit, the reason for a skip says so.
_LARGE_SHARE = 0.25


def group_blocks(cells: Sequence[PlannedCell], by_time: bool) -> list[list[PlannedCell]]:
    """Group cells into blocks: all optimizers of one seed of an experiment. A block runs or is skipped as a
    whole, so that no comparison lacks some of its columns.

    Args:
        by_time: whether to order the blocks by seed, then by estimated time, with unknown times last;
            otherwise they keep the declared order.
    """
    grouped: dict[tuple[str, int], list[PlannedCell]] = {}
    for cell in cells:
        grouped.setdefault((cell.declared.experiment, cell.declared.seed), []).append(cell)
    if not by_time:
        return list(grouped.values())
    seeds = list(dict.fromkeys(seed for _, seed in grouped))

    def rank(key: tuple[str, int]) -> tuple[int, bool, float]:
        return seeds.index(key[1]), is_unknown(grouped[key]), estimate_s(grouped[key])

    return [grouped[key] for key in sorted(grouped, key=rank)]


def is_unknown(block: Sequence[PlannedCell]) -> bool:
    """Return whether the time of any cell in a block is unknown."""
    return any(cell.estimate.seconds is None for cell in block if cell.skip is None)


def estimate_s(block: Sequence[PlannedCell], made_s: Mapping[str, float] = MappingProxyType({})) -> float:
    """Estimate the seconds that a block will take. Cells that are skipped or of unknown time count as 0.

    Args:
        made_s: what is computed before the block, with its seconds (see `shared_s`).
    """
    cells_s = sum(cell.estimate.seconds or 0.0 for cell in block if cell.skip is None)
    needed = shared_s(block).items()
    return cells_s + sum(max(0.0, seconds - made_s.get(key, 0.0)) for key, seconds in needed)


def features_s(block: Sequence[PlannedCell]) -> dict[str, float]:
    """Return the seconds for computing the features of a block, by features key."""
    needed: dict[str, float] = {}
    for cell in block:
        key, seconds = cell.estimate.features_key, cell.estimate.features_s
        if cell.skip is None:
            needed[key] = max(seconds, needed.get(key, 0.0))
    return needed


def trials_s(block: Sequence[PlannedCell]) -> dict[str, float]:
    """Return the seconds for the trials that a block needs, by search."""
    found = (cell.estimate for cell in block if cell.skip is None)
    return {estimate.trials_key: estimate.trials_s for estimate in found if estimate.trials_key}


def shared_s(block: Sequence[PlannedCell]) -> dict[str, float]:
    """Return the seconds of what the cells of a block share with other cells: features and trials."""
    return features_s(block) | {f"trials of {key}": seconds for key, seconds in trials_s(block).items()}


def skip_if_late(
    block: list[PlannedCell],
    left_s: float,
    limit_s: float,
    made_s: Mapping[str, float] = MappingProxyType({}),
    correction: float = 1.0,
    slack: float = 1.0,
    spent: str = "",
) -> list[PlannedCell]:
    """Skip a block that would take longer than the remaining time.

    Args:
        left_s: remaining seconds.
        limit_s: the run's time limit in seconds, for the reason.
        made_s: what is computed before the block, with its seconds (see `shared_s`).
        correction: factor by which undisturbed estimates are multiplied.
        slack: divisor of estimates that were measured while other programs used the CPU, which are too high.
        spent: what has used a large part of the time limit, for the reason; "" for nothing in particular.

    Returns:
        The block's cells; if it is skipped, the reason gives the estimate.
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
    """Return whether all cells of a block are skipped."""
    return all(cell.skip is not None for cell in block)


def compute_max_wait_s(limit_s: float) -> float:
    """Return the total seconds that a run may wait for other programs to stop using the CPU."""
    return min(MAX_WAIT_S, _MAX_WAIT_SHARE * limit_s)


class TimeLimit:
    """A run's time limit.

    Args:
        limit_s: maximum duration of the run in seconds.
        started: when the command began, by `clock`.
        clock: function that returns the time in seconds.
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
        self._spent = ""  # what used a large part of the limit before the first cell

    @property
    def left_s(self) -> float:
        """Seconds until the limit is reached; negative afterwards."""
        return self._ends_at - self._clock()

    def admit(
        self,
        block: list[PlannedCell],
        made_s: Mapping[str, float] = MappingProxyType({}),
        may_wait: bool = True,
    ) -> list[PlannedCell]:
        """Skip a block that does not fit into the remaining time.

        The block's estimate is corrected by the times of earlier cells. If the block does not fit by this
        estimate, it is measured again, on an idle machine if possible. If other programs still disturb the
        measurement, the block is skipped only if it does not fit into `SLACK` times the remaining time.

        Args:
            made_s: what is computed before the block, with its seconds (see `shared_s`).
            may_wait: whether to wait for other programs to stop using the CPU.
        """
        by_now = self._skip_if_late(block, made_s)
        if not is_skipped(by_now) or is_skipped(block) or self.left_s <= 0:
            return by_now

        def is_enough(cells: list[PlannedCell]) -> bool:
            return not may_wait or self.left_s <= 0 or not is_skipped(self._skip_if_late(cells, made_s))

        block = self._estimator.remeasure(block, is_enough)
        return self._skip_if_late(block, made_s, SLACK)

    def skip_hopeless(self, cells: list[PlannedCell]) -> list[PlannedCell]:
        """Skip each block that would not fit even if it ran alone, before weights are downloaded and sizes
        fitted. Blocks with disturbed estimates are decided later, unless their weights must be downloaded.

        Returns:
            All cells, in the declared order.
        """
        spent_s = self._limit_s - self.left_s
        if spent_s > _LARGE_SHARE * self._limit_s:
            self._spent = f"starting and estimating took {format_seconds(spent_s)}"
        result = []
        for block in group_blocks(cells, by_time=False):
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
