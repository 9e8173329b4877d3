"""Tables of numbers: classification and regression of scikit-learn's bundled data sets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from xbench.components.bundled import load_bundled
from xbench.components.classification import classification
from xbench.components.regression import regression
from xbench.components.setting_ranges import check_number, check_seed
from xbench.components.tasks import RowDataset, Task

# Larger shares leave too few training rows.
MAX_TEST_SHARE = 0.5

DIABETES_UNIT = "points"  # of a score of the disease's progression


def build_breast_cancer(test_share: float = 0.2, split_seed: int = 0) -> RowDataset:
    """Load 569 breast masses: 30 measurements of cell nuclei each, of two classes.

    Args:
        test_share: share of each class's rows in the test split, 0 to 0.5.
        split_seed: seed of the split.

    Raises:
        XbenchError: a setting is out of range.
    """
    task = classification(("malignant", "benign"), positive="malignant")
    return _make_classes("breast-cancer", "load_breast_cancer", task, test_share, split_seed)


def build_digits(test_share: float = 0.2, split_seed: int = 0) -> RowDataset:
    """Load 1,797 handwritten digits of 8 x 8 pixels, as rows of 64 numbers, of ten classes.

    Args:
        test_share: share of each class's rows in the test split, 0 to 0.5.
        split_seed: seed of the split.

    Raises:
        XbenchError: a setting is out of range.
    """
    task = classification([str(digit) for digit in range(10)])
    return _make_classes("digits", "load_digits", task, test_share, split_seed)


def build_wine(test_share: float = 0.2, split_seed: int = 0) -> RowDataset:
    """Load 178 wines of three cultivars: 13 chemical measurements each.

    Args:
        test_share: share of each class's rows in the test split, 0 to 0.5.
        split_seed: seed of the split.

    Raises:
        XbenchError: a setting is out of range.
    """
    task = classification(("class_0", "class_1", "class_2"))
    return _make_classes("wine", "load_wine", task, test_share, split_seed)


def build_diabetes(test_share: float = 0.2, split_seed: int = 0) -> RowDataset:
    """Load 442 diabetes patients: ten measurements each, and a score of the disease's progression in a year.

    Args:
        test_share: share of the rows in the test split, 0 to 0.5.
        split_seed: seed of the split.

    Raises:
        XbenchError: a setting is out of range.
    """
    _check("diabetes", test_share, split_seed)
    features, target = load_bundled("load_diabetes")
    is_test = split_rows(np.zeros(len(target), dtype=np.int64), test_share, split_seed)
    scaled, mean, std = standardise(target[:, None], ~is_test)
    task = regression(
        scale=float(std[0]),
        unit=DIABETES_UNIT,
        facts={"target": f"standardised: less {mean[0]:.4g}, divided by {std[0]:.4g}"},
    )
    return _make_rows(features, scaled, is_test, task)


def _check(name: str, test_share: float, split_seed: int) -> None:
    check_number(name, "test_share", test_share, 0, MAX_TEST_SHARE)
    check_seed(name, "split_seed", split_seed)


def _make_classes(name: str, loader: str, task: Task, test_share: float, split_seed: int) -> RowDataset:
    _check(name, test_share, split_seed)
    features, target = load_bundled(loader)
    labels = target.astype(np.int64)
    return _make_rows(features, labels, split_rows(labels, test_share, split_seed), task)


def _make_rows(features: np.ndarray, target: np.ndarray, is_test: np.ndarray, task: Task) -> RowDataset:
    import torch

    scaled, _, _ = standardise(features, ~is_test)
    train, test = (
        (torch.from_numpy(scaled[chosen]), torch.from_numpy(target[chosen])) for chosen in (~is_test, is_test)
    )
    return RowDataset(
        train=train,
        test=test if is_test.any() else None,
        task=task,
        notes=("Columns are standardised by the mean and standard deviation of the training rows.",),
    )


def split_rows(labels: np.ndarray, test_share: float, seed: int) -> np.ndarray:
    """Choose the test rows: the same share of each class, rounded.

    Args:
        labels: (n,) class of each row.

    Returns:
        (n,) bool, true for test rows. The same on every machine.
    """
    rng = np.random.default_rng(seed)
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        is_test[rows[: round(len(rows) * test_share)]] = True
    return is_test


def standardise(columns: np.ndarray, is_train: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shift and scale each column to a mean of 0 and a standard deviation of 1 over the training rows.

    Columns that are constant over the training rows are only shifted. Sums are exact, so that results are the
    same on every machine.

    Args:
        columns: (n, d) float64.
        is_train: (n,) bool.

    Returns:
        The columns, their means (d,), and the numbers (d,) that they were divided by.
    """
    train = columns[is_train]
    mean = _average(train.T)
    std = np.sqrt(_average(np.square(train - mean).T))
    std[train.min(axis=0) == train.max(axis=0)] = 1.0
    return (columns - mean) / std, mean, std


def _average(rows: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    return np.array([math.fsum(row) / len(row) for row in rows])
