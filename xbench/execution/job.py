"""A cell with everything that running it needs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from xbench.capacity.axes import Axis, resolve_sizes, size_of, with_size
from xbench.components.code import code_stamp, own_stamp
from xbench.components.code_files import ImportDirs
from xbench.components.registry import origin
from xbench.data.decoded import DecodedDataset
from xbench.data.features import FeatureFile
from xbench.execution.component_trials import ResolvedData
from xbench.execution.identity import cell_id
from xbench.execution.inspection import Machine, ModelFacts
from xbench.isolation.child import Limits
from xbench.records.schema import MemoryPassRecord, PlannedCell, Status
from xbench.suite.grid import Cell
from xbench.training.settings import CellSettings


@dataclass(frozen=True)
class Job:
    """One cell, ready to run.

    Attributes:
        cell: as the suite declares it.
        settings: as it will run; sizes that were fitted are numbers.
        available: the training examples that there are for it.
        default_history: the optimizer's own `history_size`; None if it has none.
        memory_limit_bytes: hard limit of its process; None for none.
        asked_limits: the memory limits that were asked for, in bytes or percent.
        company: the optimizers of its experiment, where its size depends on what they can run.
        timeout_s: the most time that its process may take; None for any.
        checkpoint_every_s: the least time between two of its checkpoints; None for none.
        fitted: why a setting does not run as it was asked for, by its name.
        gives_back: whether its malloc gives freed blocks back at once: a job that nearly fills its limit has
            no room for them.
        memory_pass: what its configuration was measured to need; None before that.
        memory_pass_s: seconds that this took; None if it was measured for another job.
        ceilings: under which keys it is remembered what it was fitted by.
        fixed: axes of `adapt` on which the model does not allow other sizes.
        features: outputs of its model's frozen part, to train on in its place.
        features_note: why there are none, where a part of the model is frozen.
        features_s: seconds that went into those of them that were not there before.
        estimated_s: the time that its process takes, as far as can be told before; None if nothing can.
        is_rough: whether other programs were at work as that was measured; it is by the fastest step.
        features_need: which features it needs, and the seconds that those which are missing take.
        unfit: how and why it ends without being run; None if it is to run.
        waits_for: what may be there the next time, so that it can run; see `CellRecord.waits_for`.
    """

    cell: Cell
    settings: CellSettings
    resolved: ResolvedData
    data: DecodedDataset
    model: ModelFacts
    available: int
    default_history: int | None
    machine: Machine
    memory_limit_bytes: int | None
    import_dirs: ImportDirs
    asked_limits: tuple[str, ...] = ()
    company: tuple[str, ...] = ()
    timeout_s: float | None = None
    checkpoint_every_s: float | None = None
    fitted: dict[str, str] = field(default_factory=dict)
    gives_back: bool = False
    memory_pass: MemoryPassRecord | None = None
    memory_pass_s: float | None = None
    ceilings: tuple[str, ...] = ()
    fixed: tuple[Axis, ...] = ()
    features: FeatureFile | None = None
    features_note: str = ""
    features_s: float = 0.0
    estimated_s: float | None = None
    is_rough: bool = False
    features_need: tuple[str, float] = ("", 0.0)
    unfit: tuple[Status, str] | None = None
    waits_for: str = ""

    @property
    def limits(self) -> Limits:
        """What its process is held to."""
        malloc = "exact" if self.gives_back else "fast"
        threads = self.settings.training.threads
        return Limits(self.machine.device, threads, self.memory_limit_bytes, malloc)

    @property
    def measured_data(self) -> DecodedDataset:
        """The data for a process whose memory counts: without the names of examples."""
        return replace(self.data, names=())

    @property
    def code(self) -> tuple[str, str, str]:
        """What stands for the code that its process is to run."""
        return code_of(self.settings, self.import_dirs)

    @property
    def planned(self) -> PlannedCell:
        """Its place in the records: it is known by what was asked for, before anything is fitted."""
        asked = replace(self.settings, optimizer=self.cell.optimizer, training=self.cell.training)
        data, choice = self.resolved, self.resolved.choice
        conditions = (
            self.cell.column,  # an optimizer under two labels is measured twice
            *(self.asked_limits, self.cell.expect, self.cell.adapt, self.company, self.model.weights),
            # Whether it stands in for another is part of a result, and its code of what examples are.
            *(data.requested, choice.name, origin("dataset", choice.name)),
            code_stamp("dataset", choice.name, self.import_dirs),
        )
        return PlannedCell(
            cell_id=cell_id(asked, self.data.fingerprint, self.machine, self.import_dirs, conditions),
            experiment=self.cell.experiment,
            column=self.cell.column,
            seed=self.cell.seed,
        )

    @property
    def requested(self) -> dict[str, Any]:
        """The sizes that the suite asks for."""
        asked = replace(self.settings, optimizer=self.cell.optimizer, training=self.cell.training)
        return {axis.setting: size_of(asked, axis) for axis in Axis}

    @property
    def sized(self) -> CellSettings:
        """The settings with numbers for all sizes."""
        return resolve_sizes(self.settings, self.available, self.default_history)

    @property
    def sizes(self) -> dict[str, int | None]:
        """The numbers for them, by name."""
        return {axis.setting: size_of(self.sized, axis) for axis in Axis}

    @property
    def adapt_order(self) -> tuple[Axis, ...]:
        """What may give way."""
        named = (Axis(name.replace("_", "-")) for name in self.cell.adapt)
        return tuple(axis for axis in named if axis not in self.fixed)

    @property
    def configuration(self) -> str:
        """What identifies all that the memory it needs depends on: neither its seed nor its limit."""
        features = self.features.precision if self.features else ""
        parts = ("memory pass", self.cell.column, features, self.model.weights)
        neutral = replace(self.sized, seed=0)
        return cell_id(neutral, self.data.fingerprint, self.machine, self.import_dirs, parts)

    def with_settings(self, settings: CellSettings, why: str) -> Job:
        """The job with the sizes of other settings, each that differs noted with a reason."""
        fitted, changed = dict(self.fitted), self.settings
        for axis in Axis:
            size, before = size_of(settings, axis), size_of(self.settings, axis)
            if size != before and (size != size_of(self.sized, axis) or before in ("auto", "largest")):
                changed = with_size(changed, axis, size)
                fitted[axis.setting] = why
        return replace(
            self,
            settings=changed,
            fitted=fitted,
            gives_back=False,
            memory_pass=None,
            memory_pass_s=None,
        )

    @property
    def may_give_back(self) -> bool:
        """Whether freed blocks that malloc keeps may be what does not fit: on a device, malloc has no say."""
        return self.machine.device == "cpu" and not self.gives_back


def code_of(settings: CellSettings, import_dirs: ImportDirs) -> tuple[str, str, str]:
    """What stands for the code of a cell, in this process: it is read once."""
    kinds = (("model", settings.model.name), ("optimizer", settings.optimizer.name))
    return own_stamp(), *(code_stamp(kind, name, import_dirs, only_modules=True) for kind, name in kinds)
