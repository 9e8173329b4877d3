"""Try the components of a suite in child processes, and report their mistakes at the lines that cause them.

A component whose process dies or hangs is not a mistake of the suite: only the component's own cells fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xbench.components.registry import Kind
from xbench.data.decoded import image_facts
from xbench.errors import DataNotFound, XbenchError
from xbench.isolation.ask import ask, ask_each
from xbench.isolation.run import ChildFailed, Timeouts
from xbench.planning.datasets import DatasetFacts, describe_dataset
from xbench.planning.describe import (
    ModelFacts,
    ModelTrial,
    TriedModel,
    describe_models,
    try_models,
    try_optimizers,
)
from xbench.planning.task_facts import TaskFacts
from xbench.suite.axes import Value
from xbench.suite.blame import Outcomes, Tried, add_complaints
from xbench.suite.grid import Cell, DatasetChoice, Expansion
from xbench.suite.lines import KeyPath
from xbench.suite.problems import Problems
from xbench.training.settings import Choice

# A trial step takes milliseconds, and importing a plugin before it takes seconds.
_OPTIMIZER_TIMEOUT_S = 20.0

# The largest models take less time than this on a slow disk and a slow processor.
_MODEL_TIMEOUT_S = 180.0


@dataclass(frozen=True)
class ResolvedData:
    """The dataset that a cell will run on.

    Attributes:
        requested: the dataset's name in the suite.
        choice: the dataset to use: the requested one, or its fallback.
        strict: whether unreadable images are an error.
        facts: the facts about `choice`.
        warning: a warning if the fallback is used; "" otherwise.
    """

    requested: str
    choice: Choice
    strict: bool
    facts: DatasetFacts
    warning: str


@dataclass(frozen=True)
class _Trial:
    """The result of trying one combination of settings.

    Attributes:
        path: key path of the table that declares the component.
        name: name of the component.
        subject: what was tried: a choice, or a `ModelTrial`.
        tried: the combination of values, and the complaint about it.
    """

    path: KeyPath
    name: str
    subject: Any
    tried: Tried


def check_optimizers(
    expansion: Expansion, device: str, import_dirs: Sequence[str], problems: Problems
) -> tuple[str, ...]:
    """Take a few steps with each optimizer, and add its complaints to `problems`.

    Returns:
        A warning for each optimizer whose process died or hung.
    """

    def try_choices(choices: Sequence[Choice]) -> list[str | ChildFailed | None]:
        return ask_each(
            try_optimizers, choices, device, import_dirs, timeouts=Timeouts(silence_s=_OPTIMIZER_TIMEOUT_S)
        )

    warnings, trials = [], []
    complaints = try_choices([optimizer.choice for optimizer in expansion.optimizers])
    for optimizer, complaint in zip(expansion.optimizers, complaints, strict=True):
        name = optimizer.choice.name
        if isinstance(complaint, ChildFailed):
            warnings.append(f"optimizer '{name}' could not be tried: {complaint.message}")
            complaint = None
        tried = Tried(optimizer.values, complaint or "")
        trials.append(_Trial(optimizer.path, name, optimizer.choice, tried))
    _add_complaints(problems, "optimizer", trials, try_choices, _drop_setting)
    return tuple(warnings)


def resolve_datasets(
    expansion: Expansion, import_dirs: Sequence[str], problems: Problems
) -> dict[str, ResolvedData]:
    """List each dataset, or its fallback if it is not on this machine, and add mistakes to `problems`.

    Returns:
        The usable datasets, by `dataset_key`.
    """

    def try_subjects(choices: Sequence[DatasetChoice]) -> list[ResolvedData | XbenchError]:
        return [_resolve_or_error(choice, import_dirs) for choice in choices]

    choices = {dataset_key(declared.choice): declared.choice for declared in expansion.datasets}
    found = dict(zip(choices, try_subjects(list(choices.values())), strict=True))
    trials = [
        _Trial(
            declared.path,
            declared.choice.chosen.name,
            declared.choice,
            _make_tried(declared.values, found[dataset_key(declared.choice)]),
        )
        for declared in expansion.datasets
    ]
    _add_complaints(
        problems,
        "dataset",
        trials,
        try_subjects,
        lambda choice, value: replace(choice, chosen=_drop_setting(choice.chosen, value)),
    )
    return {key: data for key, data in found.items() if isinstance(data, ResolvedData)}


def describe_each_model(
    expansion: Expansion, import_dirs: Sequence[str], problems: Problems
) -> dict[str, ModelFacts]:
    """Describe each model, and add mistakes in its settings to `problems`.

    Returns:
        The facts about the usable models, by the `repr` of the choice.
    """

    def try_subjects(choices: Sequence[Choice]) -> list[ModelFacts | XbenchError]:
        return ask_each(describe_models, choices, import_dirs)

    choices = {repr(declared.choice): declared.choice for declared in expansion.models}
    found = dict(zip(choices, try_subjects(list(choices.values())), strict=True))
    trials = [
        _Trial(
            declared.path,
            declared.choice.name,
            declared.choice,
            _make_tried(declared.values, found[repr(declared.choice)]),
        )
        for declared in expansion.models
    ]
    _add_complaints(problems, "model", trials, try_subjects, _drop_setting)
    return {key: facts for key, facts in found.items() if isinstance(facts, ModelFacts)}


def check_models(
    expansion: Expansion,
    resolved: dict[str, ResolvedData],
    models: dict[str, ModelFacts],
    device: str,
    import_dirs: Sequence[str],
    problems: Problems,
) -> tuple[tuple[str, ...], list[ModelFacts]]:
    """Build each model once for each kind of images that it is used with, and run it on a few random ones.

    Returns:
        Warnings, and the facts about each cell's model, updated by the trials. If there are problems, facts
        of some cells are missing.
    """

    def try_subjects(subjects: Sequence[ModelTrial]) -> list[TriedModel | XbenchError]:
        timeouts = Timeouts(silence_s=_MODEL_TIMEOUT_S)
        return ask_each(try_models, subjects, device, import_dirs, timeouts=timeouts)

    subjects = [_model_trial(cell, resolved, models, device) for cell in expansion.cells]
    distinct = {repr(subject): subject for subject in subjects if subject is not None}
    found = dict(zip(distinct, try_subjects(list(distinct.values())), strict=True))
    warnings: dict[str, None] = {}
    described: list[ModelFacts] = []
    trials = []
    for cell, subject in zip(expansion.cells, subjects, strict=True):
        if repr(cell.model) not in models:
            continue
        described.append(models[repr(cell.model)])
        if subject is None:
            continue
        outcome, wrong = found[repr(subject)], None
        if isinstance(outcome, ChildFailed) and outcome.ending.out_of_memory:
            # A cell that is meant to run out of memory may do so while its model is built.
            if cell.expect != "oom":
                message = f"model '{cell.model.name}' cannot be built: {outcome.message}"
                wrong = XbenchError(message, outcome.hint)
        elif isinstance(outcome, ChildFailed):
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
        tried = _make_tried([value for value in cell.values if _matters_to_model(value)], wrong)
        trials.append(_Trial(cell.model_path, cell.model.name, subject, tried))
    _add_complaints(
        problems,
        "model",
        trials,
        try_subjects,
        lambda subject, value: replace(subject, model=_drop_setting(subject.model, value)),
    )
    return tuple(warnings), described


def dataset_key(dataset: DatasetChoice) -> str:
    """Return a key for a dataset of a suite, with its settings and its fallback."""
    return repr(dataset)


def _add_complaints(
    problems: Problems,
    kind: Kind,
    trials: Sequence[_Trial],
    try_subjects: Callable[[list[Any]], Sequence[object]],
    drop: Callable[[Any, Value], Any],
) -> None:
    """Add the complaints about components of one kind to `problems`, at the values that cause them.

    Args:
        try_subjects: tries subjects, and returns what is wrong with each: a string or an `XbenchError`.
            Anything else means that nothing is wrong.
        drop: returns a subject without one of its settings, which then has its default.
    """
    tables: dict[tuple[KeyPath, str], list[_Trial]] = {}
    for trial in trials:
        tables.setdefault((trial.path, trial.name), []).append(trial)
    for (path, name), members in tables.items():

        def try_without(place: int, members: Sequence[_Trial] = members) -> Outcomes:
            trial = members[place]
            values = [value for value in trial.tried.values if value.kind == kind]
            return _pair_outcomes(values, try_subjects([drop(trial.subject, value) for value in values]))

        add_complaints(problems, path, f"{kind} '{name}'", [trial.tried for trial in members], try_without)


def _drop_setting(choice: Choice, value: Value) -> Choice:
    """Return the component without one of its settings."""
    return Choice(choice.name, {key: chosen for key, chosen in choice.params.items() if key != value.key})


def _pair_outcomes(values: Sequence[Value], answers: Sequence[object]) -> Outcomes:
    """Pair each value with the complaint without it, except values whose trial gave no answer."""
    return [
        (value, answer if isinstance(answer, str) else getattr(answer, "message", ""))
        for value, answer in zip(values, answers, strict=True)
        if not isinstance(answer, ChildFailed)
    ]


def _make_tried(values: Sequence[Value], error: object) -> Tried:
    """Make a `Tried` from values and an outcome: an `XbenchError`, or anything else for no complaint."""
    return Tried(values, error.message, error.hint) if isinstance(error, XbenchError) else Tried(values)


def _resolve_or_error(dataset: DatasetChoice, import_dirs: Sequence[str]) -> ResolvedData | XbenchError:
    try:
        return _resolve(dataset, import_dirs)
    except ChildFailed as error:
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


def _matters_to_model(value: Value) -> bool:
    return value.kind in ("model", "dataset") or value.key in ("dtype", "memory_format")


def _model_trial(
    cell: Cell, resolved: dict[str, ResolvedData], models: dict[str, ModelFacts], device: str
) -> ModelTrial | None:
    """Make the trial of a cell's model.

    If the model's files are not downloaded yet, the trial uses settings that need no files.

    Returns:
        None if the model cannot be tried yet, or if the model or the data has another mistake.
    """
    facts, data = models.get(repr(cell.model)), resolved.get(dataset_key(cell.dataset))
    if facts is None or data is None:
        return None
    model = cell.model
    if facts.missing:
        if facts.untrained is None:
            return None
        model = Choice(cell.model.name, facts.untrained)
    known = data.facts.facts
    if facts.input_shape is not None and data.facts.has_images:
        known = image_facts(facts.input_shape, len(data.facts.classes), known.rows)
    return ModelTrial(
        model=model,
        facts=known,
        dataset=None if data.facts.has_images else data.choice,
        dtype=cell.training.dtype,
        memory_format=cell.training.memory_format_on(device),
    )


def fit_to_data(cells: list[Cell], resolved: dict[str, ResolvedData], problems: Problems) -> list[Cell]:
    """Choose the validation and selection of each cell that its data allows, where the suite does not say.

    Nothing is held out of data that brings its own validation rows, or that is trained on as a whole. Without
    validation rows, the last epoch's weights are used. What the suite says itself, and the data does not
    allow, is added to `problems`.
    """
    return [
        _fit_cell(cell, resolved[key].facts.task, resolved[key].choice.name, problems)
        if (key := dataset_key(cell.dataset)) in resolved
        else cell
        for cell in cells
    ]


def _fit_cell(cell: Cell, task: TaskFacts, name: str, problems: Problems) -> Cell:
    training, said = cell.training, {value.key for value in cell.values if value.kind == "training"}
    changes: dict[str, Any] = {}
    if task.has_validation and "validation" in said and training.validation:
        problems.add(
            cell.where("validation"),
            f"{name} brings validation rows, so none are held out",
            hint="leave out validation",
        )
    if (task.has_validation or not task.hold_out) and "validation" not in said:
        changes["validation"] = 0.0
    held_out = task.has_validation or bool(changes.get("validation", training.validation))
    if not held_out and training.selection == "validation_loss":
        if "selection" in said:
            problems.add(
                cell.where("selection"),
                f"{name} has no validation rows to select by",
                hint="set validation > 0, or selection = 'last'",
            )
        changes["selection"] = "last"
    if not task.has_test and training.selection == "test_loss":
        problems.add(
            cell.where("selection"), f"{name} has no test rows to select by", hint="set selection = 'last'"
        )
    if not task.additive and "micro_batch" in said and training.micro_batch != "full":
        problems.add(
            cell.where("micro_batch"),
            f"the task of {name} is not additive, so its batches cannot be computed in parts",
            hint='set micro_batch = "full"',
        )
    return replace(cell, training=training.model_copy(update=changes)) if changes else cell


def check_data(
    cells: list[Cell],
    resolved: dict[str, ResolvedData],
    models: dict[str, ModelFacts],
    problems: Problems,
) -> None:
    """Check that the data of each cell has the classes and the image shape that the cell needs."""
    for cell in cells:
        data = resolved.get(dataset_key(cell.dataset))
        if data is None:
            continue
        facts, experiment = data.facts, cell.path[:2]
        if not facts.has_images and cell.dataset.storage != "uint8":
            problems.add(
                (*experiment, "dataset", "storage"),
                f"storage = '{cell.dataset.storage}' is for images, and {data.choice.name} has none",
                hint="leave out storage",
            )
        unknown = sorted(set(cell.training.class_weights) - set(facts.classes))
        if not facts.classes and (unknown or cell.training.balance != "none"):
            key = "class_weights" if unknown else "balance"
            problems.add(cell.where(key), f"{data.choice.name} has no classes, so '{key}' has no meaning")
        elif unknown:
            problems.add(
                cell.where("class_weights"),
                f"{data.choice.name} has no class '{unknown[0]}'; its classes are {', '.join(facts.classes)}",
            )
        model = models.get(repr(cell.model))
        shape = None if model is None else model.input_shape
        if shape is not None and shape != facts.shape:
            what = "images" if facts.has_images else "inputs"
            sizes = [
                v.path for v in cell.values if v.key == "image_size" and v.kind == "dataset" and v.is_item
            ]
            problems.add(
                sizes[0] if sizes else (*experiment, "model"),
                f"model '{cell.model.name}' takes {what} of shape {shape}, "
                f"but {data.choice.name} has {facts.shape}",
                hint=f"set the dataset's image_size to {shape[-1]}" if facts.has_images else "",
            )


def find_idle_settings(cells: list[Cell], device: str) -> tuple[str, ...]:
    """Return warnings about settings that have no effect on a device, although tables show them."""
    if device == "cpu" and any(cell.training.tf32 for cell in cells):
        return ("tf32 = true has no effect on a CPU",)
    return ()
