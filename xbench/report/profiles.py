"""Compute performance profiles: how often each optimizer reaches its targets within a factor of the best.

The profile of an optimizer is the share of problems on which it needs at most `tau` times as much as the best
of the optimizers on that problem (Dolan and Moré 2002, "Benchmarking optimization software with performance
profiles"). On a problem whose target it does not reach, its factor is infinite. As in AlgoPerf (Dahl et al.
2023, arXiv:2306.07179), profiles end at `MAX_TAU`, and the score of an optimizer is the mean of its profile
from 1 to there.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xbench.report.targets import TargetColumn, TargetComparison

MAX_TAU = 4.0
# Key of the figure that only one seed of a column has.
BYTES = "bytes_to_target"
# With fewer problems, each of them moves a profile by half or all of its height.
MIN_PROBLEMS = 3


@dataclass(frozen=True)
class Problem:
    """A target on one dataset with one model.

    Attributes:
        name: the name of its experiment, and what else its columns' titles say about the data and the model.
        columns: optimizer -> its column.
    """

    name: str
    columns: Mapping[str, TargetColumn]


@dataclass(frozen=True)
class Profile:
    """The profile of one optimizer.

    Attributes:
        ratios: problem -> cost as a multiple of the lowest on that problem, infinite where the target was not
            reached.
    """

    optimizer: str
    ratios: Mapping[str, float]

    def share_within(self, tau: float) -> float:
        """Return the share of problems with a ratio of at most `tau`."""
        return sum(ratio <= tau for ratio in self.ratios.values()) / len(self.ratios)

    @property
    def score(self) -> float:
        """The mean of the profile from 1 to `MAX_TAU`: 1 if the optimizer is the best on every problem."""
        return sum(max(0.0, MAX_TAU - ratio) for ratio in self.ratios.values()) / (
            (MAX_TAU - 1.0) * len(self.ratios)
        )

    def draw(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the corners of the profile, from 1 to `MAX_TAU`."""
        xs, ys = [1.0], [self.share_within(1.0)]
        for ratio in sorted({ratio for ratio in self.ratios.values() if 1.0 < ratio <= MAX_TAU}):
            xs += [ratio, ratio]
            ys += [ys[-1], self.share_within(ratio)]
        return (*xs, MAX_TAU), (*ys, ys[-1])


def list_problems(compared: Sequence[TargetComparison], experiments: Sequence[str]) -> list[Problem]:
    """List the problems of a run: the targets of its experiments, for each dataset and model apart.

    Args:
        experiments: the name of the experiment of each comparison.
    """
    problems = []
    for comparison, experiment in zip(compared, experiments, strict=True):
        groups: dict[str, dict[str, TargetColumn]] = {}
        for column in comparison.columns:
            optimizer, rest = _split_title(column)
            groups.setdefault(rest, {}).setdefault(optimizer, column)
        problems += [Problem(f"{experiment} {rest}".strip(), columns) for rest, columns in groups.items()]
    return problems


def _split_title(column: TargetColumn) -> tuple[str, str]:
    """Split the title of a column into its optimizer, and what it says about the data and the model."""
    shared: set[str] = set()
    for record in column.column.records[:1]:
        shared = {f"dataset={record.dataset.requested}", f"model={record.model.name}"}
        own = record.optimizer.params
        for params in (record.dataset.params, record.model.params):
            shared |= {f"{key}={value}" for key, value in params.items() if key not in own}
    # Values may have spaces, as in `hidden=[64, 64]`.
    title = f"{column.name} "
    of_problem = sorted((setting for setting in shared if f" {setting} " in title), key=title.index)
    for setting in of_problem:
        title = title.replace(f" {setting} ", " ", 1)
    return title.strip(), " ".join(of_problem)


def make_profiles(problems: Sequence[Problem], figure: str) -> tuple[list[Profile], list[str]]:
    """Make the profiles of a cost.

    Args:
        figure: key of the cost, among `TargetComparison.rows`.

    Returns:
        The profiles of the optimizers that ran on all problems, and the names of the others.
    """
    names = list(dict.fromkeys(name for problem in problems for name in problem.columns))
    costs = {name: [_find_cost(problem.columns.get(name), figure) for problem in problems] for name in names}
    complete = {
        name: [cost for cost in of_name if cost is not None]
        for name, of_name in costs.items()
        if None not in of_name
    }
    best = [min(of_problem) for of_problem in zip(*complete.values(), strict=True)]
    profiles = [
        Profile(
            name,
            {
                problem.name: _divide(cost, least)
                for problem, cost, least in zip(problems, of_name, best, strict=True)
            },
        )
        for name, of_name in complete.items()
    ]
    return profiles, [name for name in names if name not in complete]


def _divide(cost: float, least: float) -> float:
    """Return a cost as a multiple of the least; infinite if the target was not reached."""
    if math.isinf(cost):
        return math.inf
    return cost / least if least else 1.0


def _find_cost(column: TargetColumn | None, figure: str) -> float | None:
    """Return the median cost over seeds, of which those that do not reach the target count as infinite.

    The bytes are those of the one seed that stands for its column.

    Returns:
        None if no seed tells whether it reaches the target, or what it needs to.
    """
    if column is None or not column.attempts:
        return None
    missed = [math.inf] * (len(column.attempts) - len(column.reached))
    values = column.column.figures[figure].values if figure in column.column.figures else ()
    if figure == BYTES:
        return min(values, default=math.inf if not column.reached else None)
    return statistics.median([*values, *missed])
