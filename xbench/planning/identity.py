"""Compute what cells, and what is measured of them, are known by: hashes of every input that can change a
result, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xbench.capacity.axes import Axis, with_size
from xbench.capacity.cost_model import timing_settings
from xbench.components.code import code_stamp, own_stamp
from xbench.components.code_files import ImportDirs
from xbench.components.registry import Kind, origin
from xbench.records.schema import CellKey, CellRecord
from xbench.training.settings import CellSettings, Choice, TrainingSettings

if TYPE_CHECKING:
    from xbench.planning.planned import PlannedCell

# What results depend on, beside the packages of components. Of Python the whole version: as for any package,
# a release that mends a fault may change what code computes. CUDA and cuDNN have none on a CPU.
_VERSIONS = ("xbench", "python", "torch", "torchvision", "numpy", "cuda", "cudnn")

# Cells of one experiment and seed that agree in these start from the same weights and examples.
_PAIRED_BY = ("dtype", "balance", "validation")


def cell_id(
    cell: PlannedCell, settings: CellSettings, conditions: Sequence[Any] = (), data: str | None = None
) -> str:
    """Hash settings of a cell, its data, device, threads and allocator settings, and the versions of all code
    that its process runs.

    The processor's model is not part of the hash, so that a run can go on on another machine. A GPU's model
    is, as it has kernels of its own. What a machine has to give is not part of it.

    Args:
        settings: the cell's own, or those of which something is measured for it.
        conditions: what else distinguishes the cell, its column among it.
        data: what stands for its data; by default the fingerprint.
    """
    machine, device = cell.machine, cell.machine.device_facts
    identity = {
        "model": _component("model", settings.model, cell.import_dirs),
        "optimizer": _component("optimizer", settings.optimizer, cell.import_dirs),
        "training": settings.training.model_dump(exclude={"threads"}),
        "threads": settings.training.threads or machine.threads,
        "storage": settings.storage,
        "seed": settings.seed,
        "data": cell.data.fingerprint if data is None else data,
        "device": [device["type"], *([] if device["type"] == "cpu" else [device["name"]])],
        "allocator": machine.allocator,
        "versions": {name: machine.versions.get(name) for name in _VERSIONS},
        "code": own_stamp(),
        "conditions": list(conditions),
    }
    canonical = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _component(kind: Kind, choice: Choice, import_dirs: ImportDirs) -> list[Any]:
    code = [origin(kind, choice.name), code_stamp(kind, choice.name, import_dirs)]
    return [choice.name, *code, choice.params]


def cell_key(cell: PlannedCell) -> CellKey:
    """Identify a cell in the records: by what was asked for, before anything is fitted."""
    declared, resolved = cell.declared, cell.resolved
    conditions = (
        declared.column,  # an optimizer under two labels is measured twice
        [str(limit) for limit in declared.memory_limits],
        *(declared.expect, declared.adapt, cell.peers, cell.model.weights),
        # Whether it stands in for another is part of a result, and its code of what examples are.
        *(resolved.requested, resolved.choice.name, origin("dataset", resolved.choice.name)),
        code_stamp("dataset", resolved.choice.name, cell.import_dirs),
    )
    return CellKey(
        cell_id=cell_id(cell, cell.asked, conditions),
        experiment=declared.experiment,
        column=declared.column,
        seed=declared.seed,
    )


def configuration_key(cell: PlannedCell) -> str:
    """Identify all that a cell's need for memory depends on: neither its seed nor its limit."""
    features = cell.features.file.precision if cell.features.file else ""
    parts = ("memory pass", cell.declared.column, features, cell.model.weights)
    return cell_id(cell, replace(cell.sized, seed=0), parts)


def capacity_key(
    cell: PlannedCell, settings: CellSettings, axis: Axis, limit_bytes: int | None = None
) -> str:
    """Identify what is found on an axis of some settings of a cell, under a memory limit or none."""
    neutral = replace(with_size(settings, axis, 1), seed=0)
    parts = [axis.value, limit_bytes, cell_id(cell, neutral)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def features_key(cell: PlannedCell, seed: int | None) -> str:
    """Identify what cells with the same features have in common.

    Args:
        seed: the cell's; None where weights do not depend on it.
    """
    settings, training = cell.settings, cell.settings.training
    precision = (training.dtype, training.feature_precision, training.threads)
    return repr((settings.model, seed, settings.storage, precision, cell.data.fingerprint))


def training_key(cell: PlannedCell) -> str:
    """Identify the very training that a checkpoint is of, with the sizes that were fitted."""
    features = cell.features.file.folder.name if cell.features.file else ""
    return hashlib.sha256(repr((cell.settings, cell.data.fingerprint, features)).encode()).hexdigest()


def cost_key(cell: PlannedCell) -> str:
    """Identify how fast a cell's steps are."""
    return _time_key(cell, timing_settings(cell.sized))


def image_pace_key(cell: PlannedCell) -> str:
    """Identify how long the features of an image take, whatever is trained on them."""
    training = TrainingSettings(dtype=cell.settings.training.dtype)
    anyone = replace(cell.settings, optimizer=Choice("", {}), training=training)
    return _time_key(cell, anyone)


def duration_key(cell: PlannedCell) -> str:
    """Identify how long a cell takes as it was asked for, whatever is made to fit."""
    limit = str(cell.memory.limit_bytes)
    return _time_key(cell, cell.asked, cell.data.fingerprint, limit)


def pass_key(cell: PlannedCell) -> str:
    """Identify how long the memory pass of a cell's configuration takes."""
    return _time_key(cell, cell.sized, cell.data.fingerprint)


def _time_key(cell: PlannedCell, settings: CellSettings, *parts: str) -> str:
    """Hash all that a time depends on; images of one shape take the same time."""
    parts = (cell.machine.device_facts["name"], *parts)  # another processor takes another time
    return cell_id(cell, replace(settings, seed=0), parts, data=repr(cell.data.shape))


def pairing_group(cell: PlannedCell, ran: dict[str, Any]) -> str:
    """Identify the cells that must start from the same weights and examples.

    Args:
        ran: the sizes that the cell runs with, by name.
    """
    model = cell.settings.model
    return _group(
        cell.declared.experiment,
        cell.settings.seed,
        (model.name, model.params, cell.model.weights),
        cell.data.fingerprint,
        cell.settings.training.model_dump(),
        ran,
    )


def pairing_group_of(record: CellRecord) -> str:
    """Identify the same of a cell that has ended."""
    model = (record.model.name, record.model.params, record.model.weights)
    data = record.dataset.fingerprint
    return _group(record.experiment, record.seed, model, data, record.settings, record.ran)


def _group(
    experiment: str, seed: int, model: tuple, fingerprint: str, training: dict[str, Any], ran: dict[str, Any]
) -> str:
    settings = [training.get(name) for name in _PAIRED_BY]
    return repr((experiment, seed, model, fingerprint, settings, ran.get("train_size")))
