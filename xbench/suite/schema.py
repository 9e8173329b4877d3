"""The keys of a suite file. Training settings are checked when the grid is expanded, cell by cell."""

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

# No dots: they separate the parts of a `--set` key.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
# A suite's name becomes a folder's, and systems have limits for these.
NAME_LENGTH = 100

# Every cell takes a second or more: a suite with more of them has a slip in an axis or in `seeds`.
MAX_CELLS = 10_000


def as_list(value: Any) -> list[Any]:
    """One thing stands for a list of it."""
    return value if isinstance(value, list) else [value]


def as_table(value: Any) -> Any:
    """`"report-cnn"` stands for `{ name = "report-cnn" }`."""
    return {"name": value} if isinstance(value, str) else value


TableT = TypeVar("TableT")
NamedTable = Annotated[TableT, BeforeValidator(as_table)]
OneOrMore = Annotated[list[NamedTable[TableT]], BeforeValidator(as_list), Field(min_length=1)]


def _parse_with(parse: Callable[[str], Any]) -> PlainValidator:
    """Return a validator that reads a text. A bare number is read as one, too: it lacks its unit."""

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

# What may give way where a cell does not fit.
Adaptable = Literal["micro_batch", "history_size", "train_size"]


def _names_each_once(value: list[str]) -> list[str]:
    if len(set(value)) < len(value):
        raise ValueError(f"{', '.join(value)}: one of them stands twice in 'adapt'")
    return value


Adapt = Annotated[list[Adaptable], AfterValidator(_names_each_once)]


class Table(BaseModel):
    """A component. Its own settings are further keys.

    Attributes:
        name: a registered name or `module:attribute`; a list is an axis of the grid.
        params: settings of the component, for those whose names are also keys of a suite.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str | Annotated[list[str], Field(min_length=1)]
    params: dict[str, Any] = Field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return self.name if isinstance(self.name, list) else [self.name]

    @property
    def settings(self) -> dict[str, Any]:
        """The component's own settings, whichever way they were given."""
        return {**(self.model_extra or {}), **self.params}


class OptimizerTable(Table):
    """An optimizer of an experiment. Keys that are training settings override the experiment's.

    Attributes:
        label: the column's title, where the same optimizer stands more than once.
        adapt, expect: replace the experiment's.
    """

    label: str | None = Field(None, pattern=r"^\S+$", max_length=NAME_LENGTH)
    adapt: Adapt | None = None
    expect: Literal["oom"] | None = None


class DatasetTable(Table):
    """A dataset.

    Attributes:
        fallback: the dataset to run on where this one is not on the machine; every table then says so.
        strict: stop at unreadable images instead of leaving them out.
        storage: `"uint8"` reads images as they are needed; `"float32"` keeps all of them in memory as floats
            (of the training's dtype), as a notebook would.
    """

    fallback: NamedTable[Table] | None = None
    strict: bool = False
    storage: Storage = "uint8"


class Reference(BaseModel):
    """Figures of an earlier work, printed beside ours.

    Attributes:
        name: the work's name, for column titles.
        note: what a reader must know to compare.
        columns: a table for each column, of values by the names of metrics.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    note: str = ""
    columns: dict[str, dict[str, Annotated[float, Field(allow_inf_nan=False)]]]


class Experiment(BaseModel):
    """One comparison. Further keys are training settings (see `TrainingSettings`).

    Attributes:
        name: the experiment's name: letters, digits, `-` and `_`.
        title: the title of its table; by default the name.
        model, dataset, optimizer: a name, a table, or a list of these.
        reference: figures of an earlier work.
        adapt: what may give way, and in which order, where a cell does not fit into memory.
        expect: `"oom"` for cells that are meant to run out of memory: such a cell fails if it does not.
        memory_limit: the most that each of these cells may take, such as `"12GB"`, `"12GiB"` or `"50%"`; the
            suite's limit holds as well.
        timeout: replaces the suite's for these cells, such as `"90s"`, `"15m"` or `"2h"`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(pattern=NAME_PATTERN, max_length=NAME_LENGTH)
    title: str = ""
    model: OneOrMore[Table]
    dataset: OneOrMore[DatasetTable]
    optimizer: OneOrMore[OptimizerTable]
    reference: Reference | None = None
    adapt: Adapt = Field(default_factory=list)
    expect: Literal["oom"] | None = None
    memory_limit: MemoryLimit | None = None
    timeout: Seconds | None = None


class Header(BaseModel):
    """The `[suite]` table.

    Attributes:
        name: the name of the suite and of its folder of results: letters, digits, `-` and `_`.
        seeds: how many seeds (from 0), or a list of them. Each cell runs once for each seed.
        memory_limit: the most that a cell may take, such as `"12GB"`, `"12GiB"` or `"50%"` of all memory.
        time_limit: the most that a run may take, such as `"90s"`, `"15m"` or `"2h"`. Cells that by their
            estimates would not end in time are skipped.
        timeout: the most that a cell may take. One that takes longer is ended, and its status is `timeout`.
        checkpoint_interval: the time between two checkpoints of a cell.
        device: where cells train: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:1"`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=NAME_PATTERN, max_length=NAME_LENGTH)
    seeds: (
        Annotated[int, Field(strict=True, ge=1, le=MAX_CELLS)]
        | Annotated[list[Annotated[int, Field(strict=True, ge=0)]], Field(min_length=1, max_length=MAX_CELLS)]
    ) = 1
    memory_limit: MemoryLimit | None = None
    time_limit: Seconds | None = None
    timeout: Seconds | None = None
    checkpoint_interval: Seconds = 60.0
    device: Device = DeviceChoice()

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, value: int | list[int]) -> int | list[int]:
        if isinstance(value, list) and len(set(value)) < len(value):
            raise ValueError("a seed stands twice in 'seeds'")
        return value

    @property
    def seed_list(self) -> list[int]:
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)


class SuiteFile(BaseModel):
    """A whole file; its tables are validated one by one, as `Header` and `Experiment`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: dict[str, Any]
    experiment: list[dict[str, Any]] = Field(min_length=1)
