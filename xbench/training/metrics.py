"""Classification metrics, by scikit-learn. Computed where scores arrive, never in the process that is
measured: importing scikit-learn would count as the cell's memory."""

from __future__ import annotations

import numpy as np

from xbench.records.schema import Metrics


def classification_metrics(
    probabilities: np.ndarray, labels: np.ndarray, positive: int, train_accuracy: float, test_loss: float
) -> Metrics:
    """Metrics of the test split.

    Args:
        probabilities: (n, classes) scores.
        labels: (n,) true classes.
        positive: label of the class that recall, precision and AUC are about, with two classes; with more,
            they are macro means (AUC one against rest): recall over the classes that have examples, and
            precision over those and the predicted ones, where a class that is never predicted counts as 0.

    Returns:
        The metrics; None where one is undefined: the AUC with a class absent, precision with no positive
        prediction, recall with no positive example, and all that come from scores if one of them is NaN.
    """
    from sklearn import metrics

    given = {"train_accuracy": _defined(train_accuracy), "test_loss": _defined(test_loss)}
    if np.isnan(probabilities).any():
        return Metrics(**given)
    predicted = probabilities.argmax(axis=1)
    present = np.unique(labels)
    recalls = [float((predicted[labels == label] == label).mean()) for label in present]
    if probabilities.shape[1] == 2:
        averaged = {"average": "binary", "pos_label": positive}
        undefined_precision = np.nan
        scores, truth = _ranks(probabilities, positive), labels == positive
    else:
        averaged = {"average": "macro"}
        undefined_precision = 0.0  # left out, it would favour a model that never predicts the harder classes
        scores, truth = probabilities.astype(np.float64), labels
        scores = scores / scores.sum(axis=1, keepdims=True)  # roc_auc_score wants sums of 1 to rounding
    recall = metrics.recall_score(labels, predicted, zero_division=np.nan, **averaged)
    precision = metrics.precision_score(labels, predicted, zero_division=undefined_precision, **averaged)
    all_classes_present = len(present) == probabilities.shape[1]
    return Metrics(
        **given,
        test_accuracy=float(metrics.accuracy_score(labels, predicted)),
        auc=float(metrics.roc_auc_score(truth, scores, multi_class="ovr")) if all_classes_present else None,
        balanced_accuracy=float(np.mean(recalls)),
        recall=_defined(recall),
        precision=_defined(precision),
    )


def _ranks(probabilities: np.ndarray, positive: int) -> np.ndarray:
    """Places in the order of the odds of the positive class, equal where these are.

    Its probability alone would not do: it rounds to 1 where the other one's still tells examples apart, so
    that the AUC of a confident model would depend on which class is called positive. The smaller of the two
    is the one that is known best.
    """
    side = np.sign(probabilities[:, positive] - probabilities[:, 1 - positive])
    order = np.stack([side, -side * probabilities.min(axis=1)], axis=1)
    return np.unique(order, axis=0, return_inverse=True)[1]


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
