"""Find the dataset that a cell runs on: the one that the suite names, or its fallback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xbench.errors import DataNotFound, XbenchError
from xbench.isolation.ask import ask
from xbench.isolation.run import ChildFailed
from xbench.planning.datasets import DatasetFacts, describe_dataset
from xbench.suite.cells import DatasetChoice
from xbench.training.settings import Choice


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


def resolve(dataset: DatasetChoice, import_dirs: Sequence[str]) -> ResolvedData | XbenchError:
    """List a dataset, or its fallback if it is not on this machine; return the error if that fails."""
    try:
        return _find_data(dataset, import_dirs)
    except ChildFailed as error:
        return XbenchError(f"dataset '{dataset.name}' cannot be listed: {error.message}", error.hint)
    except XbenchError as error:
        return error


def _find_data(dataset: DatasetChoice, import_dirs: Sequence[str]) -> ResolvedData:
    wanted = dataset.name
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
