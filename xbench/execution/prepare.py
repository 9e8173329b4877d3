"""From a plan to cells: data is decoded, and there must be enough of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from xbench.data.decode import DECODING
from xbench.data.decoded import DecodedDataset
from xbench.errors import XbenchError
from xbench.execution.component_trials import ResolvedData
from xbench.execution.inspection import ModelFacts, decode_dataset, decode_sample, fetch_weights
from xbench.execution.observer import Observer
from xbench.execution.plan import PlannedRun
from xbench.execution.planned import MemoryPlan, PlannedCell
from xbench.isolation.run import Ending, Patience, call_in_child, run_in_child
from xbench.suite.culprits import Tried, add_complaints
from xbench.suite.grid import Cell
from xbench.suite.lines import KeyPath
from xbench.text import name_seeds, some_of
from xbench.training.settings import CellSettings
from xbench.training.splits import missing_classes, split_examples

# Another process may be at the same work, and is waited for.
_MAY_WAIT = Patience(hangs_after_s=None)

# Training settings that decide which examples are trained on.
_SPLIT_BY = ("train_size", "validation", "balance")


def decode_all(plan: PlannedRun, observer: Observer) -> dict[str, DecodedDataset]:
    """Decode every dataset of a plan.

    Raises:
        XbenchError: one cannot be decoded.
    """
    decoded: dict[str, DecodedDataset] = {}
    for data in plan.data:
        if _key(data) not in decoded:
            name = data.choice.name
            observer.working(f"looking for the decoded images of {name}")
            decoded[_key(data)] = call_in_child(
                decode_dataset,
                data.choice,
                data.strict,
                plan.import_dirs,
                on_message=partial(_tell_decoding, observer, name),
                patience=_MAY_WAIT,
            )
    observer.working("splitting the data and identifying the cells")
    return decoded


def _tell_decoding(observer: Observer, dataset: str, progress: tuple[str, int, int]) -> None:
    """Pass on what `decode_dataset` sends."""
    step, done, total = progress
    if step == DECODING:
        observer.decoding(dataset, done, total)
    else:
        observer.working(f"{step} of {dataset}", done, total)


def decode_samples(plan: PlannedRun) -> dict[str, DecodedDataset]:
    """List every dataset of a plan whole, with a few of its images, which stand for the others.

    Raises:
        XbenchError: one cannot be decoded.
    """
    return {
        _key(data): call_in_child(decode_sample, data.choice, plan.import_dirs)
        for data in {_key(data): data for data in plan.data}.values()
    }


def make_cells(plan: PlannedRun, decoded: dict[str, DecodedDataset]) -> list[PlannedCell]:
    """A cell for every cell of a plan.

    Args:
        decoded: what `decode_all` or `decode_samples` gave.

    Raises:
        XbenchError: there are not enough examples, which is certain only when unreadable ones are left out.
    """
    problems, cells = plan.suite.problems, []
    splits: dict[KeyPath, list[Tried]] = {}
    for declared, resolved, model in zip(plan.cells, plan.data, plan.models, strict=True):
        data = decoded[_key(resolved)]
        device = plan.machine.device
        training = declared.training.model_copy(
            update={"memory_format": declared.training.memory_format_on(device)}
        )
        settings = CellSettings(
            declared.model, declared.optimizer, training, declared.seed, device, declared.dataset.storage
        )
        of_experiment = splits.setdefault(declared.path[:2], [])
        values = [v for v in declared.values if v.kind == "dataset" or v.key in _SPLIT_BY]
        try:
            available = len(split_examples(data, declared.training, declared.seed).train)
            of_experiment.append(Tried(values))
        except XbenchError as error:
            of_experiment.append(Tried(values, error.message, error.hint))
            continue
        cells.append(
            PlannedCell(
                declared=declared,
                settings=settings,
                resolved=resolved,
                data=data,
                model=model,
                available=available,
                default_history=plan.default_histories.get(declared.optimizer.name),
                machine=plan.machine,
                memory=MemoryPlan(plan.limit_of(declared)),
                import_dirs=plan.import_dirs,
                peers=_peers(plan, declared),
                checkpoint_every_s=plan.suite.header.checkpoint_interval,
            )
        )
    for path, of_experiment in splits.items():
        add_complaints(problems, (*path, "train_size"), "", of_experiment)
    problems.raise_if_any()
    return cells


def check_splits(plan: PlannedRun, cells: list[PlannedCell]) -> list[str]:
    """Look for classes that training, validation or test of a cell lack.

    Returns:
        Warnings, which name the experiments and seeds.

    Raises:
        XbenchError: a cell would train on a single class.
    """
    problems = plan.suite.problems
    seeds_of: dict[tuple[str, str], list[int]] = {}
    seen = set()
    for cell in cells:
        training, seed = cell.declared.training, cell.declared.seed
        drawn_by = (training.validation, training.train_size, training.balance)
        what = (cell.declared.experiment, seed, cell.data.fingerprint, *drawn_by)
        if what in seen:
            continue  # optimizers of one experiment share their splits
        seen.add(what)
        split = split_examples(cell.data, training, seed)
        lacking = missing_classes(cell.data, split.train)
        if len(lacking) == len(cell.data.classes) - 1:
            (only,) = set(cell.data.classes) - set(lacking)
            problems.add(
                cell.declared.where("train_size"),
                f"{cell.data.name}: '{only}' is the only class with images to train on (seed {seed})",
                "raise train_size, or draw as many of each class with balance = 'oversample'"
                if isinstance(training.train_size, int)
                else "add images of another class",
            )
        parts = {f"training (train_size = {training.train_size})": split.train, "test": split.test}
        if training.validation:
            parts["validation"] = split.validation
        for part, examples in parts.items():
            if lacking := missing_classes(cell.data, examples):
                text = f"{cell.data.name} has no image of {some_of(lacking)} for {part}"
                seeds_of.setdefault((cell.declared.experiment, text), []).append(seed)
    problems.raise_if_any()
    return [f"{experiment}, {name_seeds(seeds)}: {text}" for (experiment, text), seeds in seeds_of.items()]


def check_batches(plan: PlannedRun, cells: list[PlannedCell]) -> list[str]:
    """Look for micro-batches of models with batch normalisation, and for batches, or parts of them, of a
    single example, which not every model can train on.

    Returns:
        Warnings.

    Raises:
        XbenchError: a model cannot train on its batches.
    """
    problems, warnings = plan.suite.problems, []
    for cell in cells:
        training, name = cell.sized.training, cell.settings.model.name
        if cell.model.normalises and training.micro_batch < training.batch_size:
            problems.add(
                cell.declared.where("micro_batch", "batch_size"),
                f"model '{name}' has batch normalisation: batches of {training.batch_size:,} in "
                f"micro-batches of {training.micro_batch:,} would train a different function",
                hint='use micro_batch = "full", or a model without batch normalisation',
            )
            continue
        rest = training.train_size % training.batch_size
        batches = {training.batch_size} | ({rest} if rest and not training.drop_last else set())
        parts = {batch % training.micro_batch or training.micro_batch for batch in batches}
        if 1 not in parts or cell.settings.training.train_size == "largest":  # that is found later
            continue
        what = f"{training.train_size:,} examples in batches of {training.batch_size:,}"
        if training.micro_batch < training.batch_size:
            what += f" and micro-batches of {training.micro_batch:,}"
        what += " leave one example on its own"
        if cell.model.fails_alone:
            hint = "choose another batch_size, micro_batch or train_size"
            if rest == 1 and training.batch_size > 1:
                hint = f"leave it out with `drop_last = true`, or {hint}"
            problems.add(
                cell.declared.where("batch_size", "train_size", "micro_batch"),
                f"{what}, and model '{name}' fails on one: {cell.model.fails_alone}",
                hint,
            )
        elif cell.model.normalises and training.batch_size > 1:
            warnings.append(
                f"{cell.declared.experiment}: {what}, over which model '{name}' "
                "normalises; `drop_last = true` leaves it out"
            )
    problems.raise_if_any()
    return list(dict.fromkeys(warnings))


def _peers(plan: PlannedRun, declared: Cell) -> tuple[str, ...]:
    """All that has a say in how large `train_size = "largest"` is."""
    if declared.training.train_size != "largest":
        return ()
    others = [
        other
        for other in plan.cells
        if other.experiment == declared.experiment and other.seed == declared.seed
    ]
    return tuple(sorted(repr((other.optimizer, other.training, other.model)) for other in others))


def with_weights(cells: list[PlannedCell], observer: Observer) -> list[PlannedCell]:
    """Download the weights that are not on this machine.

    Returns:
        The cells in the same order; one whose weights cannot be had says so in `skip`.
    """
    asked: dict[str, Ending] = {}
    ready = []
    for cell in cells:
        if cell.model.missing and cell.skip is None:
            choice = cell.settings.model
            if repr(choice) not in asked:
                observer.working(f"fetching the weights of {choice.name}")
                asked[repr(choice)] = run_in_child(
                    fetch_weights,
                    choice,
                    cell.import_dirs,
                    on_message=lambda progress: observer.fetching(*progress),
                    patience=_MAY_WAIT,
                )
            cell = _with_fetched(cell, asked[repr(choice)])
        ready.append(cell)
    return ready


def _with_fetched(cell: PlannedCell, ending: Ending) -> PlannedCell:
    if ending.outcome != "returned":
        return cell.skipped("error", ending.reason)
    facts: ModelFacts = ending.value
    if not facts.missing:
        return replace(cell, model=facts)
    return replace(cell, model=facts).skipped("skipped", facts.missing, waits_for="weights")


def _key(data: ResolvedData) -> str:
    return repr((data.choice, data.strict))
