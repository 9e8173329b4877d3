"""Planned cells: the cells of a suite on this machine, with everything that is needed to run them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from xbench.capacity.axes import Axis, resolve_sizes, size_of, with_size
from xbench.components.code_files import ImportDirs
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
from xbench.suite.cells import Cell
from xbench.training.component_code import hash_code
from xbench.training.job import CellJob
from xbench.training.settings import CellSettings


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
        features_key: identifies the features that the cell needs, which cells with the same key share; "" if
            it needs none.
        features_s: seconds to compute the missing ones of these features.
    """

    seconds: float | None = None
    is_rough: bool = False
    features_key: str = ""
    features_s: float = 0.0


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
        checkpoint_every_s: minimum seconds between two checkpoints; None for no checkpoints.
        skip: why the cell is not run; None if it is to run.
        identity: the cell's key, if it is computed already.
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
    checkpoint_every_s: float | None = None
    fit: Fit = Fit()
    memory: MemoryPlan = MemoryPlan()
    features: FeaturePlan = FeaturePlan()
    estimate: Estimate = Estimate()
    skip: Skip | None = None
    identity: CellKey | None = None

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
            data=replace(self.data, names=()),  # names would take memory in the process
            import_dirs=self.import_dirs,
            features=self.features.file,
            code=hash_code(self.settings, self.data, self.import_dirs),
        )

    @property
    def asked(self) -> CellSettings:
        """The settings as the suite asks for them, before anything was fitted."""
        return replace(self.settings, optimizer=self.declared.optimizer, training=self.declared.training)

    @property
    def sized(self) -> CellSettings:
        """The settings with all sizes as numbers."""
        return resolve_sizes(self.settings, self.available, self.default_history)

    @property
    def requested_sizes(self) -> dict[str, Any]:
        """The sizes that the suite asks for, by setting."""
        return {axis.setting: size_of(self.asked, axis) for axis in Axis}

    @property
    def sizes(self) -> dict[str, int | None]:
        """The sizes that the cell runs with, by setting."""
        return {axis.setting: size_of(self.sized, axis) for axis in Axis}

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

    def with_skip(self, status: Status, reason: str, waits_for: str = "") -> PlannedCell:
        """Return the cell marked as not to be run."""
        return replace(self, skip=Skip(status, reason, waits_for))
