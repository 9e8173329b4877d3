"""From a suite to a plan: every mistake that can be known before compute is found here, and told at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xbench.components.code_files import ImportDirs
from xbench.errors import XbenchError
from xbench.execution.allowed import allowed_folders
from xbench.execution.asking import ask
from xbench.execution.component_trials import (
    ResolvedData,
    check_models,
    check_optimizers,
    dataset_key,
    describe_each_model,
    resolve_datasets,
)
from xbench.execution.inspection import Machine, ModelFacts, describe_components, describe_machine
from xbench.isolation.run import call_in_child
from xbench.memory.limits import can_limit_host_memory
from xbench.memory.machine import Bound, binding, rounded_limit_bytes, with_memory_limits
from xbench.suite.grid import Cell, expand, references
from xbench.suite.problems import Problems
from xbench.suite.reader import Suite
from xbench.units import tightest


@dataclass(frozen=True)
class PlannedRun:
    """A checked suite on this machine.

    Attributes:
        data: for each of `cells` the dataset that it will run on.
        models: for each of `cells` what its model is.
        memory_bound: what limits the memory of each cell's process: the suite's `memory_limit`, or the
            machine where that has less.
        default_histories: `history_size` of the optimizers that have one, by name.
        untried: warnings of optimizers and models that could not be tried, and of what their trials found.
    """

    suite: Suite
    machine: Machine
    cells: list[Cell]
    data: list[ResolvedData]
    models: list[ModelFacts]
    memory_bound: Bound
    default_histories: dict[str, int]
    untried: tuple[str, ...]
    import_dirs: ImportDirs

    @property
    def name(self) -> str:
        return self.suite.header.name

    def bound_of(self, cell: Cell) -> Bound:
        """What limits the memory of a cell's process: the least of the limits that were asked for and of what
        the machine has."""
        return binding(with_memory_limits(self.machine.memory_bounds, cell.memory_limits))

    def limit_of(self, cell: Cell) -> int | None:
        """The limit that a cell's process is held to: resident bytes, or on CUDA bytes of the device. None
        where nobody asked for one and the system has no means to hold a process to it (macOS)."""
        if self.machine.device == "cpu" and not can_limit_host_memory() and not cell.memory_limits:
            return None
        return rounded_limit_bytes(self.bound_of(cell))


def plan_run(
    suite: Suite, import_dirs: Sequence[str] = (), on_step: Callable[[str], None] = lambda what: None
) -> PlannedRun:
    """Check a suite whole and expand it.

    Args:
        import_dirs: folders that `module:attribute` components may be imported from.
        on_step: called with what is done next, as "trying the models".

    Raises:
        XbenchError: all mistakes of the suite, or the device is not here.
    """
    header, import_dirs = suite.header, allowed_folders(import_dirs, suite)
    on_step("starting worker processes")
    try:
        machine = call_in_child(describe_machine, header.device)
    except XbenchError as error:
        suite.problems.add(("suite", "device"), error.message, error.hint)
        suite.problems.raise_if_any()
    on_step("loading the components")
    known = ask(describe_components, references(suite), import_dirs)
    expansion = expand(suite, known)
    problems = suite.problems
    on_step("trying the optimizers")
    untried = check_optimizers(expansion, machine.device, import_dirs, problems)
    on_step("listing the datasets")
    resolved = resolve_datasets(expansion, import_dirs, problems)
    on_step("looking for the models' weights")
    models = describe_each_model(expansion, import_dirs, problems)
    _check_fit(expansion.cells, resolved, models, problems)
    on_step("trying the models")
    warnings, tried = check_models(expansion, resolved, models, machine.device, import_dirs, problems)
    problems.raise_if_any()
    return PlannedRun(
        suite=suite,
        machine=machine,
        cells=expansion.cells,
        data=[resolved[dataset_key(cell.dataset)] for cell in expansion.cells],
        models=tried,
        memory_bound=binding(with_memory_limits(machine.memory_bounds, tightest([header.memory_limit]))),
        default_histories={
            name: settings.defaults["history_size"]
            for (kind, name), settings in known.items()
            if kind == "optimizer" and "history_size" in getattr(settings, "defaults", {})
        },
        untried=untried + warnings + _idle_settings(expansion.cells, machine.device),
        import_dirs=import_dirs,
    )


def _check_fit(
    cells: list[Cell],
    resolved: dict[str, ResolvedData],
    models: dict[str, ModelFacts],
    problems: Problems,
) -> None:
    """What a cell asks of its data must be there: the classes, the shape, enough examples."""
    for cell in cells:
        data = resolved.get(dataset_key(cell.dataset))
        if data is None:
            continue
        facts, experiment = data.facts, cell.path[:2]
        unknown = sorted(set(cell.training.class_weights) - set(facts.classes))
        if unknown:
            problems.add(
                cell.where("class_weights"),
                f"{data.choice.name} has no class '{unknown[0]}'; it has {', '.join(facts.classes)}",
            )
        model = models.get(repr(cell.model))
        shape = None if model is None else model.input_shape
        if shape is not None and shape != facts.shape:
            sizes = [
                v.path for v in cell.values if v.key == "image_size" and v.kind == "dataset" and v.is_item
            ]
            problems.add(
                sizes[0] if sizes else (*experiment, "model"),
                f"model '{cell.model.name}' takes images of {shape}, {data.choice.name} has {facts.shape}",
                hint=f"set the dataset's image_size to {shape[-1]}",
            )


def _idle_settings(cells: list[Cell], device: str) -> tuple[str, ...]:
    """Warn of settings that have no effect on a device, though tables show them."""
    if device == "cpu" and any(cell.training.tf32 for cell in cells):
        return ("tf32 = true has no effect on a CPU",)
    return ()
