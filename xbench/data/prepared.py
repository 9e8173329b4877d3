"""Prepared data: what is known of a dataset's rows before training, without the rows themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from xbench.components.facts import Facts, Output


@dataclass(frozen=True, kw_only=True)
class PreparedData(ABC):
    """The rows of a dataset, by what decides how they are split, drawn and weighted.

    Attributes:
        name: the dataset's name in the suite.
        notes: sentences for readers of the results.
        stand_in: notice for readers if the data is synthetic; empty for real data.
        labels, is_test: (rows,) arrays: class (int64; 0 if there are no classes), split (bool).
        classes: class names, in the order of labels; empty if the task has no classes.
        groups: (rows,) names of patients or other groups; "" for a row that belongs to no group.
        names: (rows,) names of the rows; empty in processes that do not need them.
        fingerprint: hash of everything that training can see of the data.
        is_sample: whether a few rows stand in for all; see `data.sample`.
    """

    name: str
    notes: tuple[str, ...]
    stand_in: str
    labels: np.ndarray
    is_test: np.ndarray
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    names: tuple[str, ...]
    fingerprint: str
    is_sample: bool = False

    @property
    @abstractmethod
    def facts(self) -> Facts:
        """What a model's factory may know of the data."""

    @property
    def is_validation(self) -> np.ndarray:
        """(rows,) whether each row belongs to a validation split that the dataset brings."""
        return np.zeros(len(self.labels), dtype=bool)

    @abstractmethod
    def file_rows(self, indices: np.ndarray) -> np.ndarray:
        """Return the places (n,) of rows at (n,) indices in the files that hold their pixels or features."""

    def for_training(self) -> Self:
        """Return the data without what a training process does not need, which would take memory in it."""
        return replace(self, names=())

    @property
    def train_rows(self) -> int:
        """Number of rows to train on, before validation is held out."""
        return int((~self.is_test & ~self.is_validation).sum())


@dataclass(frozen=True, kw_only=True)
class RowData(PreparedData):
    """The rows of a `RowDataset`, which each process makes again by calling the dataset's factory.

    Rows are numbered over all splits (training, validation, test) and, within a split, over all terms.

    Attributes:
        params: settings of the dataset's factory.
        row: structure of a training batch, with `TensorFacts` in place of tensors.
        output: what models return for a row; None if the task does not say.
        own_validation: (rows,) whether each row belongs to the validation split that the dataset brings.
        holds_out_end: whether validation is the end of the training rows; otherwise it is drawn.
        terms: (rows,) int64: place of each row's term in `term_names`; 0 if the task has a single term.
        term_names: names of the terms; empty if the task has a single term.
        weights: (rows,) float64: weight of each row in the loss; None if all are 1.
        row_bytes: (rows,) int64: bytes of each row, if rows differ in size; otherwise None.
        checked: hash of a few spread rows, by which a process checks that it has the same rows.
        fingerprint_method: what the fingerprint is made of: `"declared"`, `"all rows"` or `"1,000 rows"`.
        nonfinite: which of the rows that were hashed hold NaN or infinite values; "" if none does.
    """

    params: Mapping[str, Any]
    row: Any
    output: Output | None
    own_validation: np.ndarray
    terms: np.ndarray
    term_names: tuple[str, ...]
    weights: np.ndarray | None
    row_bytes: np.ndarray | None
    checked: str
    fingerprint_method: str
    holds_out_end: bool = False
    nonfinite: str = ""

    @property
    def is_validation(self) -> np.ndarray:
        return self.own_validation

    def file_rows(self, indices: np.ndarray) -> np.ndarray:
        return indices

    @property
    def facts(self) -> Facts:
        return Facts(self.row, self.output, self.train_rows)


def count_rows(data: PreparedData) -> dict[str, int]:
    """Count rows by `"SPLIT/CLASS"`, sorted by name; by split, if there are no classes."""
    splits = np.where(data.is_test, "test", np.where(data.is_validation, "validation", "train"))
    names = splits.tolist()
    if data.classes:
        names = [f"{split}/{data.classes[label]}" for split, label in zip(names, data.labels, strict=True)]
    return dict(sorted(Counter(names).items()))
