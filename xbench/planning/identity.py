"""Compute the keys of cells and measurements: hashes of exactly those inputs that can change a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, fields, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from xbench.capacity.axes import with_size
from xbench.capacity.axis import AnyAxis, ScaledSetting
from xbench.capacity.cost_model import timing_settings
from xbench.components.code import code_stamp, own_stamp
from xbench.components.code_files import ImportDirs
from xbench.components.registry import Kind, origin
from xbench.components.search_range import SearchRange
from xbench.data.decoded import DecodedDataset
from xbench.records.schema import CellKey, CellRecord
from xbench.training.settings import CellSettings, Choice, SeedParts, TrainingSettings
from xbench.tuning.plan import Budget, SearchPlan

if TYPE_CHECKING:
    from xbench.planning.planned import PlannedCell

# What results depend on besides the packages of components. Python's version is the full one: a bug-fix
# release of Python, as of any package, may change results. On a CPU, the versions of CUDA and cuDNN are
# empty.
_VERSIONS = ("xbench", "python", "torch", "torchvision", "numpy", "cuda", "cudnn")

# The packages that choose the settings of trials, of which another version may choose others.
_SEARCHED_WITH = {"grid": (), "quasi-random": ("scipy",), "tpe": ("optuna", "scipy")}

# Cells of one experiment and seed, in all of its parts, with equal values of these start from the same
# weights and examples.
_PAIRED_BY = ("dtype", "balance", "validation")


def cell_id(
    cell: PlannedCell, settings: CellSettings, conditions: Sequence[Any] = (), data: str | None = None
) -> str:
    """Hash a cell's settings, data, device, threads and allocator, and the versions of its code.

    The model of the processor is not part of the hash, so that a run can continue on another machine. The
    model of a GPU is, because each has its own kernels. The amount of memory is not part of the hash.

    Args:
        settings: the cell's own settings, or those with which something is measured for the cell.
        conditions: everything else that distinguishes the cell, such as its column.
        data: an identifier of the cell's data; by default its fingerprint. The task of rows is added.
    """
    machine, device = cell.machine, cell.machine.device_facts
    identity = {
        "model": _identify_component("model", settings.model, cell.import_dirs),
        "optimizer": _identify_component("optimizer", settings.optimizer, cell.import_dirs),
        "training": _identify_training(settings.training),
        "threads": settings.training.threads or machine.threads,
        "storage": settings.storage,
        "seed": _identify_seed(settings.seed_parts),
        "data": _identify_data(cell, cell.data.fingerprint if data is None else data),
        "device": [device["type"], *([] if device["type"] == "cpu" else [device["name"]])],
        "allocator": machine.allocator,
        "versions": {name: machine.versions.get(name) for name in _VERSIONS},
        "code": own_stamp(),
        "conditions": list(conditions),
    }
    canonical = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _identify_seed(parts: SeedParts) -> int | tuple[int, ...]:
    """Return the seed, or its parts if they differ."""
    return parts.weights if parts == SeedParts.of(parts.weights) else astuple(parts)


def _identify_training(training: TrainingSettings) -> dict[str, Any]:
    """Return the training settings without the threads.

    A newer setting is left out where it has its default, so that keys stay those of earlier runs.
    """
    groups = list(training.groups.items())  # the first pattern that matches counts
    newer = {"evaluate_every"} if training.evaluate_every == "epoch" else set()
    return training.model_dump(exclude={"threads", *newer}) | {"groups": groups}


def _identify_data(cell: PlannedCell, data: str) -> Any:
    """Add to an identifier of rows what determines their task: the dataset's settings and its code."""
    if isinstance(cell.data, DecodedDataset):
        return data
    return [data, *_identify_component("dataset", cell.resolved.choice, cell.import_dirs)]


def _identify_component(kind: Kind, choice: Choice, import_dirs: ImportDirs) -> list[Any]:
    code = [origin(kind, choice.name), code_stamp(kind, choice.name, import_dirs)]
    rest = choice.rest if kind == "optimizer" else None
    of_rest = [] if rest is None else _identify_component(kind, rest, import_dirs)
    return [choice.name, *code, choice.params, *of_rest]


def cell_key(cell: PlannedCell) -> CellKey:
    """Identify a cell in the records by what the suite asks for, before anything is fitted."""
    declared, resolved = cell.declared, cell.resolved
    conditions = (
        declared.column,  # an optimizer with two labels is measured twice
        [str(limit) for limit in declared.memory_limits],
        *(declared.expect, declared.adapt, cell.peers, cell.model.weights),
        # A result depends on whether the dataset is a fallback, and on the code that makes its examples.
        *(resolved.requested, resolved.choice.name, origin("dataset", resolved.choice.name)),
        code_stamp("dataset", resolved.choice.name, cell.import_dirs),
        *_identify_search(cell),
        *filter(None, [declared.along]),
    )
    return CellKey(
        cell_id=cell_id(cell, cell.asked, conditions),
        experiment=declared.experiment,
        column=declared.column,
        seed=declared.seed,
    )


def _identify_search(cell: PlannedCell) -> list[Any]:
    """Identify a trial by its number, and another cell by the search whose outcome its settings are."""
    search = cell.declared.search
    if search is None:
        return []
    if cell.trial is not None:
        return ["trial", cell.trial.number, search.metric]
    space = [[name, _list_fields(values)] for name, values in search.space.items()]  # their order counts
    chosen = {**_list_fields(search), "budget": _list_fields(search.budget), "space": space}
    return ["tuned", chosen, {package: version(package) for package in _SEARCHED_WITH[search.search]}]


def _list_fields(value: SearchPlan | Budget | SearchRange) -> dict[str, Any]:
    """List the fields of a part of a search. A field is left out where it has its default, so that keys stay
    those of earlier runs if one is added."""
    found = {field.name: (getattr(value, field.name), field.default) for field in fields(value)}
    return {name: own for name, (own, default) in found.items() if own != default}


def configuration_key(cell: PlannedCell) -> str:
    """Identify everything that a cell's memory depends on, which includes neither its seed nor its limit."""
    features = cell.features.file.precision if cell.features.file else ""
    parts = ("memory pass", cell.declared.column, features, cell.model.weights)
    return cell_id(cell, _blur(cell, cell.sized.without_seed()), parts)


def _blur(cell: PlannedCell, settings: CellSettings) -> CellSettings:
    """Replace the optimizer's settings that do not change memory by whether their values are zero."""
    optimizer = settings.optimizer
    names = [name for name in cell.memory_free if not name.startswith("rest.")]
    params = {
        name: _blur_value(value) if name in names else value for name, value in optimizer.params.items()
    }
    if optimizer.rest is not None:
        params["rest"] = {
            name: _blur_value(value) if f"rest.{name}" in cell.memory_free else value
            for name, value in optimizer.params["rest"].items()
        }
    return replace(settings, optimizer=Choice(optimizer.name, params))


def _blur_value(value: Any) -> Any:
    """Return whether a value is not zero, False or None; a list of this for a list."""
    return list(map(_blur_value, value)) if isinstance(value, list | tuple) else bool(value)


def capacity_key(
    cell: PlannedCell, settings: CellSettings, axis: AnyAxis, limit_bytes: int | None = None
) -> str:
    """Identify the result of a search on an axis of a cell's settings.

    Args:
        settings: the cell's settings in the search.
        limit_bytes: the memory limit of the search; None if there is none.
    """
    neutral = with_size(settings, axis, 1).without_seed()
    data = None
    if isinstance(axis, ScaledSetting) and axis.component == "dataset":
        choice = cell.resolved.choice  # the fingerprint depends on the varied setting
        others = {name: setting for name, setting in choice.params.items() if name != axis.setting}
        data = repr(_identify_component("dataset", Choice(choice.name, others), cell.import_dirs))
    parts = [str(axis), limit_bytes, cell_id(cell, neutral, data=data)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def features_key(cell: PlannedCell, seed: int | None) -> str:
    """Identify the features that a cell needs; cells with the same key share them.

    Args:
        seed: the seed of the weights; None if they do not depend on it.
    """
    settings, training = cell.settings, cell.settings.training
    precision = (training.dtype, training.autocast, training.feature_precision, training.threads)
    # Whether features can be used depends on the task as well, and so on the code that makes it.
    data = _identify_data(cell, cell.data.fingerprint)
    return repr((settings.model, seed, settings.storage, precision, data))


def training_key(cell: PlannedCell) -> str:
    """Identify the training, including fitted sizes, that a checkpoint belongs to."""
    features = cell.features.file.folder.name if cell.features.file else ""
    return hashlib.sha256(repr((cell.settings, cell.data.fingerprint, features)).encode()).hexdigest()


def cost_key(cell: PlannedCell) -> str:
    """Identify the time of a cell's steps."""
    return _time_key(cell, timing_settings(cell.sized))


def example_pace_key(cell: PlannedCell) -> str:
    """Identify the time to compute the features of an example, whatever is trained on them."""
    asked = cell.settings.training
    training = TrainingSettings(dtype=asked.dtype, autocast=asked.autocast)
    anyone = replace(cell.settings, optimizer=Choice("", {}), training=training)
    return _time_key(cell, anyone)


def duration_key(cell: PlannedCell) -> str:
    """Identify the time of a cell as the suite asks for it, before anything is fitted."""
    limit, along = str(cell.memory.limit_bytes), cell.declared.along
    kind = "trial" if cell.trial is not None else ""  # it is not scored in the end
    return _time_key(cell, cell.asked, cell.data.fingerprint, limit, *filter(None, [along, kind]))


def pass_key(cell: PlannedCell) -> str:
    """Identify the time of the memory pass of a cell's configuration."""
    return _time_key(cell, cell.sized, cell.data.fingerprint)


def _time_key(cell: PlannedCell, settings: CellSettings, *parts: str) -> str:
    """Hash everything that a time depends on. Of the data, only its shape counts."""
    parts = (cell.machine.device_facts["name"], *parts)  # processors differ in speed
    data = cell.data
    shape = data.shape if isinstance(data, DecodedDataset) else data.facts.row
    # A setting that needs no memory takes no time either.
    return cell_id(cell, _blur(cell, settings.without_seed()), parts, data=repr(shape))


def pairing_group(cell: PlannedCell, ran: dict[str, Any]) -> str:
    """Identify the cells that must start from the same weights and examples.

    Args:
        ran: the sizes that the cell runs with, by setting.
    """
    model = cell.settings.model
    return _format_group(
        cell.declared.experiment,
        astuple(cell.settings.seed_parts),
        (model.name, model.params, cell.model.weights),
        cell.data.fingerprint,
        cell.settings.training.model_dump(),
        ran,
    )


def pairing_group_of(record: CellRecord) -> str:
    """Identify the `pairing_group` of a cell that has ended."""
    model = (record.model.name, record.model.params, record.model.weights)
    data = record.dataset.fingerprint
    seeds = record.seed_parts.key
    return _format_group(record.experiment, seeds, model, data, record.settings, record.ran)


def _format_group(
    experiment: str,
    seeds: tuple[int, ...],
    model: tuple,
    fingerprint: str,
    training: dict[str, Any],
    ran: dict[str, Any],
) -> str:
    settings = [training.get(name) for name in _PAIRED_BY]
    return repr((experiment, seeds, model, fingerprint, settings, ran.get("train_size")))
