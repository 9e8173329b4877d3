"""Metrics of classification on collected outputs.

Each function takes `collected`: `"logit"` (n, classes), of which log-probabilities are a valid kind, and
the true classes `"label"` (n,). It returns NaN for an undefined metric: the AUC if a class is absent or log
odds are undefined, precision without a positive prediction, recall without a positive example, and all
metrics if any logit is NaN. With two classes, recall, precision and AUC refer to the label `positive`.

These functions give what scikit-learn's give (the tests compare them), without its import, which takes a
second of every cell.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Collected = Mapping[str, np.ndarray]


def balanced_accuracy(collected: Collected) -> float:
    """Compute the mean of the recalls of all classes that have examples, from hard predictions."""
    logits, labels = _as_float64(collected)
    if np.isnan(logits).any():
        return np.nan
    hits, truths, _ = _count_by_class(logits, labels)
    return float(np.mean(hits[truths > 0] / truths[truths > 0]))


def recall(collected: Collected, positive: int) -> float:
    """Compute the recall of the positive class; the mean over classes with examples if there are several."""
    logits, labels = _as_float64(collected)
    if logits.shape[1] > 2 or np.isnan(logits).any():
        return balanced_accuracy(collected)
    hits, truths, _ = _count_by_class(logits, labels)
    return float(hits[positive] / truths[positive]) if truths[positive] else np.nan


def precision(collected: Collected, positive: int) -> float:
    """Compute the precision of the positive class; the mean over all classes if there are several.

    A class that has examples but was never predicted counts as 0 in the mean. Leaving it out would favour a
    model that never predicts the harder classes.
    """
    logits, labels = _as_float64(collected)
    if np.isnan(logits).any():
        return np.nan
    hits, truths, predictions = _count_by_class(logits, labels)
    if logits.shape[1] == 2:
        return float(hits[positive] / predictions[positive]) if predictions[positive] else np.nan
    concerned = (truths > 0) | (predictions > 0)
    return float(np.mean(hits[concerned] / np.maximum(predictions[concerned], 1)))


def auc(collected: Collected, positive: int) -> float:
    """Compute the area under the ROC curve from the log odds; NaN if it is undefined."""
    logits, labels = _as_float64(collected)
    if np.isnan(logits).any():
        return np.nan
    odds = log_odds(logits)
    classes = odds.shape[1]
    if np.isnan(odds).any() or len(np.unique(labels)) < classes:
        return np.nan
    concerned = [positive] if classes == 2 else range(classes)
    return float(np.mean([_area_under_roc(odds[:, label], labels == label) for label in concerned]))


def _area_under_roc(scores: np.ndarray, is_positive: np.ndarray) -> float:
    """Return the share of pairs of a positive and a negative example that the scores order correctly.

    Pairs with equal scores count half. This is the area under the ROC curve (Hanley and McNeil 1982).

    Args:
        scores: (n,), not NaN.
        is_positive: (n,) of bool, with both values.
    """
    values, rank = np.unique(scores, return_inverse=True)
    negatives = np.bincount(rank[~is_positive], minlength=len(values))
    # Twice the number of negative examples that are in order with an example of each rank: an integer.
    twice_below = 2 * np.cumsum(negatives) - negatives
    positives = int(is_positive.sum())
    return int(twice_below[rank[is_positive]].sum()) / (2 * positives * (len(scores) - positives))


def _count_by_class(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the hits, examples and predictions of each class; each count is (classes,)."""
    classes, predicted = logits.shape[1], logits.argmax(axis=1)
    hits, truths, predictions = (
        np.bincount(each, minlength=classes) for each in (labels[labels == predicted], labels, predicted)
    )
    return hits, truths, predictions


def _as_float64(collected: Collected) -> tuple[np.ndarray, np.ndarray]:
    return collected["logit"].astype(np.float64, copy=False), collected["label"]


def log_odds(logits: np.ndarray) -> np.ndarray:
    """Compute the log odds of each class against all others, `z_c - logsumexp(z_others)`.

    Unlike probabilities, they do not round to 0 or 1, so they keep the order of a confident model's outputs.
    With two classes they are the difference of the logits. Examples whose logits differ only by a constant or
    in the order of the other classes get equal values, as far as float64 allows.

    Args:
        logits: (n, classes) float64, not NaN.

    Returns:
        (n, classes) float64. They are infinite where one class is certain, and NaN where infinite logits
        leave them undefined (for example, two that are infinity).
    """
    order = np.argsort(logits, axis=1)
    ascending = np.take_along_axis(logits, order, axis=1)
    highest = ascending[:, -1:]
    ascending -= np.where(np.isfinite(highest), highest, 0.0)
    nothing = np.full((len(logits), 1), -np.inf)
    with np.errstate(invalid="ignore"):  # infinity less infinity is NaN, as documented
        below = np.logaddexp.accumulate(np.hstack([nothing, ascending[:, :-1]]), axis=1)
        above = np.logaddexp.accumulate(np.hstack([nothing, ascending[:, :0:-1]]), axis=1)[:, ::-1]
        odds = ascending - np.logaddexp(below, above)
    # Sums in another order round differently, so equal logits of one example take the value of the first.
    is_first = np.ones_like(ascending, dtype=bool)
    is_first[:, 1:] = ascending[:, 1:] != ascending[:, :-1]
    places = np.where(is_first, np.arange(logits.shape[1]), 0)
    odds = np.take_along_axis(odds, np.maximum.accumulate(places, axis=1), axis=1)
    result = np.empty_like(odds)
    np.put_along_axis(result, order, odds, axis=1)
    return result
