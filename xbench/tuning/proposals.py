"""Propose the settings of the next trial of a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from xbench.tuning.plan import EndedTrial, SearchPlan
from xbench.tuning.points import list_grid, pick_quasi_random
from xbench.tuning.tpe import pick_by_tpe


def propose(
    plan: SearchPlan, ended: Sequence[EndedTrial], direction: Literal["min", "max"]
) -> dict[str, Any] | None:
    """Return the settings of the next trial; None if a grid has no further point.

    Args:
        ended: the trials so far, in order.
        direction: whether low or high values of the metric are better.
    """
    if plan.search == "grid":
        points = list_grid(plan.space, int(plan.budget.amount))
        return points[len(ended)] if len(ended) < len(points) else None
    if plan.search == "tpe":
        return pick_by_tpe(plan.space, ended, direction, plan.seed)
    return pick_quasi_random(plan.space, len(ended) + 1, plan.seed)


def find_best(trials: Sequence[EndedTrial], direction: Literal["min", "max"]) -> int | None:
    """Return the index of the trial with the best score, the first of several; None if all have failed."""
    sign = 1 if direction == "min" else -1
    scores = [(sign * trial.score, place) for place, trial in enumerate(trials) if trial.score is not None]
    return min(scores)[1] if scores else None
