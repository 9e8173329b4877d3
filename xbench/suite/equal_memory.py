"""Check the keys of an experiment that gives every optimizer the same memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xbench.suite.cells import Cell
from xbench.suite.lines import KeyPath
from xbench.suite.problems import Problems
from xbench.suite.schema import Experiment, OptimizerTable
from xbench.text import quote_some

# Settings whose size in memory is that of a batch that is processed at once.
_OF_WHOLE_BATCHES = ("batch_size", "train_size")


def choose_along(experiment: Experiment, table: OptimizerTable, path: KeyPath) -> dict[str, Any]:
    """Return the fields `along` and `along_path` of an optimizer's cells.

    Args:
        path: key path of the optimizer's table.
    """
    if experiment.equal is None or not (along := table.along or experiment.along):
        return {}
    own = path if table.along else path[:2]
    return {"along": along.replace("-", "_"), "along_path": (*own, "along")}


def check_equal_memory(
    experiment: Experiment, columns: Sequence[Cell], path: KeyPath, problems: Problems
) -> None:
    """Add keys that are missing, or that contradict equal memory, to `problems`.

    Whether the components have the settings that are named is checked later, because it takes their specs.

    Args:
        columns: a cell of each column.
        path: key path of the experiment.
    """
    if experiment.equal is None:
        _check_unused(experiment, path, problems)
        return
    if not all(cell.memory_limits for cell in columns) and not _sets_limit(path, problems):
        problems.add(
            (*path, "equal"),
            "equal = 'memory' needs a memory limit",
            'set memory_limit = "600MB", for example, in the experiment or in [suite]',
        )
    lacking = [table.label or " ".join(table.names) for table in experiment.optimizer if not table.along]
    if lacking and not experiment.along:
        problems.add(
            (*path, "equal"),
            f"equal = 'memory' needs 'along' for {quote_some(lacking)}",
            'name the setting that gets the largest value that fits: along = "batch_size", for example',
        )
    if experiment.target is not None and experiment.target.bytes:
        problems.add(
            (*path, "target", "bytes"),
            "'bytes' cannot be used with equal = 'memory': it searches a smaller limit along `adapt`",
            "leave out bytes, or the equal memory",
        )
    for cell in columns:
        _check_cell(experiment, cell, problems)


def _sets_limit(path: KeyPath, problems: Problems) -> bool:
    """Return whether the suite sets a memory limit, which may have been left out because it is wrong."""
    tables = (problems.document.get("suite"), problems.document["experiment"][path[1]])
    return any(isinstance(table, dict) and "memory_limit" in table for table in tables)


def _check_unused(experiment: Experiment, path: KeyPath, problems: Problems) -> None:
    tables = ((*path, "optimizer", place) for place, t in enumerate(experiment.optimizer) if t.along)
    for table in (*([path] if experiment.along else []), *tables):
        problems.add(
            (*table, "along"),
            "'along' has no effect without equal = 'memory'",
            'set equal = "memory" in the experiment',
        )


def _check_cell(experiment: Experiment, cell: Cell, problems: Problems) -> None:
    table = experiment.optimizer[int(cell.path[3])]
    for key in ("adapt", "expect"):
        if getattr(cell, key):
            problems.add(
                (*(cell.path if getattr(table, key) else cell.path[:2]), key),
                f"'{key}' cannot be used with equal = 'memory', which finds sizes that fit",
                f"leave out {key}",
            )
    training, along = cell.training, cell.along
    for key, word in (("train_size", "largest"), ("micro_batch", "auto")):
        if getattr(training, key) == word:
            problems.add(
                cell.where(key),
                f"{key} = '{word}' cannot be used with equal = 'memory', which fits a size of its own",
                f"set {key} to a number or to '{'all' if key == 'train_size' else 'full'}'",
            )
    for value in cell.values:
        if value.kind in ("training", "optimizer") and value.key == along:
            problems.add(
                value.path,
                f"'{along}' is the setting whose largest value is found, so it has no value of its own",
                f"leave out {along}, or find that of another setting (`along`)",
            )
    if along in _OF_WHOLE_BATCHES and training.micro_batch not in ("full", "auto"):
        problems.add(
            cell.where("micro_batch"),
            f"a larger {along} takes no more memory in micro-batches, so there is no largest one",
            'set micro_batch = "full", or find the largest value of another setting (`along`)',
        )
    if along == "train_size" and training.batch_size != "full":
        problems.add(
            cell.where("batch_size"),
            "a larger train_size takes no more memory in batches of a fixed size, so there is no largest one",
            'set batch_size = "full", or along = "batch_size"',
        )
