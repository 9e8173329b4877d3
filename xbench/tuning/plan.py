"""Define the search for the settings of a column, and what its trials may cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from xbench.components.search_range import SearchSpace

SearchName = Literal["grid", "quasi-random", "tpe"]
BudgetUnit = Literal["trials", "closures", "seconds"]

# Trials may be cheaper than expected, as those that diverge at once, but not for ever.
MAX_TRIALS = 1000
# A search whose trials have all failed ends after this many, unless its budget is a number of trials.
MAX_FAILURES = 50


@dataclass(frozen=True)
class Budget:
    """The budget of a column: a number of trials, of gradient evaluations, or of seconds of training."""

    amount: float
    unit: BudgetUnit = "trials"

    def is_spent(self, costs: Sequence[float]) -> bool:
        """Return whether no further trial begins.

        A trial begins if the budget that is left covers the most expensive trial so far. The first one always
        begins.

        Args:
            costs: the cost of each trial so far, in the budget's unit.
        """
        if not costs:
            return False
        return len(costs) >= MAX_TRIALS or sum(costs) + max(costs) > self.amount

    def count_left(self, costs: Sequence[float], expected: float) -> int:
        """Count the further trials that begin if each of them costs as much as expected.

        Args:
            costs: the cost of each trial so far, in the budget's unit.
        """
        found = list(costs)
        while not self.is_spent(found):
            found.append(expected)
        return len(found) - len(costs)


@dataclass(frozen=True)
class SearchPlan:
    """The search for the settings of one column.

    Attributes:
        metric: name of the metric of an epoch by which trials are compared.
        seed: the seed of all trials, and of the search's own random numbers.
        space: the values of each setting that the search may choose.
    """

    search: SearchName
    budget: Budget
    metric: str
    seed: int
    space: SearchSpace


@dataclass(frozen=True)
class EndedTrial:
    """A trial that has ended.

    Attributes:
        score: the value of the metric; None if the trial failed.
    """

    values: dict[str, Any]
    score: float | None = None
