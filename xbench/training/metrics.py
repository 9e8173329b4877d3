"""Classification metrics, by scikit-learn. They are computed in the parent process: importing scikit-learn in
the measured one would count as the cell's memory."""

from __future__ import annotations

import numpy as np

from xbench.records.schema import Metrics


def classification_metrics(
    logits: np.ndarray, labels: np.ndarray, positive: int, train_accuracy: float, test_loss: float
) -> Metrics:
    """Compute the metrics of the test split.

    Args:
        logits: (n, classes) float64; log-probabilities are logits, too.
        labels: (n,) true classes.
        positive: label of the class that recall, precision and AUC are about, with two classes; with more,
            they are macro means (AUC one against rest): recall over the classes that have examples, and
            precision over those and the predicted ones, where a class that is never predicted counts as 0.

    Returns:
        The metrics; None where one is undefined: the AUC with a class absent or with log odds that are not
        defined, precision with no positive prediction, recall with no positive example, and all that come
        from logits if one of them is NaN.
    """
    from sklearn import metrics

    given = {"train_accuracy": _defined(train_accuracy), "test_loss": _defined(test_loss)}
    if np.isnan(logits).any():
        return Metrics(**given)
    predicted = logits.argmax(axis=1)
    recalls = [float((predicted[labels == label] == label).mean()) for label in np.unique(labels)]
    if logits.shape[1] == 2:
        averaged = {"average": "binary", "pos_label": positive}
        undefined_precision = np.nan
    else:
        averaged = {"average": "macro"}
        undefined_precision = 0.0  # left out, it would favour a model that never predicts the harder classes
    recall = metrics.recall_score(labels, predicted, zero_division=np.nan, **averaged)
    precision = metrics.precision_score(labels, predicted, zero_division=undefined_precision, **averaged)
    return Metrics(
        **given,
        test_accuracy=float(metrics.accuracy_score(labels, predicted)),
        auc=_auc(log_odds(logits), labels, positive),
        balanced_accuracy=float(np.mean(recalls)),
        recall=_defined(recall),
        precision=_defined(precision),
    )


def log_odds(logits: np.ndarray) -> np.ndarray:
    """Compute the log odds of each class against all others, `z_c - logsumexp(z_others)`.

    Unlike probabilities, they do not round to 0 or 1, so they keep the order of a confident model's outputs.
    With two classes they are the difference of the logits. Examples whose logits are the same but for a
    constant or for the order of the other classes get equal values wherever float64 can tell.

    Args:
        logits: (n, classes) float64, not NaN.

    Returns:
        (n, classes) float64. They are infinite where one class is certain, and NaN where infinite logits
        leave them undefined (two of infinity, say).
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
    # Sums in another order round differently, so equal logits of one example take the value of their first.
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


def _auc(odds: np.ndarray, labels: np.ndarray, positive: int) -> float | None:
    """Compute the area under the ROC curve; None where it is undefined."""
    from sklearn.metrics import roc_auc_score

    classes = odds.shape[1]
    if np.isnan(odds).any() or len(np.unique(labels)) < classes:
        return None
    concerned = [positive] if classes == 2 else range(classes)
    # Ranks have the same order and the same ties, and are finite, as roc_auc_score wants its scores.
    ranks = {label: np.unique(odds[:, label], return_inverse=True)[1] for label in concerned}
    return float(np.mean([roc_auc_score(labels == label, ranks[label]) for label in concerned]))


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
