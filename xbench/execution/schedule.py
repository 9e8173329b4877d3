"""Order cells, and skip those that do not fit into the time that is left. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from xbench.execution.planned import PlannedCell
from xbench.units import format_seconds


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


def within(
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
    return [cell if cell.skip else cell.skipped("skipped", reason, waits_for="time") for cell in block]


def is_skipped(block: Sequence[PlannedCell]) -> bool:
    """Whether nothing of a block is to run."""
    return all(cell.skip is not None for cell in block)
