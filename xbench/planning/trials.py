"""Try the components of a suite in child processes, and report their mistakes at the lines that cause them.

A component whose process dies or hangs is not a mistake of the suite: only the component's own cells fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xbench.components.registry import Kind
from xbench.data.decoded import image_facts
from xbench.errors import TaskMistake, XbenchError
from xbench.isolation.ask import ask_each
from xbench.isolation.run import ChildFailed, Timeouts
from xbench.planning.describe import (
    ModelFacts,
    ModelTrial,
    TriedModel,
    describe_models,
    try_models,
    try_optimizers,
    try_recipes,
)
from xbench.planning.recipe_checks import check_group_settings, check_patterns
from xbench.planning.resolution import ResolvedData, resolve
from xbench.suite.axes import Value
from xbench.suite.blame import Outcomes, Tried, add_complaints
from xbench.suite.cells import Cell, DatasetChoice, Declared, Expansion
from xbench.suite.lines import KeyPath
from xbench.suite.problems import Problems
from xbench.text import quote_some
from xbench.training.recipe_mistakes import PairSettings, RecipeMistake
from xbench.training.settings import Choice, TrainingSettings

# A trial step takes milliseconds, and importing a plugin before it takes seconds.
_OPTIMIZER_TIMEOUT_S = 20.0

# The largest models take less time than this on a slow disk and a slow processor.
_MODEL_TIMEOUT_S = 180.0


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

    def try_choices(choices: Sequence[Choice]) -> list[str | XbenchError | ChildFailed | None]:
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
        tried = _make_tried(optimizer.values, complaint)
        trials.append(_Trial(optimizer.path, name, optimizer.choice, tried))
    _add_complaints(problems, "optimizer", trials, try_choices, _drop_setting)
    return tuple(warnings)


def check_recipes(
    expansion: Expansion, device: str, import_dirs: Sequence[str], problems: Problems
) -> tuple[tuple[str, ...], dict[str, PairSettings]]:
    """Try each optimizer with each recipe that is used with it, and add mistakes to `problems`.

    Returns:
        Warnings about keys without effect, and the settings of pairs of optimizers, by the `repr` of the
        choice.
    """
    pairs: dict[str, tuple[Choice, TrainingSettings]] = {}
    for cell in expansion.cells:
        if recipe := cell.training.recipe:
            training = TrainingSettings.model_validate(recipe)
            pairs.setdefault(repr((cell.optimizer, training)), (cell.optimizer, training))
    timeouts = Timeouts(silence_s=_OPTIMIZER_TIMEOUT_S)
    answers = ask_each(try_recipes, list(pairs.values()), device, import_dirs, timeouts=timeouts)
    found = dict(zip(pairs, answers, strict=True))
    warnings: dict[str, None] = {}
    settings: dict[str, PairSettings] = {}
    # By experiment and optimizer: its labels, and those with each mistake.
    labels: dict[tuple[str, str], set[str]] = {}
    wrong: dict[tuple[str, str], dict[tuple[KeyPath, RecipeMistake], dict[str, None]]] = {}
    for cell in expansion.cells:
        recipe = cell.training.recipe
        user, label = (cell.experiment, cell.optimizer.name), cell.column.split()[0]
        labels.setdefault(user, set()).add(label)
        trial = found.get(repr((cell.optimizer, TrainingSettings.model_validate(recipe)))) if recipe else None
        if trial is None or isinstance(trial, ChildFailed):  # the trial of the optimizer fails as well
            continue
        if trial.warning:
            warnings[trial.warning] = None
        if trial.pair is not None:
            settings[repr(cell.optimizer)] = trial.pair
        for mistake in trial.mistakes:
            inside = () if mistake.pattern is None else (mistake.pattern,)
            place = (*cell.where(*mistake.keys), *inside)
            wrong.setdefault(user, {}).setdefault((place, mistake), {})[label] = None
    for user, mistakes in wrong.items():
        for (place, mistake), names in mistakes.items():
            # Messages name the optimizer, which does not tell its tables apart.
            which = "" if len(names) == len(labels[user]) else f"{_name_columns(list(names))}: "
            problems.add(place, which + mistake.message, mistake.hint)
    return tuple(warnings), settings


def _name_columns(names: Sequence[str]) -> str:
    return f"{'column' if len(names) == 1 else 'columns'} {quote_some(names)}"


def resolve_datasets(
    expansion: Expansion, import_dirs: Sequence[str], problems: Problems
) -> dict[str, ResolvedData]:
    """List each dataset, or its fallback if it is not on this machine, and add mistakes to `problems`.

    Returns:
        The usable datasets, by the `repr` of the choice.
    """

    def try_subjects(choices: Sequence[DatasetChoice]) -> list[ResolvedData | XbenchError]:
        return [resolve(choice, import_dirs) for choice in choices]

    def drop(choice: DatasetChoice, value: Value) -> DatasetChoice:
        return replace(choice, chosen=_drop_setting(choice.chosen, value))

    found = _try_each("dataset", expansion.datasets, try_subjects, drop, problems)
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

    found = _try_each("model", expansion.models, try_subjects, _drop_setting, problems)
    return {key: facts for key, facts in found.items() if isinstance(facts, ModelFacts)}


def _try_each(
    kind: Kind,
    declared: Sequence[Declared[Any]],
    try_subjects: Callable[[list[Any]], Sequence[Any]],
    drop: Callable[[Any, Value], Any],
    problems: Problems,
) -> dict[str, Any]:
    """Try each choice of one kind once, and add complaints to `problems`; see `_add_complaints`.

    Returns:
        The outcome of each choice, by its `repr`.
    """
    choices = {repr(one.choice): one.choice for one in declared}
    found = dict(zip(choices, try_subjects(list(choices.values())), strict=True))
    trials = [
        _Trial(one.path, one.choice.name, one.choice, _make_tried(one.values, found[repr(one.choice)]))
        for one in declared
    ]
    _add_complaints(problems, kind, trials, try_subjects, drop)
    return found


def check_models(
    expansion: Expansion,
    resolved: dict[str, ResolvedData],
    models: dict[str, ModelFacts],
    pairs: Mapping[str, PairSettings],
    device: str,
    import_dirs: Sequence[str],
    problems: Problems,
) -> tuple[tuple[str, ...], list[ModelFacts]]:
    """Build each model once for each kind of images that it is used with, and run it on a few random ones.

    Args:
        pairs: the settings of pairs of optimizers, by the `repr` of the choice.

    Returns:
        Warnings, and the facts about each cell's model, updated by the trials. If there are problems, facts
        of some cells are missing.
    """

    def try_subjects(subjects: Sequence[ModelTrial]) -> list[TriedModel | XbenchError]:
        timeouts = Timeouts(silence_s=_MODEL_TIMEOUT_S)
        return ask_each(try_models, subjects, device, import_dirs, timeouts=timeouts)

    subjects = [
        _model_trial(cell, resolved, models, device, _find_pair(cell, pairs) is not None)
        for cell in expansion.cells
    ]
    distinct = {repr(subject): subject for subject in subjects if subject is not None}
    found = dict(zip(distinct, try_subjects(list(distinct.values())), strict=True))
    warnings: dict[str, None] = {}
    described: list[ModelFacts] = []
    trials: list[_Trial] = []
    task_trials: list[_Trial] = []
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
                parameters=outcome.parameters,
            )
            check_patterns(cell, outcome.parameters, problems)
            pair = _find_pair(cell, pairs)
            if pair is not None and outcome.matrices is not None:
                hidden = {*outcome.matrices, *(outcome.kernels if pair.flattens_kernels else ())}
                check_group_settings(cell, outcome.parameters, hidden, pair, problems)
            if outcome.warning:
                warnings[outcome.warning] = None
        values = [value for value in cell.values if _matters_to_model(value)]
        of_task, of_model = (wrong, None) if isinstance(wrong, TaskMistake) else (None, wrong)
        trials.append(_Trial(cell.model_path, cell.model.name, subject, _make_tried(values, of_model)))
        dataset = cell.dataset.chosen.name
        task_trials.append(_Trial(cell.dataset_path, dataset, subject, _make_tried(values, of_task)))
    _add_complaints(
        problems,
        "model",
        trials,
        try_subjects,
        lambda subject, value: replace(subject, model=_drop_setting(subject.model, value)),
    )
    _add_complaints(problems, "dataset", task_trials)
    return tuple(warnings), described


def _add_complaints(
    problems: Problems,
    kind: Kind,
    trials: Sequence[_Trial],
    try_subjects: Callable[[list[Any]], Sequence[object]] = lambda subjects: (),
    drop: Callable[[Any, Value], Any] | None = None,
) -> None:
    """Add the complaints about components of one kind to `problems`, at the values that cause them.

    Args:
        try_subjects: tries subjects, and returns what is wrong with each: a string or an `XbenchError`.
            Anything else means that nothing is wrong.
        drop: returns a subject without one of its settings, which then has its default. None if subjects
            cannot be tried without a setting.
    """
    tables: dict[tuple[KeyPath, str], list[_Trial]] = {}
    for trial in trials:
        tables.setdefault((trial.path, trial.name), []).append(trial)
    for (path, name), members in tables.items():

        def try_without(place: int, members: Sequence[_Trial] = members) -> Outcomes:
            if drop is None:
                return ()
            trial = members[place]
            values = [value for value in trial.tried.values if value.kind == kind]
            return _pair_outcomes(values, try_subjects([drop(trial.subject, value) for value in values]))

        add_complaints(problems, path, f"{kind} '{name}'", [trial.tried for trial in members], try_without)


def _drop_setting(choice: Choice, value: Value) -> Choice:
    """Return the component without one of its settings, or without one of its `rest`'s."""
    if choice.rest is not None and value.key.startswith("rest."):
        rest = _drop_setting(choice.rest, replace(value, key=value.key.removeprefix("rest.")))
        return Choice(choice.name, choice.params | {"rest": {"name": rest.name, **rest.params}})
    return Choice(choice.name, {key: chosen for key, chosen in choice.params.items() if key != value.key})


def _pair_outcomes(values: Sequence[Value], answers: Sequence[object]) -> Outcomes:
    """Pair each value with the complaint without it, except values whose trial gave no answer."""
    return [
        (value, answer if isinstance(answer, str) else getattr(answer, "message", ""))
        for value, answer in zip(values, answers, strict=True)
        if not isinstance(answer, ChildFailed)
    ]


def _make_tried(values: Sequence[Value], error: object) -> Tried:
    """Make a `Tried` from values and an outcome: a string or an `XbenchError` is a complaint."""
    if isinstance(error, XbenchError):
        return Tried(values, error.message, error.hint)
    return Tried(values, error if isinstance(error, str) else "")


def _matters_to_model(value: Value) -> bool:
    return value.kind in ("model", "dataset") or value.key in ("dtype", "autocast", "memory_format")


def _find_pair(cell: Cell, pairs: Mapping[str, PairSettings]) -> PairSettings | None:
    """Return the settings of a cell's pair of optimizers, if its `groups` must be checked against them."""
    return pairs.get(repr(cell.optimizer)) if cell.training.groups else None


def _model_trial(
    cell: Cell,
    resolved: dict[str, ResolvedData],
    models: dict[str, ModelFacts],
    device: str,
    finds_matrices: bool,
) -> ModelTrial | None:
    """Make the trial of a cell's model.

    If the model's files are not downloaded yet, the trial uses settings that need no files.

    Returns:
        None if the model cannot be tried yet, or if the model or the data has another mistake.
    """
    facts, data = models.get(repr(cell.model)), resolved.get(repr(cell.dataset))
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
        autocast=cell.training.autocast,
        memory_format=cell.training.memory_format_on(device),
        finds_matrices=finds_matrices,
    )
