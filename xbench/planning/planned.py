"""Planned cells: the cells of a suite on this machine, with everything that is needed to run them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from xbench.capacity.axes import resolve_sizes, size_of, with_size
from xbench.capacity.axis import AnyAxis, Axis, ScaledSetting
from xbench.components.code_files import ImportDirs
from xbench.components.search_range import set_values
from xbench.data.features import FeatureFile
from xbench.data.prepared import PreparedData
from xbench.isolation.child import Limits
from xbench.memory.malloc import MallocProfile
from xbench.planning.describe import ModelFacts
from xbench.planning.identity import cell_key
from xbench.planning.machine import Machine
from xbench.planning.resolution import ResolvedData
from xbench.records.memory import MemoryPassRecord
from xbench.records.schema import CellKey, Status
from xbench.records.tuning import TunedRecord
from xbench.suite.cells import Cell
from xbench.training.component_code import hash_code
from xbench.training.job import CellJob
from xbench.training.settings import CellSettings, Choice


@dataclass(frozen=True)
class Fit:
    """The changes to a cell's sizes that make it fit into memory.

    Attributes:
        reasons: for each setting that was changed, by name, the reason.
        found_by: the cache keys of the capacities that were used.
        irreducible: axes of `adapt` on which the model does not allow other sizes.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    found_by: tuple[str, ...] = ()
    irreducible: tuple[Axis, ...] = ()


@dataclass(frozen=True)
class MemoryPlan:
    """The memory that a cell's process needs and may take.

    Attributes:
        limit_bytes: hard limit of the process; None if there is none.
        malloc: settings of malloc. `exact` returns freed blocks to the system at once, for a cell that nearly
            fills its limit.
        measured: result of the memory pass of the cell's configuration; None before the pass.
        pass_s: seconds of the memory pass; None if it was taken for another cell.
    """

    limit_bytes: int | None = None
    malloc: MallocProfile = "fast"
    measured: MemoryPassRecord | None = None
    pass_s: float | None = None


@dataclass(frozen=True)
class TrialPlan:
    """The place of a trial in the search of its column.

    Attributes:
        number: number of the trial, from 1; 0 for the cell that stands for all trials of a column.
        values: the settings that the search chose, by name.
    """

    number: int
    values: dict[str, Any]


@dataclass(frozen=True)
class FeaturePlan:
    """The features that a cell trains on: outputs of the frozen part of its model.

    Attributes:
        file: the file of features; None if the cell trains on the examples themselves.
        note: why the cell trains on examples although a part of the model is frozen; "" otherwise.
        seconds: seconds spent on computing features that were missing.
    """

    file: FeatureFile | None = None
    note: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """The time that a cell is expected to take.

    Attributes:
        seconds: seconds of the cell's process; None if there is no estimate.
        is_rough: whether other programs disturbed the measurement, so that the estimate uses the fastest
            step.
        training_s: seconds of training of the whole run, without preparation and evaluation; None if unknown.
        closures: evaluations of loss and gradient of the whole run; None if unknown.
        features_key: identifies the features that the cell needs, which cells with the same key share; "" if
            it needs none.
        features_s: seconds to compute the missing ones of these features.
        trials_key: identifies the search whose trials the cell needs, which the cells of its column share; ""
            if it needs none.
        trials_s: seconds that the remaining trials take.
    """

    seconds: float | None = None
    is_rough: bool = False
    training_s: float | None = None
    closures: int | None = None
    features_key: str = ""
    features_s: float = 0.0
    trials_key: str = ""
    trials_s: float = 0.0


@dataclass(frozen=True)
class Skip:
    """The decision not to run a cell.

    Attributes:
        status: the status of the cell in the records.
        reason: why the cell is not run.
        waits_for: what the cell lacks now but may have in a later run; see `CellRecord.waits_for`.
    """

    status: Status
    reason: str
    waits_for: str = ""


@dataclass(frozen=True)
class PlannedCell:
    """A cell that is ready to run.

    Attributes:
        declared: the cell as the suite declares it.
        settings: the settings to run with. Fitted sizes are numbers.
        resolved: the dataset of the cell, as it was found on this machine.
        data: the prepared dataset.
        model: the facts about the model.
        available: number of training examples that are available to the cell.
        default_history: the optimizer's default `history_size`; None if it has none.
        peers: the cells of the experiment that determine the size, for `train_size = "largest"`.
        axis: the axis on which the cell gets the largest value that fits its limit; None if it has the sizes
            that the suite gives.
        checkpoint_every_s: minimum seconds between two checkpoints; None for no checkpoints.
        skip: why the cell is not run; None if it is to run.
        identity: the cell's key, if it is computed already.
        memory_free: settings of the optimizer that do not change the memory of a run; see `OptimizerSpec`.
        trial: the place of a trial in its search; None for a cell that is not a trial.
        tuned: the settings that a search found for the cell; None until then, and without a search.
        bytes_trial_of: see `CellRecord`.
    """

    declared: Cell
    settings: CellSettings
    resolved: ResolvedData
    data: PreparedData
    model: ModelFacts
    available: int
    default_history: int | None
    machine: Machine
    import_dirs: ImportDirs
    peers: tuple[str, ...] = ()
    axis: AnyAxis | None = None
    checkpoint_every_s: float | None = None
    fit: Fit = Fit()
    memory: MemoryPlan = MemoryPlan()
    features: FeaturePlan = FeaturePlan()
    estimate: Estimate = Estimate()
    skip: Skip | None = None
    identity: CellKey | None = None
    memory_free: tuple[str, ...] = ()
    trial: TrialPlan | None = None
    tuned: TunedRecord | None = None
    bytes_trial_of: str = ""

    @property
    def key(self) -> CellKey:
        """The key that identifies the cell in the records. Fitting does not change it."""
        return self.identity or cell_key(self)

    def with_identity(self) -> PlannedCell:
        """Return the cell with its key computed, so that its copies need not compute it again."""
        return replace(self, identity=cell_key(self))

    @property
    def limits(self) -> Limits:
        """The limits of the cell's process."""
        threads = self.settings.training.threads
        return Limits(self.machine.device, threads, self.memory.limit_bytes, self.memory.malloc)

    def job(self, settings: CellSettings | None = None) -> CellJob:
        """Make the job of the process that trains or measures the cell.

        Args:
            settings: settings to use instead of the cell's own.
        """
        return CellJob(
            settings=settings or self.settings,
            data=self.data.for_training(),
            import_dirs=self.import_dirs,
            features=self.features.file,
            code=hash_code(self.settings, self.data, self.import_dirs),
            is_trial=self.trial is not None,
        )

    @property
    def asked(self) -> CellSettings:
        """The settings as the suite asks for them, before anything was fitted."""
        declared = self.declared
        return replace(
            self.settings, model=declared.model, optimizer=declared.optimizer, training=declared.training
        )

    @property
    def sized(self) -> CellSettings:
        """The settings with all sizes as numbers."""
        return resolve_sizes(self.settings, self.available, self.default_history)

    @property
    def requested_sizes(self) -> dict[str, Any]:
        """The sizes that the suite asks for, by setting; `"largest"` on the cell's axis."""
        sizes = {axis.setting: size_of(self.asked, axis) for axis in Axis}
        return sizes if self.axis is None else {**sizes, self.axis.setting: "largest"}

    @property
    def sizes(self) -> dict[str, int | None]:
        """The sizes that the cell runs with, by setting."""
        return {**{axis.setting: size_of(self.sized, axis) for axis in Axis}, **self.scaled_sizes}

    @property
    def scaled_sizes(self) -> dict[str, int]:
        """The largest value of a setting of the model or the dataset that was found for the cell."""
        if not isinstance(self.axis, ScaledSetting) or self.awaits_size:
            return {}
        choice = self.settings.model if self.axis.component == "model" else self.resolved.choice
        return {self.axis.setting: choice.params[self.axis.setting]}

    @property
    def awaits_size(self) -> bool:
        """Whether the largest value on the cell's axis is still to be found."""
        return self.axis is not None and self.axis.setting not in self.fit.reasons

    @property
    def finds_batches(self) -> bool:
        """Whether the suite leaves open how many examples a step or an epoch has."""
        is_largest = self.declared.training.train_size == "largest"
        return is_largest or self.axis in (Axis.BATCH_SIZE, Axis.TRAIN_SIZE)

    @property
    def adapt_order(self) -> tuple[Axis, ...]:
        """The axes along which the cell may be reduced, in this order."""
        named = (Axis(name.replace("_", "-")) for name in self.declared.adapt)
        return tuple(axis for axis in named if axis not in self.fit.irreducible)

    @property
    def can_retry_with_exact_malloc(self) -> bool:
        """Whether the cell might fit if malloc returned freed blocks at once. Device memory has no malloc."""
        return self.machine.device == "cpu" and self.memory.malloc == "fast"

    def with_exact_malloc(self) -> PlannedCell:
        """Return the cell with a process that returns freed blocks to the system at once."""
        return replace(self, memory=replace(self.memory, malloc="exact"))

    def with_sizes(self, settings: CellSettings, why: str) -> PlannedCell:
        """Return the cell with the sizes of other settings, and a reason for each size that differs.

        Measurements of the earlier sizes are dropped.
        """
        reasons, changed = dict(self.fit.reasons), self.settings
        for axis in Axis:
            size, before = size_of(settings, axis), size_of(self.settings, axis)
            if size != before and (size != size_of(self.sized, axis) or before in ("auto", "largest")):
                changed = with_size(changed, axis, size)
                reasons[axis.setting] = why
        return replace(
            self,
            settings=changed,
            fit=replace(self.fit, reasons=reasons),
            memory=MemoryPlan(self.memory.limit_bytes),
        )

    def with_values(self, values: Mapping[str, Any]) -> PlannedCell:
        """Return the cell with values that a search chose for settings of its optimizer."""

        def change(optimizer: Choice) -> Choice:
            return Choice(optimizer.name, set_values(optimizer.params, values))

        return replace(
            self,
            declared=replace(self.declared, optimizer=change(self.declared.optimizer)),
            settings=replace(self.settings, optimizer=change(self.settings.optimizer)),
        )

    def as_trial(self, number: int, values: dict[str, Any]) -> PlannedCell:
        """Return a trial of the column whose trials this cell stands for."""
        return replace(self.with_values(values), trial=TrialPlan(number, values)).with_identity()

    def with_tuned(self, found: TunedRecord) -> PlannedCell:
        """Return the cell with the settings that a search found. Its key, which names the search, stays."""
        return replace(self.with_values(found.values), identity=self.key, tuned=found)

    def with_largest(self, settings: CellSettings, why: str) -> PlannedCell:
        """Return the cell with the largest value on its axis.

        Args:
            settings: settings with this value. That of a dataset is in the cell's data.
            why: how large the value is, for the record.
        """
        if self.axis is None:
            raise ValueError("the cell has no axis")
        return replace(
            self,
            settings=settings,
            fit=replace(self.fit, reasons={**self.fit.reasons, self.axis.setting: why}),
            memory=MemoryPlan(self.memory.limit_bytes),
        )

    def with_skip(self, status: Status, reason: str, waits_for: str = "") -> PlannedCell:
        """Return the cell marked as not to be run."""
        return replace(self, skip=Skip(status, reason, waits_for))
