"""Metrics of classification on collected outputs, with scikit-learn.

Each function takes `collected`: `"logit"` (n, classes), of which log-probabilities are a valid kind, and
the true classes `"label"` (n,). It returns NaN for an undefined metric: the AUC if a class is absent or log
odds are undefined, precision without a positive prediction, recall without a positive example, and all
metrics if any logit is NaN. With two classes, recall, precision and AUC refer to the label `positive`.

scikit-learn is imported within functions: these run outside of the measured process.
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
    predicted = logits.argmax(axis=1)
    recalls = [float((predicted[labels == label] == label).mean()) for label in np.unique(labels)]
    return float(np.mean(recalls))


def recall(collected: Collected, positive: int) -> float:
    """Compute the recall of the positive class; the mean over classes with examples if there are several."""
    from sklearn.metrics import recall_score

    logits, labels = _as_float64(collected)
    if np.isnan(logits).any():
        return np.nan
    averaged = _choose_averaging(logits, positive)
    return float(recall_score(labels, logits.argmax(axis=1), zero_division=np.nan, **averaged))


def precision(collected: Collected, positive: int) -> float:
    """Compute the precision of the positive class; the mean over all classes if there are several."""
    from sklearn.metrics import precision_score

    logits, labels = _as_float64(collected)
    if np.isnan(logits).any():
        return np.nan
    # Leaving it out of a macro mean would favour a model that never predicts the harder classes.
    undefined = np.nan if logits.shape[1] == 2 else 0.0
    averaged = _choose_averaging(logits, positive)
    return float(precision_score(labels, logits.argmax(axis=1), zero_division=undefined, **averaged))


def auc(collected: Collected, positive: int) -> float:
    """Compute the area under the ROC curve from the log odds; NaN if it is undefined."""
    from sklearn.metrics import roc_auc_score

    logits, labels = _as_float64(collected)
    if np.isnan(logits).any():
        return np.nan
    odds = log_odds(logits)
    classes = odds.shape[1]
    if np.isnan(odds).any() or len(np.unique(labels)) < classes:
        return np.nan
    concerned = [positive] if classes == 2 else range(classes)
    # Ranks have the same order and ties, and are finite, as roc_auc_score requires.
    ranks = {label: np.unique(odds[:, label], return_inverse=True)[1] for label in concerned}
    return float(np.mean([roc_auc_score(labels == label, ranks[label]) for label in concerned]))


def _as_float64(collected: Collected) -> tuple[np.ndarray, np.ndarray]:
    return collected["logit"].astype(np.float64, copy=False), collected["label"]


def _choose_averaging(logits: np.ndarray, positive: int) -> dict[str, str | int]:
    if logits.shape[1] == 2:
        return {"average": "binary", "pos_label": positive}
    return {"average": "macro"}


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
