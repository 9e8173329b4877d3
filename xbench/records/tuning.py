"""The records of a search for an optimizer's settings."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from xbench.records.base import CellId, Record, Whole


class RangeRecord(Record):
    """The values of a setting that a search may choose.

    Attributes:
        low, high: ends of a range, both included; None if `choices` lists the values.
        scale: `"log"` if the search spreads its values evenly over the logarithm.
        integer: whether only whole numbers are chosen.
        choices: the values, if they are listed.
    """

    low: float | None = None
    high: float | None = None
    scale: Literal["linear", "log"] = "linear"
    integer: bool = False
    choices: list[Any] = Field(default_factory=list)


class SearchRecord(Record):
    """How the settings of an experiment's optimizers were searched.

    Attributes:
        search: how the settings of trials were chosen.
        budget: what each column may spend: a number of trials, of gradient evaluations, or of seconds of
            training.
        metric: name of the metric of an epoch by which trials are compared, measured on validation rows.
        direction: whether low or high values are better.
        seed: the seed of all trials, which no other cell of the experiment has.
        spaces: the values that each column searched: column -> setting -> range.
    """

    search: Literal["grid", "quasi-random", "tpe"]
    budget: float
    budget_unit: Literal["trials", "closures", "seconds"] = "trials"
    metric: str
    direction: Literal["max", "min"]
    seed: Whole
    spaces: dict[str, dict[str, RangeRecord]] = Field(default_factory=dict)


class TrialRecord(Record):
    """The place of a cell among the trials of a search.

    Attributes:
        number: number of the trial within its column, from 1.
        values: the settings that the search chose, by name.
        score: value of the search's metric at the selected epoch; None if the trial failed.
    """

    number: Whole
    values: dict[str, Any]
    score: float | None = None


class TunedRecord(Record):
    """The settings that a cell has from the best trial of a search.

    Attributes:
        trial: number of the trial.
        values: the settings, by name.
        trials: cell IDs of all trials of the search, in order; empty if they are not known. Columns may share
            trials, whose records have the names of one of them.
    """

    trial: Whole
    values: dict[str, Any]
    trials: list[CellId] = Field(default_factory=list)
