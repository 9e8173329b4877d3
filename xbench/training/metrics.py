"""Compute the metrics that `records.metrics` declares, by name, with scikit-learn.

This runs in the parent process: importing scikit-learn in the measured one would count as the cell's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from xbench.records.schema import MetricRecord


@dataclass(frozen=True)
class Predictions:
    """A model's outputs on the test split, and the true classes.

    Attributes:
        logits: (n, classes) float64; log-probabilities are valid logits, too.
        labels: (n,) true classes.
        positive: label of the positive class, which recall, precision and AUC refer to with two classes.
    """

    logits: np.ndarray
    labels: np.ndarray
    positive: int

    @property
    def classes(self) -> np.ndarray:
        """Predicted classes, (n,)."""
        return self.logits.argmax(axis=1)

    @property
    def is_binary(self) -> bool:
        return self.logits.shape[1] == 2


def compute_metrics(
    declared: Iterable[MetricRecord], measured: Mapping[str, float], predictions: Predictions
) -> dict[str, float | None]:
    """Collect the values of all declared metrics, in their order.

    Args:
        measured: values that the cell's own process measured, by name; the others are computed here.

    Returns:
        Values by name; None for undefined ones: the AUC if a class is absent or log odds are undefined,
        precision without a positive prediction, recall without a positive example, and all metrics computed
        from logits if any logit is NaN.
    """
    names = [metric.name for metric in declared]
    has_nan = bool(np.isnan(predictions.logits).any())
    computed = {
        name: np.nan if has_nan else _FUNCTIONS[name](predictions) for name in names if name not in measured
    }
    values = {**measured, **computed}
    return {name: None if np.isnan(values[name]) else float(values[name]) for name in names}


def _test_accuracy(predictions: Predictions) -> float:
    from sklearn.metrics import accuracy_score

    return accuracy_score(predictions.labels, predictions.classes)


def _balanced_accuracy(predictions: Predictions) -> float:
    labels, predicted = predictions.labels, predictions.classes
    recalls = [float((predicted[labels == label] == label).mean()) for label in np.unique(labels)]
    return float(np.mean(recalls))


def _recall(predictions: Predictions) -> float:
    from sklearn.metrics import recall_score

    averaged = _choose_averaging(predictions)
    return recall_score(predictions.labels, predictions.classes, zero_division=np.nan, **averaged)


def _precision(predictions: Predictions) -> float:
    from sklearn.metrics import precision_score

    # Leaving it out of a macro mean would favour a model that never predicts the harder classes.
    undefined = np.nan if predictions.is_binary else 0.0
    averaged = _choose_averaging(predictions)
    return precision_score(predictions.labels, predictions.classes, zero_division=undefined, **averaged)


def _choose_averaging(predictions: Predictions) -> dict[str, str | int]:
    if predictions.is_binary:
        return {"average": "binary", "pos_label": predictions.positive}
    return {"average": "macro"}


def _auc(predictions: Predictions) -> float:
    """Compute the area under the ROC curve from the log odds; NaN if it is undefined."""
    from sklearn.metrics import roc_auc_score

    odds, labels = log_odds(predictions.logits), predictions.labels
    classes = odds.shape[1]
    if np.isnan(odds).any() or len(np.unique(labels)) < classes:
        return np.nan
    concerned = [predictions.positive] if predictions.is_binary else range(classes)
    # Ranks have the same order and ties, and are finite, as roc_auc_score requires.
    ranks = {label: np.unique(odds[:, label], return_inverse=True)[1] for label in concerned}
    return float(np.mean([roc_auc_score(labels == label, ranks[label]) for label in concerned]))


_FUNCTIONS: dict[str, Callable[[Predictions], float]] = {
    "test_accuracy": _test_accuracy,
    "auc": _auc,
    "balanced_accuracy": _balanced_accuracy,
    "recall": _recall,
    "precision": _precision,
}


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


def cross_entropies(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute each example's cross entropy, without class weights.

    It is `log(1 + exp(-o))` of the log odds `o` of the example's class: precise for losses near 0, too.

    Args:
        logits: (n, classes) float64.
        labels: (n,) true classes.

    Returns:
        (n,) float64, in nats.
    """
    odds = np.take_along_axis(log_odds(logits), labels[:, None], axis=1)[:, 0]
    return np.logaddexp(0.0, -odds)
