"""Define what a suite declares: its cells, and the components with their settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from xbench.suite.axes import Searched, Value
from xbench.suite.lines import KeyPath
from xbench.suite.schema import Adaptable
from xbench.training.settings import Choice, SeedParts, Storage, TrainingSettings
from xbench.tuning.plan import SearchPlan
from xbench.units import Limit

ChoiceT = TypeVar("ChoiceT")


@dataclass(frozen=True)
class DatasetChoice:
    """The dataset of a cell.

    Attributes:
        chosen: the dataset that the suite asks for.
        fallback: the dataset to use if `chosen` is not on the machine; None if there is none.
        strict: whether unreadable images are an error.
        storage: how images are kept in memory.
    """

    chosen: Choice
    fallback: Choice | None
    strict: bool
    storage: Storage = "uint8"

    @property
    def name(self) -> str:
        return self.chosen.name


@dataclass(frozen=True)
class Cell:
    """One training run, as the suite declares it.

    Attributes:
        column: the title of the cell's column: the optimizer's label, and the values that vary.
        path: key path of the optimizer's table, where mistakes of the cell are reported.
        adapt: the settings that may be reduced, in this order, if the cell does not fit into memory.
        expect: `"oom"` if the cell is meant to run out of memory.
        memory_limits: the limits of the suite and the experiment, without a limit that another one implies.
        along: the setting that has the largest value that fits `memory_limits`, in an experiment that gives
            all optimizers equal memory; "" in others.
        along_path: the key path of this choice.
        timeout_s: seconds that the cell's process may take; None if there is no timeout.
        seed_parts: the seeds of what is drawn, if the suite varies them apart; None if all are `seed`.
        model_path, dataset_path: key paths of the tables of the model and the dataset.
        values: all component and training settings, each with its key path.
        search: how settings of the optimizer are searched before the cell runs; None if they are not. Until
            then, `optimizer` has the values in the middle of their ranges.
        is_trial: whether this is not a cell of its own, but stands for all trials of its column's search.
    """

    experiment: str
    column: str
    model: Choice
    dataset: DatasetChoice
    optimizer: Choice
    training: TrainingSettings
    seed: int
    path: KeyPath
    adapt: tuple[Adaptable, ...] = ()
    expect: Literal["oom"] | None = None
    memory_limits: tuple[Limit, ...] = ()
    along: str = ""
    along_path: KeyPath = ()
    timeout_s: float | None = None
    seed_parts: SeedParts | None = None
    model_path: KeyPath = ()
    dataset_path: KeyPath = ()
    values: tuple[Value, ...] = ()
    search: SearchPlan | None = None
    is_trial: bool = False

    def where(self, *keys: str) -> KeyPath:
        """Find the key path at which to report a mistake in one or more training settings.

        This is the path of the first setting with an axis, or else of the first one that the suite sets.
        """
        found = {value.key: value for value in self.values if value.kind == "training"}
        of_keys = sorted((found[key] for key in keys if key in found), key=lambda value: not value.is_item)
        return of_keys[0].path if of_keys else (*self.path[:2], keys[0])


@dataclass(frozen=True)
class Declared(Generic[ChoiceT]):
    """A component, or training settings, with one combination of values.

    Attributes:
        path: key path of the table.
        varying: the values that distinguish this combination from the others in column titles.
        values: the settings, each with its key path.
        space: the settings of an optimizer that are searched; `choice` has the values in the middle.
    """

    choice: ChoiceT
    path: KeyPath
    varying: dict[str, Any]
    values: tuple[Value, ...]
    space: dict[str, Searched] = field(default_factory=dict)


@dataclass
class Expansion:
    """The cells and components of a suite.

    Attributes:
        cells: every cell, ordered by experiment, then by seed, then by optimizer, so that an interrupted run
            leaves complete comparisons. The cells that stand for trials come first in their experiment.
        models, optimizers, datasets: every choice, including those whose cells could not be made because of
            other mistakes.
    """

    cells: list[Cell] = field(default_factory=list)
    models: list[Declared[Choice]] = field(default_factory=list)
    optimizers: list[Declared[Choice]] = field(default_factory=list)
    datasets: list[Declared[DatasetChoice]] = field(default_factory=list)
