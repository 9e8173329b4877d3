"""A planned cell: one of a suite's cells on this machine, with everything that running it needs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from xbench.capacity.axes import Axis, resolve_sizes, size_of, with_size
from xbench.components.code_files import ImportDirs
from xbench.data.decoded import DecodedDataset
from xbench.data.features import FeatureFile
from xbench.isolation.child import Limits
from xbench.memory.malloc import MallocProfile
from xbench.planning.describe import ModelFacts
from xbench.planning.identity import cell_key
from xbench.planning.machine import Machine
from xbench.planning.trials import ResolvedData
from xbench.records.schema import CellKey, MemoryPassRecord, Status
from xbench.suite.grid import Cell
from xbench.training.component_code import code_of
from xbench.training.settings import CellSettings
from xbench.training.task import Task


@dataclass(frozen=True)
class Fit:
    """What was changed of a cell's sizes so that it fits into memory.

    Attributes:
        reasons: why a setting does not run as it was asked for, by its name.
        found_by: the keys under which the cache remembers the sizes that it was fitted by.
        irreducible: axes of `adapt` on which the model does not allow other sizes.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    found_by: tuple[str, ...] = ()
    irreducible: tuple[Axis, ...] = ()


@dataclass(frozen=True)
class MemoryPlan:
    """The memory that a cell's process may take, and what it needs.

    Attributes:
        limit_bytes: hard limit of the process; None for none.
        malloc: `exact` gives freed blocks back at once: a cell that nearly fills its limit has no room for
            them.
        measured: what its configuration was measured to need; None before that.
        pass_s: seconds that this took; None if it was measured for another cell.
    """

    limit_bytes: int | None = None
    malloc: MallocProfile = "fast"
    measured: MemoryPassRecord | None = None
    pass_s: float | None = None


@dataclass(frozen=True)
class FeaturePlan:
    """Outputs of a model's frozen part, to train on in its place.

    Attributes:
        file: where they are; None if there are none.
        note: why there are none, where a part of the model is frozen.
        seconds: spent on those of them that were not there before.
    """

    file: FeatureFile | None = None
    note: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """How long a cell will take.

    Attributes:
        seconds: of its process, as far as can be told before; None if nothing can.
        is_rough: whether other programs were at work as that was measured; it is by the fastest step.
        features_key: what cells that need the same features have in common; "" for one that needs none.
        features_s: seconds that those of them take which are missing.
    """

    seconds: float | None = None
    is_rough: bool = False
    features_key: str = ""
    features_s: float = 0.0


@dataclass(frozen=True)
class Skip:
    """How and why a cell ends without being run.

    Attributes:
        waits_for: what may be there the next time, so that it can run; see `CellRecord.waits_for`.
    """

    status: Status
    reason: str
    waits_for: str = ""


@dataclass(frozen=True)
class PlannedCell:
    """One cell, ready to run.

    Attributes:
        declared: the cell as the suite declares it.
        settings: as it will run; sizes that were fitted are numbers.
        available: the training examples that there are for it.
        default_history: the optimizer's own `history_size`; None if it has none.
        peers: the optimizers of its experiment, where its size depends on what they can run.
        checkpoint_every_s: the least time between two of its checkpoints; None for none.
        skip: None if it is to run.
        identity: its key, if that is computed already.
    """

    declared: Cell
    settings: CellSettings
    resolved: ResolvedData
    data: DecodedDataset
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
        """What identifies it in the records. Nothing that is fitted changes it."""
        return self.identity or cell_key(self)

    def with_identity(self) -> PlannedCell:
        """The cell, with its key computed for all of its copies."""
        return replace(self, identity=cell_key(self))

    @property
    def limits(self) -> Limits:
        """What its process is held to."""
        threads = self.settings.training.threads
        return Limits(self.machine.device, threads, self.memory.limit_bytes, self.memory.malloc)

    def task(self, settings: CellSettings | None = None) -> Task:
        """What a process is told that trains or measures the cell.

        Args:
            settings: in place of the cell's own.
        """
        return Task(
            settings=settings or self.settings,
            data=replace(self.data, names=()),  # they would count as memory
            import_dirs=self.import_dirs,
            features=self.features.file,
            code=code_of(self.settings, self.import_dirs),
        )

    @property
    def asked(self) -> CellSettings:
        """The settings as they were asked for, before anything was fitted."""
        return replace(self.settings, optimizer=self.declared.optimizer, training=self.declared.training)

    @property
    def sized(self) -> CellSettings:
        """The settings with numbers for all sizes."""
        return resolve_sizes(self.settings, self.available, self.default_history)

    @property
    def requested_sizes(self) -> dict[str, Any]:
        """The sizes that the suite asks for, by name."""
        return {axis.setting: size_of(self.asked, axis) for axis in Axis}

    @property
    def sizes(self) -> dict[str, int | None]:
        """The sizes that it runs with, by name."""
        return {axis.setting: size_of(self.sized, axis) for axis in Axis}

    @property
    def adapt_order(self) -> tuple[Axis, ...]:
        """The axes that may give way, in this order."""
        named = (Axis(name.replace("_", "-")) for name in self.declared.adapt)
        return tuple(axis for axis in named if axis not in self.fit.irreducible)

    @property
    def may_give_back(self) -> bool:
        """Whether freed blocks that malloc keeps may be what does not fit: on a device, malloc has no say."""
        return self.machine.device == "cpu" and self.memory.malloc == "fast"

    def with_exact_malloc(self) -> PlannedCell:
        """The cell in a process that gives freed blocks back at once."""
        return replace(self, memory=replace(self.memory, malloc="exact"))

    def with_sizes(self, settings: CellSettings, why: str) -> PlannedCell:
        """The cell with the sizes of other settings, each that differs noted with a reason. What was measured
        of the earlier sizes is dropped."""
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
        """The cell, not to be run."""
        return replace(self, skip=Skip(status, reason, waits_for))
