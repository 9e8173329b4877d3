"""From a plan to jobs: data is decoded, and there must be enough of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from xbench.data.decode import DECODING
from xbench.data.decoded import DecodedDataset
from xbench.errors import XbenchError
from xbench.execution.component_trials import ResolvedData
from xbench.execution.inspection import ModelFacts, decode_dataset, decode_sample, fetch_weights
from xbench.execution.job import Job
from xbench.execution.observer import Observer
from xbench.execution.plan import PlannedRun
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


def make_jobs(plan: PlannedRun, decoded: dict[str, DecodedDataset]) -> list[Job]:
    """A job for every cell of a plan.

    Args:
        decoded: what `decode_all` or `decode_samples` gave.

    Raises:
        XbenchError: there are not enough examples, which is certain only when unreadable ones are left out.
    """
    problems, jobs = plan.suite.problems, []
    splits: dict[KeyPath, list[Tried]] = {}
    for cell, resolved, model in zip(plan.cells, plan.data, plan.models, strict=True):
        data = decoded[_key(resolved)]
        device = plan.machine.device
        training = cell.training.model_copy(update={"memory_format": cell.training.memory_format_on(device)})
        settings = CellSettings(cell.model, cell.optimizer, training, cell.seed, device, cell.dataset.storage)
        of_experiment = splits.setdefault(cell.path[:2], [])
        values = [v for v in cell.values if v.kind == "dataset" or v.key in _SPLIT_BY]
        try:
            available = len(split_examples(data, cell.training, cell.seed).train)
            of_experiment.append(Tried(values))
        except XbenchError as error:
            of_experiment.append(Tried(values, error.message, error.hint))
            continue
        jobs.append(
            Job(
                cell=cell,
                settings=settings,
                resolved=resolved,
                data=data,
                model=model,
                available=available,
                default_history=plan.default_histories.get(cell.optimizer.name),
                machine=plan.machine,
                memory_limit_bytes=plan.limit_of(cell),
                import_dirs=plan.import_dirs,
                asked_limits=tuple(map(str, cell.memory_limits)),
                company=_company(plan, cell),
                timeout_s=cell.timeout_s,
                checkpoint_every_s=plan.suite.header.checkpoint_interval,
            )
        )
    for path, of_experiment in splits.items():
        add_complaints(problems, (*path, "train_size"), "", of_experiment)
    problems.raise_if_any()
    return jobs


def check_splits(plan: PlannedRun, jobs: list[Job]) -> list[str]:
    """Look for classes that training, validation or test of a job lack.

    Returns:
        Warnings, which name the experiments and seeds.

    Raises:
        XbenchError: a job would train on a single class.
    """
    problems = plan.suite.problems
    seeds_of: dict[tuple[str, str], list[int]] = {}
    seen = set()
    for job in jobs:
        training, seed = job.cell.training, job.cell.seed
        drawn_by = (training.validation, training.train_size, training.balance)
        what = (job.cell.experiment, seed, job.data.fingerprint, *drawn_by)
        if what in seen:
            continue  # optimizers of one experiment share their splits
        seen.add(what)
        split = split_examples(job.data, training, seed)
        lacking = missing_classes(job.data, split.train)
        if len(lacking) == len(job.data.classes) - 1:
            (only,) = set(job.data.classes) - set(lacking)
            problems.add(
                job.cell.where("train_size"),
                f"{job.data.name}: '{only}' is the only class with images to train on (seed {seed})",
                "raise train_size, or draw as many of each class with balance = 'oversample'"
                if isinstance(training.train_size, int)
                else "add images of another class",
            )
        parts = {f"training (train_size = {training.train_size})": split.train, "test": split.test}
        if training.validation:
            parts["validation"] = split.validation
        for part, examples in parts.items():
            if lacking := missing_classes(job.data, examples):
                text = f"{job.data.name} has no image of {some_of(lacking)} for {part}"
                seeds_of.setdefault((job.cell.experiment, text), []).append(seed)
    problems.raise_if_any()
    return [f"{experiment}, {name_seeds(seeds)}: {text}" for (experiment, text), seeds in seeds_of.items()]


def check_batches(plan: PlannedRun, jobs: list[Job]) -> list[str]:
    """Look for micro-batches of models with batch normalisation, and for batches, or parts of them, of a
    single example, which not every model can train on.

    Returns:
        Warnings.

    Raises:
        XbenchError: a model cannot train on its batches.
    """
    problems, warnings = plan.suite.problems, []
    for job in jobs:
        training, name = job.sized.training, job.settings.model.name
        if job.model.normalises and training.micro_batch < training.batch_size:
            problems.add(
                job.cell.where("micro_batch", "batch_size"),
                f"model '{name}' has batch normalisation: batches of {training.batch_size:,} in "
                f"micro-batches of {training.micro_batch:,} would train a different function",
                hint='use micro_batch = "full", or a model without batch normalisation',
            )
            continue
        rest = training.train_size % training.batch_size
        batches = {training.batch_size} | ({rest} if rest and not training.drop_last else set())
        parts = {batch % training.micro_batch or training.micro_batch for batch in batches}
        if 1 not in parts or job.settings.training.train_size == "largest":  # that is found later
            continue
        what = f"{training.train_size:,} examples in batches of {training.batch_size:,}"
        if training.micro_batch < training.batch_size:
            what += f" and micro-batches of {training.micro_batch:,}"
        what += " leave one example on its own"
        if job.model.fails_alone:
            hint = "choose another batch_size, micro_batch or train_size"
            if rest == 1 and training.batch_size > 1:
                hint = f"leave it out with `drop_last = true`, or {hint}"
            problems.add(
                job.cell.where("batch_size", "train_size", "micro_batch"),
                f"{what}, and model '{name}' fails on one: {job.model.fails_alone}",
                hint,
            )
        elif job.model.normalises and training.batch_size > 1:
            warnings.append(
                f"{job.cell.experiment}: {what}, over which model '{name}' "
                "normalises; `drop_last = true` leaves it out"
            )
    problems.raise_if_any()
    return list(dict.fromkeys(warnings))


def _company(plan: PlannedRun, cell: Cell) -> tuple[str, ...]:
    """All that has a say in how large `train_size = "largest"` is."""
    if cell.training.train_size != "largest":
        return ()
    others = [
        other for other in plan.cells if other.experiment == cell.experiment and other.seed == cell.seed
    ]
    return tuple(sorted(repr((other.optimizer, other.training, other.model)) for other in others))


def with_weights(jobs: list[Job], observer: Observer) -> list[Job]:
    """Download the weights that are not on this machine.

    Returns:
        The jobs in the same order; one whose weights cannot be had says so in `unfit`.
    """
    asked: dict[str, Ending] = {}
    ready = []
    for job in jobs:
        if job.model.missing and job.unfit is None:
            choice = job.settings.model
            if repr(choice) not in asked:
                observer.working(f"fetching the weights of {choice.name}")
                asked[repr(choice)] = run_in_child(
                    fetch_weights,
                    choice,
                    job.import_dirs,
                    on_message=lambda progress: observer.fetching(*progress),
                    patience=_MAY_WAIT,
                )
            job = _with_fetched(job, asked[repr(choice)])
        ready.append(job)
    return ready


def _with_fetched(job: Job, ending: Ending) -> Job:
    if ending.outcome != "returned":
        return replace(job, unfit=("error", ending.reason))
    facts: ModelFacts = ending.value
    if not facts.missing:
        return replace(job, model=facts)
    return replace(job, model=facts, unfit=("skipped", facts.missing), waits_for="weights")


def _key(data: ResolvedData) -> str:
    return repr((data.choice, data.strict))
