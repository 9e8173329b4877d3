"""Make the performance profiles of a run whose experiments have targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xbench.report.comparison import Comparison
from xbench.report.document import UNRANKED
from xbench.report.figure import Figure, Series
from xbench.report.figure_notes import join_notes, list_some
from xbench.report.loss_figures import MAX_LINES
from xbench.report.profiles import (
    BYTES,
    MAX_TAU,
    MIN_PROBLEMS,
    Problem,
    Profile,
    list_problems,
    make_profiles,
)
from xbench.report.target_tables import describe_interval
from xbench.report.targets import TargetComparison

_METHOD = (
    "The height of a line is the share of problems whose target the optimizer reaches with at most so many "
    "times the least of all optimizers (Dolan and Moré 2002). A target that is not reached counts as "
    "infinitely far, and a problem's figure is the median over its seeds. Scores are means of the lines from "
    f"1 to {MAX_TAU:g}, as in AlgoPerf (Dahl et al. 2023)."
)


@dataclass(frozen=True)
class _Cost:
    key: str
    figure: str
    title: str
    is_time: bool = False


_COSTS = (
    _Cost("profile-time", "training_s_to_target", "training time", is_time=True),
    _Cost("profile-closures", "closures_to_target", "gradient evaluations"),
    _Cost("profile-bytes", BYTES, "memory limit"),
)


def make_profile_figures(comparisons: Sequence[Comparison]) -> Iterator[Figure]:
    """Make the profiles of a run with at least `MIN_PROBLEMS` targets; none without.

    The figures are about the whole run, so that their `experiment` is "".
    """
    found = [(c.target, c.experiment.name) for c in comparisons if c.target is not None]
    problems = list_problems([target for target, _ in found], [name for _, name in found])
    if len(problems) < MIN_PROBLEMS:
        return
    notes = _note_test_rows(found), _note_resolution(problems)
    for cost in _COSTS:
        if cost.figure == BYTES and not all(target.target.bytes for target, _ in found):
            continue
        profiles, others = make_profiles(problems, cost.figure)
        if len(profiles) > 1:
            yield _make_figure(cost, problems, profiles, others, notes)


def _note_test_rows(compared: Sequence[tuple[TargetComparison, str]]) -> str:
    names = [name for target, name in compared if target.target.on_test]
    if not names:
        return ""
    return (
        f"Targets on the test rows, which decide what counts as reached: {list_some(names)}. They say "
        "nothing about unseen data."
    )


def _note_resolution(problems: Sequence[Problem]) -> str:
    """Name the problems whose optimizers were not evaluated alike."""
    names = []
    for problem in problems:
        records = [record for column in problem.columns.values() for record in column.column.records]
        if len({text for record in records if (text := describe_interval(record))}) > 1:
            names.append(problem.name)
    if not names:
        return ""
    return (
        "A target is noticed at the next evaluation, and optimizers were evaluated at different intervals "
        f"on: {list_some(names)}."
    )


def _make_figure(
    cost: _Cost,
    problems: Sequence[Problem],
    profiles: Sequence[Profile],
    others: Sequence[str],
    notes: Sequence[str],
) -> Figure:
    unranked = _find_unranked(problems) if cost.is_time else {}
    drawn = profiles[:MAX_LINES]
    series = tuple(
        Series(
            f"{profile.optimizer} {UNRANKED}" if profile.optimizer in unranked else profile.optimizer,
            *profile.draw(),
            is_ranked=profile.optimizer not in unranked,
        )
        for profile in drawn
    )
    scores = "; ".join(f"{profile.optimizer} {profile.score:.3f}" for profile in drawn)
    why = [f"{name}, because {reason}" for name, reason in unranked.items()]
    return Figure(
        key=cost.key,
        experiment="",
        title=f"Performance profile: {cost.title} to the target",
        subtitle=f"{len(problems)} problems: {list_some([problem.name for problem in problems])}",
        kind="lines",
        x_label=f"{cost.title} to the target, as a multiple of the least",
        y_label="share of problems",
        series=series,
        note=join_notes(
            _METHOD,
            f"Scores: {scores}.",
            f"The first {len(drawn)} of {len(profiles)} optimizers are drawn."
            if len(profiles) > len(drawn)
            else "",
            *notes,
            f"Not drawn, because they did not run on all problems: {list_some(others)}." if others else "",
            f"{UNRANKED} Times that must not be ranked: {list_some(why)}." if why else "",
        ),
    )


def _find_unranked(problems: Sequence[Problem]) -> dict[str, str]:
    """Find the optimizers of which some time must not be ranked, each with the first reason."""
    found: dict[str, str] = {}
    for problem in problems:
        for name, column in problem.columns.items():
            if column.column.unranked_time:
                found.setdefault(name, column.column.unranked_time)
    return found
