"""Show the search of an experiment: the chosen settings, what they cost, and what limits them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from xbench.records.schema import CellRecord
from xbench.report.comparison import MAX_COLUMNS
from xbench.report.declared_cells import read_number
from xbench.report.document import FormattedTable, Section
from xbench.report.rows import show_metric
from xbench.report.settings import ABSENT, show_value
from xbench.report.space_edges import format_number, is_number
from xbench.report.tuning import TunedColumn, Tuning, read_score
from xbench.text import pluralize
from xbench.units import format_budget, format_seconds

TRIAL_COLUMNS = (
    *("experiment", "column", "trial", "values", "score", "is_chosen"),
    *("status", "reason", "closures", "training_s", "cell_id"),
)

_SEARCHES = {"grid": "grid search", "quasi-random": "quasi-random search", "tpe": "search by TPE"}

# How a trial without a score ended, after "2 of 8 trials".
_ENDS = {
    "oom": "ran out of memory",
    "diverged": "diverged",
    "timeout": "timed out",
    "error": "ended with an error",
    "done": "ended without a score",
}


def make_tuning_section(title: str, tuning: Tuning) -> Section:
    """Make the section of a search.

    Args:
        title: title of the experiment.
    """
    return Section(
        f"{title}: tuning",
        (describe_search(tuning),),
        (make_tuning_table(tuning),),
        findings=describe_findings(tuning),
        notes=describe_notes(tuning),
    )


def describe_search(tuning: Tuning) -> str:
    """Say how settings were searched, by what, and at what price."""
    search = tuning.search
    budget = format_budget(search.budget, search.budget_unit)
    aim = "highest" if search.direction == "max" else "lowest"
    return (
        f"{_SEARCHES[search.search]} for the {aim} {tuning.metric.title}; "
        f"budget of each optimizer: {budget}; seed of all trials: {search.seed}"
    )


def make_tuning_table(tuning: Tuning) -> FormattedTable:
    """Make a table of the chosen settings and of what was spent, which is turned with many optimizers.

    Keys of settings are `values.NAME`.
    """
    settings = dict.fromkeys(
        name
        for column in tuning.columns
        for name in (column.chosen.values if column.chosen else column.space)
    )
    lines = {
        f"values.{name}": (name.replace("_", " "), *(_show_chosen(column, name) for column in tuning.columns))
        for name in settings
    }
    lines |= {
        "score": (
            f"best {tuning.metric.title}",
            *(_show_score(tuning, column) for column in tuning.columns),
        ),
        "succeeded": ("trials that succeeded", *_show(tuning, lambda column: f"{column.succeeded:,}")),
        "failed": ("trials that failed", *_show(tuning, _show_failures)),
        "closures": ("closures of all trials", *_show(tuning, lambda column: f"{column.closures:,}")),
        "training_s": (
            "training time of all trials",
            *_show(tuning, lambda column: format_seconds(column.training_s)),
        ),
    }
    is_turned = len(tuning.columns) > MAX_COLUMNS
    header = ("optimizer" if is_turned else "", *(column.name for column in tuning.columns))
    table = FormattedTable(header, tuple(lines.values()), tuple(lines))
    return table.transpose() if is_turned else table


def describe_findings(tuning: Tuning) -> tuple[str, ...]:
    """Say which trials failed, and which chosen settings another search might replace."""
    return tuple(text for column in tuning.columns for text in _find(tuning, column))


def _find(tuning: Tuning, column: TunedColumn) -> Iterator[str]:
    if column.failures:
        ended = ", ".join(f"{count:,} {_ENDS[status]}" for status, count in column.failures.items())
        first, _, rest = ended.partition(" ")
        yield f"{column.name}: {first} of {pluralize(len(column.trials), 'trial')} {rest}"
    if column.trials and column.chosen is None:
        yield f"{column.name}: no trial succeeded, so there are no settings to run with"
    for edge in column.edges:
        yield f"{column.name}: {edge.text}"
    if tie := column.near_tie:
        gap, typical = (show_metric(tuning.metric, value) for value in (tie.gap, tie.typical))
        yield (
            f"{column.name}: trials {tie.trials[0]} and {tie.trials[1]}, the best two, differ by {gap}, less "
            f"than two seeds typically do ({typical})"
        )


def describe_notes(tuning: Tuning) -> tuple[str, ...]:
    """Say how to read the section."""
    return tuple(_note(tuning))


def _note(tuning: Tuning) -> Iterator[str]:
    yield (
        f"trials are compared by {tuning.metric.title} of one seed, and have no test metrics; failed trials "
        "count towards the budget"
    )
    if tuning.untuned:
        have = "has" if len(tuning.untuned) == 1 else "have"
        yield f"not tuned: {', '.join(tuning.untuned)}, which {have} the settings of the suite"
    for column in tuning.columns:
        for reason in dict.fromkeys(trial.reason for trial in column.skipped):
            count = sum(trial.reason == reason for trial in column.skipped)
            yield f"{column.name}: {pluralize(count, 'trial')} skipped: {reason}"
        if column.chosen is not None and not column.chosen.is_final:
            yield f"{column.name}: the settings are the best so far; no cell has run with them yet"
        if column.missing:
            missing = pluralize(column.missing, "trial")
            yield f"{column.name}: {missing} of its search are not in the records of this run"
        if column.untimed:
            yield (
                f"{column.name}: the training time of {pluralize(column.untimed, 'trial')} is not known and "
                "is not included"
            )


def _show(tuning: Tuning, show: Callable[[TunedColumn], str]) -> Iterator[str]:
    """Show a sum over the trials of each column, unless they are in the records of another run."""
    return (show(column) if column.trials or not column.missing else ABSENT for column in tuning.columns)


def _show_chosen(column: TunedColumn, setting: str) -> str:
    if column.chosen is None or setting not in column.chosen.values:
        return ABSENT
    value = column.chosen.values[setting]
    return format_number(value) if is_number(value) else show_value(value)


def _show_score(tuning: Tuning, column: TunedColumn) -> str:
    if column.chosen is None:
        return ABSENT
    score = column.chosen.score
    shown = ABSENT if score is None else show_metric(tuning.metric, score)
    return f"{shown} (trial {column.chosen.trial})"


def _show_failures(column: TunedColumn) -> str:
    ended = ", ".join(f"{count:,} {status}" for status, count in column.failures.items())
    total = len(column.trials) - column.succeeded
    return f"{total:,} ({ended})" if ended else f"{total:,}"


def describe_tuning(tuning: Tuning) -> dict[str, Any]:
    """Write a search as numbers and text, for JSON."""
    return {
        **tuning.search.model_dump(),
        "columns": [_describe_column(column) for column in tuning.columns],
        "findings": describe_findings(tuning),
        "notes": describe_notes(tuning),
    }


def _describe_column(column: TunedColumn) -> dict[str, Any]:
    chosen, curve, tie = column.chosen, column.best_of, column.near_tie
    return {
        "column": column.name,
        "trial": chosen and chosen.trial,
        "values": chosen and chosen.values,
        "score": chosen and chosen.score,
        "is_final": chosen is not None and chosen.is_final,
        "trials": len(column.trials),
        "succeeded": column.succeeded,
        "failed": column.failures,
        "closures": column.closures,
        "training_s": column.training_s,
        "untimed_trials": column.untimed,
        "missing_trials": column.missing,
        "edges": [
            {
                "setting": edge.setting,
                "value": edge.value,
                "low": edge.low,
                "high": edge.high,
                "end": edge.end,
            }
            for edge in column.edges
        ],
        "near_tie": tie and {"trials": tie.trials, "gap": tie.gap, "typical": tie.typical},
        "best_of": {
            "is_expected": curve.is_expected,
            "trials": curve.trials,
            "score": curve.score,
            "low": curve.low,
            "high": curve.high,
        },
    }


def list_trial_rows(experiment: str, tuning: Tuning | None) -> list[dict[str, Any]]:
    """Write a row for each trial, for JSON, CSV and frames. Its fields are `TRIAL_COLUMNS`; `values` is a
    mapping."""
    columns = tuning.columns if tuning is not None else ()
    return [
        _describe_trial(experiment, column, trial)
        for column in columns
        for trial in sorted((*column.trials, *column.skipped), key=read_number)
    ]


def _describe_trial(experiment: str, column: TunedColumn, trial: CellRecord) -> dict[str, Any]:
    number = read_number(trial)
    return {
        "experiment": experiment,
        "column": column.name,
        "trial": number,
        "values": trial.trial.values if trial.trial is not None else {},
        "score": read_score(trial),
        "is_chosen": column.chosen is not None and column.chosen.is_final and column.chosen.trial == number,
        "status": trial.status,
        "reason": trial.reason,
        "closures": trial.closures,
        "training_s": trial.time.training_s,
        "cell_id": trial.cell_id,
    }
