"""Estimate how much a cell's test metrics depend on which test rows were drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from xbench.records.aggregate import LEVEL
from xbench.records.outputs import Outputs
from xbench.records.sampling import SamplingRecord

# Numbers of resamples, and of rows from which on nothing is estimated: it would take long, and be tiny.
_RESAMPLES = 1000
_MAX_ROWS = 50_000

# Resamples that are computed at once: as many as have about this many weights of rows.
_WEIGHTS_AT_ONCE = 2_000_000

# A metric is resampled only if it is recomputed from the outputs up to rounding.
_TOLERANCE = 1e-9

# Computes a metric of every resample from the weights of rows, (resamples, rows).
Score = Callable[[np.ndarray], np.ndarray]


def estimate_sampling(outputs: Outputs, metrics: Mapping[str, float | None]) -> SamplingRecord | None:
    """Resample the groups of the test rows, such as patients, with replacement (Efron 1979).

    A row without a group is one by itself. The metrics are the mean loss and, of a classification, the
    accuracy, the balanced accuracy and, with two classes, the area under the ROC curve.

    Args:
        metrics: the cell's metrics. Those that are not recomputed from the outputs are left out, and so are
            those that are equal for all resamples, such as an accuracy of 1: other rows might change them.

    Returns:
        None if there are fewer than two groups, too many rows, or no such metric.
    """
    groups = _number_groups(outputs.groups)
    rows, count = len(groups), int(groups.max(initial=-1)) + 1
    if count < 2 or rows > _MAX_ROWS:
        return None
    ones = np.ones((1, rows))
    scores = {
        name: score
        for name, score in _list_scores(outputs)
        if (value := metrics.get(name)) is not None
        and abs(float(score(ones)[0]) - value) <= _TOLERANCE * max(1.0, abs(value))
    }
    if not scores:
        return None
    found: dict[str, list[np.ndarray]] = {name: [] for name in scores}
    for weights in _resample(groups, count):
        for name, score in scores.items():
            found[name].append(score(weights))
    bounds = (LEVEL / 2, 1 - LEVEL / 2)
    half_widths = {}
    for name, parts in found.items():
        values = np.concatenate(parts)
        values = values[np.isfinite(values)]  # a resample may lack a class
        if len(values) and np.ptp(values) > 0:
            low, high = np.quantile(values, bounds)
            half_widths[name] = float(high - low) / 2
    if not half_widths:
        return None
    return SamplingRecord(rows=rows, groups=count, half_widths=half_widths)


def _number_groups(names: Sequence[str]) -> np.ndarray:
    """Number the groups of rows from 0, (rows,)."""
    numbers: dict[str | int, int] = {}
    found = [numbers.setdefault(name or place, len(numbers)) for place, name in enumerate(names)]
    return np.array(found, dtype=np.int64)


def _resample(groups: np.ndarray, count: int) -> Iterator[np.ndarray]:
    """Yield how often each row is drawn in each of a few resamples, (resamples, rows)."""
    random = np.random.default_rng(0)
    at_once = max(1, min(_RESAMPLES, _WEIGHTS_AT_ONCE // len(groups)))
    for start in range(0, _RESAMPLES, at_once):
        several = min(at_once, _RESAMPLES - start)
        drawn = random.integers(0, count, (several, count)) + count * np.arange(several)[:, None]
        times = np.bincount(drawn.ravel(), minlength=several * count).reshape(several, count)
        yield times[:, groups].astype(float)


def _list_scores(outputs: Outputs) -> Iterator[tuple[str, Score]]:
    """Yield the metrics that can be computed from outputs."""
    losses = np.asarray(outputs.losses, dtype=float)
    yield "test_loss", lambda weights: weights @ losses / weights.sum(axis=1)
    label = outputs.columns.get("label")
    logits = [column for name, column in outputs.columns.items() if name.startswith("logit_")]
    if label is None or len(logits) < 2:
        return
    hits = (np.argmax(logits, axis=0) == label).astype(float)
    yield "test_accuracy", lambda weights: weights @ hits / weights.sum(axis=1)
    yield "balanced_accuracy", lambda weights: _balance(weights, hits, label)
    if len(logits) == 2:
        margin = np.asarray(logits[1], dtype=float) - np.asarray(logits[0], dtype=float)
        yield "auc", lambda weights: _area(weights, margin, label == 1)


def _balance(weights: np.ndarray, hits: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Compute the mean of the recalls of the classes that have rows, for each resample."""
    of_class = np.stack([label == each for each in np.unique(label)], axis=1).astype(float)
    with np.errstate(invalid="ignore"):
        recalls = (weights * hits) @ of_class / (weights @ of_class)
    return np.nanmean(recalls, axis=1)


def _area(weights: np.ndarray, scores: np.ndarray, is_positive: np.ndarray) -> np.ndarray:
    """Compute the share of pairs of a positive and a negative row that the scores order, for each resample.

    Equal scores count as half.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)
    sums = [
        np.add.reduceat(weights[:, order] * which[order], starts, axis=1)
        for which in (is_positive, ~is_positive)
    ]
    positive, negative = sums
    below = np.cumsum(negative, axis=1) - negative / 2
    with np.errstate(invalid="ignore"):
        return (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))
