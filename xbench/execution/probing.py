"""Probe the capacity of one training run without a suite, one axis at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from xbench.capacity.axis import AnyAxis, Axis, ScaledSetting
from xbench.capacity.probe import Capacity, ProbeFailed
from xbench.components.registry import Kind, origin
from xbench.data.decoded import DecodedDataset
from xbench.errors import XbenchError
from xbench.execution.shared import FeatureKeeper
from xbench.execution.size_search import probe_axis
from xbench.planning.identity import capacity_key
from xbench.planning.limits import collect_limit_warnings
from xbench.planning.observer import Observer
from xbench.planning.plan import PlannedRun, fetch_missing_weights, make_cells, plan_run, prepare_all
from xbench.planning.planned import PlannedCell
from xbench.records.capacity import CapacityRecord, CapacityReport
from xbench.records.schema import Component
from xbench.storage.cache import load, save
from xbench.suite.document import unusable
from xbench.suite.overrides import SuiteOption
from xbench.suite.reader import Suite, check_document
from xbench.text import escape_controls, pluralize, shorten
from xbench.training.settings import Choice
from xbench.units import format_bytes

_FALLBACKS = {"chest-xray": "synthetic-xray"}
_EXPERIMENT = "probe"

# Defaults for the sizes that are not probed. The whole batch is computed at once, so that its size matters.
# For a history, a small micro-batch keeps the batch from influencing the result. For a setting of a model or
# dataset, a step takes one example.
_DEFAULTS: dict[Axis, dict[str, str | int]] = {
    axis: {"batch_size": "full", "micro_batch": "full"} for axis in Axis
}
_DEFAULTS[Axis.HISTORY_SIZE] = {"batch_size": "full", "micro_batch": 16}
_SCALED_DEFAULTS: dict[str, str | int] = {"batch_size": 1, "micro_batch": "full"}


def plan_probe(
    optimizer: str,
    model: str,
    dataset: str,
    axis: AnyAxis,
    overrides: Sequence[str],
    options: Sequence[SuiteOption],
    import_dirs: Sequence[str],
    on_step: Callable[[str], None] = lambda what: None,
) -> PlannedRun:
    """Check the arguments of a probe, and plan it as a suite with one cell.

    Args:
        on_step: called with a description of each step (see `plan_run`).

    Raises:
        XbenchError: the arguments are wrong; the message names every mistake.
    """
    suite = _make_suite(optimizer, model, dataset, axis, overrides, options)
    # A probe has started worker processes for its axes, so all of its mistakes are reported together.
    plan = plan_run(replace(suite, is_worth_checking=True), import_dirs, on_step)
    if len(plan.cells) != 1:
        raise XbenchError(
            f"a probe needs a single run, but these settings declare {len(plan.cells)}",
            hint="give --set one value, not a list",
        )
    training = plan.cells[0].training
    if training.micro_batch == "auto" or training.train_size == "largest":
        raise XbenchError(
            "micro_batch = 'auto' and train_size = 'largest' cannot be used in a probe",
            hint="set micro_batch to a number or 'full', and train_size to a number or 'all'",
        )
    if plan.limit_of(plan.cells[0]) is None:
        raise XbenchError("this system has no memory limit to probe", hint="set one with --memory-limit")
    return plan


def probe(plans: Mapping[AnyAxis, PlannedRun], fresh: bool, observer: Observer) -> CapacityReport:
    """Probe one axis after the other. If a size fails for a reason other than memory, the result of its axis
    has the error, and the next axis is probed.

    Args:
        fresh: whether to ignore the results of earlier probes.

    Raises:
        XbenchError: the run is not possible with these settings.
    """
    warnings = list(dict.fromkeys(warning for plan in plans.values() for warning in _collect_warnings(plan)))
    for warning in warnings:
        observer.warned(warning)
    results, features = [], FeatureKeeper(observer)
    probed: dict[AnyAxis, PlannedCell] = {}
    for axis, plan in plans.items():
        cell = _prepare(make_cells(plan, prepare_all(plan, observer)), axis, features, observer)
        probed[axis] = cell
        results.append(_probe_axis(cell, axis, fresh, observer))
    settings = cell.settings
    choices: dict[Kind, Choice] = {
        "model": keep_fixed("model", {axis: one.settings.model for axis, one in probed.items()}),
        "dataset": keep_fixed("dataset", {axis: one.resolved.choice for axis, one in probed.items()}),
        "optimizer": keep_fixed("optimizer", {axis: one.settings.optimizer for axis, one in probed.items()}),
    }
    components: dict[str, Component] = {
        kind: Component(name=choice.name, origin=origin(kind, choice.name), params=choice.params)
        for kind, choice in choices.items()
    }
    bound = plan.bound_of(cell.declared)
    model_facts = {"stand_in": cell.model.stand_in, "weights": cell.model.weights}
    components["model"] = components["model"].model_copy(update=model_facts)
    return CapacityReport(
        limit_bytes=_read_limit(cell),
        bound=f"{bound.source}: {bound.detail}",
        device=cell.machine.device,
        device_name=cell.machine.device_facts["name"],
        model=settings.model.name,
        dataset=cell.resolved.choice.name,
        optimizer=settings.optimizer.name,
        stand_in=cell.data.stand_in,
        components=components,
        versions=cell.machine.versions,
        warnings=warnings,
        results=results,
    )


def _collect_warnings(plan: PlannedRun) -> Iterator[str]:
    """Yield the warnings about a probe that are known before it begins."""
    yield from collect_limit_warnings(plan.cells, plan.machine)
    yield from (data.warning for data in plan.data if data.warning)


def keep_fixed(kind: Kind, choices: Mapping[AnyAxis, Choice]) -> Choice:
    """Keep the settings of a component that were fixed while at least one axis was probed.

    Args:
        choices: the component as it was probed on each axis.
    """
    fixed: dict[str, Any] = {}
    for axis, choice in choices.items():
        varied = axis.setting if _get_kind(axis) == kind else None
        fixed |= {key: value for key, value in choice.params.items() if key != varied}
    return Choice(choice.name, fixed)


def _get_kind(axis: AnyAxis) -> str:
    """Return the kind of component whose setting an axis varies; "training" for training settings."""
    if isinstance(axis, ScaledSetting):
        return axis.component
    return "optimizer" if axis is Axis.HISTORY_SIZE else "training"


def _prepare(
    cells: list[PlannedCell], axis: AnyAxis, features: FeatureKeeper, observer: Observer
) -> PlannedCell:
    """Add weights and the features that trials need to the probed cell.

    The features depend on settings of the model and the dataset, so trials that vary one use none.

    Raises:
        XbenchError: weights or features are not available.
    """
    (cell,) = fetch_missing_weights(cells, observer)
    if not isinstance(axis, ScaledSetting):
        cell = features.for_trials(cell)
    if cell.skip is not None:
        raise XbenchError(cell.skip.reason)
    return cell


def _read_limit(cell: PlannedCell) -> int:
    if cell.memory.limit_bytes is None:
        raise ValueError("a probe needs a memory limit")
    return cell.memory.limit_bytes


def _probe_axis(cell: PlannedCell, axis: AnyAxis, fresh: bool, observer: Observer) -> CapacityRecord:
    key = capacity_key(cell, cell.settings, axis, cell.memory.limit_bytes)
    known = None if fresh else load("probe", key)
    observer.fitting(cell.key, axis.setting)
    error, highest = "", None
    if axis is Axis.MICRO_BATCH:
        highest = cell.sized.training.sizes.batch_size
    elif isinstance(axis, ScaledSetting):
        highest = axis.highest
    try:
        capacity = probe_axis(
            cell,
            cell.settings,
            axis,
            highest=highest,
            enough=cell.available if axis in (Axis.TRAIN_SIZE, Axis.BATCH_SIZE) else None,
            start=(known["found"], known["fails"]) if known else None,
            observer=observer,
        )
    except ProbeFailed as failure:
        capacity, error = failure.so_far, failure.message
    predictions = [t.predicted_bytes for t in capacity.trials if t.value == capacity.found]
    if known and known["found"] == capacity.found:  # was run first this time, so there was no prediction
        predictions.append(known.get("predicted_bytes"))
    predicted_bytes = next((p for p in predictions if p is not None), None)
    if capacity.found is not None and not error:
        found = {"found": capacity.found, "fails": capacity.fails, "predicted_bytes": predicted_bytes}
        save("probe", key, found)
    varied = {axis.setting, *(("train_size",) if axis is Axis.BATCH_SIZE else ())}
    return CapacityRecord(
        axis=str(axis),
        limit_bytes=_read_limit(cell),
        settings=cell.settings.training.model_dump(exclude=varied),
        found=capacity.found,
        fails=capacity.fails,
        peak_bytes=capacity.peak_bytes,
        predicted_bytes=predicted_bytes,
        seconds=capacity.seconds,
        trials=list(capacity.trials),
        error=error,
        notes=_write_notes(cell, axis, capacity, known is not None),
    )


def _write_notes(cell: PlannedCell, axis: AnyAxis, capacity: Capacity, started_from_known: bool) -> list[str]:
    notes = []
    if isinstance(axis, ScaledSetting) and cell.model.is_frozen and cell.settings.training.features != "off":
        notes.append(
            f"features of the model's frozen part depend on {axis}, so trials ran the whole model; a run "
            "that trains on features may need less memory"
        )
    if capacity.refused is not None:
        refused = capacity.refused
        notes.append(
            f"the search ended at {refused.value:,}, which is not possible: {refused.reason}; memory does "
            f"not limit {axis} up to {capacity.found:,}, the largest size that ran"
        )
    elif capacity.trials[-1].outcome == "error":
        pass  # the record has the error
    elif capacity.found is None:
        notes.append(f"not even the smallest size fits: {capacity.trials[-1].reason}")
        notes += _explain_fixed_memory(cell)
    elif capacity.fails is None:
        notes.append(f"memory does not limit {axis} up to {capacity.found:,}, the largest size tried")
    retries = max((t.alloc_retries for t in capacity.trials if t.value == capacity.found), default=0)
    if retries:
        notes.append(
            f"{capacity.found:,} barely fits: in a few steps the allocator ran out of memory "
            f"{pluralize(retries, 'time')} and released its cache, which slows training"
        )
    sizes = [trial.value for trial in capacity.trials]
    if axis in (Axis.TRAIN_SIZE, Axis.BATCH_SIZE) and max(sizes) > cell.available:
        notes.append(f"sizes above the {cell.available:,} available examples use examples repeatedly")
    if started_from_known:
        notes.append(
            "started from the result of an earlier probe, which was run again; use --fresh to ignore it"
        )
    return notes


def _explain_fixed_memory(cell: PlannedCell) -> list[str]:
    """Say how much of the limit is taken at any size, as far as it is known before anything has run."""
    limit_bytes, data, hint = _read_limit(cell), cell.data, ""
    fixed_bytes, parts = cell.machine.idle_bytes, []
    if fixed_bytes:
        parts.append(f"a process needs {format_bytes(fixed_bytes)} before it trains anything")
    if cell.settings.storage == "float32" and isinstance(data, DecodedDataset):
        item_bytes = {"float64": 8, "float32": 4, "bfloat16": 2}[cell.settings.training.dtype]
        data_bytes = len(data.labels) * math.prod(data.shape) * item_bytes
        fixed_bytes += data_bytes
        parts.append(
            f'storage = "float32" keeps all {len(data.labels):,} images of {data.name} in memory '
            f"({' x '.join(map(str, data.shape))} numbers each, {format_bytes(data_bytes)})"
        )
        hint = '; with storage = "uint8", images are read as they are needed'
    if not parts:
        return []
    left_bytes = limit_bytes - fixed_bytes
    rest = "the model, its gradients, the optimizer's state and the examples of a step"
    room = format_bytes(left_bytes) if left_bytes > 0 else "nothing"
    limit = f"the limit of {format_bytes(limit_bytes)} leaves {room} for {rest}"
    return [f"at any size, {', and '.join(parts)}: {limit}{hint}"]


def _make_suite(
    optimizer: str,
    model: str,
    dataset: str,
    axis: AnyAxis,
    overrides: Sequence[str],
    options: Sequence[SuiteOption],
) -> Suite:
    """Make a suite with one cell, whose mistakes are reported with the option that they come from."""
    path = ("experiment", 0)
    tables: dict[str, dict[str, str | int]] = {
        "optimizer": {"name": optimizer},
        "model": {"name": model},
        "dataset": {"name": dataset},
    }
    if dataset in _FALLBACKS:
        tables["dataset"]["fallback"] = _FALLBACKS[dataset]
    for kind, table in tables.items():
        for _, problem in unusable(table):
            raise XbenchError(f"--{kind} {shorten(escape_controls(str(table['name'])))}: {problem}")
    origins = {
        (*path, "optimizer", 0): f"--optimizer {optimizer}",
        (*path, "model"): f"--model {model}",
        (*path, "dataset"): f"--dataset {dataset}",
        path: f"--optimizer {optimizer} --model {model} --dataset {dataset}",
    }
    if axis is Axis.HISTORY_SIZE:
        tables["optimizer"]["history_size"] = 1
        origins[(*path, "optimizer", 0, "history_size")] = f"--axis {axis.value}"
    sizes = _DEFAULTS[axis] if isinstance(axis, Axis) else _SCALED_DEFAULTS
    experiment = {"name": _EXPERIMENT, **sizes, **tables, "optimizer": [tables["optimizer"]]}
    document = {"suite": {"name": _EXPERIMENT}, "experiment": [experiment]}
    return check_document(document, "probe-capacity", [*overrides, *options], origins=origins)
