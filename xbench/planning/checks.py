"""Check that cells have the examples and batches that they need, and collect the warnings about a run."""

from __future__ import annotations

from collections.abc import Iterator

from xbench.capacity.cost_model import count_steps
from xbench.data.decoded import DecodedDataset
from xbench.data.near_copies import count_alike
from xbench.data.prepared import PreparedData, RowData
from xbench.planning.limits import collect_limit_warnings
from xbench.planning.plan import PlannedRun
from xbench.planning.planned import PlannedCell
from xbench.suite.cells import Cell
from xbench.text import name_seeds, quote_some
from xbench.training.schedules import explain_long_warmup
from xbench.training.splits import missing_classes, missing_terms, split_examples


def check_splits(plan: PlannedRun, cells: list[PlannedCell]) -> list[str]:
    """Check that the training, validation and test examples of each cell include every class.

    Returns:
        Warnings about missing classes, about terms without validation rows, and about validation images that
        are also in training, with the experiment and seeds.

    Raises:
        XbenchError: a cell would train on a single class.
    """
    problems = plan.suite.problems
    seeds_of: dict[tuple[str, str], list[int]] = {}
    seen = set()
    leaks: dict[tuple[str, str], dict[int, tuple[int, int]]] = {}
    for cell in cells:
        training, seed = cell.declared.training, cell.declared.seed
        drawn_by = (training.validation, training.train_size, training.balance)
        what = (cell.declared.experiment, seed, cell.data.fingerprint, *drawn_by)
        if what in seen:
            continue  # the optimizers of an experiment share their splits
        seen.add(what)
        split = split_examples(cell.data, training, cell.settings.seed_parts.split)
        if len(split.validation) and (lacking := missing_terms(cell.data, split.validation)):
            text = (
                f"{cell.data.name} has no row of {quote_some(lacking)} for validation, so the validation "
                "loss is that of its other terms; to select no weights by it, set selection = 'last'"
            )
            seeds_of.setdefault((cell.declared.experiment, text), []).append(seed)
        if not cell.data.classes:
            continue
        row = "image" if isinstance(cell.data, DecodedDataset) else "row"
        if isinstance(cell.data, DecodedDataset):
            alike = count_alike(cell.data.duplicates, cell.data.near, split.validation, split.train)
            of_seed = leaks.setdefault((cell.declared.experiment, cell.data.name), {})
            of_seed[seed] = max(of_seed.get(seed, (0, 0)), (alike, len(split.validation)))
        lacking = missing_classes(cell.data, split.train)
        if len(lacking) == len(cell.data.classes) - 1:
            (only,) = set(cell.data.classes) - set(lacking)
            problems.add(
                cell.declared.where("train_size"),
                f"{cell.data.name}: '{only}' is the only class with {row}s to train on (seed {seed})",
                "raise train_size, or use balance = 'oversample' to draw equally many of each class"
                if isinstance(training.train_size, int)
                else f"add {row}s of another class",
            )
        parts = {f"training (train_size = {training.train_size})": split.train}
        if cell.data.is_test.any():  # data without test rows is not meant to have any
            parts["test"] = split.test
        if training.validation:
            parts["validation"] = split.validation
        for part, examples in parts.items():
            if lacking := missing_classes(cell.data, examples):
                text = f"{cell.data.name} has no {row} of {quote_some(lacking)} for {part}"
                seeds_of.setdefault((cell.declared.experiment, text), []).append(seed)
    problems.raise_if_any()
    grouped = {cell.data.name for cell in cells if any(cell.data.groups)}
    cut = {
        cell.data.name for cell in cells if isinstance(cell.data, DecodedDataset) and cell.data.near.is_cut
    }
    for (experiment, name), of_seed in leaks.items():
        leaking = {seed: counts for seed, counts in of_seed.items() if counts[0]}
        if leaking:
            text = _describe_leak(name, name in grouped, name in cut, list(leaking.values()))
            seeds_of[experiment, text] = list(leaking)
    return [f"{experiment}, {name_seeds(seeds)}: {text}" for (experiment, text), seeds in seeds_of.items()]


def _describe_leak(name: str, has_groups: bool, is_cut: bool, found: list[tuple[int, int]]) -> str:
    """Describe how many validation images are also in training, from (such images, all) of each seed.

    Args:
        is_cut: whether there may be more.
    """
    hint = "" if has_groups else "; `group` keeps images that belong together on one side"
    (alike, size), fewest = max(found), min(found)[0]
    most = f"{alike:,}" if alike == fewest else f"up to {alike:,}"
    most = f"{most} or more" if is_cut else most
    return (
        f"{most} of {size:,} validation images of {name} are copies or near-duplicates of training images, "
        f"so validation metrics may be optimistic{hint}"
    )


def check_batches(plan: PlannedRun, cells: list[PlannedCell]) -> list[str]:
    """Check that each model can train on its batches and micro-batches.

    A model with batch normalisation cannot use micro-batches, and some models cannot train on a single
    example.

    Returns:
        Warnings about batches of a single example.

    Raises:
        XbenchError: a model cannot train on its batches.
    """
    problems, warnings = plan.suite.problems, []
    for cell in cells:
        training, name = cell.sized.training, cell.settings.model.name
        sizes = training.sizes
        if cell.model.normalises and sizes.micro_batch < sizes.batch_size:
            problems.add(
                cell.declared.where("micro_batch", "batch_size"),
                f"model '{name}' has batch normalisation: batches of {sizes.batch_size:,} in "
                f"micro-batches of {sizes.micro_batch:,} would train a different function",
                hint='use micro_batch = "full", or a model without batch normalisation',
            )
            continue
        rest = sizes.train_size % sizes.batch_size
        batches = {sizes.batch_size} | ({rest} if rest and not training.drop_last else set())
        parts = {batch % sizes.micro_batch or sizes.micro_batch for batch in batches}
        if 1 not in parts or cell.finds_batches:  # not known yet
            continue
        what = f"{sizes.train_size:,} examples in batches of {sizes.batch_size:,}"
        if sizes.micro_batch < sizes.batch_size:
            what += f" and micro-batches of {sizes.micro_batch:,}"
        what += " leave one example on its own"
        if cell.model.fails_alone:
            hint = "choose another batch_size, micro_batch or train_size"
            if rest == 1 and sizes.batch_size > 1:
                hint = f"set `drop_last = true` to leave it out, or {hint}"
            problems.add(
                cell.declared.where("batch_size", "train_size", "micro_batch"),
                f"{what}, and model '{name}' fails on a single example: {cell.model.fails_alone}",
                hint,
            )
        elif cell.model.normalises and sizes.batch_size > 1:
            warnings.append(
                f"{cell.declared.experiment}: {what}, over which model '{name}' "
                "normalises; `drop_last = true` leaves it out"
            )
    problems.raise_if_any()
    return list(dict.fromkeys(warnings))


def check_warmups(plan: PlannedRun, cells: list[PlannedCell]) -> None:
    """Check that the warm-up of each cell is shorter than its run.

    A run whose size is not known yet is checked when it starts.

    Raises:
        XbenchError: a warm-up is too long.
    """
    problems = plan.suite.problems
    for cell in cells:
        training = cell.settings.training
        if cell.finds_batches:
            continue
        if reason := explain_long_warmup(training, count_steps(cell.sized)):
            problems.add(cell.declared.where("warmup"), reason, "shorten the warm-up, or set more epochs")
    problems.raise_if_any()


# Number of unreadable images that a warning names; the records name all.
_MAX_NAMED = 5


def collect_suite_warnings(plan: PlannedRun) -> list[str]:
    """Collect the warnings about a plan's components, fallbacks, limits and selection of weights."""
    warnings = [*plan.warnings, *(data.warning for data in plan.data if data.warning)]
    warnings += collect_limit_warnings(plan.cells, plan.machine)
    warnings += collect_selection_warnings(plan.cells)
    warnings += _collect_optimum_warnings(plan)
    return list(dict.fromkeys(warnings))


def _collect_optimum_warnings(plan: PlannedRun) -> Iterator[str]:
    """Yield a warning for each cell that is not trained on all rows, of which alone the minimum is known."""
    for cell, data in zip(plan.cells, plan.data, strict=True):
        training, task = cell.training, data.facts.task
        is_whole = training.train_size in ("all", data.facts.facts.rows) and not training.validation
        if task.optimum is None or (is_whole and training.balance == "none" and not training.class_weights):
            continue
        yield (
            f"{cell.experiment}: the known minimum of {data.choice.name} is that of all training rows, so "
            "nothing is compared with it for cells that train on a part of them, or weight or repeat them"
        )


def collect_data_warnings(prepared: dict[str, PreparedData]) -> list[str]:
    """Collect the warnings about images that are unreadable, copies or near-duplicates, and about
    values of rows."""
    warnings = []
    for data in prepared.values():
        if isinstance(data, RowData) and data.nonfinite:
            warnings.append(f"{data.name}: {data.nonfinite}")
        if not isinstance(data, DecodedDataset):
            continue
        if data.unreadable:
            total = len(data.unreadable) + len(data.rows)
            named = "; ".join(f"{name}: {reason}" for name, reason in data.unreadable[:_MAX_NAMED])
            more = f"; and {len(data.unreadable) - _MAX_NAMED} more" * (len(data.unreadable) > _MAX_NAMED)
            warnings.append(
                f"{data.name}: {len(data.unreadable)} of {total} images are unreadable and left out: "
                f"{named}{more}"
            )
        found = [*data.duplicates.warnings, *data.near.warnings]
        warnings += [f"{data.name}: {warning}" for warning in found]
    return list(dict.fromkeys(warnings))


def collect_selection_warnings(cells: list[Cell]) -> Iterator[str]:
    """Yield a warning for each experiment whose weights are selected on the test set, with its columns."""
    selected: dict[str, dict[str, None]] = {}
    for cell in cells:
        if cell.training.selects_on_test:
            selected.setdefault(cell.experiment, {})[cell.column] = None
    for experiment, columns in selected.items():
        yield (
            f"{experiment}: the weights of {', '.join(columns)} are selected on the test set, "
            "so their metrics are optimistic"
        )
