"""The keys of a suite file, except training settings, which are checked when the grid is expanded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from xbench.errors import XbenchError
from xbench.suite.seeds import Seeds, SeedTable, check_seeds, list_seeds
from xbench.training.settings import SeedParts, Storage
from xbench.tuning.plan import MAX_TRIALS, Budget, SearchName
from xbench.units import DeviceChoice, Limit, parse_device, parse_duration, parse_limit

# Without dots, which separate the parts of a `--set` key.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
# A suite's name becomes the name of a folder, whose length file systems limit.
MAX_NAME_LENGTH = 100


def as_list(value: Any) -> list[Any]:
    """Wrap a value in a list, unless it is one."""
    return value if isinstance(value, list) else [value]


def as_table(value: Any) -> Any:
    """Turn a bare name such as `"report-cnn"` into the table `{ name = "report-cnn" }`."""
    return {"name": value} if isinstance(value, str) else value


TableT = TypeVar("TableT")
NamedTable = Annotated[TableT, BeforeValidator(as_table)]
OneOrMore = Annotated[list[NamedTable[TableT]], BeforeValidator(as_list), Field(min_length=1)]


def _parse_with(parse: Callable[[str], Any]) -> PlainValidator:
    """Return a validator that parses a string.

    A bare number is also passed on as a string, so that the error is about the missing unit.
    """

    def validate(value: Any) -> Any:
        if type(value) in (int, float):
            value = str(value)
        if not isinstance(value, str):
            raise PydanticCustomError("string_type", "Input should be a valid string")
        try:
            return parse(value)
        except XbenchError as error:
            raise ValueError(f"{error.message}: {error.hint}") from error

    return PlainValidator(validate, json_schema_input_type=str)


MemoryLimit = Annotated[Limit, _parse_with(parse_limit)]
Seconds = Annotated[float, _parse_with(parse_duration)]
Device = Annotated[DeviceChoice, _parse_with(parse_device)]

# The settings that may be reduced if a cell does not fit into memory.
Adaptable = Literal["micro_batch", "history_size", "train_size"]


def _check_unique(value: list[str]) -> list[str]:
    if len(set(value)) < len(value):
        raise ValueError(f"'adapt' lists a setting twice: {', '.join(value)}")
    return value


Adapt = Annotated[list[Adaptable], AfterValidator(_check_unique)]

# Names a setting of training, or of a component that is not known yet.
Along = Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH)]


class Table(BaseModel):
    """A component. Its own settings are further keys of the table.

    Attributes:
        name: a registered name or `module:attribute`; a list is an axis of the grid.
        params: settings of the component whose names are also keys of a suite.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str | Annotated[list[str], Field(min_length=1)]
    params: dict[str, Any] = Field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return self.name if isinstance(self.name, list) else [self.name]

    @property
    def settings(self) -> dict[str, Any]:
        """The component's own settings, whether they were given as keys of the table or under `params`."""
        return {**(self.model_extra or {}), **self.params}


def _check_ranges(value: Any) -> Any:
    """Check that the `tune` of an optimizer is a table, or false; its ranges are checked later."""
    if value is not None and value is not False and not (isinstance(value, dict) and value):
        raise ValueError("'tune' of an optimizer should be a table of settings to search, or false")
    return value


class OptimizerTable(Table):
    """An optimizer of an experiment. Keys that are training settings override the experiment's.

    Attributes:
        label: the column's title, needed if the same optimizer appears more than once.
        rest: for an optimizer of hidden matrices (`muon`): the optimizer of all other parameters, as a name
            or a table with its settings; `"adamw"` by default. A list is an axis.
        adapt, expect, along: overrides the experiment's value.
        tune: the settings to search and their values, if the experiment has a `tune`: for each setting a
            table with `low`, `high` and perhaps `scale = "log"`, or a list of choices; `rest` is a table of
            such settings. By default, it is the search space of the optimizer's spec, without the settings
            that the suite sets. `false` for an optimizer that is not tuned.
    """

    label: str | None = Field(None, pattern=r"^\S+$", max_length=MAX_NAME_LENGTH)
    rest: OneOrMore[Table] | None = None
    adapt: Adapt | None = None
    expect: Literal["oom"] | None = None
    tune: Annotated[dict[str, Any] | Literal[False] | None, BeforeValidator(_check_ranges)] = None
    along: Along | None = None


class DatasetTable(Table):
    """A dataset.

    Attributes:
        fallback: the dataset to use if this one is not on the machine. Every table then says so.
        strict: whether unreadable images are an error; otherwise they are left out.
        storage: `"uint8"` reads images as they are needed; `"float32"` keeps all of them in memory as floats
            (of the training's `dtype`), as a notebook would.
    """

    fallback: NamedTable[Table] | None = None
    strict: bool = False
    storage: Storage = "uint8"


class Reference(BaseModel):
    """Results of earlier work, printed beside those of the run.

    Attributes:
        name: the name of the earlier work, for column titles.
        note: what a reader must know to compare the results.
        columns: a table for each column, with the value of each metric by its name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    note: str = ""
    columns: dict[str, dict[str, Annotated[float, Field(allow_inf_nan=False)]]]


class Tune(BaseModel):
    """A search for the settings of each column, by trials that are compared on validation rows.

    Exactly one of `trials`, `closures` and `time` is the budget of each column.

    Attributes:
        search: how the settings of trials are chosen: `"quasi-random"` (the same points for all optimizers
            that have equally many settings to search), `"grid"` (evenly spaced), or `"tpe"` (by the scores of
            earlier trials, with optuna).
        trials: number of trials.
        closures: number of gradient evaluations of all trials together.
        time: the time that all trials together may train, such as `"10m"`.
        metric: the metric of an epoch by which trials are compared. It must be measured on validation rows.
        seed: the seed of all trials, which must not be one of the suite's seeds. By default it is 10,000, or
            the next number that is not one of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    search: SearchName = "quasi-random"
    trials: Annotated[int, Field(strict=True, ge=1, le=MAX_TRIALS)] | None = None
    closures: Annotated[int, Field(strict=True, ge=1)] | None = None
    time: Seconds | None = None
    metric: str = Field("validation_loss", min_length=1)
    seed: Annotated[int, Field(strict=True, ge=0)] | None = None

    @model_validator(mode="after")
    def _check_budget(self) -> Self:
        if sum(budget is not None for budget in (self.trials, self.closures, self.time)) != 1:
            raise ValueError("'tune' needs exactly one budget: trials = 8, closures = 20_000 or time = '10m'")
        if self.search == "grid" and self.trials is None:
            raise ValueError("search = 'grid' needs a number of trials: set trials instead of another budget")
        return self

    @property
    def budget(self) -> Budget:
        if self.trials is not None:
            return Budget(self.trials, "trials")
        if self.closures is not None:
            return Budget(self.closures, "closures")
        return Budget(self.time or 0.0, "seconds")


class Target(BaseModel):
    """A quality that optimizers are to reach: a table then shows what each of them needs until then.

    Attributes:
        metric: name of a metric that is measured on the validation rows after each epoch, such as
            `"validation_accuracy"`. `evaluate_every` measures it more often.
        value: the target: the metric is to be as good as this, or better.
        within: in place of `value`: the target is worse by this share than the best value that any cell of
            the experiment with the same dataset and seed, and so with the same validation rows, has reached
            at any time. Within 0.01 of a loss of 0.2 is 0.202, and within 0.01 of an accuracy of 0.95 is
            0.9405.
        on_test: allows the metric to be `"test_loss"`, which is measured if `selection` is, too. The test
            rows then decide what counts as reached, and the table says so.
        bytes: whether to search, for each optimizer, the smallest memory limit under which one of its seeds
            still reaches the target, with the sizes that `adapt` names, which it needs. It takes at most five
            more trainings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str = Field(min_length=1)
    value: Annotated[float, Field(strict=True, allow_inf_nan=False)] | None = None
    within: Annotated[float, Field(strict=True, gt=0, lt=1)] | None = None
    on_test: Annotated[bool, Field(strict=True)] = False
    bytes: Annotated[bool, Field(strict=True)] = False

    @model_validator(mode="after")
    def _check_level(self) -> Self:
        if (self.value is None) == (self.within is None):
            have = "neither 'value' nor" if self.value is None else "both 'value' and"
            raise ValueError(f"the target has {have} 'within', and needs one of them")
        return self


class Experiment(BaseModel):
    """One comparison. Further keys are training settings (see `TrainingSettings`).

    Attributes:
        name: the experiment's name: letters, digits, `-` and `_`.
        title: the title of the experiment's table; by default its name.
        model, dataset, optimizer: a name, a table, or a list of these.
        problem: the name of a problem, which is both the model and the dataset: `"module:attribute"` of an
            `xbench.Problem`, or the name of one that was registered. Tables of `model` and `dataset` without
            a name hold its settings.
        reference: results of earlier work.
        baseline: the column that findings compare the others with, by its title or its optimizer. By default
            it is the suite's `baseline`, or the first column of an experiment that has no such column.
        target: the quality to which a second table compares the optimizers, see below.
        adapt: the settings that may be reduced, in this order, if a cell does not fit into memory.
        expect: `"oom"` for cells that are meant to run out of memory. Such a cell fails if it does not.
        equal: `"memory"` gives every optimizer the same memory, the `memory_limit`, and the largest value of
            the setting `along` that fits it.
        along: this setting: `"batch_size"`, `"history_size"`, `"train_size"`, or a setting of the model or
            the dataset that can be scaled, such as `"width"`.
        memory_limit: the memory that each cell of the experiment may take, such as `"12GB"`, `"12GiB"` or
            `"50%"`. The suite's limit applies as well.
        timeout: overrides the suite's `timeout` for these cells, such as `"90s"`, `"15m"` or `"2h"`.
        tune: how the settings of its optimizers are searched before its cells run; see
            `[experiment.tune]`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(pattern=NAME_PATTERN, max_length=MAX_NAME_LENGTH)
    title: str = ""
    model: OneOrMore[Table]
    dataset: OneOrMore[DatasetTable]
    optimizer: OneOrMore[OptimizerTable]
    problem: str | None = None
    reference: Reference | None = None
    baseline: str | None = Field(None, min_length=1)
    target: Target | None = None
    adapt: Adapt = Field(default_factory=list)
    expect: Literal["oom"] | None = None
    equal: Literal["memory"] | None = None
    along: Along | None = None
    memory_limit: MemoryLimit | None = None
    timeout: Seconds | None = None
    tune: Tune | None = None


def expand_problem(table: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment with the model and the dataset that its `problem` names, if it names one."""
    problem = table.get("problem")
    if not isinstance(problem, str):
        return table
    return {**table, **{key: _name_tables(table.get(key, {}), problem) for key in ("model", "dataset")}}


def _name_tables(value: Any, name: str) -> Any:
    """Give a name to the tables that have none, of which there may be one or a list."""
    if isinstance(value, list):
        return [_name_tables(item, name) for item in value]
    return {"name": name, **value} if isinstance(value, dict) else value


class Header(BaseModel):
    """The `[suite]` table.

    Attributes:
        name: the name of the suite and of its folder of results: letters, digits, `-` and `_`.
        seeds: the number of seeds (counted from 0), or a list of seeds. Each cell runs once for each seed. A
            table `{ weights = 3, split = 1, order = 5 }` varies the parts of a seed apart: each is a number
            or a list, 0 by default, and each cell runs once for each combination.
        memory_limit: the memory that a cell may take, such as `"12GB"`, `"12GiB"` or `"50%"` (of the memory
            that the machine allows).
        time_limit: the time that a run may take, such as `"90s"`, `"15m"` or `"2h"`. Cells that are not
            expected to finish in time are skipped.
        timeout: the time that a cell may take. A cell that takes longer is stopped, with status `timeout`.
        checkpoint_interval: the minimum time between two checkpoints of a cell.
        baseline: the column that findings compare the others with, in every experiment that has it and does
            not set its own.
        device: the device to train on: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:1"`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=NAME_PATTERN, max_length=MAX_NAME_LENGTH)
    seeds: Seeds | SeedTable = 1
    memory_limit: MemoryLimit | None = None
    time_limit: Seconds | None = None
    timeout: Seconds | None = None
    checkpoint_interval: Seconds = 60.0
    baseline: str | None = Field(None, min_length=1)
    device: Device = DeviceChoice()

    @field_validator("seeds")
    @classmethod
    def _check_seeds(cls, value: int | list[int] | SeedTable) -> int | list[int] | SeedTable:
        check_seeds(value)
        return value

    @property
    def seed_parts(self) -> dict[int, SeedParts] | dict[int, None]:
        """The seeds, or the numbers of combinations, and their parts; None if the parts are equal."""
        if isinstance(self.seeds, SeedTable):
            return self.seeds.combinations
        return dict.fromkeys(list_seeds(self.seeds))

    @property
    def seed_list(self) -> list[int]:
        return list(self.seed_parts)


class SuiteFile(BaseModel):
    """A whole suite file. Its tables are validated one by one, as `Header` and `Experiment`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: dict[str, Any]
    experiment: list[dict[str, Any]] = Field(min_length=1)
