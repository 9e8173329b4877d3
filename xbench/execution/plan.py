"""From a suite to a plan: every mistake that can be known before compute is found here, and told at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from xbench.components.code_files import ImportDirs
from xbench.errors import DataNotFound, XbenchError
from xbench.execution.allowed import allowed_folders
from xbench.execution.asking import NoAnswer, ask, ask_each
from xbench.execution.inspection import (
    DatasetFacts,
    Machine,
    ModelFacts,
    ModelTrial,
    TriedModel,
    describe_components,
    describe_dataset,
    describe_machine,
    describe_models,
    try_models,
    try_optimizers,
)
from xbench.isolation.run import Patience, call_in_child
from xbench.memory.limits import can_limit_host_memory
from xbench.memory.machine import Bound, binding, with_memory_limit
from xbench.suite.axes import Value
from xbench.suite.culprits import Outcomes, Tried, add_complaints
from xbench.suite.grid import Cell, DatasetChoice, Declared, Expansion, expand, references
from xbench.suite.lines import KeyPath
from xbench.suite.problems import Problems
from xbench.suite.reader import Suite
from xbench.training.settings import Choice
from xbench.units import parse_duration, parse_limit

_GRAIN_BYTES = 256 << 20
# Of a tight limit, as a small container's, that would be a large part.
_FINE_GRAIN_BYTES, _MAX_FINE_BYTES = 32 << 20, 4 << 30

# A trial step takes milliseconds, the import of a plugin before it seconds.
_TRIAL_S = 20.0

# The largest models are read from a slow disk and run on a slow processor in less.
_MODEL_TRIAL_S = 180.0


@dataclass(frozen=True)
class ResolvedData:
    """The dataset that a cell will run on.

    Attributes:
        requested: the name in the suite; `choice` is its fallback where that is what runs.
        warning: what to tell the user if it is; empty otherwise.
    """

    requested: str
    choice: Choice
    strict: bool
    facts: DatasetFacts
    warning: str


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
        """What limits the memory of a cell's process: the least of the suite's limit, the experiment's, and
        what the machine has."""
        limits = self.suite.header.memory_limit, cell.memory_limit
        return binding(with_memory_limit(self.machine.memory_bounds, *limits))

    def limit_of(self, cell: Cell) -> int | None:
        """The limit that a cell's process is held to: resident bytes, or on CUDA bytes of the device. None
        where nobody asked for one and the system has no means to hold a process to it (macOS)."""
        asked = self.suite.header.memory_limit or cell.memory_limit
        if self.machine.device == "cpu" and not can_limit_host_memory() and not asked:
            return None
        bound = self.bound_of(cell)
        if bound.is_exact:
            return bound.limit_bytes
        # What a machine has to give drifts by the minute; coarser, it is the same from run to run.
        if bound.limit_bytes < _GRAIN_BYTES:
            return bound.limit_bytes
        grain = _FINE_GRAIN_BYTES if bound.limit_bytes < _MAX_FINE_BYTES else _GRAIN_BYTES
        return bound.limit_bytes // grain * grain

    def limits_asked(self, cell: Cell) -> tuple[str, ...]:
        """The memory limits that somebody asked for, in one form however they were written: the least share
        of what the machine has, in percent, and the least size, in bytes."""
        asked = [parse_limit(text) for text in (self.suite.header.memory_limit, cell.memory_limit) if text]
        shares = sorted((limit for limit in asked if limit.percent), key=lambda limit: limit.percent)
        sizes = sorted((limit for limit in asked if limit.size_bytes), key=lambda limit: limit.size_bytes)
        return tuple(str(limit) for limit in (*shares[:1], *sizes[:1]))

    def timeout_of(self, cell: Cell) -> float | None:
        """The most seconds that a cell's process may take."""
        asked = cell.timeout or self.suite.header.timeout
        return parse_duration(asked) if asked else None


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
    untried = _check_optimizers(expansion, machine.device, import_dirs, problems)
    on_step("listing the datasets")
    resolved = _resolve_datasets(expansion, import_dirs, problems)
    on_step("looking for the models' weights")
    models = _describe_models(expansion, import_dirs, problems)
    _check_fit(expansion.cells, resolved, models, problems)
    on_step("trying the models")
    warnings, tried = _check_models(expansion, resolved, models, machine.device, import_dirs, problems)
    problems.raise_if_any()
    return PlannedRun(
        suite=suite,
        machine=machine,
        cells=expansion.cells,
        data=[resolved[_key(cell.dataset)] for cell in expansion.cells],
        models=tried,
        memory_bound=binding(with_memory_limit(machine.memory_bounds, header.memory_limit)),
        default_histories={
            name: settings.defaults["history_size"]
            for (kind, name), settings in known.items()
            if kind == "optimizer" and "history_size" in getattr(settings, "defaults", {})
        },
        untried=untried + warnings + _idle_settings(expansion.cells, machine.device),
        import_dirs=import_dirs,
    )


def _check_optimizers(
    expansion: Expansion, device: str, import_dirs: Sequence[str], problems: Problems
) -> tuple[str, ...]:
    """What an optimizer objects to is a mistake of the suite. That it dies or hangs is for its cells to show,
    while those of others go on: a sentence on each that does is returned."""

    def complaints_about(choices: list[Choice]) -> list[str | NoAnswer | None]:
        patience = Patience(silence_s=_TRIAL_S)
        return ask_each(try_optimizers, choices, device, import_dirs, patience=patience)

    untried = []
    alike: dict[tuple[KeyPath, str], list[tuple[Declared[Choice], Tried]]] = {}
    complaints = complaints_about([optimizer.choice for optimizer in expansion.optimizers])
    for optimizer, complaint in zip(expansion.optimizers, complaints, strict=True):
        name = optimizer.choice.name
        if isinstance(complaint, NoAnswer):
            untried.append(f"optimizer '{name}' took no trial step: {complaint.message}")
            complaint = None
        tried = Tried(optimizer.values, complaint or "")
        alike.setdefault((optimizer.path, name), []).append((optimizer, tried))
    for (path, name), members in alike.items():
        optimizers, tried = zip(*members, strict=True)

        def try_without(place: int, optimizers: Sequence[Declared[Choice]] = optimizers) -> Outcomes:
            choice, values = optimizers[place].choice, optimizers[place].values
            return _outcomes(values, complaints_about([_without(choice, value) for value in values]))

        add_complaints(problems, path, f"optimizer '{name}'", tried, try_without)
    return tuple(untried)


def _without(choice: Choice, value: Value) -> Choice:
    """The component without one of its settings, which then has its default."""
    return Choice(choice.name, {key: chosen for key, chosen in choice.params.items() if key != value.key})


def _outcomes(values: Sequence[Value], answers: Sequence[object]) -> Outcomes:
    """Pair each value with what is wrong without it, save those whose trial gave no answer."""
    return [
        (value, answer if isinstance(answer, str) else getattr(answer, "message", ""))
        for value, answer in zip(values, answers, strict=True)
        if not isinstance(answer, NoAnswer)
    ]


def _resolve_datasets(
    expansion: Expansion, import_dirs: Sequence[str], problems: Problems
) -> dict[str, ResolvedData]:
    resolved: dict[str, ResolvedData] = {}
    wrong: dict[str, XbenchError] = {}
    for dataset in (declared.choice for declared in expansion.datasets):
        if _key(dataset) in resolved or _key(dataset) in wrong:
            continue
        answer = _resolved_or_error(dataset, import_dirs)
        if isinstance(answer, XbenchError):
            wrong[_key(dataset)] = answer
        else:
            resolved[_key(dataset)] = answer
    alike: dict[tuple[KeyPath, str], list[tuple[Declared[DatasetChoice], Tried]]] = {}
    for declared in expansion.datasets:
        tried = _tried(declared.values, wrong.get(_key(declared.choice)))
        alike.setdefault((declared.path, declared.choice.chosen.name), []).append((declared, tried))
    for (path, name), members in alike.items():
        datasets, tried = zip(*members, strict=True)

        def try_without(place: int, datasets: Sequence[Declared[DatasetChoice]] = datasets) -> Outcomes:
            choice, values = datasets[place].choice, datasets[place].values
            return _outcomes(
                values,
                [
                    _resolved_or_error(replace(choice, chosen=_without(choice.chosen, value)), import_dirs)
                    for value in values
                ],
            )

        add_complaints(problems, path, f"dataset '{name}'", tried, try_without)
    return resolved


def _tried(values: Sequence[Value], error: object) -> Tried:
    """What came of a combination: an `XbenchError`, or anything else for nothing wrong."""
    return Tried(values, error.message, error.hint) if isinstance(error, XbenchError) else Tried(values)


def _resolved_or_error(dataset: DatasetChoice, import_dirs: Sequence[str]) -> ResolvedData | XbenchError:
    try:
        return _resolve(dataset, import_dirs)
    except NoAnswer as error:
        return XbenchError(f"dataset '{dataset.chosen.name}' cannot be listed: {error.message}", error.hint)
    except XbenchError as error:
        return error


def _resolve(dataset: DatasetChoice, import_dirs: Sequence[str]) -> ResolvedData:
    wanted = dataset.chosen.name
    try:
        facts = ask(describe_dataset, dataset.chosen, import_dirs)
        return ResolvedData(wanted, dataset.chosen, dataset.strict, facts, warning="")
    except DataNotFound as error:
        if dataset.fallback is None:
            raise
        facts = ask(describe_dataset, dataset.fallback, import_dirs)
        warning = f"{dataset.fallback.name} stands in for {wanted}"
        if facts.stand_in:
            warning += f" ({facts.stand_in})"
        warning += f", because: {error.message}"
        if error.hint:
            warning += f"; to run on {wanted}: {error.hint}"
        return ResolvedData(wanted, dataset.fallback, dataset.strict, facts, warning)


def _describe_models(
    expansion: Expansion, import_dirs: Sequence[str], problems: Problems
) -> dict[str, ModelFacts]:
    choices = {repr(declared.choice): declared.choice for declared in expansion.models}
    described = ask_each(describe_models, list(choices.values()), import_dirs)
    models = dict(zip(choices, described, strict=True))
    alike: dict[tuple[KeyPath, str], list[tuple[Declared[Choice], Tried]]] = {}
    for declared in expansion.models:
        tried = _tried(declared.values, models[repr(declared.choice)])
        alike.setdefault((declared.path, declared.choice.name), []).append((declared, tried))
    for (path, name), members in alike.items():
        of_table, tried = zip(*members, strict=True)

        def try_without(place: int, of_table: Sequence[Declared[Choice]] = of_table) -> Outcomes:
            choice, values = of_table[place].choice, of_table[place].values
            variants = [_without(choice, value) for value in values]
            return _outcomes(values, ask_each(describe_models, variants, import_dirs))

        add_complaints(problems, path, f"model '{name}'", tried, try_without)
    return {key: facts for key, facts in models.items() if isinstance(facts, ModelFacts)}


def _check_fit(
    cells: list[Cell],
    resolved: dict[str, ResolvedData],
    models: dict[str, ModelFacts],
    problems: Problems,
) -> None:
    """What a cell asks of its data must be there: the classes, the shape, enough examples."""
    for cell in cells:
        data = resolved.get(_key(cell.dataset))
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


def _check_models(
    expansion: Expansion,
    resolved: dict[str, ResolvedData],
    models: dict[str, ModelFacts],
    device: str,
    import_dirs: Sequence[str],
    problems: Problems,
) -> tuple[tuple[str, ...], list[ModelFacts]]:
    """Build each model once for each kind of images that it is given, and run it on a few of them.

    That it dies or hangs is for its cells to show.

    Returns:
        Warnings, and the facts of each cell's model with what was found of it. If there are problems, these
        are not for all cells.
    """
    trials = [_trial(cell, resolved, models, device) for cell in expansion.cells]
    distinct = {repr(trial): trial for trial in trials if trial is not None}

    def outcomes_of(trials: list[ModelTrial]) -> list[TriedModel | XbenchError]:
        patience = Patience(silence_s=_MODEL_TRIAL_S)
        return ask_each(try_models, trials, device, import_dirs, patience=patience)

    found = dict(zip(distinct, outcomes_of(list(distinct.values())), strict=True))
    warnings: dict[str, None] = {}
    described: list[ModelFacts] = []
    alike: dict[tuple[KeyPath, str], list[tuple[ModelTrial, Tried]]] = {}
    for cell, trial in zip(expansion.cells, trials, strict=True):
        if repr(cell.model) not in models:
            continue
        described.append(models[repr(cell.model)])
        if trial is None:
            continue
        outcome, wrong = found[repr(trial)], None
        if isinstance(outcome, NoAnswer) and outcome.out_of_memory:
            # What is meant to run out of memory may do so as soon as its model is built.
            if cell.expect != "oom":
                message = f"model '{cell.model.name}' cannot be built: {outcome.message}"
                wrong = XbenchError(message, outcome.hint)
        elif isinstance(outcome, NoAnswer):
            warnings[f"model '{cell.model.name}' could not be tried: {outcome.message}"] = None
        elif isinstance(outcome, XbenchError):
            wrong = outcome
        else:
            described[-1] = replace(
                described[-1],
                is_frozen=outcome.is_frozen,
                fails_alone=outcome.fails_alone,
                normalises=outcome.normalises,
            )
            if outcome.warning:
                warnings[outcome.warning] = None
        tried = _tried([value for value in cell.values if _matters_to_model(value)], wrong)
        alike.setdefault((cell.model_path, cell.model.name), []).append((trial, tried))
    for (path, name), members in alike.items():
        of_cells, tried = zip(*members, strict=True)

        def try_without(place: int, of_cells: Sequence[ModelTrial] = of_cells, tried=tried) -> Outcomes:
            trial = of_cells[place]
            values = [value for value in tried[place].values if value.kind == "model"]
            variants = [replace(trial, model=_without(trial.model, value)) for value in values]
            return _outcomes(values, outcomes_of(variants))

        add_complaints(problems, path, f"model '{name}'", tried, try_without)
    return tuple(warnings), described


def _matters_to_model(value: Value) -> bool:
    return value.kind in ("model", "dataset") or value.key in ("dtype", "memory_format")


def _trial(
    cell: Cell, resolved: dict[str, ResolvedData], models: dict[str, ModelFacts], device: str
) -> ModelTrial | None:
    """What a cell asks of its model; of one that needs no files where its own are yet to be fetched. None if
    the model cannot be tried yet, or its data has another mistake."""
    facts, data = models.get(repr(cell.model)), resolved.get(_key(cell.dataset))
    if facts is None or data is None or (facts.missing and facts.untrained is None):
        return None
    return ModelTrial(
        model=Choice(cell.model.name, facts.untrained) if facts.missing else cell.model,
        num_classes=len(data.facts.classes),
        image_shape=facts.input_shape or data.facts.shape,
        dtype=cell.training.dtype,
        memory_format=cell.training.memory_format_on(device),
    )


def _key(dataset: DatasetChoice) -> str:
    return repr(dataset)
