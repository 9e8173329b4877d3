"""The keys of a suite file, except training settings, which are checked when the grid is expanded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    field_validator,
)
from pydantic_core import PydanticCustomError

from xbench.errors import XbenchError
from xbench.training.settings import Storage
from xbench.units import DeviceChoice, Limit, parse_device, parse_duration, parse_limit

# Without dots, which separate the parts of a `--set` key.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
# A suite's name becomes the name of a folder, whose length file systems limit.
MAX_NAME_LENGTH = 100

# A cell takes a second or more: a suite with more cells than these has a mistake in an axis or in `seeds`.
MAX_CELLS = 10_000


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


class OptimizerTable(Table):
    """An optimizer of an experiment. Keys that are training settings override the experiment's.

    Attributes:
        label: the column's title, needed if the same optimizer appears more than once.
        rest: for an optimizer of hidden matrices (`muon`): the optimizer of all other parameters, as a name
            or a table with its settings; `"adamw"` by default. A list is an axis.
        adapt, expect: overrides the experiment's value.
    """

    label: str | None = Field(None, pattern=r"^\S+$", max_length=MAX_NAME_LENGTH)
    rest: OneOrMore[Table] | None = None
    adapt: Adapt | None = None
    expect: Literal["oom"] | None = None


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
        adapt: the settings that may be reduced, in this order, if a cell does not fit into memory.
        expect: `"oom"` for cells that are meant to run out of memory. Such a cell fails if it does not.
        memory_limit: the memory that each cell of the experiment may take, such as `"12GB"`, `"12GiB"` or
            `"50%"`. The suite's limit applies as well.
        timeout: overrides the suite's `timeout` for these cells, such as `"90s"`, `"15m"` or `"2h"`.
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
    adapt: Adapt = Field(default_factory=list)
    expect: Literal["oom"] | None = None
    memory_limit: MemoryLimit | None = None
    timeout: Seconds | None = None


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
        seeds: the number of seeds (counted from 0), or a list of seeds. Each cell runs once for each seed.
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
    seeds: (
        Annotated[int, Field(strict=True, ge=1, le=MAX_CELLS)]
        | Annotated[list[Annotated[int, Field(strict=True, ge=0)]], Field(min_length=1, max_length=MAX_CELLS)]
    ) = 1
    memory_limit: MemoryLimit | None = None
    time_limit: Seconds | None = None
    timeout: Seconds | None = None
    checkpoint_interval: Seconds = 60.0
    baseline: str | None = Field(None, min_length=1)
    device: Device = DeviceChoice()

    @field_validator("seeds")
    @classmethod
    def _check_seeds_are_unique(cls, value: int | list[int]) -> int | list[int]:
        if isinstance(value, list) and len(set(value)) < len(value):
            raise ValueError("'seeds' lists a seed twice")
        return value

    @property
    def seed_list(self) -> list[int]:
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)


class SuiteFile(BaseModel):
    """A whole suite file. Its tables are validated one by one, as `Header` and `Experiment`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: dict[str, Any]
    experiment: list[dict[str, Any]] = Field(min_length=1)
